"""A SlotTask, parsed once from the object, and its status on the way back.

The controller wrote `status`. An agent's report of the task outranks it.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from agent.wire import Outcome, Step, StepResult, TaskId, Work, format_time
from controller import names
from controller.objects.conditions import Condition, time
from controller.objects.fields import Fields
from controller.objects.task_spec import TaskSpec


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


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStatus:
    """What is known of a task. `attempt` 0: never assigned.

    `queued_reason` says what a queued task waits for; no Pod gets it before `not_before`.
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
    not_before: datetime | None = None
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
            not_before=time(status, "notBefore"),
            plan=replace(_step_result(plan), changed=_changed(status)) if plan else None,
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
            "changed": self.changed,
            "expiresAt": _text(self.expires_at),
            "reason": self.reason,
            "message": self.message,
            "queuedReason": self.queued_reason,
            "notBefore": _text(self.not_before),
            "steps": steps or None,
            "conditions": [item.to_json() for item in self.conditions] or None,
            "observedGeneration": self.observed_generation,
            "startTime": _text(self.started_at),
            "finishTime": _text(self.finished_at),
        }
        return {name: value for name, value in document.items() if value is not None}

    @property
    def changed(self) -> bool | None:
        """Whether the plan found something to change. None if its exit code does not say."""
        return self.plan.changed if self.plan is not None else None

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

    def to_work(self, reservation_ttl_seconds: int) -> Work:
        """What the agent is given to run."""
        return Work(
            name=f"{self.namespace}/{self.name}",
            attempt=self.status.attempt,
            steps=self.spec.steps,
            files=self.spec.files,
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


def _changed(status: Fields) -> bool | None:
    return status.boolean("changed") if status.has("changed") else None


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
