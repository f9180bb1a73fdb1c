"""A pytest plugin of the whole suite that searches everything a test shows for secrets.

Every secret in the tests contains `canary-`: tokens, hidden variables, and the random strings that
the emulator and the webhook receiver take from `secrets.token_urlsafe`. The plugin fails a test if
`canary-` is in one of these:

- stdout and stderr of the test;
- a log record of any logger, from DEBUG up, with its arguments and its exception;
- an exception that the test expects (`pytest.raises`) or fails with: text, repr, arguments,
  attributes, pickle, causes, and the local variables of its traceback, except in frames of tests;
- the repr of an object of the package that is alive at the end of the module.

A test that shows a secret on purpose says why: `@pytest.mark.shows_secrets("why")`.
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
"""The access log of an application that mounts a receiver: it holds the path of every webhook, and
the application decides about it. A receiver that serves by itself writes none."""
_SERVER_LOG = "aiohttp.server"
"""The frames of an error in a server hold the request, and so the secret URL."""
_TEST_PACKAGES = {"_pytest", "pluggy", "pytest_asyncio"}
_found: list[str] = []


def search(where: str, text: str) -> None:
    """Records a finding if the mark is in a text."""
    at = text.find(MARK)
    if at >= 0:
        _found.append(f"{where}: …{text[max(0, at - 80) : at + 40]!r}…")


def search_error(where: str, error: BaseException) -> None:
    """Searches what a log, a debugger or a crash report shows of an error."""
    for link in _chain(error, set()):
        name = f"{where}: {type(link).__name__}"
        search(f"{name}, its text", f"{link} {link!r} {link.args!r}")
        search(f"{name}, its attributes", _repr(vars(link)))
        search(f"{name}, its pickle", _pickle(link))
        for frame, line in traceback.walk_tb(link.__traceback__):
            file = Path(frame.f_code.co_filename)
            if _is_of_a_test(file):
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


def _is_of_a_test(file: Path) -> bool:
    in_tests = Path(__file__).parents[1] in file.parents
    return in_tests or file.name.startswith("test_") or not _TEST_PACKAGES.isdisjoint(file.parts)


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception as problem:  # noqa: BLE001 - the object is not initialised completely
        return f"no repr: {problem!r}"


def _pickle(error: BaseException) -> str:
    try:
        return pickle.dumps(error, protocol=0).decode("latin-1")
    except Exception as problem:  # noqa: BLE001 - an error without a pickle shows nothing
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
    config.addinivalue_line("markers", "shows_secrets(why): the test shows a secret on purpose")
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
    for value in gc.get_objects():
        if str(type(value).__module__).startswith("edgegap_async"):
            search(f"repr of a {type(value).__name__}", _repr(value))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    # An assertion of a test may show the requests that it compares.
    if call.excinfo is not None and not isinstance(call.excinfo.value, AssertionError):
        search_error("failed", call.excinfo.value)
    if report.when == "teardown":
        for name, text in report.sections:
            if "log" not in name:  # log records were searched when they were emitted
                search(name, text)
        found, _found[:] = _found[:], []
        if found and item.get_closest_marker("shows_secrets") is None:
            report.outcome = "failed"
            report.longrepr = "\n".join(["the test shows a secret:", *found])
    return report
