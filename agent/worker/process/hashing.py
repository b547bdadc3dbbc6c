"""Hashing in a child process that can be killed: what a task wrote may take hours to read.

A separate process also because hashlib loads OpenSSL, 4 MiB that the worker would keep.
"""

import os
import signal
from collections.abc import Callable

from agent.worker.errors import StepRefusedError
from agent.worker.process import processes

_RESULT_BYTES = 4096


class Child:
    """A forked child that computes a short text. `fd` is readable once it is there."""

    def __init__(self, work: Callable[[], str]) -> None:
        self.fd, writer = os.pipe()
        parent = os.getpid()
        old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._pid = os.fork()
            if self._pid == 0:
                _compute(work, writer, parent)
        except OSError:
            os.close(self.fd)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)
            os.close(writer)
        os.set_blocking(self.fd, False)

    def result(self) -> str | None:
        """The text; None while it is not ready. Raises StepRefusedError if there will be none."""
        try:
            text = os.read(self.fd, _RESULT_BYTES).decode("utf-8", "replace")
        except BlockingIOError:
            return None
        self.end()
        if text.startswith("="):
            return text[1:]
        raise StepRefusedError(text or "the process that computes it was killed")

    def end(self) -> None:
        """Kill it, if it still runs. It is reaped with the worker's other children."""
        os.close(self.fd)
        processes.send(self._pid, signal.SIGKILL)


def _compute(work: Callable[[], str], writer: int, parent: int) -> None:
    """In the child. Does not return."""
    try:
        processes.die_with_parent()
        if os.getppid() != parent:
            os._exit(1)
        os.write(writer, b"=" + work().encode())
    except OSError as error:
        os.write(writer, f"it can't be read: {error.strerror}".encode())
    except BaseException as error:  # noqa: BLE001 - in a forked child nothing may go further up
        os.write(writer, f"it can't be computed: {type(error).__name__}".encode())
    os._exit(0)
