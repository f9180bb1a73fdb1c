"""The emulator as a command: `edgegap-async emulator`, or `python -m edgegap_async.emulator`.

It prints its URL and its token as `export` lines, then one line for each call and each change of
status on the error output, and runs until SIGINT, SIGTERM, SIGHUP (a closed terminal) or SIGQUIT.

Exit status: 0 it was ended by a signal, or the file is right; 1 an error; 2 a wrong command line;
3 expected calls have not come (`--expect`, or the control API).

`--help` is fast, because `service`, which imports the emulator, waits for a right command line.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Final

from edgegap_async.errors import InvalidRequest

TOKEN_VARIABLE: Final = "EDGEGAP_EMULATOR_TOKEN"  # noqa: S105 - a name
"""The environment variable with the API token, if it is set. EDGEGAP_API_TOKEN is not read: it may
hold the token of the real cloud, which must not be printed."""


def main(arguments: Sequence[str] | None = None, *, program: str = "edgegap-async emulator") -> int:
    """Runs the command and returns its exit status.

    Args:
        arguments: the words after the program's name; None for those that this program got.
        program: the program's name in help texts.

    Raises:
        SystemExit: the command line is wrong (status 2), or asks for help.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in _COMMANDS:
        command, words = _COMMANDS[words[0]], words[1:]
    else:
        command = _serve
    with ExitStack() as stack:
        for output, redirect in ((sys.stdout, redirect_stdout), (sys.stderr, redirect_stderr)):
            if output is None:  # it was closed, as by `>&-`
                nowhere = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
                stack.enter_context(redirect(nowhere))
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
    from .service import check  # not for --help

    return check(path)


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
    from importlib.resources import files  # not for --help

    text = files(__package__ or __name__).joinpath("example.toml").read_text("utf-8")
    with path.open("x", encoding="utf-8") as file:  # an existing file stays
        file.write(text)
    sys.stdout.write(f"{path} is written. Start: {program} {shlex.quote(str(path))}\n")
    return 0


_COMMANDS: Final = {"check": _check, "init": _init}
"""The words that may stand in place of a file; without one, the emulator starts."""


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
        dest="allowed_hosts",
        action="append",
        default=[],
        metavar="NAME",
        help="name by which clients reach it, such as a service of Docker Compose; can be repeated",
    )
    parser.add_argument("--fast", action="store_true", help="spend no time in each status")
    parser.add_argument("--no-limits", dest="limits", action="store_false", help="never answer 429")
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
    parser = _parser(program)
    options = parser.parse_args(words)
    changes = _changes(parser, options)
    changes["token"], word = _token(options)
    import asyncio  # not for --help

    from .service import serve  # not for --help

    return asyncio.run(serve(options, changes, token_word=word))


def _changes(parser: argparse.ArgumentParser, options: argparse.Namespace) -> dict[str, Any]:
    """Returns the settings of the emulator that options change, in place of those of the file."""
    others = {"file", "token", "token_file", "fast", "simulate", "expect", "quiet", "verbose"}
    return {
        name: value
        for name, value in vars(options).items()
        if name not in others and value != parser.get_default(name)
    }


def _token(options: argparse.Namespace) -> tuple[str | None, str | None]:
    """Returns the API token, and the word of a shell for it: a token of one's own is not printed.

    The token is None if the emulator invents it; the word is None if the token may be printed.
    """
    if options.token_file is not None:
        token = Path(options.token_file).read_text("utf-8", "replace").strip()
        return token, f'"$(cat {shlex.quote(options.token_file)})"'
    if options.token is None and (token := os.environ.get(TOKEN_VARIABLE, "")):
        return token, f'"${TOKEN_VARIABLE}"'
    return options.token or None, None
