"""A pair of programs that are stopped as Terraform and a provider's plugin are.

`parent FOLDER` starts `child` in its own process group and waits for what it makes. At the first SIGINT it lets the
child finish, writes the state and removes its lock; at a second one it aborts; SIGTERM it does not mind. The child
lives through SIGINT and dies of SIGTERM, and then what it was making is in no state.
"""

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

TIDYING_SECONDS = 0.3


def child(folder: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    (folder / "made").touch()
    (folder / "ready").touch()
    while not (folder / "finish").exists():
        time.sleep(0.01)
    time.sleep(TIDYING_SECONDS)
    (folder / "told").touch()


def parent(folder: Path) -> int:
    interrupts = 0

    def interrupted(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        del number, frame
        interrupts += 1
        if interrupts > 1:
            os._exit(99)
        (folder / "finish").touch()

    signal.signal(signal.SIGINT, interrupted)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (folder / "lock").touch()
    pid = os.fork()
    if pid == 0:
        child(folder)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status) == 0 and (folder / "told").exists():
        (folder / "state").write_text("complete")
    (folder / "lock").unlink()
    return 1


if __name__ == "__main__":
    sys.exit(parent(Path(sys.argv[1])))
