"""A step's output on the disk, from which it is uploaded: its beginning, and the end of what is too much."""

import errno
import os
import stat

from agent.worker.disk.owned import open_owned

LOG_BYTES = 64 << 20
"""The most of a step's output that is kept from its beginning; of what follows, the last TAIL_BYTES are."""
TAIL_BYTES = 64 * 1024
SPACE_BYTES = TAIL_BYTES + 128
"""What is taken on the disk beforehand for that end and the notice before it."""
TAIL = ".tail"


class KeptLog:
    """One file.

    `space_path` is a file whose blocks were taken before the command could fill the disk: the end goes there if the log
    has no room for it, and `TAIL` of the log's name is then where it is found.
    """

    def __init__(self, path: str, space_path: str | None = None) -> None:
        self._path = path
        self._space_path = space_path
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
        self._fd: int | None = os.open(path, flags, 0o600)
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            os.close(self._fd)
            raise FileExistsError(errno.EEXIST, "something else is in the place of its log")
        self._kept_bytes = 0
        self._left_out_bytes = 0
        self._tail = bytearray()

    def keep(self, data: bytes) -> None:
        """The beginning goes to disk; of what is too much, or finds the disk full, the end is remembered."""
        room = LOG_BYTES - self._kept_bytes if not self._left_out_bytes else 0
        written = self._append(data[:room])
        self._kept_bytes += written
        rest = data[written:]
        if rest:
            self._left_out_bytes += len(rest)
            self._tail += rest
            del self._tail[:-TAIL_BYTES]

    def finish(self) -> None:
        """Add the end, if some was left out, and close."""
        left_out = self._left_out_bytes - len(self._tail)
        notice = b"\n[slot-agent: %d bytes of output left out here]\n" % left_out if self._tail and left_out else b""
        end = notice + bytes(self._tail)
        written = self._append(end)
        if written < len(end):
            self._write_into_space(end[written:])
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _append(self, data: bytes) -> int:
        """How many bytes the disk took."""
        written = 0
        try:
            while self._fd is not None and written < len(data):
                written += os.write(self._fd, data[written:])
        except OSError:
            return written
        return written

    def _write_into_space(self, data: bytes) -> None:
        if self._space_path is None:
            return
        try:
            with open(os.open(self._space_path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "wb") as file:
                file.write(data)
                file.flush()
                file.truncate()
            os.rename(self._space_path, self._path + TAIL)
        except OSError:
            return


def kept_bytes(path: str) -> int:
    """How long a log is, with the end that did not fit. Raises OSError."""
    return _size(path) + _size(path + TAIL)


def read_kept(path: str, offset: int, size: int) -> bytes:
    """At most `size` bytes of a log from `offset` on; the end that did not fit comes after its beginning.

    Raises OSError.
    """
    first = _size(path)
    if offset >= first:
        path, offset = path + TAIL, offset - first
    with open(open_owned(path, os.O_RDONLY), "rb") as file:
        return os.pread(file.fileno(), size, offset)


def _size(path: str) -> int:
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0
