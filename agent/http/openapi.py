"""The API as an OpenAPI 3.1 document: the calls from the table below, the bodies from the wire types.

What a request may say is closed, as the agent checks it: an unknown field is a typing mistake. What an answer says is
open: a later agent may say more (docs/compatibility.md). Types that go both ways therefore stand there twice, the
second time as `NAME.answer`.
"""

from dataclasses import dataclass
from typing import Any

from agent import __version__
from agent.auth import Kind
from agent.config import MAX_SLOTS
from agent.errors import STATUS
from agent.http.schemas import TASK_ID, Json, Schemas
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
    ErrorCode,
    ExitReport,
    HoldAnswer,
    HoldRequest,
    OutputAnswer,
    PhaseAnswer,
    RegisterRequest,
    StartedReport,
    Step,
    Task,
    WatchLine,
    WorkAnswer,
)

JSON = "application/json"
TEXT = "text/plain"
LINES = "application/x-ndjson"
BYTES = "application/octet-stream"
OPENMETRICS = "application/openmetrics-text"

SECURITY_SCHEMES: dict[Kind, str] = {
    Kind.POOL: "The pool's tokens: everything but /work and /close",
    Kind.READER: "Tokens whose id begins with `read-`: reads, where those are locked",
    Kind.LOCAL: "The workload's own credential: acquires slots and gives them back",
    Kind.SLOT: "A worker's credential: /work and below, for its slot",
    Kind.CLOSE: "For `slot-agent close` in the agent's own container",
}

READERS = (Kind.POOL, Kind.READER, Kind.LOCAL, Kind.CLOSE)
HOLDERS = (Kind.POOL, Kind.LOCAL)

E = ErrorCode
ADDRESSED = (E.WRONG_POD, E.RESTARTED, E.STALE)
"""What a write is refused with that was meant for another Pod, another start of the agent, or comes too late."""
TASKS = (E.BAD_REQUEST, E.NOT_FOUND, E.NOT_READY)
WORKERS = (E.UNREGISTERED, E.SUPERSEDED)

