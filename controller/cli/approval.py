"""What a person sees before an approval, and the approval. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controller.cli.tables import phase

Object = Mapping[str, Any]
AWAITING = "AwaitingApproval"


class NotApprovable(Exception):
    """The task does not wait for the approval that was asked for. The text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The plan that waits: what a person approves is this digest of this attempt, and nothing else."""

    task: str
    attempt: int
    plan_digest: str
    log_tail: str
    pod: str
    slot: int


def question(task: Object, *, digest: str | None) -> Question:
    """What there is to approve. `digest`, if given, must be the plan's (or begin it, 12 characters at least)."""
    name, status = task["metadata"]["name"], task.get("status") or {}
    if phase(task) != AWAITING:
        raise NotApprovable(f"{name} is {phase(task)}: only a task that is {AWAITING} can be approved")
    actual, attempt = status.get("planDigest"), status.get("attempt")
    if not isinstance(actual, str) or not isinstance(attempt, int):
        raise NotApprovable(f"{name} has no plan digest yet; try again in a moment")
    if digest is not None and not _names(digest, actual):
        raise NotApprovable(f"{name}'s plan is {actual}, not {digest}: look at the plan again")
    plan = (status.get("steps") or {}).get("plan") or {}
    return Question(
        task=name,
        attempt=attempt,
        plan_digest=actual,
        log_tail=str(plan.get("logTail") or ""),
        pod=str(status.get("pod") or ""),
        slot=int(status.get("slot") or 0),
    )


MIN_DIGEST_LENGTH = 12
"""Hex digits of a shortened digest: 48 bits, past any chance of two plans of one task sharing them."""


def _names(given: str, actual: str) -> bool:
    """Whether a digest, with or without `sha256:`, in full or shortened, is the actual one."""
    hexadecimal = actual.removeprefix("sha256:")
    short = given.strip().lower().removeprefix("sha256:")
    return len(short) >= MIN_DIGEST_LENGTH and hexadecimal.startswith(short)


def patch(asked: Question, by: str) -> dict[str, Any]:
    """The merge patch that approves. Harmless when late: it names the plan and attempt that it approves."""
    return {"spec": {"approval": {"attempt": asked.attempt, "planDigest": asked.plan_digest, "by": by}}}
