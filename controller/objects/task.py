"""A SlotTask, parsed once from the object, and its status on the way back.

`status` is what the controller wrote; what an agent reports of the task goes before it.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from agent.wire import (
    EnvFrom,
    EnvVar,
    KeyRef,
    Outcome,
    Step,
    StepResult,
    Steps,
    StepSpec,
    TaskId,
    Work,
    format_time,
)
from controller import names
from controller.errors import InvalidObject
from controller.objects.conditions import Condition, time
from controller.objects.fields import Fields
from controller.objects.pool import MAX_NAME_LENGTH, TASK_TYPE, PoolSpec

STEPS_OF_TYPE = {"plan": {Step.PLAN}, "apply": {Step.APPLY}, "plan_and_apply": {Step.PLAN, Step.APPLY}}
"""The steps of the built-in types. Any other type has the steps it is given."""

# The bounds of the definition, which needs one for everything: a test holds the two together.
MAX_OUTPUTS_PATH = 1024
_RELATIVE = re.compile(r"[^/](?s:.*)")
_SECRET_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
MAX_POOL_LENGTH = 63
MAX_PRIORITY = 1_000_000
MAX_FILES = 64
MAX_FILE_LENGTH = 262_144
MAX_VARIABLES = 128
MAX_SOURCES = 32
MAX_TEXT_LENGTH = 32_768
MAX_WORDS = 256
MAX_PATH_LENGTH = 1024
MAX_TIMEOUT_SECONDS = 365 * 86400
MAX_GRACE_SECONDS = 86400
MAX_ATTEMPTS = 10
MAX_INTEGER = 2**31 - 1
MAX_TTL_SECONDS = 3650 * 86400

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class TaskPhase(StrEnum):
    """How far a task is."""

    QUEUED = "Queued"
    ASSIGNED = "Assigned"
    RUNNING = "Running"
    AWAITING_APPROVAL = "AwaitingApproval"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"
    EXPIRED = "Expired"
    LOST = "Lost"


FINAL_PHASES = frozenset(
    {TaskPhase.SUCCEEDED, TaskPhase.FAILED, TaskPhase.CANCELLED, TaskPhase.EXPIRED, TaskPhase.LOST}
)


class ApprovalPolicy(StrEnum):
    """Whether a person approves the plan."""

    MANUAL = "Manual"
    AUTO = "Auto"


class KeepOutput(StrEnum):
    """Of which steps the output is kept in objects: of all, of plans that wait for an approval, of none."""

    ALWAYS = "Always"
    WAITING = "Waiting"
    NEVER = "Never"


class OnLostReservation(StrEnum):
    """What to do when a plan that awaits approval is lost with its Pod."""

    FAIL = "Fail"
    REPLAN = "Replan"


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A person's word that this plan of this attempt may be applied."""

    attempt: int
    plan_digest: str
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOver:
    """A file of the last step, and the Secret that it is put into when the task has succeeded."""

    path: str
    secret: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """What a SlotTask asks for."""

    pool: str
    type: str
    steps: Steps
    lock_key: str | None = None
    priority: int = 0
    files: dict[str, str] = field(default_factory=dict)
    env: tuple[EnvVar, ...] = ()
    env_from: tuple[EnvFrom, ...] = ()
    approval_policy: ApprovalPolicy = ApprovalPolicy.MANUAL
    approval: Approval | None = None
    on_lost_reservation: OnLostReservation = OnLostReservation.FAIL
    plan_max_attempts: int = 2
    keep_output: KeepOutput = KeepOutput.ALWAYS
    mask_secrets: bool = True
    outputs: HandedOver | None = None
    cancel: bool = False
    ttl_seconds_after_finished: int = 86400

    @staticmethod
    def parse(spec: Fields) -> "TaskSpec":
        """The spec of a SlotTask object. Raises InvalidObject."""
        retry = spec.optional_child("retry") or Fields({}, spec.at("retry"))
        approval = spec.optional_child("approval")
        outputs = spec.optional_child("outputs")
        task_type = spec.text("type", pattern=TASK_TYPE)
        return TaskSpec(
            pool=spec.text("pool", most=MAX_POOL_LENGTH),
            type=task_type,
            steps=_steps(spec.child("steps"), task_type),
            lock_key=spec.optional_text("lockKey", empty=False, most=MAX_NAME_LENGTH),
            priority=spec.integer("priority", 0, least=-MAX_PRIORITY, most=MAX_PRIORITY),
            files=spec.text_map("files", most=MAX_FILES, longest=MAX_FILE_LENGTH),
            env=_environment(spec),
            env_from=tuple(_env_from(item) for item in spec.children("envFrom", most=MAX_SOURCES)),
            approval_policy=ApprovalPolicy(spec.choice("approvalPolicy", ApprovalPolicy.MANUAL, tuple(ApprovalPolicy))),
            approval=_approval(approval) if approval else None,
            on_lost_reservation=OnLostReservation(
                spec.choice("onLostReservation", OnLostReservation.FAIL, tuple(OnLostReservation))
            ),
            plan_max_attempts=retry.integer("planMaxAttempts", 2, least=1, most=MAX_ATTEMPTS),
            keep_output=KeepOutput(spec.choice("keepOutput", KeepOutput.ALWAYS, tuple(KeepOutput))),
            mask_secrets=spec.boolean("maskSecrets", True),
            outputs=_handed_over(outputs) if outputs else None,
            cancel=spec.boolean("cancel"),
            ttl_seconds_after_finished=spec.integer("ttlSecondsAfterFinished", 86400, most=MAX_TTL_SECONDS),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStatus:
    """What is known of a task. `attempt` 0: never assigned. `queued_reason` says what a queued task waits for.

    `plan_output` and `apply_output` name the SlotTaskOutputs of this attempt.
    """

    phase: TaskPhase = TaskPhase.QUEUED
    step: Step | None = None
    pod: str | None = None
    pod_uid: str | None = None
    slot: int | None = None
    attempt: int = 0
    plan_digest: str | None = None
    expires_at: datetime | None = None
    reason: str | None = None
    message: str | None = None
    queued_reason: str | None = None
    plan: StepResult | None = None
    apply: StepResult | None = None
    plan_output: str | None = None
    apply_output: str | None = None
    conditions: tuple[Condition, ...] = ()
    observed_generation: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @staticmethod
    def parse(status: Fields) -> "TaskStatus":
        """The status of a SlotTask object; empty for a task nobody has looked at. Raises InvalidObject."""
        steps = status.optional_child("steps") or Fields({}, status.at("steps"))
        plan, apply = (steps.optional_child(step) for step in Step)
        step = status.optional_text("step")
        return TaskStatus(
            phase=TaskPhase(status.choice("phase", TaskPhase.QUEUED, tuple(TaskPhase))),
            step=Step(status.choice("step", Step.PLAN, tuple(Step))) if step else None,
            pod=status.optional_text("pod"),
            pod_uid=status.optional_text("podUID"),
            slot=status.optional_integer("slot"),
            attempt=status.integer("attempt", 0),
            plan_digest=status.optional_text("planDigest"),
            expires_at=time(status, "expiresAt"),
            reason=status.optional_text("reason"),
            message=status.optional_text("message"),
            queued_reason=status.optional_text("queuedReason"),
            plan=_step_result(plan) if plan else None,
            apply=_step_result(apply) if apply else None,
            plan_output=plan.optional_text("output") if plan else None,
            apply_output=apply.optional_text("output") if apply else None,
            conditions=tuple(Condition.parse(item) for item in status.children("conditions")),
            observed_generation=status.optional_integer("observedGeneration"),
            started_at=time(status, "startTime"),
            finished_at=time(status, "finishTime"),
        )

    def to_json(self) -> dict[str, Any]:
        """The status as it stands in the object. Fields that are None are left out."""
        named = self.outputs
        steps = {
            step.value: {**step_json(result), **({"output": named[step]} if step in named else {})}
            for step, result in self.results.items()
        }
        document: dict[str, Any] = {
            "phase": self.phase.value,
            "step": self.step.value if self.step else None,
            "pod": self.pod,
            "podUID": self.pod_uid,
            "slot": self.slot,
            "attempt": self.attempt,
            "planDigest": self.plan_digest,
            "expiresAt": _text(self.expires_at),
            "reason": self.reason,
            "message": self.message,
            "queuedReason": self.queued_reason,
            "steps": steps or None,
            "conditions": [item.to_json() for item in self.conditions] or None,
            "observedGeneration": self.observed_generation,
            "startTime": _text(self.started_at),
            "finishTime": _text(self.finished_at),
        }
        return {name: value for name, value in document.items() if value is not None}

    @property
    def results(self) -> dict[Step, StepResult]:
        """What is known of each step that began."""
        both = {Step.PLAN: self.plan, Step.APPLY: self.apply}
        return {step: result for step, result in both.items() if result is not None}

    @property
    def outputs(self) -> dict[Step, str]:
        """The SlotTaskOutput of each step that has one."""
        both = {Step.PLAN: self.plan_output, Step.APPLY: self.apply_output}
        return {step: name for step, name in both.items() if name}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A SlotTask. `deleting`: a person deleted it, and its finalizers hold it."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    created: datetime
    spec: TaskSpec
    status: TaskStatus = field(default_factory=TaskStatus)
    generation: int = 0
    deleting: bool = False
    finalizers: tuple[str, ...] = ()

    @staticmethod
    def parse(document: dict[str, Any]) -> "Task":
        """A task from a SlotTask object. Raises InvalidObject."""
        root = Fields(document, "")
        metadata = root.child("metadata")
        created = time(metadata, "creationTimestamp")
        if created is None:
            raise metadata.fail("creationTimestamp", "is required")
        return Task(
            namespace=metadata.text("namespace"),
            name=metadata.text("name"),
            uid=metadata.text("uid"),
            resource_version=metadata.text("resourceVersion"),
            created=created,
            spec=TaskSpec.parse(root.child("spec")),
            status=TaskStatus.parse(root.optional_child("status") or Fields({}, "status")),
            generation=metadata.integer("generation", 0),
            deleting=metadata.has("deletionTimestamp"),
            finalizers=metadata.texts("finalizers"),
        )

    @property
    def task_id(self) -> TaskId:
        """What the agent knows the current attempt by."""
        return TaskId(names.task_id(self.uid, self.status.attempt))

    @property
    def final(self) -> bool:
        """Whether the task has ended. Such a phase never changes."""
        return self.status.phase in FINAL_PHASES

    @property
    def queued(self) -> bool:
        """Whether the task waits for a slot."""
        return self.status.phase is TaskPhase.QUEUED

    @property
    def placed(self) -> bool:
        """Whether the task was given to a Pod and has not ended, as far as its status knows."""
        return not (self.queued or self.final)

    @property
    def unwanted(self) -> bool:
        """Whether somebody cancelled or deleted it: no slot is sought for it."""
        return self.spec.cancel or self.deleting

    @property
    def may_change(self) -> bool:
        """Whether it has an apply step. Only such tasks need their lockKey."""
        return self.spec.steps.apply is not None

    @property
    def approved(self) -> bool:
        """Whether the approval names the very plan and attempt that await one."""
        approval, status = self.spec.approval, self.status
        return (
            approval is not None
            and status.plan_digest is not None
            and (approval.attempt, approval.plan_digest) == (status.attempt, status.plan_digest)
        )

    @property
    def order(self) -> tuple[int, datetime, str, str]:
        """The order in which tasks are served: by priority, then first come, first served."""
        return (-self.spec.priority, self.created, self.name, self.uid)

    def refusal(self, pool: PoolSpec | None) -> tuple[str, str] | None:
        """Why this task can't run in its pool, as reason and message of the condition `Accepted`; None if it can."""
        if pool is None:
            return "PoolNotFound", f"there is no SlotPool {self.spec.pool!r} in namespace {self.namespace!r}"
        if not pool.accepts(self.spec.type):
            return "UnknownTaskType", f"no slot of SlotPool {self.spec.pool!r} accepts {self.spec.type!r}"
        return None

    def to_work(self, reservation_ttl_seconds: int) -> Work:
        """What the agent is given to run."""
        return Work(
            name=f"{self.namespace}/{self.name}",
            attempt=self.status.attempt,
            steps=self.spec.steps,
            files={**self.spec.files},
            env=self.spec.env,
            env_from=self.spec.env_from,
            reservation_ttl_seconds=reservation_ttl_seconds,
            mask_secrets=None if self.spec.mask_secrets else False,
            outputs_path=self.spec.outputs.path if self.spec.outputs else None,
        )


def step_json(result: StepResult) -> dict[str, Any]:
    """A step's result as it stands in a status."""
    document: dict[str, Any] = {
        "startTime": _text(result.start_time),
        "endTime": _text(result.end_time),
        "outcome": result.outcome.value if result.outcome else None,
        "exitCode": result.exit_code,
        "reason": result.reason,
        "logBytes": result.log_bytes,
        "logTail": result.log_tail,
    }
    return {name: value for name, value in document.items() if value is not None}


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else format_time(moment)


def _step_result(fields: Fields) -> StepResult:
    outcome = fields.optional_text("outcome")
    return StepResult(
        start_time=time(fields, "startTime"),
        end_time=time(fields, "endTime"),
        outcome=Outcome(fields.choice("outcome", Outcome.FAILED, tuple(Outcome))) if outcome else None,
        exit_code=fields.optional_integer("exitCode", least=None),
        reason=fields.optional_text("reason"),
        log_bytes=fields.integer("logBytes", 0),
        log_tail=fields.text("logTail", ""),
    )


def _steps(fields: Fields, task_type: str) -> Steps:
    plan, apply = (fields.optional_child(step) for step in Step)
    given = {step for step, child in zip(Step, (plan, apply), strict=True) if child}
    expected = STEPS_OF_TYPE.get(task_type, given)
    if given != expected or not given:
        wanted = " and ".join(sorted(expected, reverse=True)) or "a plan or an apply"
        raise InvalidObject(fields.path, f"a task of type {task_type!r} has {wanted}, and nothing else")
    return Steps(plan=_step(plan) if plan else None, apply=_step(apply) if apply else None)


def _step(fields: Fields) -> StepSpec:
    command = fields.texts("command", most=MAX_WORDS, longest=MAX_TEXT_LENGTH)
    if not command or not command[0]:
        raise fields.fail("command", "must name a program")
    return StepSpec(
        command=command,
        plan_file=fields.optional_text("planFile", empty=False, most=MAX_PATH_LENGTH),
        timeout_seconds=fields.optional_integer("timeoutSeconds", least=1, most=MAX_TIMEOUT_SECONDS),
        cancel_grace_seconds=fields.integer("cancelGraceSeconds", 60, most=MAX_GRACE_SECONDS),
    )


def _handed_over(fields: Fields) -> HandedOver:
    return HandedOver(
        path=fields.text("path", most=MAX_OUTPUTS_PATH, pattern=_RELATIVE),
        secret=fields.text("secretName", most=MAX_NAME_LENGTH, pattern=_SECRET_NAME),
    )


def _approval(fields: Fields) -> Approval:
    return Approval(
        attempt=fields.integer("attempt", least=1, most=MAX_INTEGER),
        plan_digest=fields.text("planDigest", pattern=_DIGEST),
        by=fields.text("by", "", most=MAX_NAME_LENGTH),
    )


def _environment(spec: Fields) -> tuple[EnvVar, ...]:
    children = spec.children("env", most=MAX_VARIABLES)
    variables = tuple(_env_var(child) for child in children)
    seen: set[str] = set()
    for child, variable in zip(children, variables, strict=True):
        if variable.name in seen:
            raise child.fail("name", f"{variable.name} is there twice")
        seen.add(variable.name)
    return variables


def _env_var(fields: Fields) -> EnvVar:
    name = fields.text("name", most=MAX_NAME_LENGTH, pattern=_VARIABLE)
    source = fields.optional_child("valueFrom")
    if source is None:
        return EnvVar(name=name, value=fields.text("value", "", most=MAX_TEXT_LENGTH))
    if fields.has("value"):
        raise fields.fail("valueFrom", "is given beside a value")
    secret, config_map = (source.optional_child(kind) for kind in ("secretKeyRef", "configMapKeyRef"))
    if (secret is None) == (config_map is None):
        raise InvalidObject(source.path, "must have either secretKeyRef or configMapKeyRef")
    return EnvVar(
        name=name,
        secret=_key_ref(secret) if secret else None,
        config_map=_key_ref(config_map) if config_map else None,
    )


def _key_ref(fields: Fields) -> KeyRef:
    return KeyRef(
        name=fields.text("name", most=MAX_NAME_LENGTH),
        key=fields.text("key", most=MAX_NAME_LENGTH),
        optional=fields.boolean("optional"),
    )


def _env_from(fields: Fields) -> EnvFrom:
    secret, config_map = (fields.optional_child(kind) for kind in ("secretRef", "configMapRef"))
    source = secret or config_map
    if source is None or (secret is not None and config_map is not None):
        raise InvalidObject(fields.path, "must have either secretRef or configMapRef")
    return EnvFrom(
        prefix=fields.text("prefix", "", most=MAX_NAME_LENGTH),
        secret=secret.text("name", most=MAX_NAME_LENGTH) if secret else None,
        config_map=config_map.text("name", most=MAX_NAME_LENGTH) if config_map else None,
        optional=source.boolean("optional"),
    )
