"""A worker that is killed at its Nth touch of the disk or of processes: `python -m tests.support.worker_crash N`.

N counts calls of the functions below from the moment the first step is offered, that is, from the first assignment
file. So a test can go through every point around marker, start and end by counting N up until the worker survives.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from agent.worker.__main__ import main
from agent.worker.disk import directories, files, owned
from agent.worker.process import hashing, processes
from agent.worker.step import output, preparation, step

COUNTED = (
    "open",
    "write",
    "fsync",
    "replace",
    "unlink",
    "mkdir",
    "fork",
    "posix_fallocate",
    "waitpid",
    "close",
    "pipe",
)


class _Counter:
    """Kills this process at the Nth counted call; forked children count for themselves, and live."""

    def __init__(self, deadly: int) -> None:
        self._left = deadly
        self._pid = os.getpid()
        self.armed = False

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            if self.armed and os.getpid() == self._pid:
                self._left -= 1
                if self._left == 0:
                    os.kill(self._pid, signal.SIGKILL)
            return function(*arguments, **options)

        return counted


class _Os:
    """The os module as the worker's modules see it, with some functions counted."""

    def __init__(self, counter: _Counter) -> None:
        self._counted = {name: counter.wrap(getattr(os, name)) for name in COUNTED}

    def __getattr__(self, name: str) -> Any:
        return self._counted.get(name) or getattr(os, name)


def run(deadly: int) -> int:
    """Work, and die at the `deadly`-th counted call."""
    counter = _Counter(deadly)
    counted: Any = _Os(counter)
    for module in (directories, files, hashing, output, owned, preparation, processes, step):
        module.os = counted  # type: ignore[attr-defined]
    assign = directories.Directories.assign

    def arming(self: directories.Directories, assignment: Any) -> None:
        counter.armed = True
        assign(self, assignment)

    directories.Directories.assign = arming  # type: ignore[method-assign]
    return main(os.environ)


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1])))
