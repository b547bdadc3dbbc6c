"""The API's description in OpenAPI 3.1, made of the values' own annotations. Pure."""

import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any

from controller.act.recent import Decision
from controller.status_page.model import Listed, PlanSaid, PodSaid, PoolSaid, Status, WaitingSaid

Json = dict[str, Any]

_PAGED: Mapping[str, tuple[type, str]] = {
    "/api/v1/pools": (PoolSaid, "Pools, by namespace and name."),
    "/api/v1/plans": (PlanSaid, "Plans that await an approval, those that expire first at the top."),
    "/api/v1/queue": (WaitingSaid, "Queued tasks in the order in which each pool serves them."),
    "/api/v1/pods": (PodSaid, "Pods with their slots."),
    "/api/v1/decisions": (Decision, "What this replica decided lately, the newest first."),
}
_PLAIN = {str: "string", int: "integer", bool: "boolean", float: "number"}


def document(version: str) -> Json:
    """The whole description; `version` is the controller's."""
    paths: Json = {
        "/api/v1/status": _get("Everything but the Pods.", _schema(Status)),
        "/api/v1/stream": {
            "get": {
                "summary": "Server-sent events: `status` with the parts that changed, `beat` with the time.",
                "parameters": [_parameter("since", "The version that the reader has.", {"type": "string"})],
                "responses": {"200": {"description": "events", "content": {"text/event-stream": {}}}},
            }
        },
    }
    for path, (entry, words) in _PAGED.items():
        paths[path] = _get(words, _schema(Listed[entry]), _parameters(path))  # type: ignore[valid-type]
    return {
        "openapi": "3.1.0",
        "info": {"title": "podslots status", "version": version, "description": "Read-only."},
        "paths": paths,
    }


def _parameters(path: str) -> list[Json]:
    numbers: Json = {"type": "integer", "minimum": 0}
    found = [
        _parameter("offset", "How many to leave out.", numbers),
        _parameter("limit", "How many to answer, 100 by default, 500 at most.", numbers),
    ]
    if path != "/api/v1/decisions":
        found += [_parameter(name, f"Only of this {name}.", {"type": "string"}) for name in ("namespace", "pool")]
    if path == "/api/v1/pods":
        found += [
            _parameter(
                "state",
                "Only Pods with a slot in this state, or whose agent is silent.",
                {"enum": ["idle", "running", "reserved", "recovering", "silent"]},
            ),
            _parameter("text", "Part of a Pod's or a holder's name.", {"type": "string"}),
            _parameter("sort", "By name, or those first whose slots are held the longest.", {"enum": ["name", "age"]}),
        ]
    return found


def _parameter(name: str, words: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "required": False, "description": words, "schema": schema}


def _get(words: str, schema: Json, parameters: list[Json] | None = None) -> Json:
    error = {"type": "object", "required": ["error", "message"]}
    refused = {"description": "refused", "content": {"application/json": {"schema": error}}}
    answers = {"200": {"description": "read", "content": {"application/json": {"schema": schema}}}}
    codes = ("400", "401", "403", "503") if parameters else ("401", "403", "503")
    return {
        "get": {
            "summary": words,
            "parameters": parameters or [],
            "responses": {**answers, **dict.fromkeys(codes, refused)},
        }
    }


def _schema(kind: Any, bound: Mapping[Any, Any] | None = None) -> Json:
    """The JSON Schema of a type as orjson writes it."""
    bound = bound or {}
    kind = bound.get(kind, kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in _PLAIN:
        return {"type": _PLAIN[kind]}
    if kind is datetime:
        return {"type": "string", "format": "date-time"}
    if kind is type(None):
        return {"type": "null"}
    if origin in {typing.Union, types.UnionType}:
        return {"anyOf": [_schema(argument, bound) for argument in arguments]}
    if origin is tuple:
        return {"type": "array", "items": _schema(arguments[0], bound)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(arguments[1], bound)}
    if is_dataclass(origin or kind):
        return _object(origin or kind, dict(zip(getattr(origin, "__parameters__", ()), arguments, strict=True)))
    raise TypeError(f"no schema for {kind}")


def _object(kind: Any, bound: Mapping[Any, Any]) -> Json:
    hints = typing.get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    return {
        "type": "object",
        "description": " ".join((kind.__doc__ or "").split()),
        "required": names,
        "properties": {name: _schema(hints[name], bound) for name in names},
    }
