"""What people give on the command line, checked before anything is asked for."""

import re

import click
from click.shell_completion import CompletionItem

from controller.cli import kinds
from controller.cli.kinds import Kind

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LONGEST_NAME, _LONGEST_NAMESPACE = 253, 63
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ms|h|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


class Name(click.ParamType[str]):
    """The name of an object: an empty one, as of a shell variable that is not set, would ask for all of them.

    `kind`: which names there are to be completed; None: of the kind that was given before. `slottask/net`, as
    commands print it, is taken too where that kind is meant.
    """

    name = "name"

    def __init__(self, kind: Kind | None = None) -> None:
        self.kind = kind

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
        from controller.cli.completion import names_of  # noqa: PLC0415 - it asks the API server

        kind = self.kind or ctx.params.get("kind")
        given = ctx.params.get(param.name or "") or ()
        return [CompletionItem(name) for name in names_of(ctx, kind, incomplete) if name not in given]


class KindName(click.ParamType[Kind]):
    """A kind, by any of its names."""

    name = "kind"

    def __init__(self, among: tuple[Kind, ...] = kinds.KINDS) -> None:
        self.among = among

    def convert(self, value: str | Kind, param: click.Parameter | None, ctx: click.Context | None) -> Kind:
        """The kind. Raises BadParameter."""
        if isinstance(value, Kind):
            return value
        found = kinds.find(value)
        if found not in self.among or found is None:
            known = ", ".join(f"{kind.plural} ({', '.join(kind.aliases)})" for kind in self.among)
            self.fail(f"{value!r} is none of {known}", param, ctx)
        return found

    def shell_complete(self, _ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Plurals: one name for each is enough to choose from."""
        return [CompletionItem(kind.plural) for kind in self.among if kind.plural.startswith(incomplete)]


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
