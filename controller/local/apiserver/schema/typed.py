"""Decodes documents of the built-in kinds as the real server's Go structs do.

Unknown fields fall out, wrong types are refused, empty lists and maps vanish. The structs are a table,
`builtin_types.json`, made from the Kubernetes OpenAPI schema.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from importlib import resources
from typing import Any

import orjson

Json = dict[str, Any]

# Lists that Go keeps although they are empty (no `omitempty`).
_KEPT_EMPTY = frozenset({"containers", "storedVersions", "conditions"})

# Fields of later versions than the one that is kept to: kept where their API is served, and not told of.
LATER_FIELDS = {"PodSpec": frozenset({"evictionResponders"})}


class DecodeError(ValueError):
    """A value doesn't fit its field; the text is as Go's decoder words it."""


@lru_cache(maxsize=1)
def struct_types() -> dict[str, dict[str, str]]:
    """Struct name → field → type."""
    table: dict[str, dict[str, str]] = orjson.loads(
        resources.files("controller.local.apiserver.schema").joinpath("builtin_types.json").read_bytes()
    )
    return table


@dataclass
class Decoder:
    """Decodes one document; collects the unknown fields it dropped."""

    kind: str
    unknown: list[str] = field(default_factory=list)

    def decode(self, document: Json, original: Json | None = None) -> Json:
        """The document as its kind. Parts that are the very objects of `original` are taken as they are."""
        types = struct_types()[self.kind]
        result: Json = {}
        for name, value in document.items():
            if name in ("apiVersion", "kind"):
                continue
            type_name = types.get(name)
            if type_name is None:
                self.unknown.append(name)
                continue
            if original is not None and value is original.get(name):
                result[name] = value
                continue
            decoded = self._value(type_name, value, name, self.kind)
            if decoded is not None:
                result[name] = decoded
        return result

    def metadata(self, value: Any) -> Json:
        """An object's metadata alone, for custom resources."""
        decoded = self._value("ObjectMeta", value, "metadata", self.kind)
        return decoded if isinstance(decoded, dict) else {}

    def _struct(self, type_name: str, value: Any, path: str, owner: str) -> Json:
        if not isinstance(value, dict):
            raise _mismatch(value, owner, path, type_name)
        types = struct_types()[type_name]
        result: Json = {}
        for name, part in value.items():
            field_type = types.get(name)
            if field_type is None:
                self.unknown.append(f"{path}.{name}")
                continue
            decoded = self._value(field_type, part, f"{path}.{name}", type_name)
            if decoded is not None:
                result[name] = decoded
        return result

    def _value(self, type_name: str, value: Any, path: str, owner: str) -> Any:
        if value is None:
            return None
        scalar = _SCALARS.get(type_name)
        if scalar is not None:
            return scalar(value, owner, path)
        container, _, item_type = type_name.partition(":")
        if container == "list":
            if not isinstance(value, list):
                raise _mismatch(value, owner, path, f"[]{item_type}")
            items = [self._value(item_type, item, f"{path}[{i}]", owner) for i, item in enumerate(value)]
            return items if items or path.rpartition(".")[2] in _KEPT_EMPTY else None
        if container == "map":
            if not isinstance(value, dict):
                raise _mismatch(value, owner, path, f"map[string]{item_type}")
            entries = {key: self._value(item_type, part, path, owner) for key, part in value.items()}
            return entries or None
        return self._struct(type_name, value, path, owner)


def _mismatch(value: Any, owner: str, path: str, go_type: str) -> DecodeError:
    found = {dict: "object", list: "array", str: "string", bool: "bool", int: "number", float: "number"}.get(
        type(value)
    )
    leaf = path if owner == path.split(".", 1)[0] else f"{owner}.{path.removeprefix(owner + '.')}"
    return DecodeError(f"json: cannot unmarshal {found} into Go struct field {leaf} of type {go_type}")


def _string(value: Any, owner: str, path: str) -> str:
    if isinstance(value, str):
        return value
    raise _mismatch(value, owner, path, "string")


def _integer(value: Any, owner: str, path: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise _mismatch(value, owner, path, "int64")


def _number(value: Any, owner: str, path: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    raise _mismatch(value, owner, path, "float64")


def _boolean(value: Any, owner: str, path: str) -> bool:
    if isinstance(value, bool):
        return value
    raise _mismatch(value, owner, path, "bool")


def _time(value: Any, owner: str, path: str) -> str:
    text = _string(value, owner, path)
    if not is_date_time(text):
        raise DecodeError(f'parsing time "{text}" as "2006-01-02T15:04:05Z07:00": cannot parse "{text}"')
    return text


def _bytes(value: Any, owner: str, path: str) -> str:
    text = _string(value, owner, path)
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error:
        bad = re.search(r"[^A-Za-z0-9+/=]", text)
        raise DecodeError(f"illegal base64 data at input byte {bad.start() if bad else len(text)}") from None
    return text


def _int_or_string(value: Any, owner: str, path: str) -> int | str:
    if isinstance(value, str):
        return value
    number = _integer(value, owner, path)
    if not -_INT32_LIMIT <= number < _INT32_LIMIT:
        raise DecodeError(f"json: cannot unmarshal number {number} into Go struct field {owner}.{path} of type int32")
    return number


_INT32_LIMIT = 1 << 31
_QUANTITY = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+|[KMGTPE]i|[numkMGTPE])?")


def _quantity(value: Any, owner: str, path: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise _mismatch(value, owner, path, "resource.Quantity")
    text = str(value)
    if not _QUANTITY.fullmatch(text):
        raise DecodeError("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
    return text


def _any(value: Any, owner: str, path: str) -> Any:
    del owner, path
    return value


_SCALARS = {
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "time": _time,
    "bytes": _bytes,
    "intorstring": _int_or_string,
    "quantity": _quantity,
    "any": _any,
}

_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


def is_date_time(text: str) -> bool:
    """True for an RFC 3339 time."""
    if not _DATE_TIME.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(re.sub(r"\.\d+", "", text).upper())
    except ValueError:
        return False
    return True
