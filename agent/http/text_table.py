"""The state as a table for people: `Accept: text/plain`, and `slot-agent slots`."""

from collections.abc import Sequence
from datetime import datetime

from agent.wire import RECOVERING, AgentState, Slot

HEADINGS = ("SLOT", "STATE", "TASK", "TYPE", "STEP", "FOR", "EXPIRES", "ORIGIN", "WORKER", "ACCEPTS")

UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def render(state: AgentState, now: datetime) -> str:
    """The agent in a line, its slots in a table, and what people should know."""
    phase = "closing" if state.closing else state.phase.value
    drain = f" ({state.drain_id})" if state.drain_id else ""
    lines = [
        f"{state.pod}  pool {state.pool or '-'}  {phase}{drain}  revision {state.revision}",
        "",
        *align([HEADINGS, *(_row(slot, now) for slot in state.slots)]),
    ]
    if state.ended:
        lines += ["", f"ended, not acknowledged: {', '.join(state.ended)}"]
    lines += [f"warning: {warning}" for warning in state.warnings]
    return "\n".join(lines) + "\n"


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of one length as lines with their columns under each other."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return ["   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def duration(seconds: float) -> str:
    """A length of time in its two largest units: `3h12m`. Negative ones are over: `0s`."""
    rest = max(0, int(seconds))
    parts: list[str] = []
    for size, unit in UNITS:
        if rest >= size or (size == 1 and not parts):
            parts.append(f"{rest // size}{unit}")
            rest %= size
    return "".join(parts[:2])


def _row(slot: Slot, now: datetime) -> tuple[str, ...]:
    worker = "-"
    if slot.worker is not None:
        worker = "connected" if slot.worker.connected else "silent"
    return (
        str(slot.id),
        # After a lost journal a worker may have something in it that the agent does not know of.
        RECOVERING if slot.recovering else slot.state,
        slot.task_id or "-",
        slot.task_type or "-",
        slot.step or "-",
        duration((now - slot.since).total_seconds()),
        f"in {duration((slot.expires_at - now).total_seconds())}" if slot.expires_at else "-",
        slot.origin or "-",
        worker,
        ",".join(slot.accepts),
    )
