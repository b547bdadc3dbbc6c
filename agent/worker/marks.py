"""The marks before what a step prints in the worker's own output, which all tasks of a slot share.

    [team/network plan 3f2a9c41]: begins
    [team/network plan 3f2a9c41] a line
    [team/network plan 3f2a9c41]+a piece of a line that goes on in the next piece
    [team/network plan 3f2a9c41]: note something to be said about the run
    [team/network plan 3f2a9c41]: ended

The last word in the brackets stands for one attempt of one task object: a later task of the same name has another. So
whoever reads the log gets back a run's output byte for byte: a line's text and its end, a piece's text alone.
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
    """A word about a run, after its mark."""
    return b": note " + text.encode("utf-8", "replace").replace(b"\n", b" ") + b"\n"


class Marked:
    """Cuts a run's output into lines with its mark. Holds back what may yet become a whole line."""

    def __init__(self, prefix: bytes) -> None:
        self._line = prefix + b" "
        self._piece = prefix + b"+"
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """The lines that are whole by now."""
        *lines, rest = (self._rest + data).split(b"\n")
        shown = b""
        if lines:
            if max(map(len, lines)) <= PIECE_BYTES:
                shown = self._line + (b"\n" + self._line).join(lines) + b"\n"
            else:
                shown = b"".join(self._whole(line) for line in lines)
        pieces, self._rest = self._pieces(rest)
        return shown + pieces

    def end(self) -> bytes:
        """What is left: a last line without an end."""
        rest, self._rest = self._rest, b""
        return self._piece + rest + b"\n" if rest else b""

    def _whole(self, line: bytes) -> bytes:
        pieces, rest = self._pieces(line)
        return pieces + self._line + rest + b"\n"

    def _pieces(self, line: bytes) -> tuple[bytes, bytes]:
        """A line that is too long, in pieces that end between characters; and what is left of it."""
        shown: list[bytes] = []
        while len(line) > PIECE_BYTES:
            end = PIECE_BYTES
            for shorter in range(1, _MOST_CONTINUATION_BYTES + 1):
                if line[end] & 0xC0 != 0x80:  # noqa: PLR2004 - UTF-8's own: 10xxxxxx goes on with a character
                    break
                end = PIECE_BYTES - shorter
            shown += (self._piece, line[:end], b"\n")
            line = line[end:]
        return b"".join(shown), line
