"""A step's output on the disk, from which it is uploaded: its beginning, and the end of what is too much."""

import os

LOG_BYTES = 64 << 20
"""The most of a step's output that is kept from its beginning; of what follows, the last TAIL_BYTES are."""
TAIL_BYTES = 64 * 1024


class KeptLog:
    """One file."""

    def __init__(self, path: str) -> None:
        self._fd: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
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
        if self._tail and left_out:
            self._append(b"\n[slot-agent: %d bytes of output left out here]\n" % left_out)
        self._append(bytes(self._tail))
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
