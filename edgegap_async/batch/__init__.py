"""Makes many deployments as one piece of work: `client.deploy_many`.

What holds for the requests of one batch together belongs here: their order, concurrency, deadline,
outcomes, progress, and what a failure does. One deploy and its ownership belong to `deployments`.
"""
