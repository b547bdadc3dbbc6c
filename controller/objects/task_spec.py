"""What users write of a SlotTask, parsed once."""

import json
import re
from dataclasses import dataclass, field
from enum import StrEnum

from agent.wire import EnvFrom, EnvVar, File, Steps, is_path
from controller import names
from controller.errors import InvalidObject
from controller.objects.fields import Fields
from controller.objects.pool import MAX_NAME_LENGTH, TASK_TYPE
from controller.objects.work import (
    exit_codes,
    parse_environment,
    parse_files,
    parse_sources,
    parse_steps,
    task_path,
)

# The bounds of the definition, which needs one for everything: a test holds the two together.
_SECRET_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
MAX_POOL_LENGTH = 63
MAX_PRIORITY = 1_000_000
MAX_ATTEMPTS = 10
MAX_TTL_SECONDS = 3650 * 86400
MAX_SPEC_BYTES = 900_000
"""As JSON. An agent takes requests of 1 MiB, and an API server keeps objects of 1.5."""
STOP_RESERVE_SECONDS = 30
"""Of a Pod's grace, beside the longest grace of a step: the worker stops it 15 s earlier, and its end is reported."""
MAX_INTEGER = 2**31 - 1
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


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
    """A person's approval: this plan of this attempt may be applied."""

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
    files: dict[str, str | File] = field(default_factory=dict)
    env: tuple[EnvVar, ...] = ()
    env_from: tuple[EnvFrom, ...] = ()
    approval_policy: ApprovalPolicy = ApprovalPolicy.MANUAL
    approval: Approval | None = None
    on_lost_reservation: OnLostReservation = OnLostReservation.FAIL
    plan_max_attempts: int = 2
    keep_output: KeepOutput = KeepOutput.ALWAYS
    mask_secrets: bool = True
    outputs: HandedOver | None = None
    plan_exit_codes: tuple[int, ...] = ()
    cancel: bool = False
    ttl_seconds_after_finished: int = 86400
    needed_grace_seconds: int = field(init=False, compare=False)
    """Of its Pod, to stop any of its steps in. Computed once: it is asked of every queued task in every pass."""

    def __post_init__(self) -> None:
        longest = max((step.cancel_grace_seconds for step in (self.steps.plan, self.steps.apply) if step), default=0)
        object.__setattr__(self, "needed_grace_seconds", longest + STOP_RESERVE_SECONDS)

    @staticmethod
    def parse(spec: Fields) -> "TaskSpec":
        """The spec of a SlotTask object. Raises InvalidObject."""
        if (size := len(json.dumps(spec.data, ensure_ascii=False).encode("utf-8", "surrogatepass"))) > MAX_SPEC_BYTES:
            raise InvalidObject(
                spec.path, f"has {size} bytes as JSON; at most {MAX_SPEC_BYTES} can be given to an agent"
            )
        retry = spec.optional_child("retry") or Fields({}, spec.at("retry"))
        approval = spec.optional_child("approval")
        outputs = spec.optional_child("outputs")
        task_type = spec.text("type", pattern=TASK_TYPE)
        return TaskSpec(
            pool=spec.text("pool", most=MAX_POOL_LENGTH),
            type=task_type,
            steps=parse_steps(spec.child("steps"), task_type),
            lock_key=spec.optional_text("lockKey", empty=False, most=MAX_NAME_LENGTH),
            priority=spec.integer("priority", 0, least=-MAX_PRIORITY, most=MAX_PRIORITY),
            files=parse_files(spec),
            env=parse_environment(spec),
            env_from=parse_sources(spec),
            approval_policy=ApprovalPolicy(spec.choice("approvalPolicy", ApprovalPolicy.MANUAL, tuple(ApprovalPolicy))),
            approval=_approval(approval) if approval else None,
            on_lost_reservation=OnLostReservation(
                spec.choice("onLostReservation", OnLostReservation.FAIL, tuple(OnLostReservation))
            ),
            plan_max_attempts=retry.integer("planMaxAttempts", 2, least=1, most=MAX_ATTEMPTS),
            keep_output=KeepOutput(spec.choice("keepOutput", KeepOutput.ALWAYS, tuple(KeepOutput))),
            mask_secrets=spec.boolean("maskSecrets", True),
            outputs=_handed_over(outputs) if outputs else None,
            plan_exit_codes=exit_codes(retry, "planExitCodes", least=1),
            cancel=spec.boolean("cancel"),
            ttl_seconds_after_finished=spec.integer("ttlSecondsAfterFinished", 86400, most=MAX_TTL_SECONDS),
        )


def _handed_over(fields: Fields) -> HandedOver:
    secret = fields.text("secretName", most=MAX_NAME_LENGTH, pattern=_SECRET_NAME)
    if secret.startswith(names.SECRET_PREFIXES):
        raise fields.fail("secretName", "a Secret of this name belongs to a pool")
    return HandedOver(path=task_path(fields, "path", is_path), secret=secret)


def _approval(fields: Fields) -> Approval:
    return Approval(
        attempt=fields.integer("attempt", least=1, most=MAX_INTEGER),
        plan_digest=fields.text("planDigest", pattern=_DIGEST),
        by=fields.text("by", "", most=MAX_NAME_LENGTH),
    )
