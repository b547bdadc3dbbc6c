"""Turn frozen dataclasses into JSON values and back, checked by their annotations.

The one codec of the wire. It knows str, int, float, bool, None, aware datetimes, StrEnums, `tuple[T, ...]`,
`dict[str, T]`, keyword-only dataclasses, and unions of those with None, or of a string with a dataclass. Nothing is
coerced: a number is never taken for a string. Standard library only, and not even `dataclasses`: the worker decodes
with it too (see `agent.record`).
"""

import types
import typing
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")
Decoder = Callable[[Any, str, bool], Any]

MAX_INTEGER = 2**63 - 1
"""What journals and clients can hold."""
MAX_EXACT_FLOAT = 2.0**53
"""Past it a float names no single integer."""


class WireError(ValueError):
    """A value that does not fit its annotation. `path` names the field, as in `work.steps.plan.command`."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path or 'body'}: {problem}")
        self.path = path


def format_time(moment: datetime) -> str:
    """An aware datetime as RFC 3339 in UTC, to the microsecond. A naive one raises ValueError."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone")
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def parse_time(text: str) -> datetime:
    """The UTC datetime of an RFC 3339 text with a zone. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{text!r} is no time of this calendar in UTC") from None


def encode(value: Any) -> Any:
    """`value` as JSON values. Fields of dataclasses keep their names; those that are None are left out."""
    if isinstance(value, StrEnum):
        return value.value
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, dict):
        return {key: encode(item) for key, item in value.items()}
    fields = ((name, getattr(value, name)) for name in _field_names(typing.cast("Any", type(value))))
    return {name: encode(item) for name, item in fields if item is not None}


def decode(kind: type[T], data: Any, *, strict: bool = False) -> T:
    """`data` (parsed JSON) as a `kind`.

    With `strict` a field that `kind` does not know is an error: requests are decoded so, that a typing mistake is
    not taken for a default. Answers are not: a newer agent may say more. Raises WireError.
    """
    decoded: T = _decoder(typing.cast("Any", kind))(data, "", strict)
    return decoded


@cache
def _field_names(kind: type) -> tuple[str, ...]:
    """The fields in order, read off the keyword-only `__init__`: the same for a dataclass and a record."""
    code = typing.cast("Any", kind).__init__.__code__
    return tuple(code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount])


@cache
def _decoder(kind: Any) -> Decoder:
    arguments = typing.get_args(kind)
    match typing.get_origin(kind):
        case types.UnionType:
            return _union_decoder([inner for inner in arguments if inner is not types.NoneType])
        case origin if origin is tuple:
            return _tuple_decoder(_decoder(arguments[0]))
        case origin if origin is dict:
            return _dict_decoder(_decoder(arguments[1]))
    if kind in _NAMES:
        return _scalar_decoder(kind)
    if kind is datetime:
        return _decode_time
    return _enum_decoder(kind) if issubclass(kind, StrEnum) else _dataclass_decoder(kind)


def _union_decoder(kinds: list[Any]) -> Decoder:
    if len(kinds) == 1:
        inner = _decoder(kinds[0])
        return lambda data, path, strict: None if data is None else inner(data, path, strict)
    plain, structured = (_decoder(kind) for kind in kinds)
    return lambda data, path, strict: (structured if isinstance(data, dict) else plain)(data, path, strict)


def _scalar_decoder(kind: type) -> Decoder:
    if kind is int:
        return _decode_integer

    def scalar(data: Any, path: str, strict: bool) -> Any:
        del strict
        if kind is float and type(data) is int:
            return float(data)
        if type(data) is not kind:
            raise WireError(path, f"must be {_NAMES[kind]}, not {_describe(data)}")
        return data

    return scalar


def _decode_integer(data: Any, path: str, strict: bool) -> int:
    """An integer of 64 bits. JSON knows no integers: 1.0 is the number 1, and some programs write it so."""
    del strict
    if type(data) is float and data.is_integer() and abs(data) <= MAX_EXACT_FLOAT:
        return int(data)
    if type(data) is not int:
        raise WireError(path, f"must be an integer, not {_describe(data)}")
    if not -MAX_INTEGER <= data <= MAX_INTEGER:
        raise WireError(path, f"must be from -{MAX_INTEGER} to {MAX_INTEGER}")
    return data


_NAMES = {str: "a string", int: "an integer", float: "a number", bool: "true or false"}


def _describe(data: Any) -> str:
    if data is None:
        return "null"
    if isinstance(data, dict):
        return "an object"
    if isinstance(data, list):
        return "a list"
    return _NAMES.get(type(data), type(data).__name__)


def _decode_time(data: Any, path: str, strict: bool) -> datetime:
    del strict
    try:
        return parse_time(data)
    except (TypeError, ValueError):
        raise WireError(path, "must be an RFC 3339 time with a zone, such as 2026-01-31T12:00:00Z") from None


def _enum_decoder(kind: type[StrEnum]) -> Decoder:
    def enum(data: Any, path: str, strict: bool) -> StrEnum:
        del strict
        try:
            return kind(data)
        except ValueError:
            raise WireError(path, f"must be one of {', '.join(kind)}") from None

    return enum


def _tuple_decoder(item: Decoder) -> Decoder:
    def items(data: Any, path: str, strict: bool) -> tuple[Any, ...]:
        if not isinstance(data, list):
            raise WireError(path, f"must be a list, not {_describe(data)}")
        return tuple(item(entry, f"{path}[{index}]", strict) for index, entry in enumerate(data))

    return items


def _dict_decoder(item: Decoder) -> Decoder:
    def entries(data: Any, path: str, strict: bool) -> dict[str, Any]:
        if not isinstance(data, dict):
            raise WireError(path, f"must be an object, not {_describe(data)}")
        return {key: item(entry, f"{path}.{key}" if path else key, strict) for key, entry in data.items()}

    return entries


def _dataclass_decoder(kind: type) -> Decoder:
    initialiser = typing.cast("Any", kind).__init__
    # Not typing.get_type_hints: it took 10 ms for the worker's messages, and their annotations are never strings.
    decoders = {name: _decoder(initialiser.__annotations__[name]) for name in _field_names(kind)}
    required = sorted(decoders.keys() - (initialiser.__kwdefaults__ or {}).keys())

    def fields(data: Any, path: str, strict: bool) -> Any:
        if not isinstance(data, dict):
            raise WireError(path, f"must be an object, not {_describe(data)}")
        values = {}
        for name, value in data.items():
            here, decoder = f"{path}.{name}" if path else name, decoders.get(name)
            if decoder is not None:
                values[name] = decoder(value, here, strict)
            elif strict:
                raise WireError(here, f"unknown field; known are {', '.join(decoders)}")
        for name in required:
            if name not in values:
                raise WireError(f"{path}.{name}" if path else name, "is required")
        return kind(**values)

    return fields
