"""The messages that the worker needs: what a task's work is, and the calls under /work.

They stand apart from `agent.wire`, which hands them on under the same names, because making a dataclass costs about
0.7 ms at import and the worker has to start fast and small: it imports these, everything else imports `agent.wire`.
For the same reason they are records (see `agent.record`), which behave as the dataclasses that type checkers see.
Standard library only.
"""

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, NewType

if TYPE_CHECKING:
    from dataclasses import dataclass, field
else:
    from agent.record import dataclass, field

TaskId = NewType("TaskId", str)
"""`UID.ATTEMPT` of a SlotTask, or any name a local holder chose. 1 to 128 of letters, digits, `.`, `_`, `-`."""

PORT = 8721
MAX_OUTPUTS_BYTES = 256 * 1024
"""Of the file that a task's `outputs_path` names."""
TASK_ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"

STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGKILL")
"""What a step may ask to be stopped by."""

NO_CHANGES = "NoChanges"
"""The `reason` of a task that ended with its plan, which found nothing to change."""
POD_STOPPED = "Pod stopped"
TIME_LIMIT = "time limit"
"""With these begins the `reason` of a step that was stopped because its Pod ended, or that ran too long."""


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


class ErrorCode(StrEnum):
    """The `error` of an error body, each with its HTTP status."""

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
class Command:
    """One command of a step. `working_dir` is relative to the task's directory; None: the step's."""

    command: tuple[str, ...]
    working_dir: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitCodes:
    """Exit codes that count as success, and what they say: something is to be changed, or nothing is."""

    changed: tuple[int, ...] = ()
    unchanged: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpec:
    """What a step runs: the commands of `before` one after the other, then `command`; and its limits.

    `working_dir` is relative to the task's directory; None: the plan's for an apply, else the task's directory.
    `plan_file` is the file that an approval of a plan step covers, relative to the step's directory: the step fails if
    it does not write it. None: `tfplan` if there is one, else the step's output. `stop_signal` is sent to the running
    command's process group when the step is to end; what is left after `cancel_grace_seconds` is killed.
    """

    command: tuple[str, ...]
    plan_file: str | None = None
    timeout_seconds: int | None = None
    cancel_grace_seconds: int = 60
    stop_signal: str = "SIGINT"
    working_dir: str | None = None
    before: tuple[Command, ...] = ()
    exit_codes: ExitCodes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """What a task runs: a plan, an apply, or both with an approval between them."""

    plan: StepSpec | None = None
    apply: StepSpec | None = None

    def get(self, step: Step) -> StepSpec | None:
        """The spec of one step."""
        return self.plan if step is Step.PLAN else self.apply

    def working_dir(self, step: Step) -> str:
        """Where a step runs, relative to the task's directory. An apply that says nothing runs where its plan did."""
        own, plan = self.get(step), self.plan
        if own is not None and own.working_dir is not None:
            return own.working_dir
        return plan.working_dir or "." if plan is not None else "."


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file's content, as text or in base64 (one of the two), and its permissions, such as 0o755."""

    text: str | None = None
    base64: str | None = None
    mode: int = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a worker runs. `name` is `NAMESPACE/NAME` of the SlotTask, for people and logs.

    `files` maps paths relative to the task's directory to their text, or to content and permissions. `mask_secrets`
    None: as true. `outputs_path` names a file of the last step, relative to its directory, which goes with its end.
    """

    name: str
    attempt: int
    steps: Steps
    files: dict[str, str | File] = field(default_factory=dict)
    env: tuple[EnvVar, ...] = ()
    env_from: tuple[EnvFrom, ...] = ()
    reservation_ttl_seconds: int = 86400
    mask_secrets: bool | None = None
    outputs_path: str | None = None


# --- the worker's side ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A step for the worker to run. `plan_digest` (apply only) is what was approved; the worker hashes again.

    Only this agent knows the `nonce` before the step is assigned. A marker or an end without it was written by somebody
    else, such as the code of an earlier step. If it is None, the agent is of a version without nonces, and it is not
    compared.
    """

    task_id: str
    task_type: str
    step: Step
    fence: int
    work: Work
    plan_digest: str | None = None
    nonce: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedReport:
    """`POST /work/started`: the marker is on disk, the command is about to run."""

    instance: str
    task_id: str
    step: Step
    fence: int
    start_time: datetime
    nonce: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitReport:
    """`POST /work/exit`: how a step ended. The same report again is answered the same.

    `plan_digest` is given for the plan step that succeeded of a task that has an apply step. `outcome` lost says that
    the step was started by an earlier worker and its processes are gone. `changed` is what the exit code says by the
    step's `exit_codes`; None if it says nothing.
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
    outputs: str | None = None
    changed: bool | None = None
    nonce: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptTask:
    """A task whose directory a worker has. The last step it knows, and how far that got."""

    assignment: Assignment
    started: bool
    exit: ExitReport | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterRequest:
    """`POST /work/register`: a worker instance takes over its slot and says what its disk holds.

    An instance is named `NUMBER-RANDOM`; a later worker of the slot has the higher number (see `is_older`).

    `unread` are tasks with a directory that can't be read now. The agent concludes nothing about them. The worker
    registers again once it can read them. `damaged` are tasks whose record in the directory is not readable as a
    record; no process of the step runs any more.
    """

    instance: str
    tasks: tuple[KeptTask, ...] = ()
    unread: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()


def is_older(instance: str, than: str) -> bool:
    """Whether a worker instance came before another one of its slot.

    The registration of a worker that was killed may lie in a socket's buffer while its successor registers. Taken in
    that order it would have the successor, and the step that it runs, out of its place.
    """
    number, other = instance.partition("-")[0], than.partition("-")[0]
    return number.isdecimal() and other.isdecimal() and int(number) < int(other)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkAnswer:
    """The answer of `POST /work/register` and `GET /work`.

    `run`: start this step, unless it was started before. `cancel`: stop the step that the poll named. `forget`: task
    ids whose directories can go. `output` (of a registration): for each step of a kept task, `TASK_ID/STEP`, how many
    bytes of its output the agent has; the worker sends all that is missing, also what it had sent before.
    """

    run: Assignment | None = None
    cancel: bool = False
    forget: tuple[str, ...] = ()
    output: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputAnswer:
    """The answer of `POST /work/output`: how many bytes of this step's output the agent has."""

    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Empty:
    """An answer with nothing to say: `{}`."""
