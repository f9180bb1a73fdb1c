"""Each fault, as a bare aiohttp client meets it, and what the world has done by then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from emulated_cloud import until

from edgegap_async.emulator import (
    ActTwice,
    Delay,
    Dribble,
    Drop,
    Emulator,
    Fault,
    HangUp,
    Hide,
    ProxyPage,
    Raw,
    Repeat,
    Respond,
    Timings,
    Truncate,
    WrongLength,
    sample_application,
)
from edgegap_async.emulator.effects import Effect
from edgegap_async.emulator.faults import Faults, When
from edgegap_async.errors import InvalidRequest

BODY = {
    "application": "arena",
    "version": "v1",
    "users": [{"user_type": "ip_address", "user_data": {"ip_address": "8.8.8.8"}}],
}


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator([sample_application()], timings=Timings.fast(), limits=False) as emulator:
        yield emulator


@pytest.fixture
async def session(emulator: Emulator) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"token {emulator.token}"}
    async with aiohttp.ClientSession(emulator.url, headers=headers) as session:
        yield session


async def deploy(session: aiohttp.ClientSession) -> tuple[int, Any]:
    async with session.post("/v2/deployments", json=BODY) as answer:
        return answer.status, await answer.json()


async def deployed(session: aiohttp.ClientSession) -> str:
    status, body = await deploy(session)
    assert status == 202
    return str(body["request_id"])


SHOWN = pytest.mark.shows_secrets("aiohttp's own errors hold the headers that were sent")


async def rows(session: aiohttp.ClientSession) -> list[str]:
    async with session.get("/v1/deployments") as answer:
        return [row["request_id"] for row in (await answer.json())["data"]]


@SHOWN
@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize(("when", "made"), [("unread", 0), ("read", 0), ("acted", 1)])
async def test_a_dropped_answer_undoes_nothing(
    emulator: Emulator, session: aiohttp.ClientSession, when: When, made: int, *, reset: bool
) -> None:
    emulator.faults.add(Fault("deploy", Drop(reset=reset), when=when))
    with pytest.raises(aiohttp.ClientConnectionError):
        await deploy(session)

    assert len(emulator.cloud.deployments) == made
    assert [request.operation for request in emulator.requests] == ["deploy"]
    assert emulator.faults.left == ()


@pytest.mark.parametrize(("when", "made"), [("unread", 0), ("acted", 1)])
async def test_respond_replaces_the_answer_of_the_api(
    emulator: Emulator, session: aiohttp.ClientSession, when: When, made: int
) -> None:
    emulator.faults.add(Fault("deploy", Respond(503, headers={"Retry-After": "2"}), when=when))
    async with session.post("/v2/deployments", json=BODY) as answer:
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "2"
        assert await answer.json() == {"message": "scripted fault"}

    assert len(emulator.cloud.deployments) == made


async def test_bodies_are_sent_unchanged(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    bodies = [Respond.html(), Respond(200, b"\xff\x00"), Respond(200, "{"), Respond(200, [1])]
    emulator.faults.add(*(Fault("list_locations", body) for body in bodies))
    came = []
    for _ in bodies:
        async with session.get("/v1/locations") as answer:
            came.append((answer.status, answer.content_type, await answer.read()))

    assert came[0][:2] == (502, "text/html")
    assert [body for _, _, body in came[1:]] == [b"\xff\x00", b"{", b"[1]"]


async def test_a_gzip_bomb_is_small_on_the_wire(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    emulator.faults.add(Fault("list_locations", Respond.gzip_bomb(10_000_000)))
    async with session.get("/v1/locations") as answer:
        assert len(await answer.read()) == 10_000_000
        assert int(answer.headers["Content-Length"]) < 20_000


async def test_a_truncated_answer_breaks_off(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    emulator.faults.add(Fault("deploy", Truncate(body_bytes=3)))
    with pytest.raises(aiohttp.ClientPayloadError):
        await deploy(session)

    assert len(emulator.cloud.deployments) == 1


@pytest.mark.parametrize(
    ("page", "content_type", "part"),
    [
        (ProxyPage(), "text/html", "<center><h1>502 Bad Gateway</h1></center>"),
        (ProxyPage(499), "text/html", "<title>499 Client Closed Request</title>"),
        (ProxyPage(503, "haproxy"), "text/html", "<h1>503 Service Unavailable</h1>"),
        (ProxyPage(522, "cloudflare"), "text/html", "<h2>Connection timed out</h2>"),
        (ProxyPage(403, "cloudflare"), "text/html", "Just a moment..."),
        (ProxyPage(503, "envoy"), "text/plain", "upstream connect error"),
        (ProxyPage(502, "envoy"), "text/plain", "upstream request failed: bad gateway"),
        (ProxyPage(404, "gateway"), "application/json", '{"message": "no Route matched'),
        (ProxyPage(599, "gateway"), "application/json", '{"message": "Unknown"}'),
    ],
    ids=str,
)
async def test_a_proxy_answers_in_the_place_of_the_api(
    emulator: Emulator,
    session: aiohttp.ClientSession,
    page: ProxyPage,
    content_type: str,
    part: str,
) -> None:
    emulator.faults.add(Fault("deploy", page))
    async with session.post("/v2/deployments", json=BODY) as answer:
        text = await answer.text()

    assert (answer.status, answer.content_type) == (page.status, content_type)
    assert part in text
    assert len(emulator.cloud.deployments) == 1


async def raw_answer(emulator: Emulator) -> bytes:
    """Everything that comes back for a request for the locations, until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(emulator.url.split(":")[2]))
    head = f"Host: localhost\r\nAuthorization: token {emulator.token}"
    writer.write(f"GET /v1/locations HTTP/1.1\r\n{head}\r\n\r\n".encode())
    async with asyncio.timeout(20):
        came = await reader.read()
    writer.close()
    return came


