"""The container engine, such as Docker or Podman, that runs the images of application versions.

Each container has two labels: the emulator that has made it, and its owner, which is this user and
this machine. A container cannot be ended as a process is, so `kill -9` of the emulator leaves it:
the guardian has the engine remove it, and if both were killed, or the engine did not answer, the
next emulator of the same owner removes what has the label of an emulator that lives no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import re
from collections.abc import Coroutine, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import aiohttp
import attrs

from edgegap_async.api.validation import needs_package
from edgegap_async.errors import BadRequest, ImageUnavailable, InvalidRequest, log_fields

from .launcher import Launcher
from .ledger import folder, is_alive

if TYPE_CHECKING:
    from aiodocker import Docker
    from aiodocker.containers import DockerContainer

_log: Final = logging.getLogger(__name__)

EMULATOR_LABEL: Final = "edgegap-async-emulator"
"""The label that names the emulator which has made a container."""
OWNER_LABEL: Final = "edgegap-async-emulator.owner"
"""The label that names the user and the machine whose emulator has made a container."""

_TIMEOUT: Final = aiohttp.ClientTimeout(total=60.0, sock_connect=5.0)
"""Seconds in which an engine must answer, but for pulls, waits and streams."""
_CLOSE_TIMEOUT: Final = 5.0  # seconds for containers that are still being started
_LOGIN_FAILED: Final = re.compile("unauthorized|incorrect username or password", re.IGNORECASE)
_REMOVAL_INTERVAL: Final = 1.0  # seconds before an engine is asked again to remove a container
_NO_ANSWER: Final = 900  # status of aiodocker for an engine that cannot be connected to
_NOT_FOUND: Final = 404
_GONE: Final = frozenset({404, 409})  # it is removed, or is being removed

Result = TypeVar("Result")

_answers: ContextVar[list[aiohttp.ClientResponse]] = ContextVar("_answers")
"""The answers to requests inside of `ContainerEngine.errors`."""


class EngineError(OSError):
    """An engine has refused a call, or does not answer.

    Attributes:
        status: HTTP status of its answer; None if it has not answered.
    """

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


@attrs.frozen(kw_only=True)
class Credentials:
    """Name and password for a registry."""

    username: str
    """The name."""
    token: str = attrs.field(repr=False)
    """The password."""


def check_url(value: object) -> None:
    """Checks the URL of an engine.

    Raises:
        InvalidRequest: it has no form that the emulator knows.
    """
    text = value if isinstance(value, str) else ""
    if not (text.startswith("unix:///") or text.partition("tcp://")[2].strip("/")):
        raise InvalidRequest(
            "engine must be the URL of a container engine, unix:///run/docker.sock or"
            f" tcp://127.0.0.1:2375, not {value!r}; an engine behind TLS or SSH can be reached by a"
            " forwarded socket"
        )


def _found_url() -> str | None:
    """Returns the URL of this machine's engine: of DOCKER_HOST, or the first socket that exists."""
    named = os.environ.get("DOCKER_HOST")
    if named:
        return named
    own = Path(os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}"))
    for path in (
        Path("/var/run/docker.sock"),
        Path.home() / ".docker/run/docker.sock",  # Docker Desktop
        own / "docker.sock",  # Docker without root
        own / "podman/podman.sock",
        Path("/run/podman/podman.sock"),
    ):
        if path.is_socket():
            return f"unix://{path}"
    return None


def _owner() -> str:
    """Names this user and this machine, so that no other emulator's containers are removed.

    Raises:
        OSError: the folder of this user's emulators belongs to another user.
    """
    machine = ""
    with contextlib.suppress(OSError):
        machine = Path("/etc/machine-id").read_text("ascii")
    parts = (machine.strip(), os.uname().nodename, str(os.getuid()), str(folder()))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


