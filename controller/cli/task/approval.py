"""What a person sees before an approval, and the approval. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from controller.cli.show.sink import gap_text
from controller.cli.show.tables import phase
from controller.cli.show.terminal import one_line, shown
from controller.cli.show.times import age_text, time_or_none
from controller.cli.task.outputs import Seen
from controller.objects.output import Gap

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
    pod: str
    slot: int


def waits(task: Object) -> bool:
    """Whether a task waits for an approval that nobody has given yet."""
    return phase(task) == AWAITING and not (task.get("spec") or {}).get("approval")


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
    return Question(
        task=name,
        attempt=attempt,
        plan_digest=actual,
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


def plan_text(seen: Seen | None) -> str:
    """The plan's output, safe to show, with words in the place of what is missing."""
    if seen is None:
        return ""
    parts = [f"\n{gap_text(piece)}\n" if isinstance(piece, Gap) else shown(piece) for piece in seen.output.pieces()]
    text = "".join(parts)
    return text if text.endswith("\n") or not text else f"{text}\n"


def missing_text(seen: Seen | None) -> str | None:
    """What has to be said before anybody approves a plan that was not shown whole; None if it was."""
    if seen is None:
        return "WARNING: nothing of the plan's output can be found. You would approve what you have not seen."
    if seen.output.missing:
        size = seen.output.size_bytes
        return f"WARNING: {seen.output.missing_bytes:,} of the {size:,} bytes of the plan's output are missing above."
    if seen.note:
        return f"WARNING: the plan's output may not be whole: {seen.note}."
    return None


def summary(asked: Question) -> str:
    """Which plan it is, for 80 columns."""
    where = f"on Pod {asked.pod}, slot {asked.slot}"
    return f"Task {asked.task}, attempt {asked.attempt}, {where}\nPlan {asked.plan_digest}"


def patch(asked: Question, by: str | None) -> dict[str, Any]:
    """The merge patch that approves. Harmless when late: it names the plan and attempt that it approves."""
    approval: dict[str, Any] = {"attempt": asked.attempt, "planDigest": asked.plan_digest}
    return {"spec": {"approval": {**approval, "by": by} if by else approval}}


# --- the list of plans that wait ------------------------------------------------------------------------------------

_SUMMARIES = ("Plan:", "No changes.", "Apply complete!")
LINE_WIDTH = 76
"""With its indent it fits 80 columns."""


def waiting_text(task: Object, now: datetime, command: str, *, wide: bool = False) -> str:
    """A plan that waits: since when and how long yet, how its output ends, how to approve it; `wide`: which it is."""
    status = task.get("status") or {}
    ended = time_or_none(_plan(task).get("endTime"))
    since = f"waits {age_text(now - ended)}" if ended else "waits"
    expires = time_or_none(status.get("expiresAt"))
    until = (
        f", expires in {age_text(expires - now)}" if expires and expires > now else ", expires now" if expires else ""
    )
    lines = [f"{task['metadata']['name']}   {since}{until}"]
    if wide:
        attempt, pod, slot = (status.get(key, "-") for key in ("attempt", "pod", "slot"))
        lines += [f"  attempt {attempt}, on Pod {pod}, slot {slot}", f"  plan {status.get('planDigest', '-')}"]
    if last := last_line(str(_plan(task).get("logTail") or "")):
        lines.append(f"  {last}")
    return "\n".join([*lines, f"  {command}"])


def last_line(log_tail: str) -> str:
    """The line that sums a plan up: Terraform's own if there is one, for hints follow it; else the last one."""
    lines = [line for line in (one_line(line, LINE_WIDTH) for line in log_tail.splitlines()) if line]
    return next((line for line in reversed(lines) if line.startswith(_SUMMARIES)), lines[-1] if lines else "")


def _plan(task: Object) -> Mapping[str, Any]:
    return ((task.get("status") or {}).get("steps") or {}).get("plan") or {}
