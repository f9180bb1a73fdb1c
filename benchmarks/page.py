"""Measures the emulator's page in Debian's Chromium, and takes its pictures. Prints JSON.

The emulator is a process of its own that simulates game servers; the browser and this program are
two more, so on two cores they disturb one another. Times of the browser and of this program are
those of one clock.

- `load`: deploys at a steady rate, the delays of their rows, and the frames and tasks of the page.
  Other programs that run make tasks long on the clock and frames late, and change the CPU time of
  tasks little: `dropped_by_page` are the frames that the page itself has dropped.
- `calm`: the same with two deploys a second, to compare with.
- `memory`: the page's heap before and after many changes of status, after a garbage collection.
- `rate`: status requests a second with the page closed and open, in interleaved rounds, and for
  each second of the emulator's CPU, which other programs disturb less.
- `restart`: seconds from the start of another emulator on the same port until the page is live.

    python benchmarks/page.py [--deployments 500] [--rate 40] [--events 10000] [--live 800]
        [--seconds 2] [--rounds 5]
    python benchmarks/page.py --pictures DIR
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import json
import os
import random
import shutil
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import aiohttp
import attrs
import psutil
from aiohttp import web
from figures import significant
from playwright.async_api import Browser, Page, ViewportSize, async_playwright

TOKEN = "of-the-benchmark"
DESKTOP = ViewportSize(width=1440, height=900)
MOST_LIVE = 100  # deployments at once, for the heap
LONG_TASK = 50.0  # milliseconds
HOW = {
    "delay_ms": "from the answer of a deploy to its row in the document; a row that 25 newer ones"
    " replace before it is drawn is not seen",
    "frames": "times of requestAnimationFrame; their period is the median of the gaps, and a gap of"
    " 1.5 periods or more has dropped frames; dropped_by_page: of them, one for each period of CPU"
    " that the tasks of the page's main thread used in the gap",
    "long_tasks": "entries of a PerformanceObserver for longtask: 50 ms or more on the clock",
    "page_tasks": "tasks of the page's main thread in a trace of the browser, which has their CPU",
    "megabytes": "the heap after a garbage collection",
    "kept": "status requests that are answered with the page open, against closed; _for_cpu: for a"
    " second of the emulator's CPU",
}
"""What the figures are, for the reader of the output."""
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-precise-memory-info",
)
PICTURES: tuple[tuple[str, Literal["light", "dark"], int, int], ...] = (
    ("light", "light", 1440, 900),
    ("dark", "dark", 1440, 900),
    ("phone", "light", 390, 844),
)
WATCH = """() => {
  const now = () => performance.timeOrigin + performance.now();
  window.rows = {};
  new MutationObserver((changes) => {
    for (const change of changes) for (const node of change.addedNodes)
      if (node.dataset?.id) window.rows[node.dataset.id] ??= now();
  }).observe(document.querySelector("table.deployments tbody"), { childList: true });
  window.longTasks = [];
  new PerformanceObserver((list) => {
    for (const task of list.getEntries()) window.longTasks.push(task.duration);
  }).observe({ type: "longtask" });
  window.frames = [];
  const frame = (at) => {
    window.frames.push(at);
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
  return performance.mark("began").startTime;
}"""
PLACES = (
    (48.9, 2.4),
    (52.5, 13.4),
    (40.7, -74.0),
    (34.0, -118.2),
    (35.7, 139.7),
    (-23.5, -46.6),
    (51.5, -0.1),
    (1.35, 103.8),
    (19.0, 72.9),
    (-33.9, 151.2),
    (41.0, 29.0),
    (37.5, 127.0),
    (25.8, -80.2),
    (-26.2, 28.0),
    (59.3, 18.0),
)
"""Where players are: the biggest cities of each continent."""


@attrs.frozen
class Running:
    """An emulator in a process of its own."""

    process: asyncio.subprocess.Process
    session: aiohttp.ClientSession
    link: str

    async def deploy(self, chance: random.Random, **fields: Any) -> str:
        body = {"application": "arena", "version": "v1", "users": players(chance), **fields}
        async with self.session.post("/v2/deployments", json=body) as answer:
            answer.raise_for_status()
            return str((await answer.json())["request_id"])

    async def call(self, method: str, path: str, **options: Any) -> Any:
        async with self.session.request(method, path, **options) as answer:
            body = await answer.read()
            return json.loads(body) if body else None

    async def until_ready(self, count: int) -> None:
        while True:
            rows = (await self.call("GET", "/_emulator/deployments"))["deployments"]
            if sum(row["status"] == "READY" for row in rows) >= count:
                return
            await asyncio.sleep(0.1)

    async def until_none(self) -> None:
        while (await self.call("GET", "/_emulator"))["live_deployments"]:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    def cpu_seconds(self) -> float:
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)


def players(chance: random.Random) -> list[dict[str, Any]]:
    north, east = chance.choice(PLACES)
    return [
        {
            "user_type": "geo_coordinates",
            "user_data": {
                "latitude": max(-55.0, min(70.0, north + chance.gauss(0, 6))),
                "longitude": max(-179.0, min(179.0, east + chance.gauss(0, 13))),
            },
        }
        for _ in range(3)
    ]


@asynccontextmanager
async def running(*arguments: str, port: int = 0) -> AsyncIterator[Running]:
    """Runs an emulator that simulates game servers. Only the pictures need its limits."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edgegap_async.emulator", "--simulate", "--quiet"),
        *("--port", str(port), *arguments),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "EDGEGAP_EMULATOR_TOKEN": TOKEN},
    )
    try:
        assert process.stdout is not None
        lines = [(await process.stdout.readline()).decode().strip() for _ in range(4)]
        link = lines[3].rpartition(" ")[2]
        url = link.partition("/?")[0]
        headers = {"Authorization": f"token {TOKEN}"}
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(url, headers=headers, connector=connector) as session:
            yield Running(process, session, link)
    finally:
        process.terminate()
        await process.wait()


