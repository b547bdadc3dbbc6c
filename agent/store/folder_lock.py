"""The state folder belongs to one agent at a time. The kernel ends the lock with the process, however that ends."""

import fcntl
import os
from pathlib import Path


def lock_folder(folder: Path) -> int:
    """Lock the folder for this process; returns the descriptor to keep. Raises OSError if another process has it.

    The folder itself is locked, not a file in it: that needs no room, and works on a full disk.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise OSError(f"another agent serves with the state folder {folder}") from error
    except BaseException:
        os.close(fd)
        raise
    return fd
