"""Handle errors: each failure is a class of its own that says what exists now.

python examples/handle_errors.py
"""

import asyncio

from edgegap_async import EdgegapClient, EdgegapError, run
from edgegap_async.errors import (
    DeploymentFailed,
    LimitReached,
    MaybeCreated,
    NotSent,
    Refused,
    WaitTimedOut,
)


async def deploy(client: EdgegapClient, application: str) -> None:
    """Deploy one server and print what went wrong, if anything did."""
    try:
        async with client.run(application, "v1", users=["8.8.8.8"], timeout=120) as server:
            print(f"{application}: READY at {server.endpoint()}")
    except NotSent as error:  # the request never left this program: nothing exists
        print(f"{application}: not sent: {error}")
    except MaybeCreated as error:  # the answer was lost, and the list did not show a deployment
        print(f"{application}: find it later with client.recover({error.operation_tag!r})")
    except Refused as error:  # the API said no: BadRequest, Unauthorized, Unprocessable, …
        print(f"{application}: refused with status {error.status}: {error}")
    except DeploymentFailed as error:  # the server started and ended in ERROR
        print(f"{application}: exit code {error.exit_code}, last lines: {error.last_lines}")
    except WaitTimedOut as error:  # not READY in time; run() has stopped it
        print(f"{application}: last status {error.last_status}: {error}")
    except EdgegapError as error:  # every error of this package
        print(f"{application}: {error}")


async def main() -> None:
    """Deploy an application that exists and an application that does not."""
    async with EdgegapClient() as client:
        await deploy(client, "arena")
        await deploy(client, "no-such-application")
    async with EdgegapClient(limits={"list_deployments": 1}, max_wait=0.1) as client:
        try:
            await asyncio.gather(*(client.deployments.list().page(1) for _ in range(3)))
        except LimitReached as error:
            print(f"would have to wait {error.predicted_wait:.1f} s: {error}")


if __name__ == "__main__":
    run(main())
