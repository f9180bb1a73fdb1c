"""Starts the game servers of one emulator, and ends them when the emulator ends, however it ends.

`launcher` runs this file as a program of its own: `python -I -S guardian.py CHANNEL LEDGER`, two
file descriptors. It needs the standard library only, and has one thread.

- The emulator has the other end of the channel. When the emulator ends, also by `kill -9` or by
  `os._exit`, the channel ends or the emulator's pidfd becomes readable. Then the guardian kills
  every process that it has started, removes their homes and the ledger, and exits.
- Game servers are children of the guardian, whose environment is empty: `/proc/PPID/environ` shows
  nothing of the developer's environment.
- Each game server adopts the processes that its descendants leave behind, and the guardian adopts
  those of a game server that has ended (PR_SET_CHILD_SUBREAPER). So a child of the guardian that
  the guardian has not started belongs to a game server that has ended, and is killed, whatever its
  session and its environment. In a container the end of the first process does the same.
- If the guardian itself is killed, the kernel kills the game servers (PR_SET_PDEATHSIG), and the
  emulator or the next emulator kills what they have left: `kill_marked`, by the ledger.

- Containers belong to an engine and not to the guardian. The message `containers` names the engine
  and the label of this emulator's containers; at the end the guardian has the engine remove them.

Messages in both directions are four bytes of length and JSON. A message `start` comes with the file
descriptor for the output of the game server.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Container, Iterable, Iterator
from typing import Any, Final, NoReturn

_HEADER: Final = struct.Struct("!I")
"""Length of a message, in bytes."""
_RECEIVE_BYTES: Final = 65536
_MAX_DESCRIPTORS: Final = 64  # that one `recvmsg` takes; the kernel sends 253 at most
_PR_SET_PDEATHSIG: Final = 1  # from <linux/prctl.h>
_PR_SET_CHILD_SUBREAPER: Final = 36
_KILL_TIMEOUT: Final = 5.0
"""Seconds after which a process that SIGKILL has not ended is left to the kernel."""
_KILL_CHECK_INTERVAL: Final = 0.005
"""Seconds between two checks whether killed processes have ended."""
_SCAN_INTERVAL: Final = 0.03
"""Seconds between two searches for processes that ended game servers have left."""
_MAX_LEDGER_LINES: Final = 1000
"""Lines of ended processes in the ledger before the ledger is written anew."""
_ENGINE_TIMEOUT: Final = 5.0
"""Seconds after which a container engine that has not removed every container is given up."""
_ENGINE_CHECK_INTERVAL: Final = 0.1
"""Seconds between two requests for the containers that are left."""
_MAX_REMOVALS: Final = 32  # containers that an engine removes at the same time
ENDED_STATES: Final = (b"Z", b"X")  # in /proc/PID/stat: zombie, dead


# ── /proc ───────────────────────────────────────────────────────────────────────────────────────


def read_file(path: str) -> bytes:
    """Returns what a file of `/proc` has; several times faster than pathlib.

    Raises:
        OSError: the process has ended, or belongs to another user.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        pieces = []
        while piece := os.read(descriptor, _RECEIVE_BYTES):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        os.close(descriptor)


