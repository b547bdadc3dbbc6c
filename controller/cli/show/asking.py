"""What a person is shown and asked before something that can't be taken back."""

import os
import shutil
import signal
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import click

NO_OTHER_SCREEN = "-RX"
"""Options of `less`, as git has them: colours pass, and the text stays on the screen when it ends."""


class Asker:
    """Shows what is at stake and asks. `yes`: it was said beforehand, nobody is asked.

    `aside`: stdout is for programs, so people are shown and asked on stderr.
    """

    def __init__(self, *, yes: bool, question: str, aside: bool = False) -> None:
        self.yes = yes
        self.question = question
        self.aside = aside

    def __call__(self, shown: str) -> bool:
        """Whether to go on."""
        click.echo(shown, err=self.aside)
        if self.yes:
            return True
        drop_what_was_typed()
        try:
            return click.confirm(self.question, err=self.aside)
        except click.Abort as abort:
            click.echo(err=self.aside)  # what comes next begins a line
            if isinstance(abort.__context__, KeyboardInterrupt):
                raise
            return False  # Ctrl-D, or nobody there to answer

    def page(self, text: str, *, what: str, again: str) -> None:
        """Show a long text: a page at a time if a person is there to turn them, and is to be asked after it.

        A pager may take the text off the screen as it ends. So it is said what comes after it, and how to see the text
        once more: `what` it is, and the command that shows it `again`.
        """
        if not text:
            return
        lines = shutil.get_terminal_size().lines
        if not self.yes and sys.stdin.isatty() and sys.stdout.isatty() and text.count("\n") >= lines - 1:
            end = f"--- This is the end of {what}. {self.question} You are asked when you leave this pager (q). ---\n"
            # Ctrl-C is the pager's.
            with interrupt(_pass), _options_of_less():
                click.echo_via_pager(f"{text}\n{end}")
            click.echo(f"\nTo see {what} again: {again}", err=self.aside)
        else:
            click.echo(text, nl=False, err=self.aside)


@contextmanager
def _options_of_less() -> Iterator[None]:
    """Unless its user has chosen others: then colours, too, are the user's to say."""
    if os.environ.get("LESS") is not None or os.environ.get("PAGER", "less").strip() not in {"", "less"}:
        yield
        return
    os.environ["LESS"] = NO_OTHER_SCREEN
    try:
        yield
    finally:
        del os.environ["LESS"]


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
