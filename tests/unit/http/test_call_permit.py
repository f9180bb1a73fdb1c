"""How a call that opens a connection gives its permit back, and takes it again."""

from __future__ import annotations

import asyncio
import itertools

import aiohttp
import pytest
from limited_calls import cancelled, in_background, most_in_one_second
from raw_server import raw_server
from slow_connections import LIMITS, StrictServer, call_often, outage, slow_dns

from edgegap_async.api.operations import DEPLOY, GET_DEPLOYMENT, LIST_DEPLOYMENTS
from edgegap_async.concurrency import loop_time
from edgegap_async.errors import LimitReached, ServerError
from edgegap_async.http.api_client import ApiClient
from edgegap_async.http.rate_limits import Limits, Priority
from edgegap_async.http.retries import RetryPolicy
from edgegap_async.http.transport import Timeouts
from edgegap_async.observability.observer import ObservedCall, Observer

pytestmark = pytest.mark.virtual


def client_of(server: StrictServer, **options: object) -> ApiClient:
    return ApiClient("canary-t", base_url=server.url, **options)  # type: ignore[arg-type]


# ── calls ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("delay", [0.09, 0.3, 2])
async def test_the_first_ten_calls_go_at_once_when_their_connections_are_open(delay: float) -> None:
    async with StrictServer() as server, slow_dns(delay), client_of(server) as client:
        began = loop_time()
        await call_often(client, "deploy", 60)

    times = [at - began for at in server.arrivals["deploy"]]
    assert times[9] == pytest.approx(delay, abs=0.03)
    assert times[10] > times[0] + 0.02


async def test_calls_on_new_connections_use_the_limit_as_calls_on_open_ones_do() -> None:
    async with StrictServer(opening_time=0.5) as server:
        connector = aiohttp.TCPConnector(force_close=True)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            client_of(server, session=session) as client,
        ):
            began = loop_time()
            await call_often(client, "deploy", 400)

    # A burst of ten, and then 39 calls a second.
    assert loop_time() - began <= 0.5 + 390 / 39 + 1
    assert most_in_one_second(server.arrivals["deploy"]) <= LIMITS["deploy"]


async def test_the_wait_for_the_second_permit_does_not_count_in_the_timeout() -> None:
    async with (
        StrictServer() as server,
        slow_dns(1),
        client_of(server, timeouts=Timeouts(total=1.5), retries=RetryPolicy(attempts=1)) as client,
    ):
        await call_often(client, "list_deployments", 30)  # the last one waits two seconds

    assert len(server.arrivals["list_deployments"]) == 30


async def test_a_slow_connection_counts_in_the_timeout() -> None:
    once = RetryPolicy(attempts=1)
    async with (
        StrictServer() as server,
        slow_dns(3),
        client_of(server, timeouts=Timeouts(total=1), retries=once) as client,
    ):
        began = loop_time()
        outcomes = await asyncio.gather(
            *(client.deployments.get("abc123") for _ in range(5)), return_exceptions=True
        )

        assert loop_time() - began == pytest.approx(1, abs=0.05)
    assert all("no answer in time" in str(outcome) for outcome in outcomes)
    assert server.arrivals["get_deployment"] == []


async def test_calls_cancelled_in_the_second_wait_close_their_connections_and_take_no_permit() -> (
    None
):
    async with StrictServer() as server, slow_dns(1), client_of(server) as client:
        calls = [in_background(client.deployments.get("abc123")) for _ in range(60)]
        await asyncio.sleep(1.2)  # a burst has gone, and the others wait with their connections
        arrived, waiting = (
            len(server.arrivals["get_deployment"]),
            [c for c in calls if not c.done()],
        )
        assert server.connections > arrived
        await cancelled(*waiting)
        await asyncio.sleep(0.1)
        assert server.connections <= arrived
        await asyncio.sleep(2)
        began = loop_time()
        await call_often(client, "get_deployment", 5)

        assert loop_time() - began < 1.1  # of which name resolution lasts 1 s
        connections = client._transport.connection_slots(GET_DEPLOYMENT)
        assert connections._value == 100


async def test_with_on_limit_raise_a_call_does_not_wait_for_its_second_permit() -> None:
    async with (
        StrictServer() as server,
        slow_dns(1),
        client_of(server, on_limit="raise") as client,
    ):
        began = loop_time()
        calls = [in_background(client.deployments.get("abc123")) for _ in range(5)]
        await asyncio.sleep(0.9)
        calls += [in_background(client.deployments.get("abc123")) for _ in range(5)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)

    refused = [outcome for outcome in outcomes if isinstance(outcome, LimitReached)]
    assert len(refused) == 5
    assert (refused[0].request_id, refused[0].operation) == ("abc123", "get_deployment")
    assert 0 < refused[0].predicted_wait < 0.1
    assert "Nothing was sent" in str(refused[0])
    assert loop_time() - began == pytest.approx(1, abs=0.02)


