"""The messages between agent, worker and controller: typed values, and the names they have on the wire.

Times are aware UTC datetimes, RFC 3339 in JSON. `encode` and `decode` (see `agent.codec`) turn a message into JSON
values and back; a request is decoded strictly, an answer leniently. Standard library only.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NewType

from agent.codec import WireError, decode, encode, format_time, parse_time

__all__ = ["WireError", "decode", "encode", "format_time", "parse_time"]

TaskId = NewType("TaskId", str)
"""`UID.ATTEMPT` of a SlotTask, or any name a local holder chose. 1 to 128 of letters, digits, `.`, `_`, `-`."""

PORT = 8721
TASK_ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"


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


class Step(StrEnum):
    """A part of a task. A task with both steps waits for an approval between them."""

    PLAN = "plan"
    APPLY = "apply"


class Outcome(StrEnum):
    """How a step, or a task, ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    LOST = "lost"


class TaskState(StrEnum):
    """Where a task with work is. `waiting`: its slot is running, its step not yet started by the worker."""

    WAITING = "waiting"
    RUNNING = "running"
    RESERVED = "reserved"
    ENDED = "ended"


class ErrorCode(StrEnum):
    """The `error` of an error body. The HTTP status stands beside each."""

    BAD_REQUEST = "bad_request"  # 400: the body or a parameter is malformed
    UNAUTHORIZED = "unauthorized"  # 401: no valid credential
    FORBIDDEN = "forbidden"  # 403: a credential that is not good for this call
    NOT_FOUND = "not_found"  # 404: no such path, slot or task
    METHOD_NOT_ALLOWED = "method_not_allowed"  # 405
    NO_FREE_SLOT = "no_free_slot"  # 409: every slot that accepts the type is held
    DRAINED = "drained"  # 409: not open
    CLOSING = "closing"  # 409: the Pod is being stopped
    BUSY = "busy"  # 409: a drain was refused; `slots` and `tasks` say what is in the way
    DRAIN_MISMATCH = "drain_mismatch"  # 409: open names another drain than the one in force
    MANAGED = "managed"  # 409: the slot runs work, its holder is the agent itself
    FENCED = "fenced"  # 409: a fence that is not the slot's
    ILLEGAL = "illegal_transition"  # 409: not possible in the slot's or task's state
    DIGEST_MISMATCH = "digest_mismatch"  # 409: an approval of another plan, command or attempt
    RESTARTED = "restarted"  # 409: the write was meant for an earlier incarnation
    STALE = "stale"  # 409: the write's stamp is not above one already seen
    UNREGISTERED = "unregistered"  # 409: the worker must register first (the agent restarted)
    SUPERSEDED = "superseded"  # 409: a newer worker instance has the slot
    TOO_LARGE = "too_large"  # 413: over 1 MiB
    WRONG_POD = "wrong_pod"  # 421: this address now belongs to another Pod
    UNKNOWN_TASK_TYPE = "unknown_task_type"  # 422: no slot of the layout accepts it
    INVALID = "invalid"  # 422: well-formed, and not possible
    INTERNAL = "internal"  # 500
    STORAGE = "storage"  # 503: the journal can't be written; what is held is kept
    NOT_READY = "not_ready"  # 503: still starting


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBody:
    """Every error's body. `slots` and `tasks` name what is in the way of a drain."""

    error: str
    message: str
    slots: tuple[int, ...] | None = None
    tasks: tuple[str, ...] | None = None


# --- work -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRef:
    """One key of a Secret or ConfigMap that is mounted into the worker's container."""

    name: str
    key: str
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvVar:
    """An environment variable: a plain value, or a reference that the worker resolves. Never both."""

    name: str
    value: str | None = None
    secret: KeyRef | None = None
    config_map: KeyRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvFrom:
    """All keys of one Secret or ConfigMap as environment variables."""

    prefix: str = ""
    secret: str | None = None
    config_map: str | None = None
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpec:
    """A command and its limits. `plan_file` is relative to the task's directory."""

    command: tuple[str, ...]
    plan_file: str | None = None
    timeout_seconds: int | None = None
    cancel_grace_seconds: int = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """What a task runs: a plan, an apply, or both with an approval between them."""

    plan: StepSpec | None = None
    apply: StepSpec | None = None

    def get(self, step: Step) -> StepSpec | None:
        """The spec of one step."""
        return self.plan if step is Step.PLAN else self.apply


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a worker runs. `name` is `NAMESPACE/NAME` of the SlotTask, for people and logs.

    `files` maps paths relative to the task's directory to their text.
    """

    name: str
    attempt: int
    steps: Steps
    files: dict[str, str] = field(default_factory=dict)
    env: tuple[EnvVar, ...] = ()
    env_from: tuple[EnvFrom, ...] = ()
    reservation_ttl_seconds: int = 86400


# --- what GET /slots says -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLink:
    """The worker instance that last registered for a slot, and whether it is heard of now."""

    instance: str
    connected: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One slot. `fence` changes with every transition; `since` is the time of the last one."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentState:
    """The answer of `GET /slots`.

    `incarnation` is new at every start of the agent, `revision` counts changes within it. `tokens` are the ids of the
    pool tokens that are valid now. `ended` are tasks whose result waits for its ack. `closing`: the Pod is being
    stopped. `warnings` tell people what went wrong, such as a journal that was set aside.
    """

    version: str
    pod: str
    pod_uid: str
    pool: str
    incarnation: str
    phase: Phase
    drain_id: str | None
    revision: int
    tokens: tuple[str, ...]
    slots: tuple[Slot, ...]
    ended: tuple[str, ...] = ()
    closing: bool = False
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
    """What is known of one step. `log_bytes` counts all output, kept or not; `log_tail` is its end."""

    start_time: datetime | None = None
    end_time: datetime | None = None
    outcome: Outcome | None = None
    exit_code: int | None = None
    reason: str | None = None
    log_bytes: int = 0
    log_tail: str = ""


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
    drain_id: str | None
    revision: int


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


# --- the worker's side ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A step for the worker to run. `plan_digest` (apply only) is what was approved; the worker hashes again."""

    task_id: str
    task_type: str
    step: Step
    fence: int
    work: Work
    plan_digest: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedReport:
    """`POST /work/started`: the marker is on disk, the command is about to run."""

    instance: str
    task_id: str
    step: Step
    fence: int
    start_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitReport:
    """`POST /work/exit`: how a step ended. The same report again is answered the same.

    `plan_digest` is given for the plan step that succeeded of a task that has an apply step. `outcome` lost says that
    the step was started by an earlier worker and its processes are gone.
    """

    instance: str
    task_id: str
    step: Step
    fence: int
    outcome: Outcome
    end_time: datetime
    start_time: datetime | None = None
    exit_code: int | None = None
    reason: str | None = None
    plan_digest: str | None = None
    log_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptTask:
    """A task whose directory a worker has. The last step it knows, and how far that got."""

    assignment: Assignment
    started: bool
    exit: ExitReport | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterRequest:
    """`POST /work/register`: a worker instance takes over its slot and says what its disk holds."""

    instance: str
    tasks: tuple[KeptTask, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkAnswer:
    """The answer of `POST /work/register` and `GET /work`.

    `run`: start this step, unless it was started before. `cancel`: stop the step that the poll named. `forget`: task
    ids whose directories can go.
    """

    run: Assignment | None = None
    cancel: bool = False
    forget: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputAnswer:
    """The answer of `POST /work/output`: how many bytes of this step's output the agent has."""

    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Empty:
    """An answer with nothing to say: `{}`."""
