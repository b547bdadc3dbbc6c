"""What a person is shown and asked before something that can't be taken back."""

import shutil
import signal
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import click


class Asker:
    """Shows what is at stake and asks. `yes`: it was said beforehand, nobody is asked."""

    def __init__(self, *, yes: bool, question: str) -> None:
        self.yes = yes
        self.question = question

    def __call__(self, shown: str) -> bool:
        """Whether to go on."""
        click.echo(shown)
        if self.yes:
            return True
        drop_what_was_typed()
        try:
            return click.confirm(self.question)
        except click.Abort as abort:
            if isinstance(abort.__context__, KeyboardInterrupt):
                raise
            click.echo()  # Ctrl-D, or nobody there to answer
            return False

    def page(self, text: str) -> None:
        """Show a long text: a page at a time if a person is there to turn them."""
        if not text:
            return
        lines = shutil.get_terminal_size().lines
        if not self.yes and sys.stdin.isatty() and sys.stdout.isatty() and text.count("\n") >= lines - 1:
            # Ctrl-C is the pager's. It is not told to take colours as they are: whether it does is the user's to say.
            with interrupt(_pass):
                click.echo_via_pager(text)
        else:
            click.echo(text, nl=False)


@contextmanager
def interrupt(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """What SIGINT does meanwhile."""
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _pass(number: int, frame: FrameType | None) -> None:
    """Not SIG_IGN, which the pager would inherit."""


def drop_what_was_typed() -> None:
    """A key that was hit before the question was there does not answer it."""
    if sys.stdin.isatty():
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