async def test_with_on_limit_raise_the_limit_holds_and_is_used_while_connections_open_slowly() -> (
    None
):
    async with (
        StrictServer(opening_time=0.5) as server,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session,
        client_of(server, session=session, on_limit="raise") as client,
    ):
        refusals = list[LimitReached]()

        async def call() -> None:
            try:
                await client.deployments.get("abc123")
            except LimitReached as error:
                refusals.append(error)

        calls = list[asyncio.Task[object]]()
        for _ in range(200):
            calls = [in_background(call()) for _ in range(5)]
            await asyncio.sleep(0.05)
        await asyncio.gather(*calls)
        await asyncio.sleep(1)

    arrivals = server.arrivals["get_deployment"]
    assert server.refused == 0
    assert most_in_one_second(arrivals) <= LIMITS["get_deployment"]
    assert len(arrivals) > 9 * 0.9 * LIMITS["get_deployment"]
    assert client.requests_sent == len(arrivals)
    assert len(refusals) + len(arrivals) == 1000
    assert all(0 < error.predicted_wait < 1.1 for error in refusals)


async def test_max_wait_holds_for_both_waits_together() -> None:
    limits = Limits()
    async with (
        StrictServer() as server,
        slow_dns(1),
        client_of(server, max_wait=1.3, limits=limits) as client,
    ):
        limits.on_rate_limited(GET_DEPLOYMENT, 1)
        call = in_background(client.deployments.get("abc123"))
        await asyncio.sleep(1.5)  # it has its first permit, and opens a connection
        limits.on_rate_limited(GET_DEPLOYMENT, 1)
        with pytest.raises(LimitReached):
            await call

    assert server.arrivals["get_deployment"] == []


async def test_a_retry_that_may_not_wait_for_its_second_permit_fails_with_the_earlier_error() -> (
    None
):
    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    limits = Limits()
    connector = aiohttp.TCPConnector(force_close=True, use_dns_cache=False)
    async with (
        raw_server(refuse) as port,
        slow_dns(0.5),
        aiohttp.ClientSession(connector=connector) as session,
        ApiClient(
            "canary-t",
            base_url=f"http://localhost:{port}",
            session=session,
            limits=limits,
            on_limit="raise",
        ) as client,
    ):
        call = in_background(client.deployments.get("abc123"))
        while client.requests_sent < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        limits.on_rate_limited(GET_DEPLOYMENT, 5)
        with pytest.raises(ServerError) as caught:
            await call

    assert caught.value.status == 503
    assert client.requests_sent == 1


async def test_the_second_wait_counts_as_queued() -> None:
    queued = dict[str, list[float]](started=[], ended=[])

    class Recorder(Observer):
        def attempt_started(self, call: ObservedCall) -> None:
            queued["started"].append(call.queued)

        def call_succeeded(self, call: ObservedCall, result: object) -> None:
            queued["ended"].append(call.queued)

    limits = Limits({"list_deployments": 1})
    async with StrictServer() as server, slow_dns(1), client_of(server, limits=limits) as client:
        client.add_observer(Recorder())
        call = in_background(client.deployments.list().page(1))
        await asyncio.sleep(0.9)
        await limits.acquire(LIST_DEPLOYMENTS, again=True)
        await call

    assert queued["started"] == pytest.approx([0], abs=0.01)
    assert queued["ended"] == pytest.approx([0.925], abs=0.02)


async def test_a_connection_that_the_server_closes_in_the_second_wait_is_opened_again() -> None:
    async def close_early(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2)
        writer.close()

    limits = Limits()
    async with raw_server(close_early) as port, outage(0.5):
        client = ApiClient(
            "canary-t",
            base_url=f"http://127.0.0.1:{port}",
            limits=limits,
            retries=RetryPolicy(attempts=1),
        )
        async with client:
            call = in_background(client.deployments.deploy("arena", "v1", users=["192.0.2.1"]))
            await asyncio.sleep(0.1)
            limits.on_rate_limited(DEPLOY, 5)
            with pytest.raises(Exception, match="closed during the wait for a permit") as caught:
                await call

    assert type(caught.value).__name__ == "NotSent"


# ── limits ────────────────────────────────────────────────────────────────────────────────────────


async def test_a_permit_that_was_given_back_is_free_again() -> None:
    limits = Limits({"deploy": 1})
    await limits.acquire(DEPLOY)
    assert limits.give_back(DEPLOY)
    await limits.acquire(DEPLOY, again=True, max_wait=0)

    with pytest.raises(LimitReached):
        await limits.acquire(DEPLOY, again=True, max_wait=0)


async def test_a_second_permit_goes_before_the_calls_of_its_priority_and_after_higher_ones() -> (
    None
):
    limits, served = Limits({"get_deployment": 1}), list[str]()

    async def one(name: str, priority: Priority, *, again: bool = False) -> None:
        await limits.acquire(GET_DEPLOYMENT, priority, again=again)
        served.append(name)

    await limits.acquire(GET_DEPLOYMENT)
    calls = [
        in_background(one("other", Priority.OTHER)),
        in_background(one("status", Priority.STATUS)),
        in_background(one("other again", Priority.OTHER, again=True)),
        in_background(one("status again", Priority.STATUS, again=True)),
    ]
    await asyncio.gather(*calls)

    assert served == ["status again", "status", "other again", "other"]


async def test_after_a_429_no_burst_of_calls_with_open_connections_follows() -> None:
    limits, times = Limits(), list[float]()

    async def one() -> None:
        await limits.acquire(DEPLOY, again=True)
        times.append(loop_time())

    limits.on_rate_limited(DEPLOY, 2)
    began = loop_time()
    await asyncio.gather(*(one() for _ in range(20)))

    assert times[0] - began == pytest.approx(2, abs=0.01)
    assert min(later - sooner for sooner, later in itertools.pairwise(times)) > 0.02
