"""Runs a game server in bubblewrap, Debian's package `bubblewrap`.

The program sees the system read-only, without the developer's home, and a /tmp and a home of its
own. It sees no other process, so it cannot read their environment. It has no privileges, and
bubblewrap ends all that it has started, whatever its session. It shares the network of this
machine: players and the API are at 127.0.0.1, and so is everything else that listens there.
"""

from __future__ import annotations

import os
import pwd
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias

Sandbox: TypeAlias = Literal["none", "bwrap", "docker"]
"""What a program runs in."""

_HIDDEN: Final = ("/tmp", "/var/tmp", "/run")  # noqa: S108 - made empty, not used
"""Folders with files of other programs; /run has the sockets of services."""
_OF_THE_SYSTEM: Final = "/run/systemd/resolve"  # what /etc/resolv.conf may name


def in_bubblewrap(argv: Sequence[str], *, home: Path, directory: str | None) -> list[str]:
    """Returns the arguments that run a program in the sandbox.

    Args:
        argv: the program and its arguments. The folder of each file that they name is visible.
        home: its home, which it may write to; it need not exist yet.
        directory: its working directory, which is visible; its home if None.

    Raises:
        OSError: bubblewrap is not installed.
    """
    bubblewrap = shutil.which("bwrap")
    if bubblewrap is None:
        raise FileNotFoundError('sandbox = "bwrap" needs bubblewrap: install the package')
    hidden = [*_HIDDEN, *_homes_of_this_user()]
    visible = [sys.prefix, sys.base_prefix, str(Path(__file__).parent), directory or ""]
    for part in filter(os.path.isfile, argv):
        for file in (part, os.path.realpath(part)):
            folder = os.path.dirname(file)  # noqa: PTH120 - text is compared
            visible.append(file if folder in hidden else folder)
    arguments = [bubblewrap, "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
    arguments += ["--cap-drop", "ALL", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
    for folder in hidden:
        if Path(folder).is_dir() and not Path(folder).is_symlink():
            arguments += ["--tmpfs", folder]
    arguments += ["--ro-bind-try", _OF_THE_SYSTEM, _OF_THE_SYSTEM]
    for folder in _inside(visible, hidden):
        arguments += ["--ro-bind", folder, folder]
    arguments += ["--bind", str(home), str(home), "--chdir", directory or str(home), "--"]
    return [*arguments, *argv]


def _homes_of_this_user() -> list[str]:
    homes = {os.environ.get("HOME", ""), pwd.getpwuid(os.getuid()).pw_dir}
    return sorted(home for home in homes if home.count("/") and home != "/")


def _inside(visible: Iterable[str], hidden: Sequence[str]) -> list[str]:
    """Returns the absolute folders that one of the hidden ones contains, without those."""
    return sorted(
        {
            folder
            for folder in visible
            if os.path.isabs(folder)  # noqa: PTH117 - text is compared
            and any(folder.startswith(f"{outer}/") for outer in hidden)
        }
    )
