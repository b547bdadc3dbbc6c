"""The columns of custom resources: `additionalPrinterColumns`, each a JSONPath into the object.

python-jsonpath evaluates the paths: what Kubernetes allows here is the part of JSONPath that RFC 9535 has as well,
but for a dot inside a name, which Kubernetes writes as a backslash and a dot.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import jsonpath
import orjson

from controller.local.apiserver.tables.ages import age
from controller.local.apiserver.tables.columns import CREATED_TEXT, NAME, Column, Layout

Json = dict[str, Any]

_CREATED = ".metadata.creationTimestamp"
_NAME_WITH_DOTS = re.compile(r"\.((?:[^.\[\]\\]|\\.)*\\.(?:[^.\[\]\\]|\\.)*)")


_DEFAULT = ({"name": "Age", "type": "date", "description": CREATED_TEXT, "jsonPath": _CREATED},)


class InvalidPathError(ValueError):
    """A column's JSONPath that does not parse."""


def layout(entries: Sequence[Json]) -> Layout:
    """The columns of a version's `additionalPrinterColumns`. Raises InvalidPathError."""
    given = entries or _DEFAULT
    columns = (NAME, *(_column(entry) for entry in given))
    paths = [_compiled(entry["jsonPath"]) for entry in given]

    def cells(body: Json, now: datetime) -> Sequence[Any]:
        found = (path.match(body) for path in paths)
        values = (None if match is None else match.obj for match in found)
        typed = (_cell(column.type, value, now) for column, value in zip(columns[1:], values, strict=True))
        return [body["metadata"]["name"], *typed]

    return Layout(columns, cells)


def _column(entry: Json) -> Column:
    default = f"Custom resource definition column (in JSONPath format): {entry['jsonPath']}"
    return Column(
        name=entry["name"],
        description=entry.get("description") or default,
        type=entry["type"],
        format=entry.get("format", ""),
        priority=entry.get("priority", 0),
    )


def _compiled(path: str) -> jsonpath.JSONPath | jsonpath.CompoundJSONPath:
    try:
        return jsonpath.compile(_rfc9535(path))
    except jsonpath.JSONPathError as error:
        raise InvalidPathError(str(error)) from error


def _rfc9535(path: str) -> str:
    def quoted(match: re.Match[str]) -> str:
        name = re.sub(r"\\(.)", r"\1", match[1])
        return "[" + orjson.dumps(name).decode() + "]"

    return "$" + _NAME_WITH_DOTS.sub(quoted, path)


def _cell(kind: str, value: Any, now: datetime) -> Any:
    """The value as the column's type wants it; None where it doesn't fit, which kubectl shows as nothing."""
    if value is None:
        return None
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    match kind:
        case "string":
            return value if isinstance(value, str) else orjson.dumps(value).decode()
        case "integer":
            return int(value) if number else None
        case "number":
            return value if number else None
        case "boolean":
            return value if isinstance(value, bool) else None
        case "date":
            return age(value, now) if isinstance(value, str) else None
        case _:
            return None
