"""The command line: `edgegap-async demo`, `edgegap-async emulator`, or `python -m edgegap_async`.

Options, printed text and exit statuses belong here; no other module of the client prints. The demo
is in `demo`. The command `emulator` is in `edgegap_async.emulator.command_line`, which is imported
only for it, because its dependencies are optional.

Exit status: 0 success, 1 an error, 2 a wrong command line, 130 interrupted, 143 ended by SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

from edgegap_async.errors import EdgegapError
from edgegap_async.http.transport import VERSION

from .demo import run_demo

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status.

    Args:
        arguments: the words of the command line without the program's name; None for the words
            that this program was started with.

    Raises:
        SystemExit: the command line is wrong (status 2), or asks for help or the version.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["emulator"]:
        return _run_emulator(words[1:])
    options = _parser().parse_args(words)
    application, version = options.live or (None, None)
    try:
        asyncio.run(
            run_demo(
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


def _run_emulator(words: list[str]) -> int:
    from edgegap_async.emulator.command_line import main as run  # noqa: PLC0415 - see above

    return run(words, program="edgegap-async emulator")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edgegap-async", description="Deploys game servers on Edgegap or on its emulator."
    )
    parser.add_argument("--version", action="version", version=f"edgegap-async {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "emulator",
        help="the Edgegap API on this machine, with real processes: edgegap-async emulator --help",
    )
    demo = commands.add_parser(
        "demo",
        help="deploy, wait until READY, play, stop: by polling, by webhook, ten at once",
        description="Deploys twelve game servers, plays on two of them, and stops them all. Without"
        " --live it needs no account: the emulator and its sample game run on this machine.",
    )
    demo.add_argument(
        "--live",
        nargs=2,
        metavar=("APP", "VERSION"),
        help="deploy this version of your application on Edgegap, with the token in"
        " EDGEGAP_API_TOKEN; Edgegap charges for the deployments",
    )
    demo.add_argument(
        "--public-url",
        metavar="URL",
        help="with --live: the URL at which Edgegap reaches this machine, for the webhook part",
    )
    demo.add_argument(
        "--webhook-port",
        type=int,
        default=0,
        metavar="PORT",
        help="the local port that --public-url leads to (default: a free port)",
    )
    return parser
