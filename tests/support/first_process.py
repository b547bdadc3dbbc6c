"""A program as the first process of a PID namespace, as a container's is: it gets no signal without a handler."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.agent_process import wait_for

_AS_ROOT = () if os.geteuid() == 0 else ("--user", "--map-root-user")


class FirstProcess:
    """`pid` is the program's as we see it; `wait` gives its exit status."""

    def __init__(self, command: Sequence[str | Path], environ: Mapping[str, str], log: Path) -> None:
        with log.open("ab") as output:
            self._unshare = subprocess.Popen(
                ["unshare", *_AS_ROOT, "--pid", "--fork", "--mount-proc", "--kill-child", "--", *command],
                env=dict(environ),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.pid = int(wait_for(self._child, "unshare has started the program"))

    def _child(self) -> str:
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children").read_text().split()
        return children[0] if children else ""

    def _mask(self, name: str) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith(f"{name}:"))

    @property
    def takes_signals(self) -> bool:
        """Whether a SIGTERM sent now is kept or handled: until then the kernel drops it."""
        bit = 1 << (signal.SIGTERM - 1)
        return bool((self._mask("SigBlk") | self._mask("SigCgt")) & bit) and self._is_ours

    @property
    def _is_ours(self) -> bool:
        return Path(f"/proc/{self.pid}/comm").read_text().strip() != "unshare"

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float = 30.0) -> int:
        return self._unshare.wait(seconds)

    def end(self) -> None:
        """However it is."""
        if self._unshare.poll() is None:
            self._unshare.kill()  # the namespace goes with it
            self._unshare.wait()


@contextmanager
def first_process(command: Sequence[str | Path], environ: Mapping[str, str], log: Path) -> Iterator[FirstProcess]:
    """Started, and ended whatever happens."""
    process = FirstProcess(command, environ, log)
    try:
        yield process
    finally:
        process.end()
