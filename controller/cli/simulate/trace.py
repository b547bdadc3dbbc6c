"""The demand of a simulation: which task arrives when, and how long its steps and its approval take. CSV in and out."""

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TypeVar

from controller.errors import PodslotsError
from controller.objects.pool import TASK_TYPE
from controller.objects.task_spec import MAX_PRIORITY

COLUMNS = ("arrival", "type", "plan_seconds", "approval_seconds", "apply_seconds", "lockKey", "priority")
REQUIRED = ("arrival", "type")
DEFAULT_START = datetime(2026, 1, 5, tzinfo=UTC)
"""What second 0 is, where the trace does not say it: a Monday, for freeze windows and the hours of a plot."""

MAX_SECONDS = 365 * 86400.0
_MOST_PROBLEMS = 10
T = TypeVar("T")


class InvalidTrace(PodslotsError):
    """A trace that can't be read. The text has a line for each problem, with its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One task. `at` and all durations are in seconds, `at` from the start of the trace.

    Without `plan_seconds` the apply comes at once. Without `approval_seconds` nothing waits between the two. With an
    approval and no apply, the plan waits for so long and is then cancelled.
    """

    at: float
    type: str
    plan_seconds: float | None = None
    approval_seconds: float | None = None
    apply_seconds: float | None = None
    lock_key: str | None = None
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Trace:
    """Arrivals in the order of their times, and the moment from which those count."""

    arrivals: tuple[Arrival, ...]
    start: datetime = DEFAULT_START

    @property
    def seconds(self) -> float:
        """From the start to the last arrival."""
        return self.arrivals[-1].at if self.arrivals else 0.0


def read(text: str, origin: str) -> Trace:
    """A trace from CSV with a head line. Raises InvalidTrace, naming each line that is wrong (the first ten)."""
    rows = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")), restkey="", strict=True)
    problems: list[str] = []
    found: list[tuple[float | datetime, Arrival]] = []
    try:
        _check_head(rows.fieldnames, origin)
        for row in rows:
            if not any(value for value in row.values()):
                continue
            try:
                found.append(_arrival(row))
            except ValueError as error:
                problems.append(f"{origin}, line {rows.line_num}: {error}")
                if len(problems) == _MOST_PROBLEMS:
                    break
    except csv.Error as error:
        problems.append(f"{origin}, line {rows.reader.line_num}: {error}")
    if problems:
        raise InvalidTrace("\n".join(problems))
    return _trace(found, origin)


def write(trace: Trace) -> str:
    """The trace as CSV, in seconds."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for arrival in trace.arrivals:
        steps = (arrival.plan_seconds, arrival.approval_seconds, arrival.apply_seconds)
        durations = ("" if value is None else f"{value:.10g}" for value in steps)
        writer.writerow(
            (f"{arrival.at:.10g}", arrival.type, *durations, arrival.lock_key or "", arrival.priority or "")
        )
    return stream.getvalue()


def _check_head(names: Iterable[str] | None, origin: str) -> None:
    given = list(names or ())
    if missing := [name for name in REQUIRED if name not in given]:
        raise InvalidTrace(
            f"{origin}, line 1: no column {', '.join(missing)}; a head line names the columns: {','.join(COLUMNS)}"
        )
    if unknown := [name for name in given if name not in COLUMNS]:
        raise InvalidTrace(f"{origin}, line 1: no such column: {', '.join(unknown)}; there are {', '.join(COLUMNS)}")
    if len(set(given)) < len(given):
        raise InvalidTrace(f"{origin}, line 1: a column is there twice")


def _arrival(row: Mapping[str, str | list[str] | None]) -> tuple[float | datetime, Arrival]:
    """A row's time, and its arrival with `at` yet to be filled in. Raises ValueError."""
    if row.get("") is not None:
        raise ValueError("more fields than the head line has columns")
    texts = {name: value.strip() if isinstance(value, str) else "" for name, value in row.items()}
    moment = _named("arrival", _moment, texts["arrival"])
    task_type = texts["type"]
    if not TASK_TYPE.fullmatch(task_type):
        raise ValueError(f"type: {task_type!r} is no task type")
    plan, approval, apply = (
        _named(name, _seconds, texts[name]) if texts.get(name) else None
        for name in ("plan_seconds", "approval_seconds", "apply_seconds")
    )
    _check_steps(task_type, plan, approval, apply)
    return moment, Arrival(
        at=0.0,
        type=task_type,
        plan_seconds=plan,
        approval_seconds=approval,
        apply_seconds=apply,
        lock_key=texts.get("lockKey") or None,
        priority=_named("priority", _priority, texts["priority"]) if texts.get("priority") else 0,
    )


def _check_steps(task_type: str, plan: float | None, approval: float | None, apply: float | None) -> None:
    """Each type has the steps that a SlotTask of that type has."""
    if plan is None and apply is None:
        raise ValueError("neither plan_seconds nor apply_seconds is given")
    if task_type == "plan" and (approval is not None or apply is not None):
        raise ValueError("a task of type plan has no approval_seconds and no apply_seconds")
    if task_type == "apply" and (plan is not None or approval is not None):
        raise ValueError("a task of type apply has no plan_seconds and no approval_seconds")
    if plan is None and (approval is not None or task_type == "plan_and_apply"):
        raise ValueError("plan_seconds is missing")


def _named(name: str, parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _moment(text: str) -> float | datetime:
    try:
        float(text)
    except ValueError:
        pass
    else:
        return _seconds(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is neither a number of seconds nor a time as 2026-03-01T08:00:00Z") from None
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone: end it with Z or +01:00")
    return moment.astimezone(UTC)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number of seconds") from None
    if not (math.isfinite(value) and 0 <= value <= MAX_SECONDS):
        raise ValueError(f"{text!r} is not between 0 and {MAX_SECONDS:.0f} seconds")
    return value


def _priority(text: str) -> int:
    if not text.removeprefix("-").isdecimal() or abs(int(text)) > MAX_PRIORITY:
        raise ValueError(f"{text!r} is no integer from -{MAX_PRIORITY} to {MAX_PRIORITY}")
    return int(text)


def _trace(found: list[tuple[float | datetime, Arrival]], origin: str) -> Trace:
    if not found:
        raise InvalidTrace(f"{origin}: no task in it")
    dated = [moment for moment, _ in found if isinstance(moment, datetime)]
    if dated and len(dated) < len(found):
        raise InvalidTrace(f"{origin}: some arrivals are seconds and some are times; all have to be of one kind")
    start = min(dated) if dated else DEFAULT_START
    if dated and (max(dated) - start).total_seconds() > MAX_SECONDS:
        raise InvalidTrace(f"{origin}: more than a year lies between the first and the last arrival")
    arrivals = [_placed(arrival, moment, start) for moment, arrival in found]
    return Trace(tuple(sorted(arrivals, key=lambda arrival: arrival.at)), start)


def _placed(arrival: Arrival, moment: float | datetime, start: datetime) -> Arrival:
    return replace(arrival, at=(moment - start).total_seconds() if isinstance(moment, datetime) else moment)
