"""Files of the worker's own, in folders that a task's code can write to as well.

So nothing is opened that could be waited for, followed elsewhere, or is not a plain file; and three things are told
apart: what is missing (None), what can't be read now (OSError), and what is no record of ours (NotOursError).
"""

import errno
import fcntl
import os
import stat

_CHECKED = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAX_BYTES = 16 << 20
_NOT_OURS = {errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENOTDIR, errno.EEXIST}


class NotOursError(OSError):
    """Something that is not our file is in its place. An OSError, so code that only writes needs no special case."""


def open_owned(path: str, flags: int) -> int:
    """A descriptor of a plain file, at which nothing waits. Raises FileNotFoundError, NotOursError, OSError."""
    try:
        fd = os.open(path, flags | _CHECKED, 0o600)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in _NOT_OURS and not flags & os.O_EXCL:
            raise NotOursError(error.errno, "something else is in its place", path) from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotOursError(errno.EEXIST, "something else is in its place", path)
    return fd


def read_owned(path: str) -> bytes | None:
    """All of it; None if it is missing. Raises NotOursError, OSError."""
    try:
        fd = open_owned(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    with open(fd, "rb") as file:
        if os.fstat(fd).st_size > _MAX_BYTES:
            raise NotOursError(errno.EFBIG, "something else is in its place", path)
        return file.read(_MAX_BYTES)


def write_owned(path: str, content: bytes) -> None:
    """Replace it, whole or not at all, and durably."""
    new = path + ".new"
    move_aside(new, None)
    with open(open_owned(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if is_folder(path):
        raise NotOursError(errno.EISDIR, "a folder is in its place", path)
    os.replace(new, path)
    sync_folder(os.path.dirname(path))


def move_aside(path: str, trash: str | None) -> None:
    """Move away whatever file is there, without opening it: into a new name below `trash`, or for good."""
    if not os.path.lexists(path):
        return
    if trash is None and not is_folder(path):
        os.unlink(path)
        return
    number = 0
    folder, name = trash or os.path.dirname(path), os.path.basename(path)
    while os.path.lexists(target := os.path.join(folder, f"{name}.aside.{number}")):
        number += 1
    os.rename(path, target)


def is_folder(path: str) -> bool:
    """Whether it is a folder itself, and no link to one. Raises OSError if that can't be seen: it may be one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def sync_folder(path: str) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def lock_file(fd: int) -> bool:
    """Take the lock of an open file, without waiting. False while a process has it through another descriptor."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def take_space(path: str, size: int) -> None:
    """Have the disk set aside `size` bytes for a file. Raises OSError if it has no room."""
    fd = open_owned(path, os.O_WRONLY | os.O_CREAT)
    try:
        os.posix_fallocate(fd, 0, size)
    finally:
        os.close(fd)
