"""The command line: `edgegap-async`, or `python -m edgegap_async`.

`demo` and `emulator` need no extra (`standalone`). The other commands need click, the extra `cli`:
`program` has the list of them, `commands` one module for each noun, which use the public names of
the package alone. Options, printed text and exit statuses belong here; no other module of the
client prints.

A command answers `--help` in less than 0.2 s, because nothing here imports aiohttp before a command
runs: `session`, which opens the client, is imported by then.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Final

from .standalone import print_version, run_demo, run_emulator

__all__ = ["main"]

_WITHOUT_CLICK: Final = """\
usage: edgegap-async demo | emulator | COMMAND

  demo      deploys twelve game servers, plays on two of them, and stops them all
  emulator  the Edgegap API on this machine, with real processes
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status, which `exits` lists.

    Args:
        arguments: the words of the command line without the program's name; None for the words
            that this program was started with.

    Raises:
        SystemExit: the command line of `demo` or `emulator` is wrong (status 2), or asks for help;
            or a signal has ended `demo`.
    """
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:  # while modules are imported: a command that runs deals with it
        return 128 + signal.SIGINT


def _run(words: list[str]) -> int:
    first = words[:1]
    if first == ["emulator"]:
        return run_emulator(words[1:])
    if first == ["demo"]:
        return run_demo(words[1:])
    if first == ["--version"]:
        print_version()
        return 0
    try:
        from .program import run  # needs an extra
    except ImportError as error:
        if error.name != "click":
            raise
        from edgegap_async.api.validation import needs_package  # imports attrs

        asks_for_help = first in (["-h"], ["--help"])
        text = f"{_WITHOUT_CLICK}\n{needs_package('Each other command', 'click')}"
        print(text, file=sys.stdout if asks_for_help else sys.stderr)
        return 0 if asks_for_help else 2
    return run(words)
