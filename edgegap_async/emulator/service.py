"""Runs the emulator for the command line, and checks a file: `command_line` has the words."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import re
import resource
import shlex
import signal
import sys
from pathlib import Path
from typing import Any, Final

from edgegap_async.errors import InvalidRequest

from .catalogue import sample_application
from .console import Console
from .emulator import Emulator, check_file
from .expectations import Expectation
from .settings_file import load_apps
from .simulation import Simulation
from .timings import Timings

_RELOAD_INTERVAL: Final = 0.5  # seconds between two checks whether the file has changed
_UNMET: Final = 3  # exit status
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def check(path: str) -> int:
    """Prints what is wrong in a file, or what it deploys. Returns the exit status."""
    problems = check_file(path)
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    if problems:
        return 1
    catalogue = load_apps(path)
    names = ", ".join(f"{one.name} {one.version}" for one in catalogue.applications) or "nothing"
    _say(f"{path} is right; it deploys: {names}")
    return 0


async def serve(
    options: argparse.Namespace, changes: dict[str, Any], *, token_word: str | None
) -> int:
    """Runs the emulator until a signal comes, and returns the exit status.

    Args:
        options: the options of the command line.
        changes: arguments of the emulator, in place of those of the file.
        token_word: the word of a shell for the token; None to print the token.

    Raises:
        InvalidRequest: an option, or the file, is wrong.
        OSError: the file cannot be read, or the address cannot be listened on.
    """
    logging.basicConfig(level=logging.DEBUG if options.verbose else logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    # Each deployment has a few files open; the default limit of a shell is soon reached.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    expectations = [_expectation(text) for text in options.expect]
    if options.fast:
        changes["timings"] = Timings.fast()
    if options.simulate:
        changes["simulate"] = Simulation()
    if options.file is None:
        emulator = Emulator([sample_application()], **changes)
    else:
        emulator = Emulator.from_file(options.file, **changes)
    emulator.expectations.add(*expectations)
    over = asyncio.Event()
    for number in _SIGNALS:
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            asyncio.get_running_loop().add_signal_handler(number, over.set)
    console = Console(sys.stderr)
    try:
        async with emulator:
            gc.collect()
            gc.freeze()  # what is loaded now stays: full collections leave it out
            if not options.quiet:
                emulator.record.listeners.append(console.request)
                emulator.events.listeners.append(console.status)
            what = ", ".join(emulator.cloud.deployable) or "nothing"
            _say(f"The emulator answers at {emulator.url}, and deploys: {what}")
            _say(f"export EDGEGAP_BASE_URL={emulator.url}")
            _say(f"export EDGEGAP_API_TOKEN={token_word or shlex.quote(emulator.token)}")
            _say(f"The page, for one browser, within an hour: {emulator.new_login_link()}")
            reloading = asyncio.create_task(_reload_on_change(emulator, options.file, console))
            await over.wait()
            reloading.cancel()
    finally:
        console.close()
    for line in emulator.expectations.unmet:
        sys.stderr.write(f"expected: {line}\n")
    return _UNMET if emulator.expectations.unmet else 0


def _expectation(text: str) -> Expectation:
    call, equals, count = text.partition("=")
    if not equals:
        return Expectation(call)
    if not re.fullmatch(r"\d{1,9}", count):
        raise InvalidRequest(f"--expect must have the form CALL or CALL=N, not {text!r}")
    return Expectation(call, least=int(count), most=int(count))


async def _reload_on_change(emulator: Emulator, path: str | None, console: Console) -> None:
    """Reads the file again each time that it has changed. A wrong file changes nothing."""
    if path is None:
        return
    seen = _state(path)
    while True:
        await asyncio.sleep(_RELOAD_INTERVAL)
        now = _state(path)
        if now in {seen, None}:
            continue
        seen = now
        try:
            emulator.reload(path)
        except InvalidRequest as problem:
            console.say(f"the file has changed and is wrong; nothing is changed: {problem}")
        else:
            what = ", ".join(emulator.cloud.deployable) or "nothing"
            console.say(f"{path} has changed; it deploys: {what}")


def _state(path: str) -> tuple[int, int, int] | None:
    """Returns what differs once a file has changed; None if there is no file."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _say(text: str) -> None:
    """Writes a line. What the encoding of the terminal or pipe does not have is an escape."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    sys.stdout.flush()
