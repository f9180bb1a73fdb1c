"""Runs a command's coroutine: opens its client, and turns signals into a cancellation.

The API token comes from EDGEGAP_API_TOKEN, or from the file that EDGEGAP_API_TOKEN_FILE names. No
option has it: other users of a machine see the arguments of its processes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from edgegap_async.api.requests import Token
from edgegap_async.client import EdgegapClient
from edgegap_async.http.access import read_secrets

from .exits import AUTHENTICATION, Failure

_TOKEN_VARIABLE: Final = "EDGEGAP_API_TOKEN"  # noqa: S105 - a name
_FILE_VARIABLE: Final = "EDGEGAP_API_TOKEN_FILE"
_ENDED_BY: Final = 128  # and the number of the signal: the exit status that shells show
_ENDS: Final = (signal.SIGTERM, signal.SIGHUP)


def run_with_client(
    work: Callable[[EdgegapClient], Awaitable[int | None]], *, owner: str | None, verbose: int
) -> int | None:
    """Runs a coroutine function with an open client, and returns its result.

    SIGINT, SIGTERM and SIGHUP cancel it. The client is closed in every case, which stops what it
    still owns.

    Args:
        work: the coroutine function.
        owner: the owner of the client's deployments; None for none.
        verbose: 1 to log what the package does, 2 to log every detail.

    Returns:
        The result of `work`; or the exit status, if SIGTERM or SIGHUP has ended it.

    Raises:
        Failure: there is no API token, or it cannot be one.
        KeyboardInterrupt: SIGINT has ended it.
    """
    if verbose:
        logging.basicConfig(
            stream=sys.stderr,
            level=logging.INFO if verbose == 1 else logging.DEBUG,
            format="%(levelname)s %(name)s: %(message)s",
        )
        logging.getLogger("asyncio").setLevel(logging.WARNING)
    return asyncio.run(_run(work, owner))


async def _run(
    work: Callable[[EdgegapClient], Awaitable[int | None]], owner: str | None
) -> int | None:
    received = list[int]()
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine runs in a task

    def end(number: int) -> None:
        received.append(number)
        task.cancel()

    for number in _ENDS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # such as nohup
            asyncio.get_running_loop().add_signal_handler(number, end, number)
    try:
        async with EdgegapClient(_token(), owner=owner) as client:
            return await work(client)
    except asyncio.CancelledError:
        if not received:
            raise
        return _ENDED_BY + received[0]


def _token() -> Token:
    """Returns the API token of the environment.

    Raises:
        Failure: there is none, or it cannot be a token.
    """
    path = os.environ.get(_FILE_VARIABLE)
    source, slip = _TOKEN_VARIABLE, ""
    try:
        if os.environ.get(_TOKEN_VARIABLE, "").strip() or not path:
            token, _, error = read_secrets(None, None)
        else:
            source = f"{_FILE_VARIABLE}={path}"
            token, _, error = read_secrets(Path(path).read_text("utf-8").strip(), None)
        slip = error.message if error else ""
    except (OSError, UnicodeDecodeError) as unreadable:
        token, slip = None, str(unreadable)
    if slip:
        raise Failure(AUTHENTICATION, f"{source}: {slip}")
    if token is None:
        raise Failure(
            AUTHENTICATION,
            f"no API token: set {_TOKEN_VARIABLE}, or {_FILE_VARIABLE} to a file;"
            " `edgegap-async emulator` prints one",
        )
    return token