async def opened(browser: Browser, link: str, **options: Any) -> Page:
    page = await browser.new_page(**options)
    await page.goto(link)
    await page.wait_for_selector("#connection[data-state=live]", timeout=60_000)
    return page


# ── parts ────────────────────────────────────────────────────────────────────────────────────────


async def measure_load(browser: Browser, count: int, rate: float) -> dict[str, Any]:
    """Deploys at a steady rate, and measures delay, tasks and frames of the page."""
    chance, answered = random.Random(1), dict[str, float]()
    async with running("--no-limits") as emulator:
        page = await opened(browser, emulator.link, viewport=DESKTOP)
        await browser.start_tracing(page=page, categories=["toplevel", "blink.user_timing"])
        mark = await page.evaluate(WATCH)

        async def deploy() -> None:
            request_id = await emulator.deploy(chance, tags=[chance.choice(["eu", "na"])])
            answered[request_id] = time.time() * 1000

        began = time.perf_counter()
        deploys = []
        for number in range(count):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            deploys.append(asyncio.create_task(deploy()))
        await asyncio.gather(*deploys)
        await emulator.until_ready(count)
        await page.wait_for_function("count => Object.keys(rows).length >= count", arg=count)
        seconds = time.perf_counter() - began
        seen, times, long_tasks = await page.evaluate("[rows, frames, longTasks]")
        tasks = main_tasks(await browser.stop_tracing(), mark)
        await page.close()
    delays = sorted(seen[one] - answered[one] for one in answered if one in seen)
    return {
        "deployments": count,
        "rows_seen": len(delays),
        "delay_ms": {
            "median": significant(statistics.median(delays)),
            "99th_percentile": significant(delays[int(len(delays) * 0.99)]),
            "most": significant(delays[-1]),
        },
        "frames": frames(times, tasks),
        "long_tasks": {
            "count": len(long_tasks),
            "most_ms": significant(max(long_tasks, default=0.0)),
        },
        "page_tasks": {
            "count": len(tasks),
            "beyond_50_ms": sum(one.clock > LONG_TASK for one in tasks),
            "beyond_50_ms_of_cpu": sum(one.cpu > LONG_TASK for one in tasks),
            "most_cpu_ms": significant(max(one.cpu for one in tasks)),
            "cpu_share": significant(sum(one.cpu for one in tasks) / 1000 / seconds),
        },
    }


@attrs.frozen
class Task:
    """A task of the page's main thread. All is in milliseconds."""

    began: float
    clock: float
    cpu: float


def frames(times: list[float], tasks: list[Task]) -> dict[str, Any]:
    """Returns how many frames were dropped between those that were drawn at these times."""
    gaps = list(itertools.pairwise(times))
    period = statistics.median(end - begin for begin, end in gaps)
    dropped = dropped_by_page = 0
    for begin, end in gaps:
        missing = round((end - begin) / period) - 1
        dropped += missing
        if missing:
            cpu = sum(one.cpu for one in tasks if begin <= one.began < end)
            dropped_by_page += min(missing, int(cpu / period))
    return {
        "drawn": len(times),
        "period_ms": significant(period),
        "dropped": dropped,
        "dropped_by_page": dropped_by_page,
        "longest_gap_ms": significant(max(end - begin for begin, end in gaps)),
    }


