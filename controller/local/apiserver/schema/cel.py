"""CEL rules of custom resources, evaluated by cel-python; the only module that imports it.

Stricter than the library in one point: `has(a.b.c)` with no `b` is an error as in the real server, not false, so that a
rule that works here works there. Added are the string and list functions Kubernetes offers beyond the CEL core.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any

import celpy
import lark
from celpy import celtypes
from celpy.celparser import CELParseError
from celpy.evaluation import CELEvalError, Evaluator

from controller.local.apiserver.schema.cel_optional import (
    FIELD_PREFIX,
    KEY_FUNCTION,
    OptionalKey,
    OptionalValue,
    has_value,
    held_value,
    or_value,
    rewritten,
    select,
)


class CelSyntaxError(ValueError):
    """A rule that doesn't parse."""


class CelEvaluationError(ValueError):
    """A rule that came to no result."""


class Rule:
    """A parsed expression."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.uses_old = re.search(r"\boldSelf\b", text) is not None
        environment = _environment()
        try:
            ast = environment.compile(rewritten(text))
        except CELParseError as error:
            raise CelSyntaxError(str(error.args[0]).splitlines()[0]) from error
        self._ast = _without_detours(ast)
        self._activation = environment.program(ast, functions=dict(_FUNCTIONS)).new_activation()

    def evaluate(self, bindings: Mapping[str, Any]) -> Any:
        """The result for these variables, as a CEL value. Raises CelEvaluationError."""
        try:
            return _Evaluator(self._ast, activation=self._activation).evaluate(dict(bindings))
        except CELEvalError as error:
            raise CelEvaluationError(str(error.args[0]) if error.args else str(error)) from error
        except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
            raise CelEvaluationError(str(error)) from error


@lru_cache(maxsize=4096)
def compile_rule(text: str) -> Rule:
    """The rule of an expression; one expression is compiled once. Raises CelSyntaxError."""
    return Rule(text)


@lru_cache(maxsize=1)
def _environment() -> celpy.Environment:
    return celpy.Environment()


# The grammar has a level for each precedence; with one child they only pass its value on, at the price of a visit.
_PASSING = frozenset(
    {"expr", "conditionalor", "conditionaland", "relation", "addition", "multiplication", "unary", "member"}
)


def _without_detours(tree: lark.Tree[Any]) -> lark.Tree[Any]:
    """The syntax tree less the levels that do nothing, which most are: evaluation takes a quarter of the time."""
    children = [_without_detours(child) if isinstance(child, lark.Tree) else child for child in tree.children]
    if tree.data in _PASSING and len(children) == 1 and isinstance(children[0], lark.Tree):
        return children[0]
    return lark.Tree(tree.data, children, tree.meta)


class _Evaluator(Evaluator):
    """The library's evaluator with a strict `has`."""

    def sub_evaluator(self, ast: lark.Tree[Any]) -> Evaluator:
        """Macros evaluate their bodies by the same rules."""
        return _Evaluator(ast, activation=self.activation)

    def ident_value(self, name: str, root_scope: bool = False) -> Any:
        """As the library's, less a type annotation it computes at every look-up, a third of its time."""
        del root_scope
        activation = self.activation
        try:
            return activation.identifiers.resolve_name(activation.package, name).value
        except KeyError:
            return activation.functions[name]

    def member_dot(self, tree: lark.Tree[Any]) -> Any:
        """Field selection, the optional one included; from an optional value it is optional too."""
        owner_tree, token = tree.children
        name = str(token)
        optional = name.startswith(FIELD_PREFIX)
        owner: Any = self.visit(owner_tree)
        if isinstance(owner, CELEvalError):
            return owner
        if not optional and not isinstance(owner, OptionalValue):
            if isinstance(owner, celtypes.MapType):
                return owner[name] if name in owner else CELEvalError(f"no such key: {name}")
            return super().member_dot(tree)
        try:
            return select(owner, celtypes.StringType(name.removeprefix(FIELD_PREFIX)))
        except TypeError as error:
            return CELEvalError(str(error))

    def member_index(self, tree: lark.Tree[Any]) -> Any:
        """An item, the optional one included."""
        owner, index = self.visit_children(tree)
        for part in (owner, index):
            if isinstance(part, CELEvalError):
                return part
        if isinstance(index, OptionalKey) or isinstance(owner, OptionalValue):
            try:
                return select(owner, index.key if isinstance(index, OptionalKey) else index)
            except TypeError as error:
                return CELEvalError(str(error))
        return super().member_index(tree)

    def macro_has_eval(self, exprlist: lark.Tree[Any]) -> Any:
        """`has(e.f)`: e must have a value."""
        node: Any = exprlist.children[0]
        while len(node.children) == 1 and isinstance(node.children[0], lark.Tree):
            node = node.children[0]
        if node.data != "member_dot":
            return CELEvalError("invalid argument to has() macro")
        owner_tree, name = node.children
        owner: Any = self.visit(owner_tree)
        if isinstance(owner, CELEvalError):
            return owner
        field = celtypes.StringType(str(name).removeprefix(FIELD_PREFIX))
        if isinstance(owner, OptionalValue):
            return has_value(owner.select(field))
        if not isinstance(owner, celtypes.MapType):
            return CELEvalError(f"unexpected type {type(owner).__name__} in has()")
        return celtypes.BoolType(field in owner)


