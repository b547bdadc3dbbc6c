"""The messages between agent, worker and controller: typed values, and the names they have on the wire.

Times are aware UTC datetimes, RFC 3339 in JSON. `encode` and `decode` (see `agent.codec`) turn a message into JSON
values and back; a request is decoded strictly, an answer leniently. Standard library only.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from agent.codec import WireError, decode, encode, format_time, parse_time
from agent.paths import PATH_RULE, folder_among, is_folder_path, is_path
from agent.work_messages import (
    MAX_OUTPUTS_BYTES,
    NO_CHANGES,
    POD_STOPPED,
    PORT,
    STOP_SIGNALS,
    TASK_ID_PATTERN,
    TIME_LIMIT,
    Assignment,
    Command,
    Empty,
    EnvFrom,
    EnvVar,
    ErrorBody,
    ErrorCode,
    ExitCodes,
    ExitReport,
    File,
    KeptTask,
    KeyRef,
    Outcome,
    OutputAnswer,
    RegisterRequest,
    StartedReport,
    Step,
    Steps,
    StepSpec,
    TaskId,
    Work,
    WorkAnswer,
    is_older,
)

__all__ = [  # handed on; what is defined here is public as well
    "MAX_OUTPUTS_BYTES",
    "NO_CHANGES",
    "PATH_RULE",
    "POD_STOPPED",
    "PORT",
    "STOP_SIGNALS",
    "TASK_ID_PATTERN",
    "TIME_LIMIT",
    "Assignment",
    "Command",
    "Empty",
    "EnvFrom",
    "EnvVar",
    "ErrorBody",
    "ErrorCode",
    "ExitCodes",
    "ExitReport",
    "File",
    "KeptTask",
    "KeyRef",
    "Outcome",
    "OutputAnswer",
    "RegisterRequest",
    "StartedReport",
    "Step",
    "StepSpec",
    "Steps",
    "TaskId",
    "WireError",
    "Work",
    "WorkAnswer",
    "decode",
    "encode",
    "folder_among",
    "format_time",
    "is_folder_path",
    "is_older",
    "is_path",
    "parse_time",
]

READERS_PREFIX = "read-"
"""The prefix of ids of read-only pool tokens. They are for programs that scrape, where reads are locked."""

RECOVERING = "recovering"
"""The word in tables and metrics for a slot whose state is not known yet, after a lost journal."""


class SlotState(StrEnum):
    """What a slot is doing."""

    IDLE = "idle"
    RUNNING = "running"
    RESERVED = "reserved"


class Phase(StrEnum):
    """Whether the agent takes new work."""

    OPEN = "open"
    DRAINED = "drained"


class Origin(StrEnum):
    """Who acquired a slot. A `local` hold is never released by the controller."""

    CONTROLLER = "controller"
    LOCAL = "local"


class TaskState(StrEnum):
    """Where a task with work is. `waiting`: its slot is running, its step not yet started by the worker."""

    WAITING = "waiting"
    RUNNING = "running"
    RESERVED = "reserved"
    ENDED = "ended"


# --- what GET /slots says -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLink:
    """The worker instance that last registered for a slot, and whether it is heard of now."""

    instance: str
    connected: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One slot. `fence` changes with every transition; `since` is the time of the last one.

    `recovering`: the journal was lost, and the slot's worker or holder has not yet reported what it holds. Its `state`
    is not reliable then: count it as held.
    """

    id: int
    accepts: tuple[str, ...]
    state: SlotState
    fence: int
    since: datetime
    task_id: str | None = None
    task_type: str | None = None
    step: Step | None = None
    origin: Origin | None = None
    expires_at: datetime | None = None
    worker: WorkerLink | None = None
    recovering: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentState:
    """The answer of `GET /slots`.

    `incarnation` is new at every start of the agent, `revision` counts changes within it. `tokens` are the ids of the
    pool tokens that are valid now. `ended` are tasks whose result waits for its ack. `closing`: the Pod is being
    stopped. `recovering`: the journal was lost, and not every worker has reported yet. A task that is not listed may
    still be in one of the slots that are `recovering`. `warnings` tell people what went wrong, such as a journal that
    was set aside.
    """

    version: str
    pod: str
    pod_uid: str
    pool: str
    incarnation: str
    phase: Phase
    revision: int
    tokens: tuple[str, ...]
    slots: tuple[Slot, ...]
    drain_id: str | None = None
    ended: tuple[str, ...] = ()
    closing: bool = False
    recovering: bool = False
    warnings: tuple[str, ...] = ()


class WatchType(StrEnum):
    """The kinds of line in `GET /slots?watch=true`."""

    STATE = "STATE"
    CHANGE = "CHANGE"
    HEARTBEAT = "HEARTBEAT"


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchLine:
    """One line of a watch. STATE and CHANGE carry the whole state, HEARTBEAT none."""

    type: WatchType
    revision: int
    state: AgentState | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What is known of one step. `log_bytes` counts all output, kept or not; `log_tail` is its end.

    `log_kept_bytes` and `log_end_bytes` say how much of its beginning and of its end can be read from the agent. They
    are given in the answer of `GET /tasks/{id}`, by agents that have the call for it. `changed`: whether there are
    changes, by the exit code and the step's `exit_codes`; None if they don't say.
    """

    start_time: datetime | None = None
    end_time: datetime | None = None
    outcome: Outcome | None = None
    exit_code: int | None = None
    reason: str | None = None
    log_bytes: int = 0
    log_tail: str = ""
    log_kept_bytes: int | None = None
    log_end_bytes: int | None = None
    changed: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The answer of `GET /tasks/{id}`. `plan_digest` is what an approval has to name."""

    task_id: str
    task_type: str
    name: str
    attempt: int
    slot: int
    state: TaskState
    step: Step
    plan: StepResult | None = None
    apply: StepResult | None = None
    outcome: Outcome | None = None
    reason: str | None = None
    plan_digest: str | None = None
    cancel_requested: bool = False
    expires_at: datetime | None = None
    has_outputs: bool | None = None


# --- writes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """Orders writes: (lease term, counter within the term), compared as a pair."""

    term: int
    counter: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """What a controller's write carries. Each field that is given is checked.

    Another `pod_uid` is refused with 421 wrong_pod, another `incarnation` with 409 restarted, a `stamp` that is not
    above every one seen by this incarnation with 409 stale. Any stamp received counts as seen, even if the write itself
    was refused for another reason.
    """

    pod_uid: str | None = None
    incarnation: str | None = None
    stamp: Stamp | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AcquireRequest(Write):
    """`POST /slots/acquire`."""

    task_id: str
    task_type: str
    work: Work | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AcquireAnswer:
    """The slot that the task holds."""

    slot: int
    fence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRequest(Write):
    """`POST /slots/{id}/reserve`, `/resume` and `/release`. `ttl_seconds` limits a reservation."""

    task_id: str
    fence: int
    ttl_seconds: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldAnswer:
    """The slot after the call, with its new fence."""

    slot: int
    fence: int
    state: SlotState
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainRequest(Write):
    """`POST /drain`, and `POST /open`, which takes back exactly the drain it names."""

    drain_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseAnswer:
    """The phase in force after an open or a drain."""

    phase: Phase
    revision: int
    drain_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApproveRequest(Write):
    """`POST /tasks/{id}/approve`. Names the very plan and attempt it approves."""

    plan_digest: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequest(Write):
    """`POST /tasks/{id}/cancel`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AckRequest(Write):
    """`POST /tasks/{id}/ack`. The result is stored elsewhere; the agent forgets the task."""
