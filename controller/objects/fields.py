"""Reads parsed JSON of users field by field. What does not fit raises InvalidObject with the field's path."""

import re
from typing import Any

from controller.errors import InvalidObject


class Fields:
    """One JSON object and the path that leads to it. An absent or null field takes its default."""

    def __init__(self, data: Any, path: str) -> None:
        if not isinstance(data, dict):
            raise InvalidObject(path, "must be an object")
        self.data: dict[str, Any] = data
        self.path = path

    def at(self, name: str) -> str:
        """The path of a field."""
        return f"{self.path}.{name}" if self.path else name

    def fail(self, name: str, problem: str) -> InvalidObject:
        """The error that says what is wrong with a field."""
        return InvalidObject(self.at(name), problem)

    def has(self, name: str) -> bool:
        """Whether the field is there with a value."""
        return self.data.get(name) is not None

    def text(
        self,
        name: str,
        default: str | None = None,
        *,
        empty: bool = False,
        most: int | None = None,
        pattern: re.Pattern[str] | None = None,
    ) -> str:
        """A string of at most `most` characters that is as `pattern` says; required if there is no default."""
        value = self.data.get(name)
        if value is None:
            value = default
        if value is None:
            raise self.fail(name, "is required")
        if not isinstance(value, str):
            raise self.fail(name, "must be a string")
        if not value and not empty and default != "":
            raise self.fail(name, "must not be empty")
        if most is not None and len(value) > most:
            raise self.fail(name, f"must have at most {most} characters")
        if pattern is not None and not pattern.fullmatch(value):
            raise self.fail(name, f"must match {pattern.pattern}")
        return value

    def optional_text(self, name: str, *, empty: bool = True, most: int | None = None) -> str | None:
        """A string or None."""
        return self.text(name, empty=empty, most=most) if self.has(name) else None

    def choice(self, name: str, default: str, options: tuple[str, ...]) -> str:
        """One of some words."""
        value = self.text(name, default)
        if value not in options:
            raise self.fail(name, f"must be one of {', '.join(options)}")
        return value

    def integer(self, name: str, default: int | None = None, *, least: int | None = 0, most: int | None = None) -> int:
        """An integer between two bounds; required if there is no default."""
        value = self.data.get(name)
        if value is None:
            value = default
        if value is None:
            raise self.fail(name, "is required")
        if type(value) is not int:
            raise self.fail(name, "must be an integer")
        if least is not None and value < least:
            raise self.fail(name, f"must be at least {least}")
        if most is not None and value > most:
            raise self.fail(name, f"must be at most {most}")
        return value

    def optional_integer(self, name: str, *, least: int | None = 0, most: int | None = None) -> int | None:
        """An integer or None."""
        return self.integer(name, least=least, most=most) if self.has(name) else None

    def number(self, name: str, default: float, *, least: float, most: float) -> float:
        """A number between two bounds, with a fraction or without."""
        value = self.data.get(name)
        if value is None:
            return default
        if type(value) not in {int, float}:
            raise self.fail(name, "must be a number")
        if not least <= value <= most:
            raise self.fail(name, f"must be at least {least:g} and at most {most:g}")
        return float(value)

    def boolean(self, name: str, default: bool = False) -> bool:
        """True or false."""
        value = self.data.get(name)
        if value is None:
            return default
        if type(value) is not bool:
            raise self.fail(name, "must be true or false")
        return value

    def child(self, name: str) -> "Fields":
        """An object, which must be there."""
        if not self.has(name):
            raise self.fail(name, "is required")
        return Fields(self.data[name], self.at(name))

    def optional_child(self, name: str) -> "Fields | None":
        """An object or None."""
        return self.child(name) if self.has(name) else None

    def items(self, name: str, *, most: int | None = None) -> tuple[tuple[str, Any], ...]:
        """The entries of a list, each with its path; none if it is absent."""
        value = self.data.get(name)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self.fail(name, "must be a list")
        if most is not None and len(value) > most:
            raise self.fail(name, f"must have at most {most} entries")
        return tuple((f"{self.at(name)}[{index}]", item) for index, item in enumerate(value))

    def children(self, name: str, *, most: int | None = None) -> "tuple[Fields, ...]":
        """The objects of a list."""
        return tuple(Fields(item, path) for path, item in self.items(name, most=most))

    def texts(self, name: str, *, most: int | None = None, longest: int | None = None) -> tuple[str, ...]:
        """The strings of a list: at most `most`, of at most `longest` characters each."""
        entries = self.items(name, most=most)
        for path, item in entries:
            if not isinstance(item, str):
                raise InvalidObject(path, "must be a string")
            if longest is not None and len(item) > longest:
                raise InvalidObject(path, f"must have at most {longest} characters")
        return tuple(item for _, item in entries)

    def text_map(self, name: str, *, most: int | None = None, longest: int | None = None) -> dict[str, str]:
        """A map of strings to strings: at most `most`, of at most `longest` characters each. A null is no entry."""
        if not self.has(name):
            return {}
        entries = self.child(name)
        keys = [key for key in entries.data if entries.has(key)]
        if most is not None and len(keys) > most:
            raise self.fail(name, f"must have at most {most} entries")
        return {key: entries.text(key, "", most=longest) for key in keys}
