"""The API as an OpenAPI 3.1 document: the calls from the table in `calls`, the bodies from the wire types.

What a request may say is closed, as the agent checks it: an unknown field is a typing mistake. What an answer says is
open: a later agent may say more (docs/compatibility.md). Types that go both ways therefore stand there twice, the
second time as `NAME.answer`.
"""

from typing import Any

from agent import __version__
from agent.auth import Kind
from agent.config import MAX_SLOTS
from agent.http.access import Who
from agent.http.calls import BYTES, CALLS, JSON, Call
from agent.http.schemas import TASK_ID, Json, Schemas
from agent.wire import ErrorBody, ErrorCode, Step

SECURITY_SCHEMES: dict[Kind, str] = {
    Kind.POOL: "The pool's tokens: everything but /work and /close",
    Kind.READER: "Tokens whose id begins with `read-`: reads, where those are locked",
    Kind.LOCAL: "The workload's own credential: acquires slots and gives them back",
    Kind.SLOT: "A worker's credential: /work and below, for its slot",
    Kind.CLOSE: "For `slot-agent close` in the agent's own container",
}

HEADERS: dict[int, tuple[str, str]] = {
    401: ("WWW-Authenticate", "The scheme to use: Bearer"),
    503: ("Retry-After", "Seconds, where trying again may help"),
}


_WHOLE = {"type": "integer", "minimum": 0, "maximum": 10**18 - 1}
_STEP = {"type": "string", "enum": list(Step)}

SLOT: Json = {"type": "integer", "minimum": 0, "maximum": MAX_SLOTS - 1}
PARAMETERS: dict[str, Json] = {
    "id": {"type": "string", **TASK_ID},
    "watch": {"type": "boolean"},
    "follow": {"type": "boolean"},
    "revision": _WHOLE,
    "offset": _WHOLE,
    "part": {"type": "string", "enum": ["page", "end"]},
    "step": _STEP,
    "instance": {"type": "string"},
    "task_id": {"type": "string"},
}


def document() -> Json:
    """The whole document."""
    schemas = Schemas()
    paths: dict[str, Json] = {}
    for call in CALLS:
        paths.setdefault(call.path, {})[call.method.lower()] = _operation(call, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "podslots agent",
            "version": __version__,
            "description": "Any path or method that is not listed answers 404 `not_found` or 405 `method_not_allowed`.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {
                kind.value: {"type": "http", "scheme": "bearer", "description": text}
                for kind, text in SECURITY_SCHEMES.items()
            },
        },
    }


def _operation(call: Call[Any], schemas: Schemas) -> Json:
    operation: Json = {
        "summary": call.summary,
        "parameters": [*_path_parameters(call.path), *(_query_parameter(call, name) for name in call.query)],
        "responses": {"200": _answers(call, schemas), **_refusals(call, schemas)},
    }
    good: list[Json] = [{kind.value: []} for kind in call.who.value]
    if call.who is Who.READERS:
        # Open, unless the agent is told to lock its reads.
        operation["security"] = [{}, *good]
    elif call.who is not Who.ANYBODY:
        operation["security"] = good
    if call.body is bytes:
        operation["requestBody"] = {"required": False, "content": {BYTES: {}}}
    elif call.body is not None:
        schema = schemas.request(call.body)
        operation["requestBody"] = {"required": not call.may_be_empty, "content": {JSON: {"schema": schema}}}
    return operation


def _path_parameters(path: str) -> list[Json]:
    if "{id}" not in path:
        return []
    schema = SLOT if path.startswith("/slots/") else PARAMETERS["id"]
    return [{"name": "id", "in": "path", "required": True, "schema": schema}]


def _query_parameter(call: Call[Any], name: str) -> Json:
    required = name in call.required
    # A poll only compares the task's id.
    schema = PARAMETERS["id"] if name == "task_id" and required else PARAMETERS[name]
    return {"name": name, "in": "query", "required": required, "schema": schema}


def _answers(call: Call[Any], schemas: Schemas) -> Json:
    content = {}
    for content_type, kind in call.answers.items():
        if kind is str:
            schema: Json = {"type": "string"}
        elif kind is dict:
            schema = {"type": "object"}
        else:
            schema = schemas.answer(kind)
        content[content_type] = {"schema": schema}
    return {"description": "Done", "content": content}


def _refusals(call: Call[Any], schemas: Schemas) -> dict[str, Json]:
    return {str(status): _refusal(status, codes, schemas) for status, codes in call.refusals.items()}


def _refusal(status: int, codes: list[ErrorCode], schemas: Schemas) -> Json:
    named: Json = {"properties": {"error": {"enum": [code.value for code in codes]}}}
    refusal: Json = {
        "description": ", ".join(codes),
        "content": {JSON: {"schema": {"allOf": [schemas.answer(ErrorBody), named]}}},
    }
    if status in HEADERS:
        name, text = HEADERS[status]
        refusal["headers"] = {name: {"description": text, "schema": {"type": "string"}}}
    return refusal
