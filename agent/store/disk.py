"""The folder that the journal is kept in. A call that returned has reached the disk."""

import errno
import os
import stat
from pathlib import Path
from typing import Protocol


class Disk(Protocol):
    """The folder of the journal. Everything may raise OSError; a write that returned has reached the disk."""

    def read(self, name: str) -> bytes | None:
        """The file's bytes; None if there is none."""

    def write(self, name: str, data: bytes) -> None:
        """Make or replace the file, synced. Not atomic: rename does that."""

    def append(self, name: str, data: bytes) -> None:
        """Add to the file's end, synced."""

    def truncate(self, name: str, size_bytes: int) -> None:
        """Cut the file, synced."""

    def rename(self, old: str, new: str) -> None:
        """Replace `new` by `old` atomically, the folder synced."""

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""

    def remove(self, name: str) -> None:
        """Remove the file, if it is there."""


class FolderDisk:
    """A real folder. Keeps the file that is appended to open."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open_name: str | None = None
        self._fd = -1

    def read(self, name: str) -> bytes | None:
        """The file's bytes; None if there is none."""
        path = self._folder / name
        try:
            # Without waiting: a FIFO has no end, and may have no beginning.
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        with os.fdopen(fd, "rb") as file:
            return file.read()

    def write(self, name: str, data: bytes) -> None:
        """Make or replace the file, synced."""
        self.close()
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self._folder / name, flags, 0o600)
        try:
            _write_all(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)

    def append(self, name: str, data: bytes) -> None:
        """Add to the file's end, synced."""
        if self._open_name != name:
            self.close()
            flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(self._folder / name, flags)
            self._open_name = name
        _write_all(self._fd, data)
        os.fdatasync(self._fd)

    def truncate(self, name: str, size_bytes: int) -> None:
        """Cut the file, synced."""
        fd = os.open(self._folder / name, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.ftruncate(fd, size_bytes)
            os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, old: str, new: str) -> None:
        """Replace `new` by `old` atomically, the folder synced."""
        self.close()
        (self._folder / old).rename(self._folder / new)
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self._folder / name).exists()

    def remove(self, name: str) -> None:
        """Remove the file, if it is there."""
        (self._folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file that is appended to."""
        if self._fd >= 0:
            fd, self._fd, self._open_name = self._fd, -1, None
            os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, data[written:])