async def test_raw_bytes_take_the_place_of_an_answer(emulator: Emulator) -> None:
    emulator.faults.add(Fault("list_locations", Raw("SSH-2.0-x"), when="unread"))

    assert await raw_answer(emulator) == b"SSH-2.0-x"


@SHOWN
async def test_a_connection_stays_open_and_silent_until_the_client_leaves(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    emulator.faults.add(Fault("deploy", Raw(b"HTTP/1.1 202", closes=False)))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(deploy(session), 0.2)
    await until(lambda: not emulator.open_requests)

    assert len(emulator.cloud.deployments) == 1


@SHOWN
async def test_a_length_that_is_too_long_leaves_the_client_waiting(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    emulator.faults.add(Fault("deploy", WrongLength(5)))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(deploy(session), 0.2)
    await until(lambda: not emulator.open_requests)


async def test_a_length_that_is_too_short_announces_less_than_comes(emulator: Emulator) -> None:
    emulator.faults.add(Fault("list_locations", WrongLength(-3)))
    head, _, body = (await raw_answer(emulator)).partition(b"\r\n\r\n")

    assert head.endswith(b"Content-Length: %d" % (len(body) - 3))
    assert body.endswith(b"}")


async def test_a_deploy_that_a_proxy_sends_twice_makes_two_deployments(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    emulator.faults.add(Fault("deploy", ActTwice()))
    request_id = await deployed(session)

    assert len(emulator.cloud.deployments) == 2
    assert list(emulator.cloud.deployments)[1] == request_id
    assert [request.operation for request in emulator.requests] == ["deploy"]


async def test_dribble_sends_one_byte_at_a_time(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    emulator.faults.add(Fault("deploy", Dribble(interval=0.002)))
    began = asyncio.get_running_loop().time()
    await deployed(session)

    assert asyncio.get_running_loop().time() - began > 20 * 0.002


@pytest.mark.parametrize("when", ["unread", "read", "acted"])
async def test_a_delayed_answer_is_unchanged(
    emulator: Emulator, session: aiohttp.ClientSession, when: When
) -> None:
    emulator.faults.add(Fault("deploy", Delay(0.05), when=when))
    deploying = asyncio.create_task(deploy(session))
    async with asyncio.timeout(20):
        while emulator.faults.left:
            await asyncio.sleep(0.001)

    assert len(emulator.cloud.deployments) == (when == "acted")
    assert (await deploying)[0] == 202


async def test_a_connection_that_is_hung_up_is_stale_for_the_next_call(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    emulator.faults.add(Fault("deploy", HangUp()))
    async with session.post("/v2/deployments", json=BODY) as answer:
        assert answer.status == 202
        assert "Connection" not in answer.headers
        assert (await answer.json())["request_id"]


async def test_a_deployment_shows_up_late_in_lists_and_statuses(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    emulator.faults.add(
        Fault("list_deployments", Hide(2), times=None),
        Fault("get_deployment", Hide(2), times=None),
    )
    request_id = await deployed(session)
    async with session.get(f"/v1/status/{request_id}") as answer:
        assert answer.status == 400
    assert await rows(session) == []
    async with asyncio.timeout(20):
        while await rows(session) != [request_id]:
            await asyncio.sleep(0.01)
    async with session.get(f"/v1/status/{request_id}") as answer:
        assert answer.status == 200


async def test_a_fault_happens_times_times_after_skip_calls(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    emulator.faults.add(Fault("deploy", Respond(500), skip=1, times=2), Fault(None, Respond(418)))
    statuses = [(await deploy(session))[0] for _ in range(5)]

    assert statuses == [202, 500, 500, 418, 202]


def test_a_share_of_the_calls_is_hit_and_the_same_ones_each_time() -> None:
    def hit() -> list[int]:
        faults = Faults([Fault("webhook_on_ready", Drop(), times=None, share=0.05)])
        return [number for number in range(1000) if faults.take("webhook_on_ready")]

    assert hit() == hit()
    assert 30 <= len(hit()) <= 70


def test_a_share_is_of_the_calls_that_come_and_is_used_up_by_those_it_hits() -> None:
    faults = Faults([Fault("deploy", Drop(), times=2, share=0.5)])
    hits = [number for number in range(100) if faults.take("deploy")]

    assert len(hits) == 2
    assert hits != [0, 1]
    assert faults.left == ()


async def test_a_fault_also_changes_an_error_answer(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    emulator.faults.add(Fault("get_deployment", Truncate(body_bytes=1)))
    async with session.get("/v1/status/000000000000") as answer:
        assert answer.status == 400
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_the_script_can_be_given_at_the_start_and_cleared() -> None:
    async with Emulator(faults=[Fault("deploy", Drop())]) as emulator:
        assert len(emulator.faults.left) == 1
        emulator.faults.clear()
        assert len(emulator.faults.left) == 0


@pytest.mark.parametrize(
    ("operation", "effect", "settings", "message"),
    [
        ("redeploy", Drop(), {}, "no call 'redeploy'"),
        ("deplo", Drop(), {}, r"no call 'deplo'; there are .*Did you mean deploy\?"),
        ("deploy", Drop(), {"when": "later"}, "not 'later'"),
        ("deploy", Drop(), {"times": 0}, "times must be 1 or more"),
        ("deploy", Drop(), {"skip": -1}, "skip must be 0 or more"),
        ("deploy", Truncate(), {"when": "read"}, "Truncate changes an answer"),
        ("deploy", Hide(1), {}, "Hide can be used for get_deployment, list_deployments, not"),
        ("deploy", Drop(), {"share": 0.0}, "share must be above 0"),
        ("deploy", Drop(), {"share": 1.5}, "above 0 and 1 at most, not 1.5"),
        ("deploy", Drop(), {"share": "x"}, "share must be of type int or float, not 'x'"),
        ("deploy", Drop(), {"times": "x"}, "times must be of type int, not 'x'"),
        ("deploy", Drop(), {"skip": 0.5}, "skip must be of type int, not 0.5"),
        ("deploy", Repeat(), {}, "Repeat can be used for webhook_on_error"),
        (None, Repeat(), {}, "Repeat can be used for webhook_on_error"),
        ("webhook_on_ready", Respond(500), {}, "Respond can be used for calls, not for 'webhook"),
    ],
)
def test_an_invalid_fault_is_refused(
    operation: str | None, effect: Effect, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        Fault(operation, effect, **settings)


def test_a_webhook_arrives_at_least_once() -> None:
    with pytest.raises(InvalidRequest, match="times must be 1 or more, not 0"):
        Repeat(0)


@pytest.mark.parametrize(
    ("effect", "number", "message"),
    [
        (Delay, -1, r"Delay\.seconds must be 0 or more, not -1"),
        (Delay, "x", r"Delay\.seconds must be of type int or float, not 'x'"),
        (Delay, None, r"Delay\.seconds must be a number, not None"),
        (Dribble, -1, r"Dribble\.interval must be 0 or more, not -1"),
        (Hide, -1, r"Hide\.seconds must be 0 or more, not -1"),
        (Truncate, -1, r"Truncate\.body_bytes must be 0 or more, not -1"),
        (Truncate, 0.5, r"Truncate\.body_bytes must be of type int, not 0\.5"),
        (Respond, 99, r"Respond\.status must be 200 or more and 599 at most, not 99"),
        (Respond, 600, r"Respond\.status must be 200 or more and 599 at most, not 600"),
        (Repeat, "x", r"Repeat\.times must be of type int, not 'x'"),
    ],
)
def test_an_invalid_number_of_an_effect_is_refused(
    effect: Callable[[Any], Effect], number: Any, message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        effect(number)


@SHOWN
@pytest.mark.parametrize(
    "fault", [Fault("deploy", Delay(0.2), when="unread"), Fault("deploy", Dribble(0.02))]
)
async def test_a_client_that_goes_away_meanwhile_is_no_failure_of_the_emulator(
    emulator: Emulator, session: aiohttp.ClientSession, fault: Fault
) -> None:
    emulator.faults.add(fault)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(deploy(session), 0.1)
    await until(lambda: not emulator.open_requests)

    assert [request.status for request in emulator.requests] in ([499], [202])


@pytest.mark.parametrize("what", [Drop, "drop", 503])
def test_an_object_that_is_no_fault_is_refused_at_once(what: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"such as Drop\(\)"):
        Fault("deploy", what)
    with pytest.raises(InvalidRequest, match="each of faults"):
        Faults().add([Fault("deploy", Drop())])  # type: ignore[arg-type]