class ContainerEngine:
    """The connection to a container engine. It belongs to the running event loop.

    Args:
        launcher: has the guardian that removes the containers at the end.
        url: `unix:///PATH` or `tcp://HOST:PORT`; None for DOCKER_HOST, or the socket of Docker or
            Podman on this machine.
        address: the address of this machine on which ports of containers are published.
    """

    def __init__(self, launcher: Launcher, url: str | None, *, address: str) -> None:
        self._launcher = launcher
        self._url = url
        self.address = address
        """The address on which ports of containers are published."""
        self._docker: Docker | None = None
        self._session: aiohttp.ClientSession | None = None
        self._has_swept = False
        self._connecting = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._removals: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Its URL.

        Raises:
            EngineError: there is no engine on this machine.
        """
        if self._url is None:
            self._url = _found_url()
        if self._url is None:
            raise EngineError(
                "no container engine is found: start Docker or Podman, or name its socket by"
                " `engine` of the settings or by DOCKER_HOST"
            )
        return self._url

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Raises `EngineError` in place of errors of the engine and of the connection.

        The answers to requests inside of it are closed at its end.
        """
        from aiodocker import DockerError  # of the extra `docker`

        answers: list[aiohttp.ClientResponse] = []
        before = _answers.set(answers)
        try:
            yield
        except DockerError as problem:
            if problem.status == _NO_ANSWER:
                raise self._no_answer() from problem
            raise EngineError(problem.message, problem.status) from problem
        except (aiohttp.ClientError, TimeoutError) as problem:
            raise self._no_answer() from problem
        finally:
            _answers.reset(before)
            for answer in answers:  # aiodocker leaves a stream open whose reader is cancelled
                answer.close()

    def _no_answer(self) -> EngineError:
        return EngineError(f"the container engine at {self.url} does not answer")

    async def connected(self) -> Docker:
        """Returns the client of the engine. Its first use removes what killed emulators have left.

        Raises:
            EngineError: the engine does not answer, or there is none.
            OSError: another user has the folder of this user's emulators.
        """
        async with self._connecting:
            if self._docker is None:
                self._docker = self._make_client()
            if not self._has_swept:
                await self._remove_left(self._docker)
                self._has_swept = True
        return self._docker

    def _make_client(self) -> Docker:
        if importlib.util.find_spec("aiodocker") is None:
            raise EngineError(needs_package("an application with an image", "aiodocker"))
        from aiodocker import Docker  # of the extra `docker`

        check_url(self.url)
        # Without the default limit of 100 connections: a container takes three.
        scheme, _, path = self.url.partition("://")
        is_unix = scheme == "unix"
        connector: aiohttp.BaseConnector
        if is_unix:
            connector = aiohttp.UnixConnector(path, limit=0)
        else:
            connector = aiohttp.TCPConnector(limit=0)
        trace = aiohttp.TraceConfig()
        trace.on_request_end.append(_note_answer)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=_TIMEOUT, trace_configs=[trace]
        )
        url = "unix://engine" if is_unix else self.url
        return Docker(url, connector=connector, session=self._session, timeout=_TIMEOUT)

    async def _remove_left(self, docker: Docker) -> None:
        with self.errors():
            filters = json.dumps({"label": [f"{OWNER_LABEL}={_owner()}"]})
            found = await docker.containers.list(all=True, filters=filters)
            left = [one for one in found if not is_alive(one["Labels"].get(EMULATOR_LABEL, ""))]
            for container in left:
                await remove(container)
        if left:
            _log.warning(
                "removed %d containers of an emulator that was killed",
                len(left),
                extra=log_fields(count=len(left)),
            )

    async def warm_up(self) -> None:
        """Connects, so that what killed emulators have left is removed; logs why it cannot."""
        try:
            await self.connected()
        except OSError as problem:
            _log.warning(
                "applications with an image cannot be deployed now: %s",
                problem,
                extra=log_fields(problem),
            )

    def labels(self) -> dict[str, str]:
        """Returns the labels of a new container; the guardian removes what has them at the end.

        Raises:
            OSError: the guardian cannot be started.
        """
        emulator_id = self._launcher.open().emulator_id
        self._launcher.guard_containers(self.url, f"{EMULATOR_LABEL}={emulator_id}")
        return {EMULATOR_LABEL: emulator_id, OWNER_LABEL: _owner()}

    # ── images ───────────────────────────────────────────────────────────────────────────────────

    async def pull(self, image: str, credentials: Credentials | None) -> None:
        """Pulls an image, unless the engine has it.

        Raises:
            ImageUnavailable: the engine cannot pull it; the message has the engine's words.
            EngineError: the engine does not answer, or there is none.
        """
        docker = await self.connected()
        try:
            with self.errors():
                await docker.images.inspect(image)
        except EngineError as problem:
            if problem.status != _NOT_FOUND:
                raise
        else:
            return
        auth = None
        if credentials is not None:
            auth = {"username": credentials.username, "password": credentials.token}
            image = full_name(image)
        try:
            with self.errors():
                await docker.images.pull(image, auth=auth)
        except EngineError as problem:
            if problem.status is None:
                raise
            text = str(problem)
            if credentials is not None:
                text = text.replace(credentials.token, "***")
            raise ImageUnavailable(f"Unable to pull image from registry: {text}") from problem

    async def verify(self, image: str, credentials: Credentials | None) -> None:
        """Checks that the engine can get an image, for a call that asks for the check.

        Raises:
            BadRequest: the registry refuses the credentials.
            ImageUnavailable: the image cannot be pulled, or there is no engine.
        """
        try:
            await self.pull(image, credentials)
        except ImageUnavailable as problem:
            if _LOGIN_FAILED.search(problem.message):
                raise BadRequest("Unable to login with the given credentials") from problem
            raise
        except OSError as problem:
            raise ImageUnavailable(f"Unable to pull image {image}: {problem}") from problem

    # ── containers ───────────────────────────────────────────────────────────────────────────────

    async def remove_surely(self, container: DockerContainer) -> None:
        """Removes a container; an engine that does not answer is asked again in the background."""
        try:
            with self.errors():
                await remove(container)
        except EngineError as problem:
            _log.warning(
                "a container is left until its engine removes it: %s",
                problem,
                extra=log_fields(problem),
            )
            again = self.in_background(self._remove_later(container))
            self._removals.add(again)
            again.add_done_callback(self._removals.discard)

    async def _remove_later(self, container: DockerContainer) -> None:
        while True:
            await asyncio.sleep(_REMOVAL_INTERVAL)
            with contextlib.suppress(EngineError), self.errors():
                await remove(container)
                return

    # ── end ──────────────────────────────────────────────────────────────────────────────────────

    def in_background(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """Runs what must go on although its caller is cancelled."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Ends the connections. The guardian has removed the containers before."""
        for removal in self._removals:
            removal.cancel()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_CLOSE_TIMEOUT)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._docker is not None and self._session is not None:
            await self._docker.close()
            await self._session.close()
            self._docker = None


async def _note_answer(
    session: aiohttp.ClientSession, context: object, ended: aiohttp.TraceRequestEndParams
) -> None:
    del session, context
    _answers.get([]).append(ended.response)


async def remove(container: DockerContainer) -> None:
    """Removes a container, also one that runs or that is being removed."""
    from aiodocker import DockerError  # of the extra `docker`

    try:
        await container.delete(force=True, v=True)
    except DockerError as problem:
        if problem.status not in _GONE:
            raise


def full_name(image: str) -> str:
    """Returns the name of an image with its registry."""
    registry, slash, _ = image.partition("/")
    if slash and (set(registry) & {".", ":"} or registry == "localhost"):
        return image
    return f"docker.io/{image}" if slash else f"docker.io/library/{image}"
