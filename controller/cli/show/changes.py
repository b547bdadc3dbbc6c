"""What a verb has done to objects: a line for people, or the objects as they are after it, for programs."""

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

import click

from controller.cli.show.documents import OBJECT_OUTPUTS, as_text, listed, name_line
from controller.kube.api import Object, Resource

T = TypeVar("T")
OUTPUT = click.option(
    "-o",
    "--output",
    type=click.Choice(OBJECT_OUTPUTS),
    help="Print the objects as they then are, and no sentences.",
)


@dataclass(frozen=True, slots=True)
class Change:
    """What was done: in words, and the objects after it."""

    line: str
    objects: tuple[tuple[Resource, Object], ...] = ()


class Teller:
    """Says each change as it happens; for `json` and `yaml` prints one document of all objects when it is closed."""

    def __init__(self, output: str | None) -> None:
        self._output = output
        self._objects: list[tuple[Resource, Object]] = []

    def __call__(self, change: Change) -> None:
        """Tell one more change."""
        self._objects += change.objects
        if self._output is None:
            click.echo(change.line)
        elif self._output == "name":
            for resource, obj in change.objects:
                click.echo(name_line(resource, obj))

    def close(self) -> None:
        """The end of them, whatever has brought it."""
        if self._output in {"json", "yaml"} and self._objects:
            click.echo(as_text(listed(self._objects, alone=len(self._objects) == 1), self._output))


def each(names: tuple[str, ...], one: Callable[[str], Change], output: str | None = None) -> None:
    """Change one thing after the other, and tell it. Errors are as `in_turn` has them."""
    with closing(Teller(output)) as tell:
        in_turn(names, lambda name: tell(one(name)))


def in_turn(names: Iterable[T], one: Callable[[T], object]) -> None:
    """Do one thing to each of several, as kubectl does: what goes wrong with one keeps no other from its turn.

    Raises the last error with what it says; those before it are said at once.
    """
    failed: click.ClickException | None = None
    for name in dict.fromkeys(names):
        try:
            one(name)
        except click.UsageError:
            raise
        except click.ClickException as error:
            if failed is not None:
                failed.show()
            failed = error
    if failed is not None:
        raise failed
