"""What game servers write, read in a thread so that no game server waits for the event loop.

A program that writes to a full pipe stops until the pipe is read. The event loop may be busy, or a
debugger may hold it; the thread goes on.
"""

from __future__ import annotations

import codecs
import os
import select
import threading
import zlib
from collections.abc import Callable
from typing import Final

_READ_BYTES: Final = 65536  # of output at a time


class Output:
    """The last `size` bytes of what a program has written.

    Bytes, not lines: a line may be longer than any buffer, and output may be binary.
    """

    def __init__(self, size: int = 2**20) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._data = bytearray()
        self._compressed: bytes | None = None
        self.written = 0
        """Number of bytes that the program has written."""
        self.pipe: OutputPipe | None = None
        """What it comes from; None once the program has ended."""

    def write(self, piece: bytes) -> None:
        """Adds a piece, and drops the oldest bytes beyond `size`."""
        with self._lock:
            self._unpack()
            self._data += piece
            self.written += len(piece)
            if len(self._data) > self._size:
                del self._data[: -self._size]

    def _unpack(self) -> None:
        if self._compressed is not None:
            self._data[:] = zlib.decompress(self._compressed)
            self._compressed = None

    def compress(self) -> None:
        """Makes it small, for a program that has ended. It can still be read and written."""
        with self._lock:
            if self._compressed is None:
                self._compressed = zlib.compress(self._data, 1)
                self._data = bytearray()

    @property
    def held_bytes(self) -> int:
        """Number of bytes that it keeps."""
        with self._lock:
            return len(self._data if self._compressed is None else self._compressed)

    def _read(self) -> tuple[bytes, int]:
        """Returns what is kept, and the number of bytes that the program has written."""
        pipe = self.pipe
        if pipe is not None:
            pipe.read_rest()  # what the program wrote before this call
        with self._lock:
            packed = self._compressed
            return bytes(self._data) if packed is None else zlib.decompress(packed), self.written

    def text(self, until: int | None = None) -> str:
        """Returns the output as text; bytes that are not UTF-8 are replaced.

        Args:
            until: only of the first `until` bytes that the program has written; None for all.
        """
        data, written = self._read()
        later = 0 if until is None else max(0, written - until)
        return data[: max(0, len(data) - later)].decode("utf-8", "replace")

    def after(self, position: int) -> tuple[str, int]:
        """Returns the text after the first `position` bytes, and the position after it.

        A character that is not complete yet stands in the next text. If the program has ended and
        its output is gone, the position is smaller than before.

        Args:
            position: number of bytes that the caller knows; 0 for all that is kept.
        """
        data, written = self._read()
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text = decoder.decode(data[max(0, len(data) - max(0, written - position)) :])
        return text, written - len(decoder.getstate()[0])


class OutputPipe:
    """The reading end of the pipe that one program writes to. `OutputReader.add` makes it."""

    def __init__(
        self, descriptor: int, output: Output, before_close: Callable[[int], None]
    ) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor: int | None = descriptor
        self._output = output
        output.pipe = self
        self._before_close = before_close
        self._lock = threading.Lock()

    def read(self) -> bool:
        """Reads what there is, 64 KiB at most. Returns whether there may be more."""
        with self._lock:
            if self._descriptor is None:
                return False
            try:
                piece = os.read(self._descriptor, _READ_BYTES)
            except BlockingIOError:
                return False
            if piece:
                self._output.write(piece)
            else:
                self._close()
            return bool(piece)

    def read_rest(self) -> None:
        """Reads what there is; at most 1 MiB, as the program may write on."""
        for _ in range(2**20 // _READ_BYTES + 1):
            if not self.read():
                break

    def close(self) -> None:
        """Reads no more. A second call does nothing."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            if self._output.pipe is self:  # not of a program that has started again
                self._output.pipe = None
            self._before_close(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None


class OutputReader:
    """Reads the pipes of all programs of a machine, in one thread."""

    def __init__(self) -> None:
        self._pipes: dict[int, OutputPipe] = {}
        self._epoll: select.epoll | None = None
        self._wake = -1
        self._thread: threading.Thread | None = None

    def add(self, descriptor: int, output: Output) -> OutputPipe:
        """Reads a pipe from now on, and owns its descriptor unless this raises.

        Raises:
            OSError: no more files can be opened.
        """
        if self._epoll is None:
            self._start()
        assert self._epoll is not None  # noqa: S101 - `_start` has made it
        pipe = OutputPipe(descriptor, output, self._remove)
        self._pipes[descriptor] = pipe
        self._epoll.register(descriptor, select.EPOLLIN)
        return pipe

    def _remove(self, descriptor: int) -> None:
        # Explicitly: a forked process may have a copy, with which the epoll set would report it on.
        if self._epoll is not None:
            self._epoll.unregister(descriptor)
        del self._pipes[descriptor]

    def _start(self) -> None:
        epoll = select.epoll()
        try:
            self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError:
            epoll.close()
            raise
        epoll.register(self._wake, select.EPOLLIN)
        self._epoll = epoll
        self._thread = threading.Thread(
            target=self._run, args=(epoll,), name="edgegap-emulator-output", daemon=True
        )
        self._thread.start()

    def _run(self, epoll: select.epoll) -> None:
        while True:
            for descriptor, _ in epoll.poll():
                if descriptor == self._wake:
                    return
                pipe = self._pipes.get(descriptor)
                if pipe is not None:
                    pipe.read()

    def close(self) -> None:
        """Ends the thread and closes the pipes."""
        if self._epoll is None or self._thread is None:
            return
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        for pipe in list(self._pipes.values()):
            pipe.close()
        self._epoll.close()
        self._epoll = self._thread = None
        os.close(self._wake)
