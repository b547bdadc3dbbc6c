"""Every call that the agent answers, each as one entry of one table.

Routing, access, the reading of bodies, the requests that are counted and `/openapi.json` are all made from it: a new
call is a new entry, and a handler in one of the modules `*_calls`.
"""

from dataclasses import dataclass
from typing import Any, Generic

from agent.counters import OTHER
from agent.errors import STATUS
from agent.http import agent_calls, slot_calls, task_calls, work_calls
from agent.http.access import Who
from agent.http.asked import Handler, T
from agent.http.bodies import MAX_BODY_BYTES
from agent.wire import (
    AckRequest,
    AcquireAnswer,
    AcquireRequest,
    AgentState,
    ApproveRequest,
    CancelRequest,
    DrainRequest,
    Empty,
    ErrorCode,
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

GET, POST = "GET", "POST"

JSON = "application/json"
TEXT = "text/plain"
LINES = "application/x-ndjson"
BYTES = "application/octet-stream"
OPENMETRICS = "application/openmetrics-text"

E = ErrorCode
ADDRESSED = (E.WRONG_POD, E.RESTARTED, E.STALE)
"""The errors for a write that was meant for another Pod or another start of the agent, or that comes too late."""
TASKS = (E.BAD_REQUEST, E.NOT_FOUND, E.NOT_READY)
WORKERS = (E.UNREGISTERED, E.SUPERSEDED)

MAX_REGISTER_BYTES = 4 << 20
"""A worker lists every task it keeps, without the files of those that were started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """One call. `codes` are its own refusals, besides those that its credentials and its body bring along."""

    method: str
    path: str
    """`{id}` stands for a slot's number or a task's id, as the second part of the path."""
    counted: str
    """The `call` that its requests are counted as in `podslots_agent_requests_total`."""
    who: Who
    """Which credentials allow it."""
    handler: Handler[T]
    summary: str
    answers: dict[str, Any]
    """With status 200, by content type: a wire type, dict for any object, or str for text and bytes."""
    body: type[T] | None = None
    """The type of its body: a wire type as JSON, raw bytes, or None if it has no body."""
    may_be_empty: bool = False
    """Whether an empty body counts as `{}`."""
    as_json: bool = False
    """Whether the handler gets the body as plain JSON values, so that it can use the valid parts of it."""
    max_body_bytes: int = MAX_BODY_BYTES
    query: tuple[str, ...] = ()
    """Its query parameters. `openapi` has their schemas."""
    required: tuple[str, ...] = ()
    """Those of them that must be given."""
    codes: tuple[ErrorCode, ...] = ()

    @property
    def all_codes(self) -> tuple[ErrorCode, ...]:
        """Every error that it may be answered with."""
        codes = {*self.codes, E.INTERNAL}
        if self.who is not Who.ANYBODY:
            codes |= {E.UNAUTHORIZED, E.FORBIDDEN}
        if self.body is not None:
            codes |= {E.BAD_REQUEST, E.TOO_LARGE}
        return tuple(code for code in E if code in codes)

    @property
    def refusals(self) -> dict[int, list[ErrorCode]]:
        """Those errors by their HTTP status, in its order."""
        statuses = sorted({STATUS[code] for code in self.all_codes})
        return {status: [code for code in self.all_codes if STATUS[code] == status] for status in statuses}


def _hold(name: str, handler: Handler[HoldRequest], *codes: ErrorCode) -> Call[HoldRequest]:
    return Call(
        method=POST,
        path=f"/slots/{{id}}/{name}",
        counted="hold",
        who=Who.HOLDERS,
        handler=handler,
        summary=f"A holder's {name}",
        answers={JSON: HoldAnswer},
        body=HoldRequest,
        codes=(*ADDRESSED, E.NOT_FOUND, E.MANAGED, E.FENCED, E.INVALID, E.STORAGE, *codes),
    )


CALLS: tuple[Call[Any], ...] = (
    Call(
        method=GET,
        path="/slots",
        counted="slots",
        who=Who.READERS,
        handler=slot_calls.read,
        summary="The agent and its slots; with watch=true a line for each change",
        answers={JSON: AgentState, LINES: WatchLine, TEXT: str},
        query=("watch", "revision"),
        codes=(E.BAD_REQUEST,),
    ),
    Call(
        method=GET,
        path="/tasks/{id}",
        counted="task",
        who=Who.READERS,
        handler=task_calls.read,
        summary="A task with work",
        answers={JSON: Task},
        codes=TASKS,
    ),
    Call(
        method=GET,
        path="/tasks/{id}/log",
        counted="log",
        who=Who.READERS,
        handler=task_calls.log,
        summary="A task's output; `part` gives a piece of one step's as it is kept, the plan's without `step`",
        answers={TEXT: str, BYTES: str},
        query=("step", "follow", "offset", "part"),
        codes=TASKS,
    ),
    Call(
        method=GET,
        path="/tasks/{id}/outputs",
        counted="task",
        who=Who.POOL,
        handler=task_calls.outputs,
        summary="The file that an ended task handed over",
        answers={BYTES: str},
        codes=TASKS,
    ),
    Call(
        method=GET,
        path="/metrics",
        counted="metrics",
        who=Who.READERS,
        handler=agent_calls.metrics,
        summary="Prometheus metrics",
        answers={TEXT: str, OPENMETRICS: str},
    ),
    Call(
        method=GET,
        path="/healthz",
        counted="health",
        who=Who.ANYBODY,
        handler=agent_calls.health,
        summary="The process is alive",
        answers={TEXT: str},
    ),
    Call(
        method=GET,
        path="/readyz",
        counted="health",
        who=Who.ANYBODY,
        handler=agent_calls.health,
        summary="It serves",
        answers={TEXT: str},
    ),
    Call(
        method=GET,
        path="/openapi.json",
        counted=OTHER,
        who=Who.READERS,
        handler=agent_calls.openapi,
        summary="This document",
        answers={JSON: dict},
    ),
    Call(
        method=POST,
        path="/slots/acquire",
        counted="acquire",
        who=Who.HOLDERS,
        handler=slot_calls.acquire,
        summary="Give a task a slot",
        answers={JSON: AcquireAnswer},
        body=AcquireRequest,
        codes=(
            *ADDRESSED,
            *(E.NO_FREE_SLOT, E.DRAINED, E.CLOSING, E.ILLEGAL, E.UNKNOWN_TASK_TYPE, E.INVALID),
            *(E.NOT_READY, E.STORAGE),
        ),
    ),
    _hold("reserve", slot_calls.reserve, E.ILLEGAL),
    _hold("resume", slot_calls.resume, E.ILLEGAL),
    _hold("release", slot_calls.release),
    Call(
        method=POST,
        path="/open",
        counted="open",
        who=Who.POOL,
        handler=slot_calls.open_again,
        summary="Take back a drain",
        answers={JSON: PhaseAnswer},
        body=DrainRequest,
        codes=(*ADDRESSED, E.DRAIN_MISMATCH, E.STORAGE),
    ),
    Call(
        method=POST,
        path="/drain",
        counted="drain",
        who=Who.POOL,
        handler=slot_calls.drain,
        summary="Take no new work, if nothing is held",
        answers={JSON: PhaseAnswer},
        body=DrainRequest,
        codes=(*ADDRESSED, E.BUSY, E.STORAGE),
    ),
    Call(
        method=POST,
        path="/tasks/{id}/approve",
        counted="approve",
        who=Who.POOL,
        handler=task_calls.approve,
        summary="Let the apply run",
        answers={JSON: Task},
        body=ApproveRequest,
        codes=(*ADDRESSED, *TASKS, E.DIGEST_MISMATCH, E.ILLEGAL, E.STORAGE),
    ),
    Call(
        method=POST,
        path="/tasks/{id}/cancel",
        counted="cancel",
        who=Who.POOL,
        handler=task_calls.cancel,
        summary="End the task",
        answers={JSON: Task},
        body=CancelRequest,
        may_be_empty=True,
        codes=(*ADDRESSED, *TASKS, E.STORAGE),
    ),
    Call(
        method=POST,
        path="/tasks/{id}/ack",
        counted="ack",
        who=Who.POOL,
        handler=task_calls.acknowledge,
        summary="The result is stored elsewhere",
        answers={JSON: Empty},
        body=AckRequest,
        may_be_empty=True,
        codes=(*ADDRESSED, E.BAD_REQUEST, E.ILLEGAL, E.STORAGE),
    ),
    Call(
        method=GET,
        path="/work",
        counted="poll",
        who=Who.WORKER,
        handler=work_calls.poll,
        summary="A worker's long poll",
        answers={JSON: WorkAnswer},
        query=("instance", "task_id", "step"),
        codes=(E.BAD_REQUEST, *WORKERS),
    ),
    Call(
        method=POST,
        path="/work/register",
        counted="register",
        who=Who.WORKER,
        handler=work_calls.register,
        summary="A worker takes over its slot",
        answers={JSON: WorkAnswer},
        body=RegisterRequest,
        as_json=True,
        max_body_bytes=MAX_REGISTER_BYTES,
        codes=(E.SUPERSEDED, E.STORAGE),
    ),
    Call(
        method=POST,
        path="/work/started",
        counted="started",
        who=Who.WORKER,
        handler=work_calls.started,
        summary="A step's command is about to run",
        answers={JSON: Empty},
        body=StartedReport,
        codes=(*WORKERS, E.NOT_FOUND, E.FENCED, E.STORAGE),
    ),
    Call(
        method=POST,
        path="/work/output",
        counted="output",
        who=Who.WORKER,
        handler=work_calls.output,
        summary="Output of a step",
        answers={JSON: OutputAnswer},
        body=bytes,
        query=("instance", "task_id", "step", "offset"),
        required=("task_id", "step"),
        codes=(*WORKERS, E.NOT_FOUND),
    ),
    Call(
        method=POST,
        path="/work/exit",
        counted="exit",
        who=Who.WORKER,
        handler=work_calls.ended,
        summary="A step ended",
        answers={JSON: Empty},
        body=ExitReport,
        codes=(*WORKERS, E.NOT_FOUND, E.FENCED, E.INVALID, E.STORAGE),
    ),
    Call(
        method=POST,
        path="/close",
        counted="close",
        who=Who.CLOSER,
        handler=agent_calls.close,
        summary="The Pod is being stopped",
        answers={JSON: Empty},
    ),
)

COUNTED = tuple(dict.fromkeys(call.counted for call in CALLS))
"""What requests are counted as."""
