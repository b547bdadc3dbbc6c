"""Writes a step's output to stdout, as is or safe for a terminal, and what is to be said about it to stderr."""

import sys

import click

from controller.cli.show.terminal import Shown
from controller.objects.output import Gap, Output


class Sink:
    """Stdout for a step's bytes, stderr for words about them."""

    def __init__(self, *, raw: bool) -> None:
        terminal = sys.stdout.isatty()
        if raw and terminal:
            raise click.UsageError("--raw is for pipes and files: a terminal would obey what the output says")
        self._raw = raw
        self._terminal = terminal
        self._stream = sys.stdout.buffer
        self._shown = Shown(terminal=terminal)
        self._in_line = False

    def write(self, data: bytes) -> None:
        """Show a part of the output."""
        self._put(data if self._raw else self._shown.feed(data))

    def say(self, text: str) -> None:
        """Say something beside the output, on a line of its own where both are seen together."""
        self.end()
        if self._in_line and self._terminal:
            self._put(b"\n")
        click.echo(text, err=True)

    def end(self) -> None:
        """The output ends here, or goes on elsewhere."""
        self._put(b"" if self._raw else self._shown.end())

    def show(self, output: Output, start: int = 0) -> None:
        """All of an output from a place in it, and in its place what is missing."""
        place = 0
        for piece in output.pieces():
            size = piece.size_bytes if isinstance(piece, Gap) else len(piece)
            skipped = min(max(0, start - place), size)
            if size > skipped:
                if isinstance(piece, Gap):
                    self.say(gap_text(Gap(place + skipped, size - skipped)))
                else:
                    self.write(piece[skipped:])
            place += size
        self.end()

    def _put(self, data: bytes) -> None:
        if data:
            self._in_line = not data.endswith(b"\n")
            self._stream.write(data)
            self._stream.flush()


def gap_text(gap: Gap) -> str:
    """What stands where bytes are missing."""
    return f"[podslots: {gap.size_bytes:,} bytes of the output are missing here, from byte {gap.offset:,}]"
