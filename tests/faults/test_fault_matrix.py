"""52 kinds of faults at each of five places of a run: none leaves a server or makes two.

Each fault has runs of its own, whereas a campaign mixes faults at random. The long form is 13,000
runs: `pytest tests/faults/test_fault_matrix.py --rounds 1000`.
"""

from __future__ import annotations

import asyncio
import collections
import random
from typing import Final

import pytest
from emulator_record import living
from log_capture import logged_errors
from virtual_clock import run_virtually

from edgegap_async import EdgegapClient, EdgegapError, PollingPolicy, Timeouts
from edgegap_async.emulator import (
    Application,
    AppPort,
    Delay,
    Dribble,
    Drop,
    Emulator,
    Fault,
    HangUp,
    Hide,
    ProxyPage,
    Raw,
    Respond,
    Simulation,
    Timings,
    Truncate,
    WrongLength,
)
from edgegap_async.emulator.effects import Effect
from edgegap_async.emulator.faults import When

ARENA = Application(name="arena", version="v1", argv=["none"], ports=[AppPort("game")])
TIMEOUTS = Timeouts(total=1.0)

AT_ANY_TIME: Final[dict[str, Effect]] = {
    "reset": Drop(),
    "closed": Drop(reset=False),
    **{str(status): Respond(status) for status in (500, 502, 503, 504)},
    "HTML page": Respond.html(),
    "too late": Delay(2.5),
}
REFUSALS: Final[dict[str, Effect]] = {
    **{str(status): Respond(status) for status in (401, 403, 409, 422)},
    **{f"429, {wait}": Respond(429, headers={"Retry-After": wait}) for wait in ("0", "2", "-5")},
    "307": Respond(307, headers={"Location": "http://192.0.2.1/"}),
}
OF_PROXIES: Final[dict[str, Effect]] = {
    f"{status} of {proxy}": ProxyPage(status, proxy)
    for status, proxy in ((400, "haproxy"), (403, "cloudflare"), (404, "gateway"), (410, "gateway"))
}
PASSED_ON: Final[dict[str, Effect]] = {
    "408 of envoy": ProxyPage(408, "envoy"),
    "499 of nginx": ProxyPage(499, "nginx"),
}
OF_THE_ANSWER: Final[dict[str, Effect]] = {
    "no body": Truncate(0),
    "half a body": Truncate(9),
    "slow body": Dribble(0.05),
    "stale connection": HangUp(),
    "more announced than sent": WrongLength(10),
    "less announced than sent": WrongLength(-9),
    "no HTTP": Raw(b"SSH-2.0-OpenSSH_9.2"),
    "half a status line": Raw(b"HTTP/1.1 2", closes=False),
    "no JSON": Respond(202, b"{"),
    "empty": Respond(202, b""),
    "HTML instead of JSON": Respond(202, b"<html>", {"Content-Type": "text/html"}),
    "gzip bomb": Respond.gzip_bomb(2**24),
}
KINDS: Final[dict[str, tuple[Effect, When]]] = {
    **{
        f"{name}, unread": (what, "unread")
        for name, what in (AT_ANY_TIME | REFUSALS | OF_PROXIES | PASSED_ON).items()
    },
    **{f"{name}, read": (what, "read") for name, what in AT_ANY_TIME.items()},
    **{
        f"{name}, acted": (what, "acted")
        for name, what in (AT_ANY_TIME | OF_THE_ANSWER | PASSED_ON).items()
    },
}
PLACES = ("deploy", "list_deployments", "get_deployment", "stop_deployment", None)


async def complaints_after_a_run(kind: str, place: str | None, seed: int) -> list[str]:
    """Runs one server with the fault; returns what is wrong afterwards."""
    chance = random.Random(seed)
    with logged_errors() as log:
        async with Emulator(
            [ARENA],
            timings=Timings(seeking=0.1, deploying=0.1),
            limits=False,
            metrics_interval=3600.0,
            keep_terminated=3600.0,
            simulate=Simulation(seed=seed, crash_share=0.1),
        ) as emulator:
            what, when = KINDS[kind]
            times = chance.choice((1, 2, 3))
            emulator.faults.add(Fault(place, what, when=when, times=times, skip=seed % 3 // 2))
            if place == "list_deployments":  # the client lists only after a lost answer
                emulator.faults.add(Fault("deploy", Drop()))
            hidden = chance.choice((0.0, 1.0))
            emulator.faults.add(Fault("list_deployments", Hide(hidden), times=None))
            client = EdgegapClient(
                emulator.token,
                base_url=emulator.url,
                list_delay=5.0,
                timeouts=TIMEOUTS,
                polling=PollingPolicy(first_delay=0.1, interval=0.2),
            )
            async with client:
                try:
                    async with client.run("arena", "v1", users=["8.8.8.8"], timeout=60):
                        pass
                except EdgegapError as error:
                    log += [str(error), *getattr(error, "__notes__", ())]
            emulator.faults.clear()
            await asyncio.sleep(30)
            return complaints_of(emulator, "\n".join(log))


def complaints_of(emulator: Emulator, log: str) -> list[str]:
    alive = living(emulator)
    made = collections.Counter[str]()
    complaints = []
    for deployment in emulator.cloud.deployments.values():
        [tag] = deployment.tags
        made[tag] += 1
        known = deployment.request_id in log or tag in log
        if deployment.request_id in alive and not known:
            complaints.append(f"{deployment.request_id} ({tag}) lives and is unknown")
    # Lists show each deployment within `list_delay`, so the client never needs a second deploy.
    complaints += [
        f"{count} made for the one deploy {tag}" for tag, count in made.items() if count > 1
    ]
    return complaints


def test_there_are_52_kinds() -> None:
    assert len(KINDS) == 52


@pytest.mark.timeout(0)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", KINDS)
def test_no_fault_leaves_a_server_or_makes_two(kind: str, place: str | None, rounds: int) -> None:
    for seed in range(max(1, rounds // 20)):
        assert not run_virtually(complaints_after_a_run(kind, place, seed)), f"seed {seed}"
