"""What a person is shown and asked before something that can't be taken back."""

import shutil
import sys
import termios

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
        return click.confirm(self.question)

    def page(self, text: str) -> None:
        """Show a long text: a page at a time if a person is there to turn them."""
        if not text:
            return
        lines = shutil.get_terminal_size().lines
        if not self.yes and sys.stdin.isatty() and sys.stdout.isatty() and text.count("\n") >= lines - 1:
            click.echo_via_pager(text, color=True)
        else:
            click.echo(text, nl=False)


def drop_what_was_typed() -> None:
    """A key that was hit before the question was there does not answer it."""
    if sys.stdin.isatty():
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