HEADERS: dict[int, tuple[str, str]] = {
    401: ("WWW-Authenticate", "The scheme to use: Bearer"),
    503: ("Retry-After", "Seconds, where trying again may help"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call. `codes` are its own refusals, besides those that its credentials and its body bring along."""

    summary: str
    answers: dict[str, Any]
    """By content type: a wire type, or str for text and bytes."""
    allowed: tuple[Kind, ...] | None = None
    """Which credentials are good for it; None: a read, which needs one only where reads are locked."""
    open: bool = False
    """Whether it never needs a credential."""
    request: type[Any] | str | None = None
    """A wire type, or a content type."""
    may_be_empty: bool = False
    query: tuple[str, ...] = ()
    codes: tuple[ErrorCode, ...] = ()


def _hold(call: str) -> Call:
    return Call(
        summary=f"A holder's {call}",
        answers={JSON: HoldAnswer},
        allowed=HOLDERS,
        request=HoldRequest,
        codes=(*ADDRESSED, E.NOT_FOUND, E.MANAGED, E.FENCED, E.ILLEGAL, E.INVALID, E.STORAGE),
    )


CALLS: dict[tuple[str, str], Call] = {
    ("get", "/slots"): Call(
        summary="The agent and its slots; with watch=true a line for each change",
        answers={JSON: AgentState, LINES: WatchLine, TEXT: str},
        query=("watch", "revision"),
        codes=(E.BAD_REQUEST,),
    ),
    ("get", "/tasks/{id}"): Call(summary="A task with work", answers={JSON: Task}, codes=TASKS),
    ("get", "/tasks/{id}/log"): Call(
        summary="A task's output; `part` gives a piece of one step's as it is kept, the plan's without `step`",
        answers={TEXT: str, BYTES: str},
        query=("step", "follow", "offset", "part"),
        codes=TASKS,
    ),
    ("get", "/tasks/{id}/outputs"): Call(
        summary="The file that an ended task handed over", answers={BYTES: str}, allowed=(Kind.POOL,), codes=TASKS
    ),
    ("get", "/metrics"): Call(summary="Prometheus metrics", answers={TEXT: str, OPENMETRICS: str}),
    ("get", "/healthz"): Call(summary="The process is alive", answers={TEXT: str}, open=True),
    ("get", "/readyz"): Call(summary="It serves", answers={TEXT: str}, open=True),
    ("get", "/openapi.json"): Call(summary="This document", answers={JSON: dict}),
    ("post", "/slots/acquire"): Call(
        summary="Give a task a slot",
        answers={JSON: AcquireAnswer},
        allowed=HOLDERS,
        request=AcquireRequest,
        codes=(
            *ADDRESSED,
            *(E.NO_FREE_SLOT, E.DRAINED, E.CLOSING, E.ILLEGAL, E.UNKNOWN_TASK_TYPE, E.INVALID),
            *(E.NOT_READY, E.STORAGE),
        ),
    ),
    **{("post", f"/slots/{{id}}/{call}"): _hold(call) for call in ("reserve", "resume", "release")},
    ("post", "/open"): Call(
        summary="Take back a drain",
        answers={JSON: PhaseAnswer},
        allowed=(Kind.POOL,),
        request=DrainRequest,
        codes=(*ADDRESSED, E.DRAIN_MISMATCH, E.STORAGE),
    ),
    ("post", "/drain"): Call(
        summary="Take no new work, if nothing is held",
        answers={JSON: PhaseAnswer},
        allowed=(Kind.POOL,),
        request=DrainRequest,
        codes=(*ADDRESSED, E.BUSY, E.STORAGE),
    ),
    ("post", "/tasks/{id}/approve"): Call(
        summary="Let the apply run",
        answers={JSON: Task},
        allowed=(Kind.POOL,),
        request=ApproveRequest,
        codes=(*ADDRESSED, *TASKS, E.DIGEST_MISMATCH, E.ILLEGAL, E.STORAGE),
    ),
    ("post", "/tasks/{id}/cancel"): Call(
        summary="End the task",
        answers={JSON: Task},
        allowed=(Kind.POOL,),
        request=CancelRequest,
        may_be_empty=True,
        codes=(*ADDRESSED, *TASKS, E.ILLEGAL, E.STORAGE),
    ),
    ("post", "/tasks/{id}/ack"): Call(
        summary="The result is stored elsewhere",
        answers={JSON: Empty},
        allowed=(Kind.POOL,),
        request=AckRequest,
        may_be_empty=True,
        codes=(*ADDRESSED, E.BAD_REQUEST, E.ILLEGAL, E.STORAGE),
    ),
    ("get", "/work"): Call(
        summary="A worker's long poll",
        answers={JSON: WorkAnswer},
        allowed=(Kind.SLOT,),
        query=("instance", "task_id", "step"),
        codes=(E.BAD_REQUEST, *WORKERS),
    ),
    ("post", "/work/register"): Call(
        summary="A worker takes over its slot",
        answers={JSON: WorkAnswer},
        allowed=(Kind.SLOT,),
        request=RegisterRequest,
        codes=(E.SUPERSEDED, E.INVALID, E.STORAGE),
    ),
    ("post", "/work/started"): Call(
        summary="A step's command is about to run",
        answers={JSON: Empty},
        allowed=(Kind.SLOT,),
        request=StartedReport,
        codes=(*WORKERS, E.NOT_FOUND, E.FENCED, E.STORAGE),
    ),
    ("post", "/work/output"): Call(
        summary="Output of a step",
        answers={JSON: OutputAnswer},
        allowed=(Kind.SLOT,),
        request=BYTES,
        query=("instance", "task_id", "step", "offset"),
        codes=(*WORKERS, E.NOT_FOUND),
    ),
    ("post", "/work/exit"): Call(
        summary="A step ended",
        answers={JSON: Empty},
        allowed=(Kind.SLOT,),
        request=ExitReport,
        codes=(*WORKERS, E.NOT_FOUND, E.FENCED, E.ILLEGAL, E.INVALID, E.STORAGE),
    ),
    ("post", "/close"): Call(
        summary="The Pod is being stopped", answers={JSON: Empty}, allowed=(Kind.CLOSE,), may_be_empty=True
    ),
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
REQUIRED_QUERY = {("/work/output", "task_id"), ("/work/output", "step")}


def document() -> Json:
    """The whole document."""
    schemas = Schemas()
    paths: dict[str, Json] = {}
    for (method, path), call in CALLS.items():
        paths.setdefault(path, {})[method] = _operation(path, call, schemas)
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


def codes_of(call: Call) -> tuple[ErrorCode, ...]:
    """Every error that a call may be answered with."""
    codes = {*call.codes, E.INTERNAL}
    if not call.open:
        codes |= {E.UNAUTHORIZED, E.FORBIDDEN}
    if call.request is not None:
        codes |= {E.BAD_REQUEST, E.TOO_LARGE}
    return tuple(code for code in ErrorCode if code in codes)


def _operation(path: str, call: Call, schemas: Schemas) -> Json:
    operation: Json = {
        "summary": call.summary,
        "parameters": [*_path_parameters(path), *(_query_parameter(path, name) for name in call.query)],
        "responses": {"200": _answers(call, schemas), **_refusals(call, schemas)},
    }
    if call.allowed is not None:
        operation["security"] = [{kind.value: []} for kind in call.allowed]
    elif not call.open:
        # Open, unless the agent is told to lock its reads.
        operation["security"] = [{}, *({kind.value: []} for kind in READERS)]
    if isinstance(call.request, str):
        operation["requestBody"] = {"required": False, "content": {call.request: {}}}
    elif call.request is not None:
        schema = schemas.request(call.request)
        operation["requestBody"] = {"required": not call.may_be_empty, "content": {JSON: {"schema": schema}}}
    return operation


def _path_parameters(path: str) -> list[Json]:
    if "{id}" not in path:
        return []
    schema = SLOT if path.startswith("/slots/") else PARAMETERS["id"]
    return [{"name": "id", "in": "path", "required": True, "schema": schema}]


def _query_parameter(path: str, name: str) -> Json:
    required = (path, name) in REQUIRED_QUERY
    # A poll only compares the task's id.
    schema = PARAMETERS["id"] if name == "task_id" and required else PARAMETERS[name]
    return {"name": name, "in": "query", "required": required, "schema": schema}


def _answers(call: Call, schemas: Schemas) -> Json:
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


def _refusals(call: Call, schemas: Schemas) -> dict[str, Json]:
    by_status: dict[int, list[ErrorCode]] = {}
    for code in codes_of(call):
        by_status.setdefault(STATUS[code], []).append(code)
    return {str(status): _refusal(status, codes, schemas) for status, codes in sorted(by_status.items())}


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
