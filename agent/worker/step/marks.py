"""The marks before what a step prints in the worker's own output, which all tasks of a slot share.

    [team/network plan 3f2a9c41]: begins
    [team/network plan 3f2a9c41] a line
    [team/network plan 3f2a9c41]+a piece of a line that goes on in the next piece
    [team/network plan 3f2a9c41]: note something to be said about the run
    [team/network plan 3f2a9c41]: ended

The last word in the brackets names one attempt of one task object: a later task of the same name has another. So a
program can rebuild the output of a run from the log, byte for byte.
"""

from binascii import crc32  # hashlib would cost more than the worker's start may take

PIECE_BYTES = 15 * 1024
"""With its mark a piece stays below 16 KiB, at which container runtimes split lines on their own."""
BEGINS, ENDED = b": begins\n", b": ended\n"
_MOST_CONTINUATION_BYTES = 3


def mark(name: str, step: str, task_id: str) -> bytes:
    """What every line of this run begins with. Ids that differ in their attempt alone never have the same checksum."""
    return f"[{name} {step} {crc32(task_id.encode()):08x}]".encode()


def note(text: str) -> bytes:
    """A note about a run, after its mark."""
    return b": note " + text.encode("utf-8", "replace").replace(b"\n", b" ") + b"\n"


class Marked:
    """Cuts a run's output into lines with its mark, one at a time: a block of empty lines becomes many times longer."""

    def __init__(self, prefix: bytes) -> None:
        self._line = prefix + b" "
        self._piece = prefix + b"+"
        self._data = b""
        self._at = 0

    def add(self, data: bytes) -> None:
        """Take in the next bytes of the output."""
        self._data = self._data[self._at :] + data
        self._at = 0

    def next(self) -> bytes | None:
        """The next line that is whole, or piece of one that is too long; None if there is none yet."""
        data, start = self._data, self._at
        end = data.find(b"\n", start, start + PIECE_BYTES + 1)
        if end >= 0:
            self._at = end + 1
            return self._line + data[start : end + 1]
        if len(data) - start <= PIECE_BYTES:
            return None
        end = start + PIECE_BYTES
        for shorter in range(1, _MOST_CONTINUATION_BYTES + 1):
            if data[end] & 0xC0 != 0x80:  # noqa: PLR2004 - UTF-8's own: 10xxxxxx goes on with a character
                break
            end = start + PIECE_BYTES - shorter
        self._at = end
        return self._piece + data[start:end] + b"\n"

    def end(self) -> bytes:
        """What is left: a last line without an end."""
        rest = self._data[self._at :]
        self.drop()
        return self._piece + rest + b"\n" if rest else b""

    def drop(self) -> None:
        """Forget what was not taken."""
        self._data, self._at = b"", 0
