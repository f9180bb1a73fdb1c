"""An HTTP service on a Unix socket that behaves like a container engine, with real processes.

It answers the calls that the emulator makes as Docker's engine does (API 1.41): statuses, error
bodies, streams. A container is a process of this machine in a session of its own; an image is an
argument list. Ports are published by real sockets on loopback, since a container here has the
machine's network. It runs in a thread of its own, as the guardian may ask it while the test's loop
waits.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import secrets
import signal
import struct
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Self

import attrs
import psutil
from aiohttp import web

from edgegap_async.emulator.forwarder import PortForwarder
from edgegap_async.emulator.procfs import Kind, Route

_API = "1.41"
_STEPS = 10  # of the event loop, more than an accepted connection needs


@attrs.define(eq=False)
class FakeImage:
    """An image: what a container of it runs, and who may pull it."""

    argv: tuple[str, ...]
    """Its program and arguments."""
    is_local: bool = True
    """Whether the engine has it; else it is to be pulled."""
    username: str | None = None
    """The name that its registry wants; None for a public image."""
    password: str | None = None
    """The password that its registry wants."""
    pull_seconds: float = 0.0
    """How long a pull takes."""


def python_image(program: str, **settings: Any) -> FakeImage:
    """An image that runs a Python program."""
    return FakeImage((sys.executable, "-I", "-u", "-c", program), **settings)


@attrs.define(eq=False)
class FakeContainer:
    """A container and its process."""

    id: str
    """Its id."""
    name: str
    """Its name."""
    config: dict[str, Any]
    """The body of the call that made it."""
    argv: tuple[str, ...]
    """What it runs."""
    process: asyncio.subprocess.Process | None = None
    """Its process, once it is started."""
    exit_code: int | None = None
    """The exit code; None before."""
    was_killed_for_memory: bool = False
    """What `OOMKilled` says."""
    output: bytearray = attrs.field(factory=bytearray)
    """What it has written."""
    changed: asyncio.Condition = attrs.field(factory=asyncio.Condition)
    """Notified when it has written or ended."""
    forwarder: PortForwarder | None = None
    """Its published ports."""
    reading: asyncio.Task[None] | None = None
    """Reads its output."""

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.exit_code is None


class _NoSuchContainer(Exception):
    pass


class FakeEngine:
    """The engine.

    Args:
        socket: path of its socket.
        images: its images and those of its registries, by name.
    """

    def __init__(self, socket: Path, images: Mapping[str, FakeImage]) -> None:
        self.images = dict(images)
        """The images by name."""
        self.containers: dict[str, FakeContainer] = {}
        """The containers by id."""
        self.calls: Counter[str] = Counter()
        """How often each call came, such as `POST containers/create`."""
        self.fails: dict[str, tuple[int, str]] = {}
        """Calls that are answered an error: HTTP status and message."""
        self.runs_programs = True
        """Whether `exec` finds `cat` in containers."""
        self.slow: dict[str, threading.Event] = {}
        """Calls that are done only once the event is set, although their caller may have gone."""
        self._socket = socket
        self._executions: dict[str, tuple[str, list[str]]] = {}
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    async def __aenter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        await self._call(self._end_containers())
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join)
        self._loop.close()

    async def _call(self, work: Coroutine[Any, Any, None]) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def _end_containers(self) -> None:
        for container in list(self.containers.values()):
            await self._remove(container)

    async def start(self) -> None:
        """Starts to answer."""
        await self._call(self._serve())

    async def stop(self) -> None:
        """Answers no more, and ends every connection; containers run on, as with live-restore."""
        await self._call(self._end())

    async def _serve(self) -> None:
        app = web.Application(middlewares=[self._around])
        for prefix in ("", "/v{version}"):
            app.router.add_get(f"{prefix}/version", self._version)
            app.router.add_get(f"{prefix}/images/{{name:.+}}/json", self._inspect_image)
            app.router.add_post(f"{prefix}/images/create", self._pull)
            app.router.add_get(f"{prefix}/containers/json", self._list)
            app.router.add_post(f"{prefix}/containers/create", self._create)
            app.router.add_delete(f"{prefix}/containers/{{id}}", self._delete)
            app.router.add_post(f"{prefix}/exec/{{id}}/start", self._execute)
            for method, name, handler in (
                ("GET", "json", self._inspect),
                ("POST", "start", self._start),
                ("POST", "kill", self._kill),
                ("POST", "wait", self._wait),
                ("GET", "logs", self._logs),
                ("GET", "stats", self._stats),
                ("POST", "exec", self._make_execution),
            ):
                app.router.add_route(method, f"{prefix}/containers/{{id}}/{name}", handler)
        self._runner = web.AppRunner(
            app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None
        )
        await self._runner.setup()
        assert self._runner.server is not None
        self._server = await self._loop.create_unix_server(self._runner.server, self._socket)

    async def _end(self) -> None:
        if self._runner is not None:
            # Before Python 3.12, a connection that the loop has accepted when its server closes is
            # forgotten and stays open, so the server accepts no more before it closes.
            for listening in self._server.sockets:
                self._loop.remove_reader(listening.fileno())
            for _ in range(_STEPS):
                await asyncio.sleep(0)
            self._server.close()
            await self._runner.cleanup()
            self._runner = None
            self._socket.unlink(missing_ok=True)

    @web.middleware
    async def _around(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        parts = [part for part in request.path.split("/") if part]
        if parts[0].startswith("v1."):
            parts = parts[1:]
        kept = [part for part in parts if part != request.match_info.get("id")]
        call = f"{request.method} {'/'.join(kept[:2])}"
        self.calls[call] += 1
        if call in self.fails:
            status, message = self.fails[call]
            return _error(status, message)
        if call in self.slow:
            # Docker's engine goes on although its caller has gone.
            await request.read()
            return await asyncio.shield(self._late(self.slow[call], request, handler))
        try:
            return await handler(request)
        except _NoSuchContainer as problem:
            return _error(404, f"No such container: {problem}")

    @staticmethod
    async def _late(
        event: threading.Event,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        await asyncio.to_thread(event.wait)
        return await handler(request)

    # ── images ───────────────────────────────────────────────────────────────────────────────────

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"ApiVersion": _API, "Version": "20.10"})

    async def _inspect_image(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        image = self.images.get(name)
        if image is None or not image.is_local:
            return _error(404, f"No such image: {name}")
        return web.json_response({"Id": f"sha256:{name}"})

    async def _pull(self, request: web.Request) -> web.StreamResponse:
        name, tag = request.query["fromImage"], request.query.get("tag")
        name = name if tag is None else f"{name}:{tag}"
        image = self.images.get(name)
        written = request.headers.get("X-Registry-Auth", "")
        given = json.loads(base64.urlsafe_b64decode(written)) if written else {}
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        await answer.write(b'{"status": "Pulling from registry"}\r\n')
        problem = ""
        if image is None:
            problem = f"manifest for {name} not found: manifest unknown: manifest unknown"
        elif (given.get("username"), given.get("password")) != (image.username, image.password):
            problem = (
                "unauthorized: authentication required"
                if given
                else (
                    f"pull access denied for {name}, repository does not exist or may require"
                    " 'docker login': denied"
                )
            )
        else:
            await asyncio.sleep(image.pull_seconds)
            image.is_local = True
        if problem:
            error = {"errorDetail": {"message": problem}, "error": problem}
            await answer.write(json.dumps(error).encode() + b"\r\n")
        await answer.write_eof()
        return answer

    # ── containers ───────────────────────────────────────────────────────────────────────────────

    async def _list(self, request: web.Request) -> web.Response:
        wanted = json.loads(request.query.get("filters", "{}")).get("label", [])
        found = [
            {"Id": one.id, "Names": [f"/{one.name}"], "Labels": one.config.get("Labels", {})}
            for one in self.containers.values()
            if (request.query.get("all") in {"1", "true", "True"} or one.is_running)
            and all(
                one.config.get("Labels", {}).get(label.partition("=")[0]) == label.partition("=")[2]
                for label in wanted
            )
        ]
        return web.json_response(found)

    async def _create(self, request: web.Request) -> web.Response:
        config = await request.json()
        name = request.query.get("name", secrets.token_hex(4))
        image = self.images.get(config["Image"])
        if image is None or not image.is_local:
            return _error(404, f"No such image: {config['Image']}")
        if any(one.name == name for one in self.containers.values()):
            return _error(409, f'Conflict. The container name "/{name}" is already in use')
        own = (*config.get("Entrypoint", ()), *config.get("Cmd", ()))
        container = FakeContainer(secrets.token_hex(32), name, config, own or image.argv)
        self.containers[container.id] = container
        return web.json_response({"Id": container.id, "Warnings": []}, status=201)

    def _find(self, request: web.Request) -> FakeContainer:
        container = self.containers.get(request.match_info["id"])
        if container is None:
            raise _NoSuchContainer(request.match_info["id"])
        return container

    async def _inspect(self, request: web.Request) -> web.Response:
        one = self._find(request)
        process = one.process
        state = {
            "Running": one.is_running,
            "Pid": process.pid if process is not None and one.is_running else 0,
            "ExitCode": one.exit_code or 0,
            "OOMKilled": one.was_killed_for_memory,
            "Error": "",
        }
        return web.json_response(
            {"Id": one.id, "Name": f"/{one.name}", "State": state, "Config": {"Tty": False}}
        )

    async def _start(self, request: web.Request) -> web.Response:
        one = self._find(request)
        routes: list[Route] = []
        for port, places in one.config["HostConfig"].get("PortBindings", {}).items():
            number, _, kind_name = port.partition("/")
            kind: Kind = "udp" if kind_name == "udp" else "tcp"
            external = int(places[0]["HostPort"])
            if external != int(number):  # else the process itself opens it
                routes.append((kind, external, int(number)))
        try:
            one.forwarder = await PortForwarder.open(routes)
        except OSError:
            return _error(
                500,
                "driver failed programming external connectivity: Bind for"
                " 127.0.0.1 failed: port is already allocated",
            )
        variables = dict(entry.split("=", 1) for entry in one.config.get("Env", []))
        try:
            one.process = await asyncio.create_subprocess_exec(
                *one.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={"PATH": os.defpath, **variables},
                start_new_session=True,
            )
        except OSError as problem:
            return _error(
                400, f"OCI runtime create failed: exec: {one.argv[0]!r}: {problem.strerror}"
            )
        one.reading = asyncio.create_task(self._read(one, one.process))
        return web.Response(status=204)

    @staticmethod
    async def _read(one: FakeContainer, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while piece := await process.stdout.read(16384):
            async with one.changed:
                one.output += piece
                one.changed.notify_all()
        code = await process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what the first process has started
        if one.forwarder is not None:
            one.forwarder.close()
        async with one.changed:
            one.exit_code = 128 - code if code < 0 else code
            one.changed.notify_all()

    async def _kill(self, request: web.Request) -> web.Response:
        one = self._find(request)
        if not one.is_running or one.process is None:
            return _error(409, f"Cannot kill container: {one.id}: Container is not running")
        one.process.send_signal(signal.Signals[request.query.get("signal", "SIGKILL")])
        return web.Response(status=204)

    async def _wait(self, request: web.Request) -> web.StreamResponse:
        one = self._find(request)
        # The headers come at once, the body at the end, as from Docker's engine.
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        async with one.changed:
            await one.changed.wait_for(lambda: one.exit_code is not None)
        await answer.write(json.dumps({"StatusCode": one.exit_code}).encode())
        await answer.write_eof()
        return answer

    async def _delete(self, request: web.Request) -> web.Response:
        one = self._find(request)
        if one.is_running and request.query.get("force") not in {"1", "true", "True"}:
            return _error(409, "You cannot remove a running container")
        await self._remove(one)
        return web.Response(status=204)

    async def _remove(self, one: FakeContainer) -> None:
        self.containers.pop(one.id, None)
        if one.is_running and one.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(one.process.pid, signal.SIGKILL)
        if one.reading is not None:
            await one.reading

    # ── streams ──────────────────────────────────────────────────────────────────────────────────

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        one = self._find(request)
        answer = web.StreamResponse(
            headers={"Content-Type": "application/vnd.docker.multiplexed-stream"}
        )
        await answer.prepare(request)
        sent = len(one.output) if "since" in request.query else 0
        while True:
            async with one.changed:
                await one.changed.wait_for(
                    lambda: len(one.output) > sent or one.exit_code is not None  # noqa: B023
                )
                piece = bytes(one.output[sent : sent + 16384])
            if not piece:
                break
            sent += len(piece)
            await answer.write(_frame(piece))
        await answer.write_eof()
        return answer

    async def _stats(self, request: web.Request) -> web.StreamResponse:
        one = self._find(request)
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        while one.is_running and one.process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(one.process.pid)
                times = process.cpu_times()
                held = process.memory_info().rss
                measured = {
                    "cpu_stats": {
                        "cpu_usage": {"total_usage": int(1e9 * (times.user + times.system))}
                    },
                    "memory_stats": {"usage": held, "stats": {"inactive_file": 0}},
                    "blkio_stats": {"io_service_bytes_recursive": None},
                }
                if one.forwarder is not None:
                    passed = one.forwarder.traffic
                    moved = {"rx_bytes": passed.received_bytes, "tx_bytes": passed.sent_bytes}
                    measured["networks"] = {"eth0": moved}
                await answer.write(json.dumps(measured).encode() + b"\n")
            await asyncio.sleep(0.05)
        await answer.write_eof()
        return answer

    async def _make_execution(self, request: web.Request) -> web.Response:
        one = self._find(request)
        if not one.is_running:
            return _error(409, f"Container {one.id} is not running")
        execution = secrets.token_hex(32)
        self._executions[execution] = (one.id, (await request.json())["Cmd"])
        return web.json_response({"Id": execution}, status=201)

    async def _execute(self, request: web.Request) -> web.StreamResponse:
        _, argv = self._executions.pop(request.match_info["id"])
        answer = web.StreamResponse(
            status=101,
            reason="UPGRADED",
            headers={
                "Content-Type": "application/vnd.docker.raw-stream",
                "Connection": "Upgrade",
                "Upgrade": "tcp",
            },
        )
        await answer.prepare(request)
        if self.runs_programs:
            process = await asyncio.create_subprocess_exec(
                *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
            )
            written, _ = await process.communicate()
        else:
            written = (
                b'OCI runtime exec failed: exec: "cat": executable file not found in $PATH\r\n'
            )
        assert request.transport is not None
        request.transport.write(_frame(written))
        request.transport.close()
        return answer


def _frame(piece: bytes) -> bytes:
    return struct.pack(">BxxxL", 1, len(piece)) + piece


def _error(status: int, message: str) -> web.Response:
    body = json.dumps({"message": message}).encode()
    return web.Response(body=body, status=status, headers={"Content-Type": "application/json"})


@contextlib.asynccontextmanager
async def an_engine(folder: Path, **images: FakeImage) -> AsyncIterator[FakeEngine]:
    """Runs an engine whose images are `registry.test/NAME:v1`."""
    named = {f"registry.test/{name}:v1": image for name, image in images.items()}
    async with FakeEngine(folder / "engine.sock", named) as engine:
        yield engine
