"""Optional values of CEL: `a.?b`, `a[?k]`, and what can be asked of them.

cel-python's grammar has none of it. No other CEL has a `?` behind a dot or an opening bracket, so both are rewritten to
what it can parse, a name with a prefix and a call, and given their meaning back when they are evaluated.
"""

from __future__ import annotations

import re
from typing import Any

from celpy import celtypes

FIELD_PREFIX = "optional__field__"
KEY_FUNCTION = "optional__key__"

# A string, raw or not, in one of CEL's four quotes; or one of the tokens that matter.
_TOKEN = re.compile(
    r"""[rRbB]{0,2}(?:'''.*?'''|\"\"\".*?\"\"\"|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")"""
    r"|\.\s*\?\s*(?P<field>[A-Za-z_]\w*)|(?P<key>\[\s*\?)|(?P<open>\[)|(?P<close>\])",
    re.DOTALL,
)


def rewritten(text: str) -> str:
    """The expression in the grammar that cel-python knows."""
    if "?" not in text:
        return text
    brackets: list[bool] = []

    def replace(match: re.Match[str]) -> str:
        if match["field"]:
            return f".{FIELD_PREFIX}{match['field']}"
        if match["key"]:
            brackets.append(True)
            return f"[{KEY_FUNCTION}("
        if match["open"]:
            brackets.append(False)
        elif match["close"] and brackets and brackets.pop():
            return ")]"
        return match[0]

    return _TOKEN.sub(replace, text)


class OptionalValue:
    """A CEL value that may not be there; None is "not there", and CEL's null can't be held."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OptionalValue) and bool(self.held == other.held)

    def __hash__(self) -> int:
        return hash(str(self.held))

    def select(self, key: Any) -> OptionalValue:
        """A field or an item, if both are there."""
        return select(self.held, key)


class OptionalKey:
    """The `k` of `a[?k]`."""

    def __init__(self, key: Any) -> None:
        self.key = key


NONE = OptionalValue(None)


def select(owner: Any, key: Any) -> OptionalValue:
    """`owner.?key` and `owner[?key]`. Raises TypeError for what has no fields."""
    if isinstance(owner, OptionalValue):
        return owner.select(key)
    if owner is None:
        return NONE
    if isinstance(owner, celtypes.MapType):
        return OptionalValue(owner[key]) if key in owner else NONE
    if isinstance(owner, celtypes.ListType):
        return OptionalValue(owner[key]) if 0 <= int(key) < len(owner) else NONE
    raise TypeError(f"no such overload: optional selection from {type(owner).__name__}")


def or_value(optional: OptionalValue, default: Any) -> Any:
    """What is held, else the default."""
    return default if optional.held is None else optional.held


def held_value(optional: OptionalValue) -> Any:
    """What is held. Raises ValueError for nothing."""
    if optional.held is None:
        raise ValueError("optional.none() dereference")
    return optional.held


def has_value(optional: OptionalValue) -> Any:
    """Whether anything is held."""
    return celtypes.BoolType(optional.held is not None)
