"""A game server's environment, as in the cloud, for tests of `edgegap_async.container`."""

from __future__ import annotations

import json

from edgegap_async.container import ThisDeployment

__all__ = ["CONTEXT", "STOP", "at", "here"]

PORTS = {
    "ports": {"game": {"name": "game", "internal": 7777, "external": 32013, "protocol": "UDP"}}
}
VARIABLES = {
    "ARBITRIUM_REQUEST_ID": "23c01225b99d",
    "ARBITRIUM_PUBLIC_IP": "162.254.141.66",
    "ARBITRIUM_DEPLOYMENT_TAGS": "match-42,ranked",
    "ARBITRIUM_DEPLOYMENT_LOCATION": '{"city": "Paris", "latitude": 48.9, "longitude": 2.4}',
    "ARBITRIUM_PORTS_MAPPING": json.dumps(PORTS),
    "ARBITRIUM_HOST_ID": "paris-1",
    "ARBITRIUM_HOST_BASE_CLOCK_FREQUENCY": "2000",
    "ARBITRIUM_DEPLOYMENT_VCPU_UNITS": "1536",
    "ARBITRIUM_DEPLOYMENT_MEMORY_MB": "3072",
    "ARBITRIUM_PRIVATE_FLEET_ID": "PUBLIC_CLOUD",
}
CONTEXT = "/v1/context/23c01225b99d/463660"
STOP = "/v1/self/stop/23c01225b99d/463660"


def here(variables: dict[str, str]) -> ThisDeployment:
    """A deployment with further variables."""
    found = ThisDeployment.from_environment(VARIABLES | variables)
    assert found is not None
    return found


def at(url: str) -> ThisDeployment:
    """A deployment whose calls go to that API."""
    return here(
        {
            "ARBITRIUM_DELETE_URL": f"{url}{STOP}",
            "ARBITRIUM_DELETE_TOKEN": "canary-delete",
            "ARBITRIUM_CONTEXT_URL": f"{url}{CONTEXT}",
            "ARBITRIUM_CONTEXT_TOKEN": "canary-context",
        }
    )
