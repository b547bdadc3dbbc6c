"""Standard output and standard error: nothing written there is lost, and nothing of it steers the terminal.

Messages and commands come from objects that others wrote. So on a terminal colours pass, and other control characters
are shown as text, as in a step's output (`terminal`).
"""

import codecs
import io
import os
import sys
from typing import TextIO


class SafeText(io.TextIOWrapper):
    """Text for a terminal."""

    def write(self, text: str, /) -> int:
        """Write it, with its control characters shown."""
        if not text.replace("\n", "").isprintable():
            from controller.cli.show.terminal import shown  # noqa: PLC0415 - seldom needed

            super().write(shown(_bytes(text)))
        else:
            super().write(text)
        return len(text)


def _bytes(text: str) -> bytes:
    """As UTF-8. What Python made of bytes that are none, as in a file's name, is those bytes again."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def prepare() -> None:
    """Have output wait while its reader is slow, whatever others do to a stdout that they share with us.

    node makes its own non-blocking. With PYTHONUNBUFFERED Python drops what such a stdout, or a full disk, does not
    take at once.
    """
    for name in ("stdout", "stderr"):
        stream: TextIO | None = getattr(sys, name)
        # None: it was closed before we began.
        if stream is None:
            continue
        os.set_blocking(stream.fileno(), True)
        kind = SafeText if stream.isatty() else io.TextIOWrapper
        if kind is SafeText or isinstance(stream.buffer, io.RawIOBase):
            whole = open(stream.fileno(), "wb", closefd=False)  # noqa: SIM115 - for as long as we run
            setattr(sys, name, kind(whole, _encoding(stream, kind), stream.errors, write_through=True))


def _encoding(stream: TextIO, kind: type[io.TextIOWrapper]) -> str:
    """As it was; but click wraps ASCII anew, past SafeText, and writes UTF-8, so that is what a terminal gets."""
    ascii_alone = codecs.lookup(stream.encoding).name == "ascii"
    return "utf-8" if kind is SafeText and ascii_alone else stream.encoding
