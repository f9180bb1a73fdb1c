"""The pytest plugin: an emulator of Edgegap for the tests of a matchmaker.

pytest loads it by itself; `-p no:edgegap_async.testing` turns it off. A test asks for a fixture:

- `edgegap_emulator`: an emulator in a thread of its own, so that it answers in sync tests and under
  every event loop. After each test, a deployment that was left running is an error that shows its
  history; so is a relay session.
- `edgegap_client`: a client of it, open in the event loop of the test.
- `edgegap_faults`: its scripted faults; they are gone after the test.
- `edgegap_environment`: sets the environment variables by which clients find it.
- `edgegap_apps`, `edgegap_settings`: what can be deployed, and arguments of `Emulator`. Override
  them.

The option `--edgegap-scope`, or `edgegap_scope` in the configuration, is how long one emulator
serves: `function` (the default), `class`, `module`, `package` or `session`.

pytest imports this module in every run, so it imports nothing but pytest until a fixture is used.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Literal

import pytest

if TYPE_CHECKING:
    from edgegap_async import EdgegapClient
    from edgegap_async.emulator import Application, Faults

    from .emulator_thread import EmulatorThread as EmulatorThread

__all__ = ["EmulatorThread"]

_Scope = Literal["function", "class", "module", "package", "session"]
_SCOPES: Final = ("function", "class", "module", "package", "session")
_MARKER: Final = "edgegap_leaves_deployments"
_ASYNCIO_CLIENTS: Final = "edgegap_async.testing.asyncio"  # name of a plugin

if not TYPE_CHECKING:  # a type checker would accept any name because of __getattr__
    # There is no __dir__: pytest gets each name that `dir` of a plugin has.

    def __getattr__(name: str) -> object:
        if name != "EmulatorThread":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from .emulator_thread import EmulatorThread

        return EmulatorThread


# ── options ──────────────────────────────────────────────────────────────────────────────────────


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the option of the scope."""
    help_text = "how long one emulator of Edgegap serves: " + ", ".join(_SCOPES)
    parser.getgroup("edgegap").addoption("--edgegap-scope", choices=_SCOPES, help=help_text)
    parser.addini("edgegap_scope", help_text, default="function")


def pytest_configure(config: pytest.Config) -> None:
    """Registers the marker, and what the chosen scope needs."""
    config.addinivalue_line(
        "markers",
        f"{_MARKER}(reason): the test may leave deployments running in the emulator of Edgegap",
    )
    scope = _scope("", config)
    if scope not in _SCOPES:
        raise pytest.UsageError(f"edgegap_scope must be one of {', '.join(_SCOPES)}, not {scope!r}")
    if scope != "function":
        config.pluginmanager.register(_EachTest(), "edgegap_async.testing.each_test")


def _scope(fixture_name: str, config: pytest.Config) -> _Scope:
    del fixture_name
    chosen: _Scope = config.getoption("--edgegap-scope") or config.getini("edgegap_scope")
    return chosen


# ── the emulator ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope=_scope)
def edgegap_apps() -> Iterable[Application] | str | Path:
    """What can be deployed: the sample game `arena`, version `v1`.

    Override it with a list of `Application` or with the path of a TOML file. If one emulator serves
    many tests, the scope of the override must be as wide as the emulator's.
    """
    from edgegap_async.emulator import sample_application

    return [sample_application()]


@pytest.fixture(scope=_scope)
def edgegap_settings() -> Mapping[str, Any]:
    """Arguments of `Emulator` besides the applications: by default `timings=Timings.fast()`.

    Override it, with a scope as for `edgegap_apps`.
    """
    from edgegap_async.emulator import Timings

    return {"timings": Timings.fast()}


@pytest.fixture(scope=_scope)
def edgegap_emulator(
    request: pytest.FixtureRequest,
    edgegap_apps: Iterable[Application] | str | Path,
    edgegap_settings: Mapping[str, Any],
) -> Iterator[EmulatorThread]:
    """An emulator of Edgegap, in a thread and event loop of its own.

    After each test, a deployment or relay session that was left running is an error, unless the
    test is marked `edgegap_leaves_deployments("why")`. No test finds deployments, requests or
    faults of another test; a deployment of a fixture that serves many tests stays.
    """
    from .emulator_thread import EmulatorThread

    with EmulatorThread(edgegap_apps, **edgegap_settings) as emulator:
        yield emulator
        _fail_if_left_running(emulator, request)