# --- values -----------------------------------------------------------------------------------------------

# Words of CEL that are names of fields all the same.
_RESERVED = frozenset(
    {
        "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import",
        "let", "loop", "package", "namespace", "return", "var", "void", "while",
    }
)  # fmt: skip


def scalar_to_cel(value: Any, *, number: bool = False) -> Any:
    """A JSON scalar; `number` says that the schema knows it as a floating-point one."""
    if value is None:
        return None
    if isinstance(value, bool):
        return celtypes.BoolType(value)
    if isinstance(value, int):
        return celtypes.DoubleType(value) if number else celtypes.IntType(value)
    if isinstance(value, float):
        return celtypes.DoubleType(value)
    return celtypes.StringType(value)


def list_to_cel(items: list[Any]) -> Any:
    """A list of CEL values."""
    return celtypes.ListType(items)


def map_to_cel(entries: Mapping[str, Any], *, declared: bool) -> Any:
    """A map of CEL values; of declared properties the reserved words are escaped as Kubernetes does."""
    return celtypes.MapType(
        {
            celtypes.StringType(f"__{key}__" if declared and key in _RESERVED else key): value
            for key, value in entries.items()
        }
    )


class MapWithoutSchema(celtypes.MapType):
    """A map of which the definition knows no key, as kube-apiserver compares it (`unstructuredMap.Equal`).

    Two are equal if they are of one size and agree on the keys that both have: a key with another name is overlooked.
    """

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, celtypes.MapType):
            return NotImplemented
        return len(self) == len(other) and all(value == other[key] for key, value in self.items() if key in other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]


def untyped_to_cel(value: Any) -> Any:
    """JSON of unknown structure."""
    if isinstance(value, dict):
        return map_to_cel({key: untyped_to_cel(part) for key, part in value.items()}, declared=False)
    if isinstance(value, list):
        return list_to_cel([untyped_to_cel(item) for item in value])
    return scalar_to_cel(value)


def is_true(result: Any) -> bool:
    """True for CEL's true."""
    return isinstance(result, (bool, celtypes.BoolType)) and bool(result)


class LazyMap(celtypes.MapType):
    """A map whose entries are computed when they are asked for, once."""

    def __init__(self, entries: Mapping[str, Callable[[], Any]]) -> None:
        super().__init__()
        self._entries = entries

    def __getitem__(self, key: Any) -> Any:
        name = str(key)
        if not super().__contains__(key):
            super().__setitem__(celtypes.StringType(name), self._entries[name]())
        return super().__getitem__(celtypes.StringType(name))

    def __contains__(self, key: Any) -> bool:
        return str(key) in self._entries


# --- the functions Kubernetes adds ------------------------------------------------------------------------


def _text(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        return celtypes.StringType(function(*arguments))

    return call


def _split(text: str, separator: str, limit: int = -1) -> Any:
    if limit == 0:
        return celtypes.ListType([])
    parts = list(text) if separator == "" else text.split(separator, -1 if limit < 0 else limit - 1)
    return celtypes.ListType([celtypes.StringType(part) for part in parts])


def _substring(text: str, begin: int, end: int | None = None) -> str:
    stop = len(text) if end is None else end
    if not 0 <= begin <= stop <= len(text):
        raise ValueError(f"index out of range: {begin}")
    return text[begin:stop]


def _replace(text: str, old: str, new: str, limit: int = -1) -> str:
    return text.replace(old, new, limit)


def _index_of(items: Any, wanted: Any) -> Any:
    if isinstance(items, str):
        return celtypes.IntType(items.find(wanted))
    return celtypes.IntType(items.index(wanted) if wanted in items else -1)


def _sum(items: Any) -> Any:
    total: Any = celtypes.IntType(0)
    for item in items:
        total = item if total == 0 else total + item
    return total


def _find(text: str, pattern: str) -> str:
    match = re.search(pattern, text)
    return match[0] if match else ""


# What an `authorizer` is asked, a step at a time. Its steps are methods of the object that a binding gives.
_AUTHORIZER_METHODS = (
    "group", "resource", "subresource", "namespace", "name", "path", "serviceAccount", "check", "allowed", "reason",
)  # fmt: skip


def _method(name: str) -> Callable[..., Any]:
    def call(owner: Any, *arguments: Any) -> Any:
        return getattr(owner, f"cel_{name}")(*(str(argument) for argument in arguments))

    return call


_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "lowerAscii": _text(str.lower),
    "upperAscii": _text(str.upper),
    "trim": _text(str.strip),
    "replace": _text(_replace),
    "substring": _text(_substring),
    "find": _text(_find),
    "split": _split,
    "join": _text(lambda items, separator="": str(separator).join(items)),
    "indexOf": _index_of,
    "isSorted": lambda items: celtypes.BoolType(all(a <= b for a, b in pairwise(items))),
    "sum": _sum,
    "min": min,
    "max": max,
    "hasValue": has_value,
    "value": held_value,
    "orValue": or_value,
    KEY_FUNCTION: OptionalKey,
    **{name: _method(name) for name in _AUTHORIZER_METHODS},
}
