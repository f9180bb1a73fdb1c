"""What emulators of this user have started, on disk, so that the next emulator can end the rest.

The guardian of an emulator ends the game servers when the emulator ends. Only if both are killed
at the same time something may be left. For that case there is one file for each emulator in a
folder that belongs to this user; its guardian writes it, and holds a lock on it. What the files
without a lock name is ended by `end_left_processes`. Emulators with another TMPDIR are not found.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Final

import attrs

from .guardian import kill_marked, start_time

MARK_VARIABLE: Final = "EDGEGAP_EMULATOR"
"""The environment variable of game servers that names their emulator, and is unguessable."""


@attrs.frozen(kw_only=True)
class NewLedger:
    """A ledger that was just made."""

    descriptor: int
    """The open and locked file, for the guardian."""
    mark: str
    """The value of `MARK_VARIABLE` for the game servers of this emulator."""
    homes: Path
    """The folder for the homes of game servers; it need not exist."""

    @property
    def emulator_id(self) -> str:
        """Names the emulator; `is_alive` tells whether it lives."""
        return self.homes.name

    def remove(self) -> None:
        """Removes the file and the homes, unless the guardian has done it."""
        _remove(self.homes.with_suffix(".jsonl"))


def folder() -> Path:
    """Returns the folder of ledgers and homes, and makes it.

    Raises:
        OSError: another user has made it, or it cannot be made.
    """
    path = Path(tempfile.gettempdir()) / f"edgegap-async-emulator-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{path} must be a folder of this user with mode 700: remove it")
    return path


def create() -> NewLedger:
    """Makes the ledger of an emulator.

    Raises:
        OSError: the file cannot be made.
    """
    emulator_id, where = secrets.token_hex(4), folder()
    mark = f"{emulator_id}.{secrets.token_hex(16)}"
    path, homes = where / f"{emulator_id}.jsonl", where / emulator_id
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        line = {
            "ledger": str(path),
            "homes": str(homes),
            "mark": f"{MARK_VARIABLE}={mark}",
            "pid": os.getpid(),
            "started": start_time(os.getpid()),
            "boot": _boot(),
        }
        os.write(descriptor, json.dumps(line).encode() + b"\n")
        os.lseek(descriptor, 0, os.SEEK_SET)
    except BaseException:
        os.close(descriptor)
        path.unlink()
        raise
    return NewLedger(descriptor=descriptor, mark=mark, homes=homes)


def is_alive(emulator_id: str) -> bool:
    """Returns whether an emulator of this user, or its guardian, lives."""
    try:
        descriptor = os.open(folder() / f"{emulator_id}.jsonl", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def end_left_processes() -> int:
    """Ends what emulators of this user have left that were killed together with their guardian.

    Returns:
        The number of processes that were ended.

    Raises:
        OSError: the folder belongs to another user.
    """
    return sum(map(_end_processes_of, folder().glob("*.jsonl")))


def _end_processes_of(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:  # another emulator was faster
        return 0
    with os.fdopen(descriptor, encoding="utf-8", errors="replace") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0  # its guardian lives
        lines = []
        for text in file:
            with contextlib.suppress(ValueError):  # the last line, if it was cut
                lines.append(json.loads(text))
        ended = 0
        if lines and "mark" in lines[0]:
            is_of_this_boot = lines[0]["boot"] == _boot()
            known = [(one["pid"], one["started"]) for one in lines[1:]] if is_of_this_boot else []
            ended = kill_marked(lines[0]["mark"], known)
        _remove(path)
        return ended


def _remove(path: Path) -> None:
    shutil.rmtree(path.with_suffix(""), ignore_errors=True)
    path.unlink(missing_ok=True)


def _boot() -> str:
    """Identifies this start of the machine and this namespace of process ids."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
