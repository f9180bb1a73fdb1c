"""Counts the servers made for one request when answers are lost and callers are cancelled.

Compares this package with a plain aiohttp client that has a retry decorator (backoff's), on the
same emulator, one after the other. The emulator counts the servers that were made, and
the servers of which no client knows. Prints JSON.

    python benchmarks/one_server.py [--requests 20]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import warnings
from collections.abc import Awaitable, Callable

import aiohttp

from edgegap_async import EdgegapClient, Status
from edgegap_async.emulator import Drop, Emulator, Fault, Respond, Timings, sample_application

with warnings.catch_warnings():  # backoff's decorators use a deprecated function of asyncio
    warnings.simplefilter("ignore")
    import backoff

Deploy = Callable[[], Awaitable[str]]
BODY = {
    "application": "arena",
    "version": "v1",
    "users": [{"user_type": "ip_address", "user_data": {"ip_address": "8.8.8.8"}}],
}
LOST = {
    "the answer is lost once": [Fault("deploy", Drop())],
    "it is lost three times": [Fault("deploy", Drop(), times=3)],
    "a proxy answers 502 for it": [Fault("deploy", Respond.html(502))],
    "it never arrives": [Fault("deploy", Drop(), when="read")],
}


def plain(session: aiohttp.ClientSession) -> Deploy:
    """The code that is usually written: send the request, and send it again after an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")

        @backoff.on_exception(backoff.expo, aiohttp.ClientError, max_tries=4, factor=0.01)
        async def deploy() -> str:
            async with session.post("/v2/deployments", json=BODY) as answer:
                answer.raise_for_status()
                return str((await answer.json())["request_id"])

    return deploy


def ours(client: EdgegapClient) -> Deploy:
    """The same with this package."""

    async def deploy() -> str:
        return (await client.deploy("arena", "v1", users=["8.8.8.8"])).request_id

    return deploy


def live(emulator: Emulator) -> set[str]:
    over = {Status.TERMINATING, Status.TERMINATED}
    return {one.request_id for one in emulator.cloud.deployments.values() if one.status not in over}


async def settled(emulator: Emulator) -> set[str]:
    """Returns the servers that live, once the client has had time to clean up."""
    before, same = live(emulator), 0
    while same < 10:
        await asyncio.sleep(0.1)
        now = live(emulator)
        same = same + 1 if now == before and not emulator.open_requests else 0
        before = now
    return before


async def lost_answers(emulator: Emulator, deploy: Deploy, requests: int) -> dict[str, object]:
    rows: dict[str, object] = {}
    for name, faults in LOST.items():
        made, known = len(emulator.cloud.deployments), set[str]()
        errors, before = 0, await settled(emulator)
        for _ in range(requests):
            emulator.faults.clear()
            emulator.faults.add(*faults)
            try:
                known.add(await deploy())
            except Exception:  # noqa: BLE001 - either client may raise any error
                errors += 1
        emulator.faults.clear()
        rows[name] = {
            "servers_made_per_request": (len(emulator.cloud.deployments) - made) / requests,
            "errors": errors,
            "left_running_and_unknown": len(await settled(emulator) - before - known),
        }
    return rows


async def cancelled(emulator: Emulator, deploy: Deploy, requests: int) -> dict[str, object]:
    """Cancels each request a little later than the request before."""
    known, before = set[str](), await settled(emulator)
    for number in range(requests):
        deploying = asyncio.ensure_future(deploy())
        await asyncio.wait([deploying], timeout=0.0003 * number)
        deploying.cancel()
        outcome = (await asyncio.gather(deploying, return_exceptions=True))[0]
        if isinstance(outcome, str):
            known.add(outcome)
    left = await settled(emulator) - before - known
    return {"cancelled": requests - len(known), "left_running_and_unknown": len(left)}


async def measure(requests: int) -> dict[str, object]:
    results: dict[str, object] = {"benchmark": "one_server", "requests": requests}
    async with Emulator(
        [sample_application()], timings=Timings.fast(), limits=False, keep_terminated=1e6
    ) as emulator:
        headers = {"Authorization": f"token {emulator.token}"}
        async with (
            aiohttp.ClientSession(emulator.url, headers=headers) as session,
            EdgegapClient(emulator.token, base_url=emulator.url, list_delay=0.3) as client,
        ):
            for name, deploy in (("plain", plain(session)), ("edgegap_async", ours(client))):
                results[name] = {
                    "lost answers": await lost_answers(emulator, deploy, requests),
                    "cancelled callers": await cancelled(emulator, deploy, requests),
                }
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20)
    print(json.dumps(asyncio.run(measure(parser.parse_args().requests)), indent=1))


if __name__ == "__main__":
    main()
