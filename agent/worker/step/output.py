"""A command's output on its way: from the pipe into the log file, which is uploaded from, and to the worker's stdout.

Memory is bounded: one block, the end of a log that outgrew its limit, and what stdout has not yet taken. While stdout
is stuck the pipe is not read, so the command waits, as it would if it wrote there itself.
"""

import os
import select
import stat

from agent.worker.disk.kept_log import KeptLog
from agent.worker.step import marks
from agent.worker.step.masking import Mask

BLOCK_BYTES = 64 * 1024
ECHO_BYTES = 256 * 1024
"""What may wait for stdout before the command has to."""
LAST_ECHO_BYTES = 1 << 20
"""What may wait for stdout when the step has ended."""


class Echo:
    """The worker's stdout, or stderr. Never blocks: a pipe gets no more than it has room for."""

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

    What leaves the worker is masked: the log, which is uploaded, and the echo. `unmasked_path` is a log of what the
    commands wrote, for the plan's digest; it stays here. `space_path`: see `KeptLog`.
    """

    def __init__(
        self,
        source: int,
        log_path: str,
        mark: bytes,
        echo: Echo,
        *,
        space_path: str | None = None,
        secrets: tuple[bytes, ...] = (),
        notes: tuple[str, ...] = (),
        unmasked_path: str | None = None,
    ) -> None:
        os.set_blocking(source, False)
        self.source: int | None = source
        self.total_bytes = 0
        """How much there is to upload, or would be if all of it were kept."""
        self._echo = echo
        self._mark = mark
        self._marked = marks.Marked(mark)
        self._secrets = Mask(secrets)
        self._log = KeptLog(log_path, space_path)
        self._unmasked = KeptLog(unmasked_path) if secrets and unmasked_path else None
        echo.add(mark + marks.BEGINS + b"".join(mark + marks.note(text) for text in notes))

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
        if self._unmasked:
            self._unmasked.keep(data)
        self._take(self._secrets.feed(data))
        self.show()
        return True

    def _take(self, data: bytes) -> None:
        self.total_bytes += len(data)
        self._log.keep(data)
        self._marked.add(data)

    def finish(self) -> None:
        """The commands and all their processes are gone: take what is left in the pipe, and close."""
        while self.read():
            self._echo.flush()
            self.show(whatever=True)
        if self.source is not None:
            os.close(self.source)
            self.source = None
        self._take(self._secrets.end())
        self.show(whatever=True)
        self._echo.add(self._marked.end() + self._mark + marks.ENDED)
        for log in (self._log, self._unmasked):
            if log is not None:
                log.finish()

    def show(self, *, whatever: bool = False) -> None:
        """Write whole lines to stdout, each after the run's mark, as long as stdout takes them. Long lines are cut.

        `whatever`: this is the last chance, so more may wait in the buffer, and what does not fit is lost.
        """
        while self._echo.size_bytes <= (LAST_ECHO_BYTES if whatever else ECHO_BYTES):
            line = self._marked.next()
            if line is None:
                return
            self._echo.add(line)
            if self._echo.size_bytes > BLOCK_BYTES:
                self._echo.flush()
        if whatever:
            self._marked.drop()
