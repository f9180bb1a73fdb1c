"""Prism's validating proxy between the SDK and the emulator: it finds what the description forbids.

Prism compares each request and each answer with the newer official description and names what
differs in a header of the answer. `prism_waivers.json` has what may differ, and why; a waiver that
no run needs fails the test, too.

Prism: `npm install @stoplight/prism-cli`; EDGEGAP_PRISM is the path of the program.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import aiohttp
import pytest
from official_description import DESCRIPTION

from edgegap_async import EdgegapClient, GeoCoordinates, IpAddress
from edgegap_async.emulator import (
    Emulator,
    Fleet,
    Image,
    PrivateHost,
    Timings,
    sample_application,
)
from edgegap_async.errors import Refused
from edgegap_async.requests import Filter, StopFilter

WAIVERS: Final = Path(__file__).with_name("prism_waivers.json")
PRISM: Final = os.environ.get("EDGEGAP_PRISM") or shutil.which("prism")
PLAYERS: Final[list[IpAddress | GeoCoordinates]] = [
    GeoCoordinates(48.9, 2.4),
    IpAddress("203.0.113.7"),
]


def _missing() -> str:
    """Returns what is missing, empty if nothing is."""
    if not DESCRIPTION.exists():
        return "the official description is not at hand"
    if shutil.which("node") is None or PRISM is None:
        return "needs Node.js and Prism: npm install @stoplight/prism-cli, and EDGEGAP_PRISM"
    return ""


pytestmark = pytest.mark.skipif(bool(_missing()), reason=_missing())


class Violations:
    """What Prism has found, by call."""

    def __init__(self) -> None:
        self.found: set[str] = set()
        self.calls = 0

    async def note(
        self,
        session: aiohttp.ClientSession,
        context: SimpleNamespace,
        ended: aiohttp.TraceRequestEndParams,
    ) -> None:
        """Reads the header of an answer."""
        del session, context
        self.calls += 1
        for one in json.loads(ended.response.headers.get("sl-violations", "[]")):
            place = ".".join(map(str, one["location"]))
            self.found.add(
                f"{ended.method} {_path(ended.url.path)} {ended.response.status} {place}:"
                f" {one['message']}"
            )


def _path(path: str) -> str:
    """Returns a path with a placeholder for its ids."""
    return re.sub("/[0-9a-f]{12}(?=[/:]|$)", "/ID", path)


@asynccontextmanager
async def a_proxy(upstream: str) -> AsyncIterator[str]:
    """Runs Prism in front of a server. Yields its URL."""
    process = await asyncio.create_subprocess_exec(
        str(PRISM),
        *("proxy", str(DESCRIPTION), upstream, "--host", "127.0.0.1", "--port", "0"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        text = ""
        while (listening := re.search(r"listening on (http://[\d.:]+)", text)) is None:
            line = await process.stdout.readline()
            assert line, f"Prism has not started: {text}"
            text += line.decode()
        reading = asyncio.create_task(_read(process.stdout))
        yield listening[1]
        reading.cancel()
    finally:
        process.terminate()
        await process.wait()


async def _read(output: asyncio.StreamReader) -> None:
    while await output.readline():
        pass


async def _rows(rows: Any) -> list[Any]:
    return [row async for row in rows]


async def _use_everything(client: EdgegapClient) -> None:
    """Makes each call of the client once, and those that fail."""
    async with client.run("arena", "v1", users=PLAYERS, tags=["ranked"]) as server:
        request_id = server.request_id
        await client.deployments.get(request_id)
        await _rows(client.deployments.list(filters=[Filter("tags", "in", ["ranked"])]))
        await client.deployments.logs(request_id)
        for steps in (None, "30s"):
            await client.deployments.metrics(request_id, steps=steps)
        await client.tags.create(request_id, "blue")
        await client.tags.rename(request_id, "blue", "green")
        await client.tags.get(request_id, "green")
        await _rows(client.tags.list(request_id))
        await client.tags.delete(request_id, "green")
    await client.locations.list()
    await _rows(client.private_fleets.hosts("alpha"))
    accepted = await client.private_fleets.deploy(
        "arena", "v1", users=PLAYERS, private_host_ids=["alpha-1"]
    )
    await client.deployments.bulk_stop([StopFilter("request_id", [accepted.request_id])])
    for call in (
        client.deployments.get("ffffffffffff"),
        client.deployments.logs("ffffffffffff"),
        client.deployments.stop("ffffffffffff"),
        client.deployments.deploy("arena", "none", users=PLAYERS),
        client.tags.get("ffffffffffff", "blue"),
    ):
        with pytest.raises(Refused):
            await call


async def _use_applications(session: aiohttp.ClientSession, url: str) -> None:
    """Makes the calls about applications and versions, as the description has them."""
    version = {
        "name": "v1",
        "docker_repository": "registry.example.com",
        "docker_image": "studio/arena",
        "docker_tag": "1",
        "req_cpu": 256,
        "req_memory": 256,
        "time_to_deploy": 60,
        "ports": [{"port": 0, "protocol": "UDP", "name": "game"}],
        "envs": [{"key": "MODE", "value": "ranked", "is_hidden": False}],
    }
    changed = {"max_duration": 60, "is_active": False}
    for method, path, body, status in (
        ("POST", "/v1/app", {"name": "ctf", "is_active": True, "image": "aGk="}, 200),
        ("POST", "/v1/app", {"name": "ctf", "is_active": True, "image": "aGk="}, 409),
        ("GET", "/v1/apps", None, 200),
        ("GET", "/v1/app/ctf", None, 200),
        ("PATCH", "/v1/app/ctf", {"is_active": False}, 200),
        ("POST", "/v1/app/ctf/version", version, 200),
        ("POST", "/v1/app/ctf/version", {**version, "name": "v2", "docker_image": "no"}, 424),
        ("GET", "/v1/app/ctf/versions", None, 200),
        ("GET", "/v1/app/ctf/version/v1", None, 200),
        ("PATCH", "/v1/app/ctf/version/v1", changed, 200),
        ("DELETE", "/v1/app/ctf/version/v1", None, 200),
        ("DELETE", "/v1/app/ctf", None, 200),
        ("GET", "/v1/app/ctf", None, 404),
        ("GET", "/v1/locations/beacons", None, 200),
    ):
        async with session.request(method, f"{url}{path}", json=body) as answer:
            assert answer.status == status, (method, path, await answer.text())


def _unwaived(found: Iterable[str], waivers: list[dict[str, str]]) -> list[str]:
    patterns = [waiver["violation"] for waiver in waivers]
    return sorted(one for one in found if not any(re.fullmatch(each, one) for each in patterns))


async def test_prism_finds_only_what_has_a_written_waiver() -> None:
    violations = Violations()
    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(violations.note)
    emulator = Emulator(
        [sample_application()],
        fleets=[Fleet(name="alpha", hosts=(PrivateHost(host_id="alpha-1", city="Paris"),))],
        images=[Image(image="registry.example.com/studio/arena", argv=["{python}", "-V"])],
        timings=Timings.fast(),
        host_shape="centroid",
        limits=False,
        metrics_interval=0.05,
        token="canary-prism",
    )
    async with (
        emulator,
        a_proxy(emulator.url) as url,
        aiohttp.ClientSession(trace_configs=[trace]) as session,
        EdgegapClient("canary-prism", base_url=url, session=session) as client,
    ):
        await _use_everything(client)
        async with aiohttp.ClientSession(
            trace_configs=[trace], headers={"Authorization": "token canary-prism"}
        ) as plain:
            await _use_applications(plain, url)
    waivers = json.loads(WAIVERS.read_text("utf-8"))

    assert _unwaived(violations.found, waivers) == []
    assert violations.calls > 30
    unused = [
        waiver["violation"]
        for waiver in waivers
        if not any(re.fullmatch(waiver["violation"], one) for one in violations.found)
    ]
    assert unused == []