def existing_pids() -> Iterator[int]:
    """Yields the pid of every process."""
    return (int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 - faster


def read_stat(pid: int) -> list[bytes]:
    """Returns the fields of `/proc/PID/stat` from the state on (state, parent, group, session).

    Raises:
        OSError: there is no such process.
    """
    # The name before it, in parentheses, may have any characters.
    return read_file(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def start_time(pid: int) -> int:
    """Returns when a process started, in clock ticks; a later process of that pid has another.

    Raises:
        OSError: there is no such process.
    """
    return int(read_stat(pid)[19])


def children(besides: Container[int] = ()) -> list[int]:
    """Returns the pids of the children of this process that have not ended.

    The kernel lists the children of a thread. The list is complete for this program, which has one
    thread and alone removes children from it. Without such a list, all processes are searched.

    Args:
        besides: pids to leave out.
    """
    own = os.getpid()
    try:
        candidates: Iterable[int] = map(int, read_file(f"/proc/self/task/{own}/children").split())
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        candidates = existing_pids()
    found = []
    for pid in candidates:
        if pid in besides:
            continue
        with contextlib.suppress(OSError, IndexError):  # it has ended meanwhile
            stat = read_stat(pid)
            if int(stat[1]) == own and stat[0] not in ENDED_STATES:
                found.append(pid)
    return found


def _kill(pid: int, started: int) -> None:
    """Kills a process, and never a later process with the same pid."""
    with contextlib.suppress(OSError):  # it has ended
        handle = os.pidfd_open(pid)
        try:
            if start_time(pid) == started:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)


def _marked(mark: bytes) -> list[tuple[int, int]]:
    """Returns pid and start time of each process with `mark`, `NAME=VALUE`, in its environment."""
    found = []
    for pid in existing_pids():
        with contextlib.suppress(OSError, IndexError):  # it has ended, or has another user
            if mark in read_file(f"/proc/{pid}/environ").split(b"\0"):
                stat = read_stat(pid)
                if stat[0] not in ENDED_STATES:
                    found.append((pid, int(stat[19])))
    return found


def kill_marked(mark: str, known: Iterable[tuple[int, int]] = ()) -> int:
    """Kills each process that has `mark` in its environment, and waits until none is left.

    Args:
        mark: `NAME=VALUE`.
        known: pid and start time of processes to kill besides.

    Returns:
        The number of processes.
    """
    found: set[tuple[int, int]] = set()
    give_up = time.monotonic() + _KILL_TIMEOUT
    while time.monotonic() < give_up:
        alive = _marked(mark.encode())
        for pid, started in known:
            with contextlib.suppress(OSError, IndexError):
                stat = read_stat(pid)
                if int(stat[19]) == started and stat[0] not in ENDED_STATES:
                    alive.append((pid, started))
        if not alive:
            break
        found.update(alive)
        for pid, started in alive:
            _kill(pid, started)
        time.sleep(_KILL_CHECK_INTERVAL)
    return len(found)


# ── containers ──────────────────────────────────────────────────────────────────────────────────


def remove_containers(engine: str, label: str) -> int:
    """Has a container engine remove each container that has a label, also those that run.

    Args:
        engine: URL of the engine, `unix:///PATH` or `tcp://HOST:PORT`.
        label: `NAME=VALUE`.

    Returns:
        The number of containers.

    Raises:
        OSError: the engine does not answer, or a container is left.
    """
    from urllib.parse import quote  # takes a tenth of the start-up time

    removed: set[str] = set()
    was_empty = False
    give_up = time.monotonic() + _ENGINE_TIMEOUT
    while True:
        query = json.dumps({"label": [label]})
        (found,) = _ask_engine(engine, "GET", [f"/containers/json?all=1&filters={quote(query)}"])
        ids = [str(one["Id"]) for one in found]
        if not ids and was_empty:
            return len(removed)
        # Twice: an engine may still make a container whose request has been cut off.
        was_empty = not ids
        if time.monotonic() > give_up:
            raise OSError(errno.EBUSY, f"{len(ids)} containers are left in {engine}")
        for first in range(0, len(ids), _MAX_REMOVALS):
            some = ids[first : first + _MAX_REMOVALS]
            _ask_engine(engine, "DELETE", [f"/containers/{one}?force=1&v=1" for one in some])
        removed.update(ids)
        time.sleep(_ENGINE_CHECK_INTERVAL)


def _ask_engine(engine: str, method: str, paths: list[str]) -> list[Any]:
    """Sends a request for each path at the same time. Returns the bodies of the answers.

    Raises:
        OSError: the engine does not answer, or answers an error other than 404 and 409.
    """
    from http.client import HTTPConnection, HTTPException  # takes time to import

    scheme, _, place = engine.partition("://")
    opened: list[HTTPConnection] = []
    try:
        for path in paths:
            connection = HTTPConnection("engine" if scheme == "unix" else place)
            connection.timeout = _ENGINE_TIMEOUT
            opened.append(connection)
            if scheme == "unix":
                connection.sock = socket.socket(socket.AF_UNIX)
                connection.sock.settimeout(_ENGINE_TIMEOUT)
                connection.sock.connect(place)
            connection.request(method, path)
        bodies: list[Any] = []
        for connection in opened:
            answer = connection.getresponse()
            body = answer.read()
            # 404: it has been removed; 409: it is being removed.
            if answer.status >= 400 and answer.status not in {404, 409}:  # noqa: PLR2004 - HTTP
                raise OSError(errno.EPROTO, f"{engine} answered {answer.status}")
            bodies.append(json.loads(body) if method == "GET" else None)
    except (HTTPException, ValueError) as problem:
        raise OSError(errno.EPROTO, f"{engine} is no container engine: {problem}") from problem
    finally:
        for connection in opened:
            connection.close()
    return bodies


# ── messages ────────────────────────────────────────────────────────────────────────────────────


def encode(message: dict[str, Any]) -> bytes:
    """Returns a message as it is sent."""
    body = json.dumps(message).encode()
    return _HEADER.pack(len(body)) + body


class Messages:
    """Makes messages of the bytes that come."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def add(self, data: bytes) -> Iterator[dict[str, Any]]:
        """Yields the messages that are complete now."""
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            (length,) = _HEADER.unpack_from(self._buffer)
            end = _HEADER.size + length
            if len(self._buffer) < end:
                break
            body = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            yield json.loads(body)


# ── the ledger ──────────────────────────────────────────────────────────────────────────────────


class Ledger:
    """What the next emulator needs to know if this emulator and its guardian are killed together.

    A file of JSON lines: what the emulator is, then each process that was started. A lock on it is
    held as long as the guardian lives.
    """

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "r+", encoding="utf-8", newline="\n")
        self.emulator: dict[str, Any] = json.loads(self._file.readline())
        self._lines = 0
        self._live: dict[int, dict[str, Any]] = {}

    def add(self, pid: int, name: str) -> None:
        """Records a process that has started."""
        self._live[pid] = {"pid": pid, "started": start_time(pid), "name": name}
        self._append(self._live[pid])
        self._lines += 1
        if self._lines > _MAX_LEDGER_LINES + 2 * len(self._live):
            self._file.seek(0)
            self._file.truncate()
            self._lines = len(self._live)
            for line in (self.emulator, *self._live.values()):
                self._append(line)

    def remove(self, pid: int) -> None:
        """Forgets a process that has ended."""
        self._live.pop(pid, None)

    def _append(self, line: dict[str, Any]) -> None:
        self._file.seek(0, os.SEEK_END)
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Removes the file."""
        with contextlib.suppress(OSError):
            os.unlink(self.emulator["ledger"])  # noqa: PTH108 - pathlib takes time to import
        self._file.close()


# ── the guardian ────────────────────────────────────────────────────────────────────────────────


class Guardian:
    """Starts, signals and reaps the game servers of one emulator.

    Args:
        channel: the socket to the emulator.
        ledger: the ledger, which has the lock.
    """

    def __init__(self, channel: socket.socket, ledger: Ledger) -> None:
        self._channel = channel
        self._ledger = ledger
        self._descriptors: list[int] = []
        self._messages = Messages()
        self._keys: dict[int, int] = {}  # of the messages, by pid
        self._pids: dict[int, int] = {}
        self._inner: set[int] = set()  # keys of programs that run inside a sandbox program
        self._ended: list[int] = []  # keys of ended programs whose tree may not have ended
        self._pid = os.getpid()
        self._null = os.open(os.devnull, os.O_RDONLY)
        self._poll = select.poll()
        self._containers: tuple[str, str] | None = None  # URL of their engine, and their label
        self._starting: dict[int, int] = {}  # pids of processes that become programs, by their pipe
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._set_process_attribute(_PR_SET_CHILD_SUBREAPER, 1)
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    def _set_process_attribute(self, option: int, value: int) -> None:
        if self._libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def run(self) -> None:
        """Runs until the emulator has ended, or a signal ends this process."""
        woken, wake = os.pipe()
        for end in (woken, wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        stopped = False

        def stop(*_: object) -> None:
            nonlocal stopped
            stopped = True

        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, stop)
        handle = self._emulator_handle()
        for descriptor in (self._channel.fileno(), woken, handle):
            if descriptor is not None:
                self._poll.register(descriptor, select.POLLIN)
        next_scan, interval = 0.0, _KILL_CHECK_INTERVAL
        while not stopped:
            wait = max(0.0, next_scan - time.monotonic()) if self._ended else None
            ready = {number for number, _ in self._poll.poll(None if wait is None else 1000 * wait)}
            if woken in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(woken, _RECEIVE_BYTES)
            self._reap()
            if self._ended and time.monotonic() >= next_scan:
                # Longer each time, for a process that the kernel cannot end now.
                interval = min(1.0, 2 * interval) if self._kill_left_behind() else _SCAN_INTERVAL
                next_scan = time.monotonic() + interval
                interval = interval if self._ended else _KILL_CHECK_INTERVAL
            for failed in ready & self._starting.keys():
                self._finish_start(failed)
            if handle in ready or (self._channel.fileno() in ready and not self._receive()):
                break

    def _emulator_handle(self) -> int | None:
        """Returns a handle of the emulator, which becomes readable when the emulator ends.

        The channel alone is not enough: a process that the emulator's program has forked may have
        a copy of its end.
        """
        emulator = self._ledger.emulator
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(emulator["pid"])
            if start_time(emulator["pid"]) == emulator["started"]:
                return handle
        return None  # it has ended: the channel has, too

    def _receive(self) -> bool:
        """Does what the emulator asks. Returns False once the emulator has closed the channel."""
        size = socket.CMSG_SPACE(_MAX_DESCRIPTORS * struct.calcsize("i"))
        try:
            data, ancillary, _, _ = self._channel.recvmsg(
                _RECEIVE_BYTES, size, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return True
        except OSError:
            return False
        for level, kind, packed in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self._descriptors += (number for (number,) in struct.iter_unpack("i", packed))
        for message in self._messages.add(data):
            match message["do"]:
                case "start":
                    self._start(message, self._descriptors.pop(0))
                case "signal":
                    self._signal(message["key"], message["signal"])
                case "remove":
                    _remove(message["home"])
                case "containers":
                    self._containers = (message["engine"], message["label"])
        return bool(data)

    def _send(self, **message: Any) -> None:
        # A full channel must not block: the emulator may be gone, or wait for this process.
        data = encode(message)
        while data:
            try:
                data = data[self._channel.send(data) :]
            except BlockingIOError:
                select.select([], [self._channel], [], 1.0)
            except OSError:  # the emulator has ended, which the loop sees next
                break

    def _start(self, message: dict[str, Any], output: int) -> None:
        """Forks a process that becomes the program. `_finish_start` learns whether it could."""
        key = message["key"]
        try:
            _make_home(message["home"])
            failed, fail = os.pipe()
            try:
                pid = os.fork()
            except OSError:
                os.close(failed)
                os.close(fail)
                raise
        except OSError as problem:
            self._send(key=key, failed=_written(problem))
            return
        finally:
            if os.getpid() == self._pid:
                os.close(output)
        if pid == 0:
            self._become_program(message, output, fail)
        os.close(fail)
        self._keys[pid], self._pids[key] = key, pid
        self._starting[failed] = pid
        self._poll.register(failed, select.POLLIN)
        if message["is_sandboxed"]:
            self._inner.add(key)
        with contextlib.suppress(OSError, IndexError):  # a full disk; it has ended
            self._ledger.add(pid, message["name"])

    def _become_program(self, message: dict[str, Any], output: int, fail: int) -> NoReturn:
        """Runs in the new process. Every other file is closed when the program begins."""
        try:
            os.setsid()
            os.umask(0o077)
            self._prepare(message["limits"])
            for descriptor, number in ((self._null, 0), (output, 1), (output, 2)):
                os.dup2(descriptor, number)
            os.chdir(message["directory"] or message["home"])
            for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
                signal.signal(number, signal.SIG_DFL)
            argv = message["argv"]
            try:
                os.execvpe(argv[0], argv, message["environment"])  # noqa: S606 - never a shell
            except OSError as problem:
                problem.filename = argv[0]  # not the last folder of PATH
                raise
        except (OSError, ValueError) as problem:
            os.write(fail, json.dumps(_written(problem)).encode())
        finally:
            os._exit(255)

    def _finish_start(self, failed: int) -> None:
        """Tells the emulator whether a program has begun; its end of the pipe is closed now."""
        pid = self._starting.pop(failed)
        self._poll.unregister(failed)
        text = os.read(failed, _RECEIVE_BYTES)
        os.close(failed)
        key = self._keys[pid]
        if text:
            del self._keys[pid], self._pids[key]
            self._inner.discard(key)
            self._send(key=key, failed=json.loads(text))
        else:
            self._send(key=key, pid=pid)

    def _prepare(self, limits: dict[str, int]) -> None:
        self._set_process_attribute(_PR_SET_PDEATHSIG, signal.SIGKILL)
        self._set_process_attribute(_PR_SET_CHILD_SUBREAPER, 1)
        for name, value in limits.items():
            kind = getattr(resource, name)
            _, most = resource.getrlimit(kind)
            if most != resource.RLIM_INFINITY:
                value = min(value, most)  # noqa: PLW2901 - more than the maximum cannot be set
            resource.setrlimit(kind, (value, value))

    def _signal(self, key: int, number: int) -> None:
        pid = self._pids.get(key)
        if pid is not None:
            # It is not reaped yet, so no other process has its pid.
            inside = (
                _program_inside(pid) if key in self._inner and number != signal.SIGKILL else None
            )
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid if inside is None else inside, number)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = ended
                self._ledger.remove(pid)
                for failed in [one for one, starting in self._starting.items() if starting == pid]:
                    self._finish_start(failed)
                if pid in self._keys:
                    key = self._keys.pop(pid)
                    del self._pids[key]
                    self._ended.append(key)
                    code = os.waitstatus_to_exitcode(status)
                    if key in self._inner:
                        self._inner.discard(key)
                        code = 128 - code if code > 128 else code  # noqa: PLR2004 - see below
                        # The sandbox exits with 128 and the number if a signal has ended the
                        # program.
                    self._send(key=key, code=code)

    def _kill_left_behind(self) -> bool:
        """Kills what ended game servers have left. Returns whether there was anything."""
        left = children(besides=self._keys)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        if not left:
            for key in self._ended:
                self._send(key=key, over=True)
            self._ended.clear()
        return bool(left)

    def close(self) -> bool:
        """Kills every game server, and removes containers, homes and the ledger.

        Returns:
            Whether no container is left.
        """
        are_removed = True
        give_up = time.monotonic() + _KILL_TIMEOUT
        while time.monotonic() < give_up:
            for pid in children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
                time.sleep(_KILL_CHECK_INTERVAL)  # a child has not ended
                continue
            if not kill_marked(self._ledger.emulator["mark"]):
                break
        if self._containers is not None:
            try:
                remove_containers(*self._containers)
            except OSError:
                # Their label names no living emulator: by it the next emulator finds them.
                are_removed = False
        _remove(self._ledger.emulator["homes"])
        self._ledger.close()
        self._channel.close()
        return are_removed


def _written(problem: Exception) -> list[int | str | None]:
    """Returns number, text and file name of an error."""
    if isinstance(problem, OSError):
        name = problem.filename if isinstance(problem.filename, str) else None
        return [problem.errno, problem.strerror, name]
    return [errno.EINVAL, str(problem), None]


def _remove(folder: str) -> None:
    from shutil import rmtree  # takes a third of the start-up time

    rmtree(folder, ignore_errors=True)


def _make_home(path: str) -> None:
    """Makes a home directory, and its parents if a cleaner of temporary files removed them."""
    try:
        os.mkdir(path, 0o700)  # noqa: PTH102 - pathlib takes time to import
    except FileExistsError:
        return  # of the same game server, before it started again
    except FileNotFoundError:
        os.makedirs(path, 0o700, exist_ok=True)  # noqa: PTH103 - pathlib takes time to import
        parent = os.path.dirname(path)  # noqa: PTH120 - pathlib takes time to import
        for folder in (parent, os.path.dirname(parent)):  # noqa: PTH120 - as above
            if os.lstat(folder).st_uid != os.getuid():
                raise PermissionError(errno.EPERM, "the folder has another owner", folder) from None


def _program_inside(sandbox: int) -> int | None:
    """Returns the pid of the program inside bubblewrap; None if it has not started.

    Bubblewrap has one child, the first process of the sandbox, whose first child is the program.
    """
    parents: dict[bytes, list[tuple[int, int]]] = {}
    for pid in existing_pids():
        with contextlib.suppress(OSError, IndexError):
            stat = read_stat(pid)
            parents.setdefault(stat[1], []).append((int(stat[19]), pid))
    found = sandbox
    for _ in range(2):
        below = parents.get(str(found).encode())
        if not below:
            return None
        _, found = min(below)
    return found


def main() -> None:
    """Runs the guardian, on the descriptors that the command line names."""
    channel, ledger = (int(argument) for argument in sys.argv[1:3])
    os.set_inheritable(ledger, False)
    fcntl.fcntl(channel, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    os.umask(0o077)
    connection = socket.socket(fileno=channel)
    connection.setblocking(False)
    guardian = Guardian(connection, Ledger(ledger))
    try:
        guardian.run()
    finally:
        are_removed = guardian.close()
    sys.exit(0 if are_removed else 1)


if __name__ == "__main__":
    main()
