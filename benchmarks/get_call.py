"""Measures the CPU time of one `deployments.get` against bare aiohttp with `json.loads`.

Both clients call the same server in another process, in interleaved rounds, so that a noisy machine
disturbs both alike. An answer decodes a field when the field is read. The call is measured with
the status read, as a wait does (`ratio`), and with status and ports read, as a connecting player
does (`ratio_with_ports`). Prints JSON: medians over the rounds of the CPU time of one call.
`profile_us` splits the time into the stages of a call. With `--observed` a second client has an
`OpenTelemetryObserver` and OpenTelemetry's SDK, which records two spans and two metrics for a call.

    python benchmarks/get_call.py [--rounds 15] [--calls 400] [--observed]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
from aiohttp import web
from figures import significant

from edgegap_async import EdgegapClient, Timeouts
from edgegap_async.api import codec
from edgegap_async.api.messages import decode, encode
from edgegap_async.api.operations import GET_DEPLOYMENT
from edgegap_async.http.transport import SendState, Transport
from edgegap_async.observability import Observer
from edgegap_async.requests import Token

REFERENCE = Path(__file__).parents[1] / "tests/reference/operations.json"
REQUEST_ID = "c0653765de3b"


def serve(ready: Connection) -> None:
    operations = json.loads(REFERENCE.read_text())["operations"]
    answer = next(op["answer"] for op in operations if op["path"] == "/v1/status/{request_id}")
    body = json.dumps(answer).encode()

    async def status(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/v1/status/{request_id}", status)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ready.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(run())


async def cpu_per_call(call: Callable[[], Awaitable[object]], calls: int) -> float:
    began = time.process_time()
    for _ in range(calls):
        await call()
    return (time.process_time() - began) / calls * 1e6


def open_telemetry() -> Observer:
    """Returns an observer whose spans and metrics the SDK records, and drops."""
    from opentelemetry.sdk.metrics import MeterProvider  # asked for by an option
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider

    from edgegap_async.observability import OpenTelemetryObserver

    return OpenTelemetryObserver(
        tracer_provider=TracerProvider(),
        meter_provider=MeterProvider([InMemoryMetricReader()]),
    )


async def measure(url: str, rounds: int, calls: int, observer: Observer) -> dict[str, object]:
    # asyncio reads into a buffer of 256 kB. Until a larger block was freed, glibc maps and unmaps
    # memory for each read, which adds about 50 µs to a call, in some runs and not in others.
    bytearray(2**20)

    token = Token("token", scheme="token")
    transport = Transport(url, session=None, timeouts=Timeouts(), allow_insecure=False)
    request = encode(GET_DEPLOYMENT, path={"request_id": REQUEST_ID})
    async with (
        aiohttp.ClientSession() as session,
        EdgegapClient("token", base_url=url, limits={"get_deployment": None}) as client,
        EdgegapClient("token", base_url=url, limits={"get_deployment": None}) as watched,
    ):
        watched.add_observer(observer)

        async def unread() -> object:
            headers = {"Authorization": "token token", "User-Agent": "bare"}
            async with session.get(f"{url}/v1/status/{REQUEST_ID}", headers=headers) as response:
                return await response.read()

        async def bare() -> object:
            headers = {"Authorization": "token token", "User-Agent": "bare"}
            async with session.get(f"{url}/v1/status/{REQUEST_ID}", headers=headers) as response:
                return json.loads(await response.read())["current_status"]

        async def sent() -> object:
            return await transport.send(request, token, SendState())

        async def decoded() -> object:
            return decode(request, await transport.send(request, token, SendState()))

        async def exchanged() -> object:
            return await client.exchange(request, SendState())

        async def called() -> object:
            return await client.deployments.get(REQUEST_ID)

        async def status() -> object:
            return (await client.deployments.get(REQUEST_ID)).current_status

        async def observed() -> object:
            return (await watched.deployments.get(REQUEST_ID)).current_status

        async def ports() -> object:
            deployment = await client.deployments.get(REQUEST_ID)
            return deployment.current_status, deployment.ports

        stages = {
            "bare_get": unread,
            "transport": sent,
            "json_and_model": decoded,
            "limits_and_retries": exchanged,
            "encode_and_guard": called,
        }
        variants = [bare, status, ports, observed, *stages.values()]
        try:
            for variant in variants:
                await cpu_per_call(variant, calls)
            samples = [
                [await cpu_per_call(variant, calls) for variant in variants] for _ in range(rounds)
            ]
        finally:
            await transport.close()
    medians = [
        statistics.median(sample[number] for sample in samples) for number in range(len(variants))
    ]
    reached = [0.0, *medians[4:]]
    return {
        "benchmark": "get_call",
        "json": "json" if codec.loads is json.loads else "orjson",
        "rounds": rounds,
        "calls_per_round": calls,
        "bare_aiohttp_us": significant(medians[0]),
        "edgegap_async_us": significant(medians[1]),
        "ratio": significant(statistics.median(sample[1] / sample[0] for sample in samples)),
        "ratio_with_ports": significant(
            statistics.median(sample[2] / sample[0] for sample in samples)
        ),
        "observed_us": significant(medians[3]),
        "observed_ratio": significant(
            statistics.median(sample[3] / sample[1] for sample in samples)
        ),
        "observer": type(observer).__name__,
        "goal": "ratio at most 1.13 with the extra `speed`",
        "profile_us": {
            stage: significant(after - before)
            for stage, before, after in zip(stages, reached, reached[1:], strict=False)
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=400)
    parser.add_argument("--observed", action="store_true", help="with OpenTelemetry's SDK")
    arguments = parser.parse_args()
    observer = open_telemetry() if arguments.observed else Observer()
    receiving, sending = multiprocessing.Pipe(duplex=False)
    server = multiprocessing.Process(target=serve, args=(sending,), daemon=True)
    server.start()
    try:
        url = f"http://127.0.0.1:{receiving.recv()}"
        print(
            json.dumps(
                asyncio.run(measure(url, arguments.rounds, arguments.calls, observer)), indent=1
            )
        )
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()
