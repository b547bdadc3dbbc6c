"""What people give on the command line, checked before anything is asked for."""

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from controller.cli.arguments import kinds
from controller.cli.arguments.kinds import Kind
from controller.kube.api import Object

F = TypeVar("F", bound=Callable[..., Any])
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LONGEST_NAME, _LONGEST_NAMESPACE = 253, 63
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ms|h|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


class Name(click.ParamType[str]):
    """The name of an object: an empty one, as of a shell variable that is not set, would ask for all of them.

    `kind`: which names there are to be completed, of the objects that are `completed`. `slottask/net`, as commands
    print it, is taken too where that kind is meant.
    """

    name = "name"

    def __init__(self, kind: Kind | None = None, *, completed: Callable[[Object], bool] = lambda _: True) -> None:
        self.kind = kind
        self._completed = completed

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name. Raises BadParameter."""
        word, slash, rest = value.partition("/")
        if slash and self.kind is not None and kinds.find(word) is self.kind:
            value = rest
        if not _NAME.fullmatch(value) or len(value) > _LONGEST_NAME:
            self.fail(f"{value!r} is no name: those have 1 to 253 lower case letters, digits, '-' and '.'", param, ctx)
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The names that are there and begin so."""
        from controller.cli.arguments.completing import names_of  # noqa: PLC0415 - it asks the API server

        given = ctx.params.get(param.name or "") or ()
        found = names_of(ctx, self.kind, incomplete, self._completed)
        return [CompletionItem(name) for name in found if name not in given]


class WhatArgument(click.ParamType[str]):
    """The words that say what to look at, in kubectl's forms: see `kinds.select`. The command gets Selections."""

    name = "what"

    def __init__(self, among: tuple[Kind, ...]) -> None:
        self._among = among

    @classmethod
    def argument(cls, among: tuple[Kind, ...], metavar: str) -> Callable[[F], F]:
        """The argument `what` of a command."""
        words = cls(among)
        return click.argument("what", metavar=metavar, nargs=-1, type=words, callback=words.selected)

    def selected(
        self, ctx: click.Context, param: click.Parameter, words: tuple[str, ...]
    ) -> tuple[kinds.Selection, ...]:
        """What the words select. Raises BadParameter."""
        try:
            found = kinds.select(words, self._among)
        except kinds.NoSelection as error:
            raise click.UsageError(str(error), ctx) from error
        for selection in found:
            for name in selection.names:
                Name().convert(name, param, ctx)
        return found

    def shell_complete(self, ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Kinds first: one name for each is enough to choose from. Then names, or names behind `KIND/`."""
        from controller.cli.arguments.completing import names_of  # noqa: PLC0415 - it asks the API server

        selections: tuple[kinds.Selection, ...] = ctx.params.get("what") or ()
        word, slash, begun = incomplete.partition("/")
        if slash:
            kind = kinds.find(word)
            return [CompletionItem(f"{word}/{name}") for name in names_of(ctx, kind, begun) if kind in self._among]
        if selections:
            (first, *others) = selections
            known = () if others else names_of(ctx, first.kind, incomplete)
            return [CompletionItem(name) for name in known if name not in first.names]
        before, comma, last = incomplete.rpartition(",")
        words = [kind.plural for kind in self._among] + ([] if comma else [kinds.ALL])
        there = before.split(",")
        return [CompletionItem(before + comma + name) for name in words if name.startswith(last) and name not in there]


class Namespace(click.ParamType[str]):
    """The name of a namespace."""

    name = "namespace"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name. Raises BadParameter."""
        if not _NAMESPACE.fullmatch(value) or len(value) > _LONGEST_NAMESPACE:
            self.fail(f"{value!r} is no namespace: those have 1 to 63 lower case letters, digits and '-'", param, ctx)
        return value


class Duration(click.ParamType[float]):
    """A length of time as kubectl writes it, `90s`, `5m` or `1h30m`; a bare number is seconds."""

    name = "duration"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds. Raises BadParameter."""
        text = str(value)
        if re.fullmatch(r"\d+(\.\d*)?|\.\d+", text):
            return float(text)
        parts = _PART.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            self.fail(f"{text!r} is no length of time: write 90s, 5m, 1h30m, or seconds as a number", param, ctx)
        return sum(float(number) * _SECONDS[unit] for number, unit in parts)
