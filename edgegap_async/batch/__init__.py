"""Many deployments as one piece of work: `client.deploy_many`."""
