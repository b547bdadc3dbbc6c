"""Standard output and standard error: nothing written there is lost, and nothing of it steers the terminal.

Messages and commands come from objects that others wrote. So on a terminal colours pass, and other control characters
are shown as text, as in a step's output (`terminal`).
"""

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

            super().write(shown(text.encode("utf-8", "surrogatepass")))
        else:
            super().write(text)
        return len(text)


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
            setattr(sys, name, kind(whole, stream.encoding, stream.errors, write_through=True))
