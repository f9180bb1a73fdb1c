"""The emulator as a command: `python -m edgegap_async.emulator --apps apps.toml`.

It prints its URL and its token as `export` lines, and runs until SIGINT, SIGTERM,
SIGHUP (a closed terminal) or SIGQUIT.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import resource
import signal
import sys
from collections.abc import Sequence

from edgegap_async.errors import InvalidRequest

from . import Emulator, Timings, sample_application


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m edgegap_async.emulator",
        description="The Edgegap API on this machine, with real processes in place of containers.",
    )
    parser.add_argument(
        "--apps", metavar="TOML", help="file of applications to deploy; the sample game by default"
    )
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address (%(default)s)")
    parser.add_argument(
        "--port", type=int, default=0, help="port to listen on; 0, the default, for a free one"
    )
    parser.add_argument("--token", help="API token of clients; a random one by default")
    parser.add_argument("--fast", action="store_true", help="spend no time in each status")
    parser.add_argument("--no-limits", action="store_true", help="never answer 429")
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
    parser.add_argument("--verbose", "-v", action="store_true", help="log each change of status")
    return parser


async def _serve(arguments: argparse.Namespace) -> None:
    emulator = Emulator(
        arguments.apps or [sample_application()],
        token=arguments.token,
        host=arguments.host,
        port=arguments.port,
        timings=Timings.fast() if arguments.fast else Timings(),
        limits=not arguments.no_limits,
        max_deployments=arguments.max_deployments,
        webhook_allow=arguments.webhook_allow,
        fqdn=arguments.fqdn,
    )
    over = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            asyncio.get_running_loop().add_signal_handler(number, over.set)
    async with emulator:
        what = ", ".join(emulator.cloud.deployable) or "nothing"
        _say(f"The emulator answers at {emulator.url}, and deploys: {what}")
        _say(f"export EDGEGAP_BASE_URL={emulator.url}")
        _say(f"export EDGEGAP_API_TOKEN={emulator.token}")
        await over.wait()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Returns the exit status."""
    asked = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.DEBUG if asked.verbose else logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    # Each deployment has a few files open; the default limit of a shell is soon reached.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        asyncio.run(_serve(asked))
    except (InvalidRequest, OSError) as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
