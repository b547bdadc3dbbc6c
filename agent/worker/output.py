"""A command's output on its way: from the pipe into the log file, which is uploaded from, and to the worker's stdout.

Memory is bounded: one block, the end of a log that outgrew its limit, and what stdout has not yet taken. While stdout
is stuck the pipe is not read, so the command waits, as it would if it wrote there itself.
"""

import errno
import os
import select
import stat

BLOCK_BYTES = 64 * 1024
LOG_BYTES = 64 << 20
"""The most of a step's output that is kept from its beginning; of what follows, the last TAIL_BYTES are."""
TAIL_BYTES = 64 * 1024
ECHO_BYTES = 256 * 1024
"""What may wait for stdout before the command has to."""
SPACE_BYTES = TAIL_BYTES + 128
"""What is taken on the disk beforehand for that end and the notice before it."""
TAIL = ".tail"
LAST_ECHO_BYTES = 1 << 20
"""What may wait for stdout when the step has ended."""
LINE_BYTES = 16 * 1024
"""The longest line that is waited for; also what container runtimes split lines at."""


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
    def size_bytes(self) -> int:
        """How much waits."""
        return len(self._pending)

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
    """The output of one step, from `source` (a pipe's reading end, which it owns) to its log and to `echo`.

    `space_path` is a file whose blocks were taken before the command could fill the disk: the end goes there if the log
    has no room for it, and `TAIL` of the log's name is then where it is found.
    """

    def __init__(self, source: int, log_path: str, prefix: str, echo: Echo, space_path: str | None = None) -> None:
        os.set_blocking(source, False)
        self.source: int | None = source
        self.total_bytes = 0
        self._echo = echo
        self._prefix = prefix.encode()
        self._unshown = b""
        self._shown = 0
        self._log_path = log_path
        self._space_path = space_path
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
        self._log: int | None = os.open(log_path, flags, 0o600)
        if not stat.S_ISREG(os.fstat(self._log).st_mode):
            os.close(self._log)
            raise FileExistsError(errno.EEXIST, "something else is in the place of its log")
        self._kept_bytes = 0
        self._left_out_bytes = 0
        self._tail = bytearray()

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
        self._unshown = self._unshown[self._shown :] + data
        self._shown = 0
        self.show()
        return True

    def finish(self) -> None:
        """The command and all its processes are gone: take what is left in the pipe, and close."""
        while self.read():
            self._echo.flush()
            self.show(whatever=True)
        if self.source is not None:
            os.close(self.source)
            self.source = None
        self.show(whatever=True)
        if rest := self._unshown[self._shown :]:
            self._echo.add(self._prefix + rest + b"\n")
            self._unshown = b""
        self._close_log()

    def show(self, *, whatever: bool = False) -> None:
        """Whole lines go to stdout, each under the task's name, as long as they are taken there; a long one is cut.

        Piece by piece: a block of empty lines would become hundreds of times as long. `whatever`: it is the last
        chance, so more may wait there, and what a stuck stdout has no room for is lost.
        """
        data, start = self._unshown, self._shown
        while self._echo.size_bytes <= (LAST_ECHO_BYTES if whatever else ECHO_BYTES):
            end = data.find(b"\n", start)
            if end < 0:
                if len(data) - start <= LINE_BYTES:
                    break
                end = len(data)
            self._echo.add(self._prefix + data[start:end] + b"\n")
            start = min(end + 1, len(data))
            if self._echo.size_bytes > BLOCK_BYTES:
                self._echo.flush()
        else:
            if whatever:
                start = len(data)
        self._shown = start

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

    def _close_log(self) -> None:
        left_out = self._left_out_bytes - len(self._tail)
        notice = b"\n[slot-agent: %d bytes of output left out here]\n" % left_out if self._tail and left_out else b""
        end = notice + bytes(self._tail)
        written = self._append(end)
        if written < len(end):
            self._write_into_space(end[written:])
        if self._log is not None:
            os.close(self._log)
            self._log = None

    def _write_into_space(self, data: bytes) -> None:
        if self._space_path is None:
            return
        try:
            with open(os.open(self._space_path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "wb") as file:
                file.write(data)
                file.flush()
                file.truncate()
            os.rename(self._space_path, self._log_path + TAIL)
        except OSError:
            return
