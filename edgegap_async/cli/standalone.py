"""The commands that need no extra: `demo`, `emulator`, and `--version`."""

from __future__ import annotations

import argparse
import sys


def print_version() -> None:
    """Prints the name and the version of the package."""
    from edgegap_async import __version__  # imports the client

    print(f"edgegap-async {__version__}")


def run_emulator(words: list[str]) -> int:
    """Runs `edgegap-async emulator` and returns its exit status."""
    from edgegap_async.emulator.command_line import main as run  # needs an extra

    return run(words, program="edgegap-async emulator")


def run_demo(words: list[str]) -> int:
    """Runs `edgegap-async demo` and returns its exit status."""
    options = _demo_parser().parse_args(words)
    from edgegap_async import EdgegapError, run  # not for --help

    from . import demo  # imports the client

    application, version = options.live or (None, None)
    running = demo.run_demo(
        application, version, public_url=options.public_url, webhook_port=options.webhook_port
    )
    try:
        run(running)
    except SystemExit:  # Ctrl-C, SIGTERM
        print("Interrupted. A stop was sent for each deployment of the demo.", file=sys.stderr)
        raise
    except EdgegapError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _demo_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edgegap-async demo",
        formatter_class=argparse.RawDescriptionHelpFormatter,  # the examples keep their lines
        description="Deploys twelve game servers, plays on two of them, and stops them all.\n"
        "Without --live it needs no account: the emulator and its sample game run here.",
        epilog="""examples:
  edgegap-async demo
  EDGEGAP_API_TOKEN=... edgegap-async demo --live arena v1""",
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
