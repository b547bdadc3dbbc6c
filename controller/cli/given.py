"""What people give on the command line, checked before anything is asked for."""

import re

import click

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LONGEST_NAME, _LONGEST_NAMESPACE = 253, 63


class Name(click.ParamType[str]):
    """The name of an object: an empty one, as of a shell variable that is not set, would ask for all of them."""

    name = "name"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name. Raises BadParameter."""
        if not _NAME.fullmatch(value) or len(value) > _LONGEST_NAME:
            self.fail(f"{value!r} is no name: those have 1 to 253 lower case letters, digits, '-' and '.'", param, ctx)
        return value


class Namespace(click.ParamType[str]):
    """The name of a namespace."""

    name = "namespace"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name. Raises BadParameter."""
        if not _NAMESPACE.fullmatch(value) or len(value) > _LONGEST_NAMESPACE:
            self.fail(f"{value!r} is no namespace: those have 1 to 63 lower case letters, digits and '-'", param, ctx)
        return value
