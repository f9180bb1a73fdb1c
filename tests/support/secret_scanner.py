"""Searches all that can be seen of a test for secrets: a plugin of the whole suite.

Theory. Every secret in the tests has the word `canary-` in it: the tokens that they make up, hidden
variables, and whatever the emulator and the webhook receiver draw by `secrets.token_urlsafe`. So
the word may be in nothing that somebody could see:

- what a test writes to stdout and stderr;
- every record of every logger, from DEBUG up, with its arguments and its exception;
- every exception that a test expects (`pytest.raises`) or fails with: its text, repr, arguments,
  attributes and pickle, its causes, and the local variables of its traceback, but for the frames of
  the tests themselves;
- the repr of every object of the package that is alive at the end of a module.

A test that is to show a secret says so, and why: `@pytest.mark.shows_secrets("why")`.
"""

from __future__ import annotations

import gc
import logging
import pickle
import secrets
import traceback
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from _pytest.raises import RaisesExc

MARK = "canary-"

_ACCESS_LOG = "aiohttp.access"
"""Of an application that a receiver is mounted in: it has the path of every webhook, and is its own
affair. A receiver that serves by itself has none."""
_SERVER_LOG = "aiohttp.server"
"""What fails in a server has the request that came in its frames, and so in its URL."""
_THE_TESTS_OWN = {"_pytest", "pluggy", "pytest_asyncio"}
_found: list[str] = []


def search(where: str, text: str) -> None:
    """Notes where the mark is in a text."""
    at = text.find(MARK)
    if at >= 0:
        _found.append(f"{where}: …{text[max(0, at - 80) : at + 40]!r}…")


def search_error(where: str, error: BaseException) -> None:
    """Notes where the mark is in what a log, a debugger or a crash report shows of an error."""
    for one in _chain(error, set()):
        name = f"{where}: {type(one).__name__}"
        search(f"{name}, its text", f"{one} {one!r} {one.args!r}")
        search(f"{name}, its attributes", _repr(vars(one)))
        search(f"{name}, its pickle", _pickle(one))
        for frame, line in traceback.walk_tb(one.__traceback__):
            file = Path(frame.f_code.co_filename)
            if _is_the_tests_own(file):
                continue
            for variable, value in frame.f_locals.items():
                search(f"{name}, {file.name}:{line}, local {variable}", _repr(value))


def _chain(error: BaseException | None, known: set[int]) -> Iterator[BaseException]:
    if error is None or id(error) in known:
        return
    known.add(id(error))
    yield error
    yield from _chain(error.__cause__, known)
    yield from _chain(error.__context__, known)
    for inner in getattr(error, "exceptions", ()):
        yield from _chain(inner, known)


def _is_the_tests_own(file: Path) -> bool:
    in_tests = Path(__file__).parents[1] in file.parents
    return in_tests or file.name.startswith("test_") or not _THE_TESTS_OWN.isdisjoint(file.parts)


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception as problem:  # noqa: BLE001 - of an object that is half made
        return f"no repr: {problem!r}"


def _pickle(error: BaseException) -> str:
    try:
        return pickle.dumps(error, protocol=0).decode("latin-1")
    except Exception as problem:  # noqa: BLE001 - what cannot be stored shows nothing there
        return f"no pickle: {problem!r}"


class _AllLogs(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.name == _ACCESS_LOG:
            return
        where = f"log of {record.name}"
        search(where, record.getMessage())
        search(f"{where}, arguments", _repr(record.args))
        if record.exc_info and record.exc_info[1] and record.name != _SERVER_LOG:
            search_error(where, record.exc_info[1])


_logs = _AllLogs()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "shows_secrets(why): the test writes a secret, on purpose")
    logging.getLogger().addHandler(_logs)
    logging.getLogger().setLevel(logging.DEBUG)
    draw, leave = secrets.token_urlsafe, RaisesExc.__exit__

    def token_urlsafe(nbytes: int | None = None) -> str:
        return MARK + draw(nbytes)

    def exit_and_search(self: Any, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if error is not None:
            search_error("expected", error)
        return leave(self, kind, error, trace)

    def restore() -> None:
        logging.getLogger().removeHandler(_logs)
        secrets.token_urlsafe = draw
        RaisesExc.__exit__ = leave  # type: ignore[method-assign]

    secrets.token_urlsafe = token_urlsafe
    RaisesExc.__exit__ = exit_and_search  # type: ignore[method-assign]
    config.add_cleanup(restore)


@pytest.fixture(autouse=True, scope="module")
def _no_object_shows_a_secret() -> Iterator[None]:
    yield
    gc.collect()
    for one in gc.get_objects():
        if str(type(one).__module__).startswith("edgegap_async"):
            search(f"repr of a {type(one).__name__}", _repr(one))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    # What a test asserts is its own to show, of requests as they came for one.
    if call.excinfo is not None and not isinstance(call.excinfo.value, AssertionError):
        search_error("failed", call.excinfo.value)
    if report.when == "teardown":
        for name, text in report.sections:
            if "log" not in name:  # they were searched as they came
                search(name, text)
        found, _found[:] = _found[:], []
        if found and item.get_closest_marker("shows_secrets") is None:
            report.outcome = "failed"
            report.longrepr = "\n".join(["a secret can be seen:", *found])
    return report
