"""The command line: `edgegap-async`, or `python -m edgegap_async`.

`demo` and `emulator` need no extra. The other commands need click, the extra `cli`: `program` has
the list of them, `commands` one module for each noun, which use the public names of the package
alone. Options, printed text and exit statuses belong here; no other module of the client prints.

A command answers `--help` in less than 0.2 s, because nothing here imports aiohttp before a command
runs: `session`, which opens the client, is imported by then.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

__all__ = ["main"]

_WITHOUT_CLICK: Final = """\
usage: edgegap-async demo | emulator | COMMAND

  demo      deploys twelve game servers, plays on two of them, and stops them all
  emulator  the Edgegap API on this machine, with real processes

The other commands need click: pip install 'edgegap-async[cli]'
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status, which `exits` lists.

    Args:
        arguments: the words of the command line without the program's name; None for the words
            that this program was started with.

    Raises:
        SystemExit: the command line of `demo` or `emulator` is wrong (status 2), or asks for help.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    first = words[:1]
    if first == ["emulator"]:
        return run_emulator(words[1:])
    if first == ["demo"]:
        return run_demo(words[1:])
    if first == ["--version"]:
        print_version()
        return 0
    try:
        from .program import run  # noqa: PLC0415 - needs an extra
    except ImportError as error:
        if error.name != "click":
            raise
        asks_for_help = first in (["-h"], ["--help"])
        print(_WITHOUT_CLICK, end="", file=sys.stdout if asks_for_help else sys.stderr)
        return 0 if asks_for_help else 2
    return run(words)


def print_version() -> None:
    """Prints the name and the version of the package."""
    from edgegap_async import __version__  # noqa: PLC0415 - imports the client

    print(f"edgegap-async {__version__}")


def run_emulator(words: list[str]) -> int:
    """Runs `edgegap-async emulator` and returns its exit status."""
    from edgegap_async.emulator.command_line import main as run  # noqa: PLC0415 - needs an extra

    return run(words, program="edgegap-async emulator")


def run_demo(words: list[str]) -> int:
    """Runs `edgegap-async demo` and returns its exit status."""
    options = _demo_parser().parse_args(words)
    import asyncio  # noqa: PLC0415 - not for --help

    from edgegap_async.errors import EdgegapError  # noqa: PLC0415

    from .demo import run_demo as run  # noqa: PLC0415 - imports the client

    application, version = options.live or (None, None)
    try:
        asyncio.run(
            run(
                application,
                version,
                public_url=options.public_url,
                webhook_port=options.webhook_port,
            )
        )
    except (KeyboardInterrupt, asyncio.CancelledError) as end:  # Ctrl-C, SIGTERM
        print("Interrupted. A stop was sent for each deployment of the demo.", file=sys.stderr)
        return 130 if isinstance(end, KeyboardInterrupt) else 143
    except EdgegapError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _demo_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edgegap-async demo",
        description="Deploys twelve game servers, plays on two of them, and stops them all. Without"
        " --live it needs no account: the emulator and its sample game run on this machine.",
    )
    parser.add_argument(
        "--live",
        nargs=2,
        metavar=("APP", "VERSION"),
        help="deploy this version of your application on Edgegap, with the token in"
        " EDGEGAP_API_TOKEN; Edgegap charges for the deployments",
    )
    parser.add_argument(
        "--public-url",
        metavar="URL",
        help="with --live: the URL at which Edgegap reaches this machine, for the webhook part",
    )
    parser.add_argument(
        "--webhook-port",
        type=int,
        default=0,
        metavar="PORT",
        help="the local port that --public-url leads to (default: a free port)",
    )
    return parser
