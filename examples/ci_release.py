"""Release a new image tag: make a version of it, play on it once, keep or delete the old version.

python examples/ci_release.py arena v1 2026.11.27 [--delete-old]

The new version is named after the tag and is otherwise like the old one. For a private image set
REGISTRY_USERNAME and REGISTRY_TOKEN: the API never shows what a version has. The exit status is 0
if players can use the new version. If they cannot, it is deleted again.
"""

import argparse
import os
import sys

from edgegap_async import EdgegapClient, EdgegapError, UdpAnswer, run
from edgegap_async.errors import Conflict, DeploymentError
from edgegap_async.requests import VersionSettings

PLAYS = UdpAnswer("game", datagram=b"hello from ci")


async def make_version(client: EdgegapClient, application: str, old: str, tag: str) -> bool:
    """Make a version of the tag, and say whether it is new: a job may run again."""
    changes: VersionSettings = {"is_active": True, "verify_image": True}
    if token := os.environ.get("REGISTRY_TOKEN"):
        changes["private_username"] = os.environ["REGISTRY_USERNAME"]
        changes["private_token"] = token
    try:
        version = await client.versions.copy(application, old, tag, docker_tag=tag, **changes)
    except Conflict:
        version = await client.versions.get(application, tag)
        if version.docker_tag != tag:
            raise
        print(f"{application} {tag} is there already")
        return False
    print(f"made {application} {tag}: {version.docker_image}:{version.docker_tag}")
    return True


async def release(application: str, old: str, tag: str, *, delete_old: bool) -> None:
    """Release the tag, or raise an error."""
    async with EdgegapClient() as client:
        is_new = await make_version(client, application, old, tag)
        try:
            smoke_test = client.run(
                application,
                tag,
                users=["8.8.8.8"],
                tags=["smoke-test"],
                timeout=600,
                playable=PLAYS,
            )
            async with smoke_test as server:
                print(f"{application} {tag} is playable at {server.endpoint('game')}")
        except DeploymentError:
            if is_new:
                await client.versions.delete(application, tag)
                print(f"deleted {application} {tag} again")
            raise
        if delete_old and old != tag:  # its deployments run on, and no new ones can be made
            await client.versions.delete(application, old)
        print(f"{old} is {'deleted' if delete_old else 'kept'}")


def main() -> int:
    """Read the command line, and return the exit status."""
    parser = argparse.ArgumentParser(description="Release a new image tag.")
    parser.add_argument("application")
    parser.add_argument("old", help="the version that the new one is like")
    parser.add_argument("tag", help="the tag of the image, and the name of the new version")
    parser.add_argument("--delete-old", action="store_true")
    asked = parser.parse_args()
    try:
        run(release(asked.application, asked.old, asked.tag, delete_old=asked.delete_old))
    except EdgegapError as error:
        print(f"not released: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
