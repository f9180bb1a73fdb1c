"""The emulator as a command: `edgegap-async emulator`, or `python -m edgegap_async.emulator`.

It prints its URL and its token as `export` lines, then one line for each call and each change of
status on the error output, and runs until SIGINT, SIGTERM, SIGHUP (a closed terminal) or SIGQUIT.

Exit status: 0 it was ended by a signal, or the file is right; 1 an error; 2 a wrong command line;
3 expected calls have not come (`--expect`, or the control API).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import re
import resource
import shlex
import signal
import sys
from collections.abc import Sequence
from importlib.resources import files
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

TOKEN_VARIABLE: Final = "EDGEGAP_EMULATOR_TOKEN"  # noqa: S105 - a name
"""The environment variable with the API token, if it is set. EDGEGAP_API_TOKEN is not read: it may
hold the token of the real cloud, which must not be printed."""

_RELOAD_INTERVAL: Final = 0.5  # seconds between two checks whether the file has changed
_UNMET: Final = 3  # exit status
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def main(arguments: Sequence[str] | None = None, *, program: str = "edgegap-async emulator") -> int:
    """Runs the command and returns its exit status.

    Args:
        arguments: the words after the program's name; None for those that this program got.
        program: the program's name in help texts.

    Raises:
        SystemExit: the command line is wrong (status 2), or asks for help.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    commands = {"check": _check, "init": _init}
    if words and words[0] in commands:
        command, words = commands[words[0]], words[1:]
    else:
        command = _serve
    try:
        return command(words, program)
    except (InvalidRequest, OSError) as problem:
        sys.stderr.write(f"{problem}\n")
        return 1


# ── check, init ──────────────────────────────────────────────────────────────────────────────────


def _check(words: list[str], program: str) -> int:
    parser = argparse.ArgumentParser(
        prog=f"{program} check", description="Checks a file of applications and settings."
    )
    parser.add_argument("file", metavar="FILE", help="TOML file")
    path = parser.parse_args(words).file
    problems = check_file(path)
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    if problems:
        return 1
    catalogue = load_apps(path)
    names = ", ".join(f"{one.name} {one.version}" for one in catalogue.applications) or "nothing"
    _say(f"{path} is right; it deploys: {names}")
    return 0


def _init(words: list[str], program: str) -> int:
    parser = argparse.ArgumentParser(
        prog=f"{program} init", description="Writes a commented example of a file."
    )
    parser.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        default="edgegap.toml",
        help="file to write (%(default)s)",
    )
    path = Path(parser.parse_args(words).file)
    text = files(__package__ or __name__).joinpath("example.toml").read_text("utf-8")
    with path.open("x", encoding="utf-8") as file:  # an existing file stays
        file.write(text)
    _say(f"{path} is written. Start: {program} {shlex.quote(str(path))}")
    return 0


# ── serve ────────────────────────────────────────────────────────────────────────────────────────


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        formatter_class=argparse.RawDescriptionHelpFormatter,  # the examples keep their lines
        description="The Edgegap API on this machine, with real processes in place of containers.",
        epilog=f"""examples:
  {program}                        # deploys the sample game: arena v1
  {program} init                   # writes edgegap.toml, an example with comments
  {program} check edgegap.toml     # names the line of each mistake
  {program} edgegap.toml --fast    # your applications, without time in each status
  {program} --host 0.0.0.0 --token-file token --allowed-host host.docker.internal""",
    )
    parser.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        help="TOML file of applications, read again when it changes; the sample game by default",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument(
        "--port", type=int, default=0, help="port to listen on; 0, the default, for a free one"
    )
    parser.add_argument(
        "--token-file", metavar="FILE", help=f"file with the API token; or set {TOKEN_VARIABLE}"
    )
    parser.add_argument(
        "--token", help="API token; other users of this machine see it in the list of processes"
    )
    parser.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="name by which clients reach it, such as a service of Docker Compose; can be repeated",
    )
    parser.add_argument("--fast", action="store_true", help="spend no time in each status")
    parser.add_argument("--no-limits", action="store_true", help="never answer 429")
    parser.add_argument(
        "--simulate", action="store_true", help="simulate game servers, start no process"
    )
    parser.add_argument(
        "--max-deployments", type=int, metavar="N", help="deployments that may exist at once"
    )
    parser.add_argument(
        "--webhook-allow",
        action="append",
        default=[],
        metavar="CIDR",
        help="network that webhooks may go to, besides loopback; can be repeated",
    )
    parser.add_argument("--fqdn", default="127.0.0.1", help="host name in links (%(default)s)")
    parser.add_argument(
        "--state", metavar="DIR", help="folder in which deployments and tags are kept"
    )
    parser.add_argument(
        "--expect",
        action="append",
        default=[],
        metavar="CALL[=N]",
        help="exit with status 3 if the call has not come N times, at least once without N",
    )
    parser.add_argument("--quiet", "-q", action="store_true", help="no line for calls and statuses")
    parser.add_argument("--verbose", "-v", action="store_true", help="log what it does in detail")
    return parser


def _serve(words: list[str], program: str) -> int:
    options = _parser(program).parse_args(words)
    logging.basicConfig(level=logging.DEBUG if options.verbose else logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    # Each deployment has a few files open; the default limit of a shell is soon reached.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> int:
    expectations = [_expectation(text) for text in options.expect]
    changes = _changes(options)
    if options.file is None:
        emulator = Emulator([sample_application()], token=_token(options), **changes)
    else:
        emulator = Emulator.from_file(options.file, token=_token(options), **changes)
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
            _say(f"export EDGEGAP_API_TOKEN={_token_word(options, emulator)}")
            _say(f"The page, for one browser, within an hour: {emulator.new_login_link()}")
            reloading = asyncio.create_task(_reload_on_change(emulator, options.file, console))
            await over.wait()
            reloading.cancel()
    finally:
        console.close()
    for line in emulator.expectations.unmet:
        sys.stderr.write(f"expected: {line}\n")
    return _UNMET if emulator.expectations.unmet else 0


def _changes(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the settings of the emulator that options change, in place of those of the file."""
    names = {"allowed_host": "allowed_hosts"}
    settings = ["host", "port", "allowed_host", "max_deployments", "webhook_allow", "fqdn", "state"]
    unchanged = _parser("").parse_args([])
    changes: dict[str, Any] = {
        names.get(name, name): getattr(options, name)
        for name in settings
        if getattr(options, name) != getattr(unchanged, name)
    }
    if options.fast:
        changes["timings"] = Timings.fast()
    if options.no_limits:
        changes["limits"] = False
    if options.simulate:
        changes["simulate"] = Simulation()
    return changes


def _token(options: argparse.Namespace) -> str | None:
    if options.token_file is not None:
        return Path(options.token_file).read_text("utf-8").strip()
    return options.token or os.environ.get(TOKEN_VARIABLE) or None


def _token_word(options: argparse.Namespace, emulator: Emulator) -> str:
    """Returns the token as a word for the shell; a token of one's own is not printed."""
    if options.token_file is not None:
        return f'"$(cat {shlex.quote(options.token_file)})"'
    if options.token is None and os.environ.get(TOKEN_VARIABLE):
        return f'"${TOKEN_VARIABLE}"'
    return shlex.quote(emulator.token)


def _expectation(text: str) -> Expectation:
    call, equals, count = text.partition("=")
    if not equals:
        return Expectation(call)
    if not re.fullmatch(r"\d{1,9}", count):
        raise InvalidRequest(f"--expect has the form CALL or CALL=N, not {text!r}")
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
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
