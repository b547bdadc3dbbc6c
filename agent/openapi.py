"""The API as an OpenAPI document, made from the wire types, so that it can't say anything else."""

import dataclasses
import types
import typing
from datetime import datetime
from enum import StrEnum
from typing import Any

from agent import __version__
from agent.wire import (
    AckRequest,
    AcquireAnswer,
    AcquireRequest,
    AgentState,
    ApproveRequest,
    CancelRequest,
    DrainRequest,
    Empty,
    ErrorBody,
    ExitReport,
    HoldAnswer,
    HoldRequest,
    OutputAnswer,
    PhaseAnswer,
    RegisterRequest,
    StartedReport,
    Task,
    WatchLine,
    WorkAnswer,
)

SCALARS: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    datetime: {"type": "string", "format": "date-time"},
}

HOLD_CALLS = ("reserve", "resume", "release")

READS: dict[str, tuple[str, type[Any]]] = {
    "/slots": ("The agent and its slots; with watch=true a line for each change", AgentState),
    "/tasks/{id}": ("A task with work", Task),
    "/work": ("A worker's long poll", WorkAnswer),
}

WRITES: dict[str, tuple[str, type[Any] | None, type[Any]]] = {
    "/slots/acquire": ("Give a task a slot", AcquireRequest, AcquireAnswer),
    **{f"/slots/{{id}}/{call}": (f"A holder's {call}", HoldRequest, HoldAnswer) for call in HOLD_CALLS},
    "/open": ("Take back a drain", DrainRequest, PhaseAnswer),
    "/drain": ("Take no new work, if nothing is held", DrainRequest, PhaseAnswer),
    "/tasks/{id}/approve": ("Let the apply run", ApproveRequest, Task),
    "/tasks/{id}/cancel": ("End the task", CancelRequest, Task),
    "/tasks/{id}/ack": ("The result is stored elsewhere", AckRequest, Empty),
    "/work/register": ("A worker takes over its slot", RegisterRequest, WorkAnswer),
    "/work/started": ("A step's command is about to run", StartedReport, Empty),
    "/work/output": ("Output of a step", None, OutputAnswer),
    "/work/exit": ("A step ended", ExitReport, Empty),
    "/close": ("The Pod is being stopped", None, Empty),
}

QUERIES: dict[str, tuple[str, ...]] = {
    "/slots": ("watch", "revision"),
    "/tasks/{id}/log": ("step", "follow", "offset"),
    "/work": ("instance", "task_id", "step"),
    "/work/output": ("instance", "task_id", "step", "offset"),
}

PLAIN = {
    "/tasks/{id}/log": "A task's output",
    "/metrics": "Prometheus metrics",
    "/healthz": "The process is alive",
    "/readyz": "It serves",
}


def document() -> dict[str, Any]:
    """The whole document."""
    schemas: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for path, (summary, answer) in READS.items():
        content = _json(answer, schemas)
        if path == "/slots":
            content["application/x-ndjson"] = {"schema": _reference(WatchLine, schemas)}
        operation = _operation(path, summary, content, schemas)
        paths.setdefault(path, {})["get"] = operation
        if path == "/work":
            operation["security"] = [{"token": []}]
    for path, (summary, request, answer) in WRITES.items():
        operation = _operation(path, summary, _json(answer, schemas), schemas)
        operation["security"] = [{"token": []}]
        if request is not None:
            operation["requestBody"] = {"required": True, "content": _json(request, schemas)}
        elif path == "/work/output":
            binary = {"schema": {"type": "string", "format": "binary"}}
            operation["requestBody"] = {"required": True, "content": {"application/octet-stream": binary}}
        paths.setdefault(path, {})["post"] = operation
    for path, summary in PLAIN.items():
        content = {"text/plain": {"schema": {"type": "string"}}}
        paths.setdefault(path, {})["get"] = _operation(path, summary, content, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "podslots agent", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(path: str, summary: str, content: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "query", "required": False, "schema": {"type": "string"}} for name in QUERIES.get(path, ())
    ]
    if "{id}" in path:
        parameters.append({"name": "id", "in": "path", "required": True, "schema": {"type": "string"}})
    return {
        "summary": summary,
        "parameters": parameters,
        "responses": {
            "200": {"description": "Done", "content": content},
            "default": {"description": "Refused", "content": _json(ErrorBody, schemas)},
        },
    }


def _json(kind: type[Any], schemas: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": _reference(kind, schemas)}}


def _reference(kind: type[Any], schemas: dict[str, Any]) -> dict[str, Any]:
    name = kind.__name__
    if name not in schemas:
        schemas[name] = {}
        schemas[name] = _object_schema(kind, schemas)
    return {"$ref": f"#/components/schemas/{name}"}


def _object_schema(kind: type[Any], schemas: dict[str, Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)
    required = [
        field.name
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {field.name: _schema(hints[field.name], schemas) for field in fields},
    }
    if kind.__doc__:
        schema["description"] = " ".join(kind.__doc__.split())
    if required:
        schema["required"] = required
    return schema


def _schema(kind: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        inner = next(argument for argument in arguments if argument is not types.NoneType)
        return {"anyOf": [_schema(inner, schemas), {"type": "null"}]}
    if origin is tuple:
        return {"type": "array", "items": _schema(arguments[0], schemas)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(arguments[1], schemas)}
    if dataclasses.is_dataclass(kind):
        return _reference(typing.cast("type[Any]", kind), schemas)
    if kind in SCALARS:
        return dict(SCALARS[kind])
    if issubclass(kind, StrEnum):
        return {"type": "string", "enum": list(kind)}
    raise TypeError(f"no schema for {kind!r}")
