"""The emulator as a command: `python -m edgegap_async.emulator`."""

from __future__ import annotations

import sys

from .command_line import main

if __name__ == "__main__":
    sys.exit(main(program="python -m edgegap_async.emulator"))
