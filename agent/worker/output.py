"""A command's output on its way: from the pipe into the log file, which is uploaded from, and to the worker's stdout.

Memory is bounded: one block, the end of a log that outgrew its limit, and what stdout has not yet taken. While stdout
is stuck the pipe is not read, so the command waits, as it would if it wrote there itself.
"""

import os
import select
import stat

from agent.worker import marks

BLOCK_BYTES = 64 * 1024
LOG_BYTES = 64 << 20
"""The most of a step's output that is kept from its beginning; of what follows, the last TAIL_BYTES are."""
TAIL_BYTES = 64 * 1024
ECHO_BYTES = 256 * 1024
"""What may wait for stdout before the command has to."""


class Echo:
    """The worker's stdout, or stderr. Never blocks: a pipe is given no more than it said it takes."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._pending = bytearray()
        self._plain = stat.S_ISREG(os.fstat(fd).st_mode)
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def add(self, data: bytes) -> None:
        """Have it written."""
        self._pending += data

    @property
    def waiting(self) -> bool:
        """Whether there is something to write."""
        return bool(self._pending)

    @property
    def full(self) -> bool:
        """Whether the command should wait."""
        return len(self._pending) > ECHO_BYTES

    def flush(self) -> None:
        """Write what can be written now. What can't be written at all is dropped: nobody reads it."""
        written = 0
        view = memoryview(self._pending)
        try:
            while written < len(view) and (self._plain or self._writable()):
                # A pipe that polls writable takes PIPE_BUF bytes at once.
                size = len(view) if self._plain else select.PIPE_BUF
                written += os.write(self.fd, view[written : written + size])
        except BlockingIOError:
            pass
        except OSError:
            written = len(view)
        view.release()
        del self._pending[:written]

    def _writable(self) -> bool:
        return bool(self._poll.poll(0))


class StepOutput:
    """The output of one command, from `source` (a pipe's reading end, which it owns) to its log and to `echo`."""

    def __init__(self, source: int, log_path: str, mark: bytes, echo: Echo) -> None:
        os.set_blocking(source, False)
        self.source: int | None = source
        self.total_bytes = 0
        self._echo = echo
        self._mark = mark
        self._marked = marks.Marked(mark)
        self._log: int | None = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._kept_bytes = 0
        self._left_out_bytes = 0
        self._tail = bytearray()
        echo.add(mark + marks.BEGINS)

    @property
    def wants_reading(self) -> bool:
        """Whether to wait for more."""
        return self.source is not None and not self._echo.full

    def read(self) -> bool:
        """Take one block. False if there was none: nothing yet, or the end, after which `source` is None."""
        if self.source is None:
            return False
        try:
            data = os.read(self.source, BLOCK_BYTES)
        except BlockingIOError:
            return False
        if not data:
            os.close(self.source)
            self.source = None
            return False
        self.total_bytes += len(data)
        self._keep(data)
        self._echo.add(self._marked.feed(data))
        return True

    def finish(self) -> None:
        """The command and all its processes are gone: take what is left in the pipe, and close."""
        while self.read():
            self._echo.flush()
        if self.source is not None:
            os.close(self.source)
            self.source = None
        self._echo.add(self._marked.end() + self._mark + marks.ENDED)
        left_out = self._left_out_bytes - len(self._tail)
        if self._tail and left_out:
            self._append(b"\n[slot-agent: %d bytes of output left out here]\n" % left_out)
        self._append(bytes(self._tail))
        if self._log is not None:
            os.close(self._log)
            self._log = None

    def _keep(self, data: bytes) -> None:
        """The beginning goes to disk; of what is too much, or finds the disk full, the end is remembered."""
        room = LOG_BYTES - self._kept_bytes if not self._left_out_bytes else 0
        written = self._append(data[:room])
        self._kept_bytes += written
        rest = data[written:]
        if rest:
            self._left_out_bytes += len(rest)
            self._tail += rest
            del self._tail[:-TAIL_BYTES]

    def _append(self, data: bytes) -> int:
        """How many bytes the disk took."""
        written = 0
        try:
            while self._log is not None and written < len(data):
                written += os.write(self._log, data[written:])
        except OSError:
            return written
        return written
