"""A program on a terminal of its own, typed at as a person does."""

import os
import pty
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

TAKE_TERMINAL = """\
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGINT, signal.SIG_DFL)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""A shell ignores SIGINT for what it runs in the background, tests too, and a program would inherit that."""
CTRL_C, CTRL_D = b"\x03", b"\x04"


class Terminal:
    """Use it as a context manager: at its end the program is killed if it still runs."""

    def __init__(self, argv: list[str], environ: dict[str, str], folder: Path) -> None:
        self.seen = b""
        self._here, there = pty.openpty()
        self._program = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, *argv],
            stdin=there,
            stdout=there,
            stderr=there,
            env={"TERM": "xterm", "LINES": "24", "COLUMNS": "80", **environ},
            cwd=folder,
            start_new_session=True,
        )
        os.close(there)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._program.kill()
        self._program.wait()
        os.close(self._here)

    def type(self, keys: bytes) -> None:
        """Hit keys."""
        os.write(self._here, keys)

    def hang_up(self, seconds: float = 60.0) -> int:
        """Close the terminal's window; the program's exit code once it has ended."""
        os.close(self._here)
        self._here = os.open(os.devnull, os.O_RDONLY)
        return self._program.wait(seconds)

    def until_seen(self, text: bytes, seconds: float = 30.0) -> None:
        """Wait until the screen has shown a text."""
        limit = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < limit, self.seen
            assert self._read(), self.seen

    def until_over(self, seconds: float = 30.0, answers: Mapping[bytes, bytes] | None = None) -> int:
        """Wait for the program's end; its exit code. Each time a question is shown, its answer is typed."""
        limit = time.monotonic() + seconds
        given: Counter[bytes] = Counter()
        while self._read():
            assert time.monotonic() < limit, self.seen
            for question, answer in (answers or {}).items():
                if self.seen.count(question) > given[question]:
                    given[question] += 1
                    self.type(answer)
        return self._program.wait(max(0.0, limit - time.monotonic()))

    def _read(self) -> bool:
        """What came within a moment; False once nobody can write any more."""
        if select.select([self._here], [], [], 0.1)[0]:
            try:
                data = os.read(self._here, 1 << 16)
            except OSError:  # so Linux says that the other side is closed
                return False
            self.seen += data
            return bool(data)
        return True