def main_tasks(trace: bytes, mark: float) -> list[Task]:
    """Returns the tasks of the page's main thread, by the page's clock.

    Args:
        trace: a trace of the browser.
        mark: the time of the mark `began` in the page, in milliseconds.
    """
    events = json.loads(trace)["traceEvents"]
    zero = next(event["ts"] for event in events if event["name"] == "began") / 1000 - mark
    main = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    return [
        Task(event["ts"] / 1000 - zero, event.get("dur", 0) / 1000, event.get("tdur", 0) / 1000)
        for event in events
        if event["name"] == "ThreadControllerImpl::RunTask" and (event["pid"], event["tid"]) in main
    ]


async def measure_memory(browser: Browser, events: int) -> dict[str, Any]:
    """Measures the heap of the page over many changes of status."""
    chance = random.Random(2)
    live = max(1, min(MOST_LIVE, events // 32))
    changes = 8 * live  # of one cycle, from INITIALIZING to TERMINATED
    cycles = max(1, events // changes // 4)
    async with running("--fast", "--no-limits") as emulator:
        page = await opened(browser, emulator.link)
        devtools = await page.context.new_cdp_session(page)

        async def heap() -> float:
            await devtools.send("HeapProfiler.collectGarbage")
            return float((await devtools.send("Runtime.getHeapUsage"))["usedSize"]) / 1e6

        async def cycle(count: int) -> None:
            for _ in range(count):
                ids = [await emulator.deploy(chance) for _ in range(live)]
                await emulator.until_ready(live)
                for request_id in ids:
                    await emulator.call("DELETE", f"/v1/stop/{request_id}")
                await emulator.until_none()
                await emulator.call("POST", "/_emulator/reset")

        await cycle(1)
        megabytes = [await heap()]
        for _ in range(4):
            await cycle(cycles)
            megabytes.append(await heap())
        nodes = await page.evaluate("document.querySelectorAll('*').length")
        await page.close()
    return {
        "events": cycles * 4 * changes,
        "megabytes": [significant(one) for one in megabytes],
        "elements": nodes,
    }


async def measure_rate(browser: Browser, live: int, seconds: float, rounds: int) -> dict[str, Any]:
    """Measures status requests a second with the page closed and open."""
    chance = random.Random(3)
    rates: dict[str, list[float]] = {"closed": [], "open": []}
    per_cpu: dict[str, list[float]] = {"closed": [], "open": []}
    async with running("--fast", "--no-limits") as emulator:
        ids = [await emulator.deploy(chance) for _ in range(live)]
        await emulator.until_ready(live)
        page = await opened(browser, emulator.link)
        address = page.url
        for _ in range(rounds):
            for state in ("closed", "open"):
                if state == "open":
                    await page.goto(address)
                    await page.wait_for_selector("#connection[data-state=live]")
                    await page.wait_for_timeout(1000)
                else:
                    await page.goto("about:blank")
                count, used = await ask(emulator, ids, seconds)
                rates[state].append(count / seconds)
                per_cpu[state].append(count / used)
        await page.close()
    middle = {
        name: {state: statistics.median(each) for state, each in of.items()}
        for name, of in (("a_second", rates), ("for_a_second_of_cpu", per_cpu))
    }
    return {
        "live": live,
        "status_requests": {
            name: {state: significant(each) for state, each in of.items()}
            for name, of in middle.items()
        },
        "kept": significant(middle["a_second"]["open"] / middle["a_second"]["closed"]),
        "kept_for_cpu": significant(
            middle["for_a_second_of_cpu"]["open"] / middle["for_a_second_of_cpu"]["closed"]
        ),
    }


async def ask(emulator: Running, ids: list[str], seconds: float) -> tuple[int, float]:
    """Asks for statuses from ten tasks. Returns the number of answers, and the CPU seconds."""
    count, until = 0, time.perf_counter() + seconds
    before = emulator.cpu_seconds()

    async def some(first: int) -> None:
        nonlocal count
        number = first
        while time.perf_counter() < until:
            async with emulator.session.get(f"/v1/status/{ids[number % len(ids)]}") as answer:
                await answer.read()
            number, count = number + 10, count + 1

    await asyncio.gather(*(some(first) for first in range(10)))
    # The system counts CPU time in hundredths of a second.
    return count, max(0.01, emulator.cpu_seconds() - before)


async def measure_restart(browser: Browser) -> dict[str, Any]:
    """Ends the emulator, starts another one on its port, and waits for the page."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with running(port=port) as emulator:
        page = await opened(browser, emulator.link)
        await emulator.deploy(random.Random(4))
        await page.wait_for_selector("tr[data-id]")
    await page.wait_for_selector("#connection[data-state=lost]")
    async with running(port=port):
        began = time.perf_counter()
        await page.wait_for_selector("#connection[data-state=live]")
        await page.wait_for_selector("tr[data-id]", state="detached")
        took = time.perf_counter() - began
        await page.close()
    return {"seconds_until_live": significant(took)}


# ── pictures ─────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def a_receiver() -> AsyncIterator[str]:
    """A server that answers webhooks. Yields their URL."""

    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(status=204)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/webhook"
    finally:
        await runner.cleanup()


async def use(emulator: Running, ids: list[str], webhook: str) -> None:
    """Deploys, reads statuses and lists, stops and crashes, until it is cancelled."""
    chance = random.Random(5)
    for number in itertools.count():
        tags = [
            chance.choice(["ranked", "casual", "event"]),
            chance.choice(["eu", "na", "asia"]),
        ]
        with_webhook = {"webhook_on_ready": {"url": webhook}} if number % 12 == 0 else {}
        ids.append(await emulator.deploy(chance, tags=tags, **with_webhook))
        for request_id in ids[-1:] * (number % 3):
            await emulator.call("GET", f"/v1/status/{request_id}")
        if number % 5 == 0:
            await emulator.call("GET", "/v1/deployments")
        if number % 20 == 19:
            await emulator.call("DELETE", f"/v1/stop/{ids[number // 2]}")
        if number % 45 == 40:
            await emulator.call("POST", f"/_emulator/deployments/{ids[number // 3]}/crash")
        await asyncio.sleep(0.07)


async def take_pictures(browser: Browser, folder: Path) -> None:
    """Takes pictures of the page in use: light, dark, and as wide as a phone."""
    faults: list[dict[str, Any]] = [
        {"operation": "get_deployment", "effect": {"name": "respond", "status": 503}, "share": 0.1},
        {"operation": "webhook_on_ready", "effect": "drop", "share": 0.3},
        {"operation": "list_deployments", "effect": {"name": "hide", "seconds": 5}},
    ]
    ids = list[str]()
    async with running() as emulator, a_receiver() as webhook:
        page = await opened(browser, emulator.link)
        address = page.url.partition("#")[0]
        await emulator.call(
            "POST", "/_emulator/faults", json=[{**fault, "times": "forever"} for fault in faults]
        )
        using = asyncio.create_task(use(emulator, ids, webhook))
        await page.wait_for_timeout(15_000)
        for name, scheme, width, height in PICTURES:
            await page.emulate_media(color_scheme=scheme)
            await page.set_viewport_size({"width": width, "height": height})
            await page.goto(f"{address}#/")
            await page.wait_for_timeout(600)
            await take_picture(page, folder / f"page-{name}.webp")
            await page.screenshot(path=folder / f"page-{name}-whole.png", full_page=True)
            await page.goto(f"{address}#/deployments/{ids[50]}")
            await page.wait_for_timeout(1500)
            await page.screenshot(path=folder / f"deployment-{name}.png", full_page=True)
        using.cancel()
        await page.close()
    await asyncio.gather(using, return_exceptions=True)


async def take_picture(page: Page, path: Path) -> None:
    """Takes a picture as WebP, which is a third as large as PNG."""
    devtools = await page.context.new_cdp_session(page)
    answer = await devtools.send("Page.captureScreenshot", {"format": "webp", "quality": 90})
    await asyncio.to_thread(path.write_bytes, base64.b64decode(answer["data"]))
    await devtools.detach()


async def run(options: argparse.Namespace) -> dict[str, Any]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=[*FLAGS]
        )
        try:
            if options.pictures:
                await take_pictures(browser, options.pictures)
                return {}
            return {
                "how": HOW,
                "load": await measure_load(browser, options.deployments, options.rate),
                "calm": await measure_load(browser, 1 + options.deployments // 25, 2),
                "memory": await measure_memory(browser, options.events),
                "rate": await measure_rate(browser, options.live, options.seconds, options.rounds),
                "restart": await measure_restart(browser),
            }
        finally:
            await browser.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--deployments", type=int, default=500)
    parser.add_argument("--rate", type=float, default=40)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--live", type=int, default=800)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pictures", metavar="DIR", type=Path)
    options = parser.parse_args()
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
    printed = asyncio.run(run(options))
    if options.pictures:
        files = sorted(options.pictures.iterdir())
        printed = {file.name: file.stat().st_size for file in files}
    print(json.dumps(printed, indent=2))


if __name__ == "__main__":
    main()