class _EachTest:
    """Parts the tests from each other if one emulator serves many of them."""

    @pytest.fixture(autouse=True)
    def _edgegap_each_test(self, request: pytest.FixtureRequest) -> Iterator[None]:
        if "edgegap_emulator" not in request.fixturenames:
            yield
            return
        emulator: EmulatorThread = request.getfixturevalue("edgegap_emulator")
        deployments = (one.request_id for one in emulator.live())
        of_wider_fixtures = frozenset((*deployments, *emulator.relay_sessions))
        yield
        try:
            _fail_if_left_running(emulator, request, besides=of_wider_fixtures)
        finally:
            emulator.reset(keep=of_wider_fixtures)


def _fail_if_left_running(
    emulator: EmulatorThread, request: pytest.FixtureRequest, *, besides: Container[str] = ()
) -> None:
    left = emulator.left_running(besides=besides)
    if left and request.node.get_closest_marker(_MARKER) is None:
        pytest.fail(
            f"{left}\n\nStop what a test deploys: by `client.run`, by `await handle.stop()`, or in"
            f' the fixture that deploys it. Or mark the test: @pytest.mark.{_MARKER}("why").',
            pytrace=False,
        )


@pytest.fixture
def edgegap_faults(edgegap_emulator: EmulatorThread) -> Faults:
    """The scripted faults of the emulator: `add`, `clear`, `left`. They are gone after the test."""
    return edgegap_emulator.faults


@pytest.fixture
def edgegap_environment(
    edgegap_emulator: EmulatorThread, monkeypatch: pytest.MonkeyPatch
) -> Mapping[str, str]:
    """Sets EDGEGAP_API_TOKEN and EDGEGAP_BASE_URL for the test, and returns them."""
    for name, value in edgegap_emulator.environment.items():
        monkeypatch.setenv(name, value)
    return edgegap_emulator.environment


# ── the client ───────────────────────────────────────────────────────────────────────────────────
#
# A client belongs to one event loop, which must be the test's. So there is one fixture for each
# kind of loop, and `edgegap_client` asks for the one that fits the test.


@pytest.fixture
def edgegap_client(
    request: pytest.FixtureRequest, edgegap_emulator: EmulatorThread
) -> EdgegapClient:
    """A client of the emulator, open in the event loop of an async test.

    It works under pytest-asyncio, 0.24 or later, with any `loop_scope`, and under anyio on asyncio.
    In a sync test it is not open: use it as `async with edgegap_client` in a loop of your own.
    """
    marker = request.node.get_closest_marker("asyncio")
    if "anyio_backend" in request.fixturenames:
        backend = request.getfixturevalue("anyio_backend_name")
        if backend != "asyncio":
            pytest.fail(
                f"edgegap_client works on asyncio, not on {backend}: override the fixture"
                " anyio_backend so that it returns 'asyncio'",
                pytrace=False,
            )
        fitting = "_edgegap_client_in_anyio"
    elif marker is not None and inspect.iscoroutinefunction(request.function):
        loop_scope = marker.kwargs.get("loop_scope") or marker.kwargs.get("scope")
        loop_scope = loop_scope or request.config.getini("asyncio_default_test_loop_scope")
        fitting = f"_edgegap_client_in_{loop_scope}_loop"
        if not request.config.pluginmanager.has_plugin(_ASYNCIO_CLIENTS):
            request.config.pluginmanager.register(_asyncio_clients(), _ASYNCIO_CLIENTS)
    else:
        return edgegap_emulator.client()
    client: EdgegapClient = request.getfixturevalue(fitting)
    return client


def _client_fixture() -> Callable[[EmulatorThread], AsyncIterator[EdgegapClient]]:
    async def open_client(edgegap_emulator: EmulatorThread) -> AsyncIterator[EdgegapClient]:
        async with edgegap_emulator.client() as client:
            yield client

    return open_client


_edgegap_client_in_anyio = pytest.fixture(_client_fixture(), name="_edgegap_client_in_anyio")


def _asyncio_clients() -> ModuleType:
    """Returns a plugin with a client fixture for each scope that loops of pytest-asyncio have."""
    import pytest_asyncio

    plugin = ModuleType(_ASYNCIO_CLIENTS)
    for scope in _SCOPES:
        name = f"_edgegap_client_in_{scope}_loop"
        fixture = pytest_asyncio.fixture(loop_scope=scope, name=name)
        setattr(plugin, name, fixture(_client_fixture()))
    return plugin
