"""What no agent says: states and tasks beyond what one can have. Pure.

An answer that fits its types may still be too large, or say what the API server would refuse in a status. The agent
keeps its own input within these bounds; whatever else answers in its place is not believed.
"""

import re
from collections.abc import Iterable
from datetime import datetime

from agent.wire import TASK_ID_PATTERN, AgentState, Slot, StepResult, Task, WireError
from controller.objects.pool import MAX_SLOTS, MAX_TYPES_OF_SLOT
from controller.objects.times import FIRST, LAST, is_usable

MAX_ENDED = 4096
"""Tasks whose results wait for their ack. Each had a slot, and a new one is given out only by who acks."""
MAX_WARNINGS = 64
MAX_TOKENS = 256
MAX_TEXT_LENGTH = 1024
"""Characters of names, ids and warnings; most are far shorter."""
MAX_REASON_LENGTH = 32768
"""As the status of a SlotTask has it, and the next two."""
MAX_TAIL_LENGTH = 16384
EXIT_CODES = range(-(2**31), 2**31)
SLOTS = range(MAX_SLOTS)

_TASK_ID = re.compile(TASK_ID_PATTERN)
_DIGEST = re.compile("sha256:[0-9a-f]{64}")
"""As an approval has to name it."""


def check_state(state: AgentState) -> None:
    """Raises WireError. In few steps, for each state of each agent comes by here."""
    for name, items, most in (
        ("slots", state.slots, MAX_SLOTS),
        ("ended", state.ended, MAX_ENDED),
        ("tokens", state.tokens, MAX_TOKENS),
        ("warnings", state.warnings, MAX_WARNINGS),
    ):
        if len(items) > most:
            raise WireError(name, f"must have at most {most} entries")
    texts = [state.version, state.pod, state.pool, state.incarnation, state.drain_id or ""]
    texts += (*state.tokens, *state.warnings)
    if not all(map(_TASK_ID.fullmatch, state.ended)):
        raise WireError("ended", f"must match {_TASK_ID.pattern}")
    ids: set[int] = set()
    for slot in state.slots:
        ids.add(slot.id)
        _check_slot(slot)
        texts += slot.accepts
        texts += (slot.task_type or "", slot.worker.instance if slot.worker is not None else "")
    if len(ids) != len(state.slots):
        raise WireError("slots", "two have the same id")
    if max(map(len, texts)) > MAX_TEXT_LENGTH:
        raise WireError("", f"a name, an id or a warning has more than {MAX_TEXT_LENGTH} characters")


def _check_slot(slot: Slot) -> None:
    if slot.id not in SLOTS:
        raise WireError("slots.id", f"must be from 0 to {MAX_SLOTS - 1}")
    if slot.task_id is not None and not _TASK_ID.fullmatch(slot.task_id):
        raise WireError("slots.task_id", f"must match {_TASK_ID.pattern}")
    if len(slot.accepts) > MAX_TYPES_OF_SLOT:
        raise WireError("slots.accepts", f"must have at most {MAX_TYPES_OF_SLOT} entries")
    if not is_usable(slot.since) or (slot.expires_at is not None and not is_usable(slot.expires_at)):
        raise WireError("slots", f"a time must be between {FIRST:%Y} and {LAST:%Y}")


def check_task(task: Task, task_id: str) -> None:
    """Whether this can be what an agent knows of that task. Raises WireError."""
    if task.task_id != task_id:
        raise WireError("task_id", "is another task's")
    if task.slot not in SLOTS:
        raise WireError("slot", f"must be from 0 to {MAX_SLOTS - 1}")
    if task.plan_digest is not None and not _DIGEST.fullmatch(task.plan_digest):
        raise WireError("plan_digest", f"must match {_DIGEST.pattern}")
    _check_length("reason", task.reason, MAX_REASON_LENGTH)
    _check_times("expires_at", (task.expires_at,))
    for name, result in (("plan", task.plan), ("apply", task.apply)):
        if result is not None:
            _check_result(name, result)


def _check_result(path: str, result: StepResult) -> None:
    if result.exit_code is not None and result.exit_code not in EXIT_CODES:
        raise WireError(f"{path}.exit_code", "is none")
    if min(result.log_bytes, result.log_kept_bytes or 0, result.log_end_bytes or 0) < 0:
        raise WireError(f"{path}.log_bytes", "must not be negative")
    _check_times(path, (result.start_time, result.end_time))
    _check_length(f"{path}.reason", result.reason, MAX_REASON_LENGTH)
    _check_length(f"{path}.log_tail", result.log_tail, MAX_TAIL_LENGTH)


def _check_times(path: str, moments: Iterable[datetime | None]) -> None:
    if not all(moment is None or is_usable(moment) for moment in moments):
        raise WireError(path, f"a time must be between {FIRST:%Y} and {LAST:%Y}")


def _check_length(path: str, text: str | None, most: int) -> None:
    if text is not None and len(text) > most:
        raise WireError(path, f"must have at most {most} characters")
