from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest
from raw_server import raw_server, read_request
from scripted_api import Reply, ScriptedApi, deployment


async def test_replies_are_sent_in_their_order_and_the_last_reply_repeats() -> None:
    async with ScriptedApi() as api, aiohttp.ClientSession(api.url) as session:
        api.on("GET", "/x", Reply(500), Reply(body={"n": 1}, headers={"X-Y": "z"}))
        statuses = [(await session.get("/x")).status for _ in range(3)]
        last = await session.get("/x")

        assert statuses == [500, 200, 200]
        assert await last.json() == {"n": 1}
        assert last.headers["X-Y"] == "z"


async def test_every_request_is_recorded_with_query_headers_and_body() -> None:
    async with ScriptedApi() as api, aiohttp.ClientSession(api.url) as session:
        api.on("POST", "/x", Reply(202, b"raw"))
        answer = await session.post("/x?a=b", json={"c": 1}, headers={"X-Y": "z"})
        await api.until_asked("POST", "/x")
        [request] = api.asked("POST", "/x")

        assert await answer.read() == b"raw"
        assert (request.query, request.json, request.headers["X-Y"]) == ({"a": "b"}, {"c": 1}, "z")


async def test_a_request_that_is_not_in_the_script_fails_the_test() -> None:
    with pytest.raises(AssertionError, match="GET /y"):
        async with ScriptedApi() as api, aiohttp.ClientSession(api.url) as session:
            assert (await session.get("/y")).status == 599


@pytest.mark.virtual
async def test_an_answer_may_be_delayed() -> None:
    loop = asyncio.get_running_loop()
    async with ScriptedApi() as api, aiohttp.ClientSession(api.url) as session:
        api.on("GET", "/x", Reply(delay=5))
        began = loop.time()
        await session.get("/x")

        assert loop.time() - began == pytest.approx(5, abs=0.1)


async def test_an_answer_may_wait_for_an_event() -> None:
    async with ScriptedApi() as api, aiohttp.ClientSession(api.url) as session:
        allowed = asyncio.Event()
        api.on("GET", "/x", Reply(after=allowed))
        asking = asyncio.create_task(session.get("/x").__aenter__())
        await api.until_asked("GET", "/x")
        assert not asking.done()

        allowed.set()
        assert (await asking).status == 200


async def test_an_answer_may_be_lost() -> None:
    async with ScriptedApi() as api, aiohttp.ClientSession(api.url) as session:
        api.on("POST", "/x", Reply(lost=True))

        with pytest.raises(aiohttp.ServerDisconnectedError):
            await session.post("/x")


def test_a_deployment_reply_is_the_answer_to_a_status_request() -> None:
    body = deployment("READY", "r1", elapsed_time=3).body

    assert isinstance(body, dict)
    assert (body["request_id"], body["current_status"]) == ("r1", "Status.READY")
    assert body["elapsed_time"] == 3
    assert json.dumps(body)


async def test_the_raw_server_reads_whole_requests_and_closes_after_each_talk() -> None:
    requests: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await read_request(reader))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with raw_server(talk) as port:
        async with aiohttp.ClientSession() as session:
            await session.post(f"http://127.0.0.1:{port}/x", data=b"body")
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        await writer.wait_closed()

    assert requests[0].endswith(b"\r\n\r\nbody")


async def test_closing_the_raw_server_ends_its_open_connections() -> None:
    talking = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        talking.set()
        await reader.read()

    async with raw_server(talk) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        await talking.wait()
    writer.close()
