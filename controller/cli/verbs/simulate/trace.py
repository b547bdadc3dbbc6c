"""The demand of a simulation: which task arrives when, and how long its steps and its approval take. CSV in and out."""

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TypeVar

from controller.cli.arguments.times import given_time
from controller.cli.show.times import YEAR_SECONDS
from controller.errors import PodslotsError
from controller.objects.pool import TASK_TYPE
from controller.objects.task_spec import MAX_PRIORITY

COLUMNS = ("arrival", "type", "plan_seconds", "approval_seconds", "apply_seconds", "lockKey", "priority")
REQUIRED = ("arrival", "type")
DEFAULT_START = datetime(2026, 1, 5, tzinfo=UTC)
"""What second 0 is, where the trace does not say it: a Monday, for freeze windows and the hours of a plot."""

MAX_SECONDS = YEAR_SECONDS
YEARS = range(1970, 3000)
"""A simulation goes on after the last arrival, and the calendar ends with the year 9999."""
MAX_DIGITS = 20
"""Of a priority: Python reads no number of some thousand digits."""
MOST_NAMED = 20
"""Problems that an error names. It says how many more there are."""
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
    line: int | None = field(default=None, compare=False)
    """Where it stands in its file, for messages; None if it comes from no file."""


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
    """A trace from CSV with a head line. Raises InvalidTrace, which names all that is wrong (the first 20)."""
    rows = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")), restkey="", strict=True)
    problems: list[str] = []
    found: list[tuple[float | datetime, Arrival]] = []
    try:
        rows.fieldnames = [name.strip() for name in rows.fieldnames or ()]
        if wrong := list(_head_problems(rows.fieldnames)):
            raise InvalidTrace("\n".join(f"{origin}, line 1: {problem}" for problem in wrong))
        for row in rows:
            if not any(value for value in row.values()):
                continue
            reading = _Row(row)
            moment, arrival = reading.arrival()
            problems += [f"{origin}, line {rows.line_num}: {problem}" for problem in reading.problems]
            if moment is not None and arrival is not None:
                found.append((moment, replace(arrival, line=rows.line_num)))
    except csv.Error as error:
        problems.append(f"{origin}, line {rows.reader.line_num}: {error}")
    if problems:
        raise InvalidTrace(_listed(problems))
    return _trace(found, origin)


def _listed(problems: list[str]) -> str:
    more = len(problems) - MOST_NAMED
    return "\n".join(problems[:MOST_NAMED] + ([f"and {more} more"] if more > 0 else []))


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


def _head_problems(given: Sequence[str]) -> Iterator[str]:
    if missing := [name for name in REQUIRED if name not in given]:
        yield f"no column {', '.join(missing)}; a head line names the columns: {','.join(COLUMNS)}"
    if "" in given:
        yield f"column {given.index('') + 1} has no name"
    if unknown := [name for name in dict.fromkeys(given) if name and name not in COLUMNS]:
        yield f"no such column: {', '.join(unknown)}; there are {', '.join(COLUMNS)}"
    if twice := [name for name in COLUMNS if given.count(name) > 1]:
        yield f"a column is there twice: {', '.join(twice)}"


class _Row:
    """Reads the fields of one row. Each one that is wrong becomes a problem, and the others are read all the same."""

    def __init__(self, row: Mapping[str, str | list[str] | None]) -> None:
        self.problems: list[str] = []
        if row.get("") is not None:
            self.problems.append("more fields than the head line has columns")
        self._texts = {name: value.strip() if isinstance(value, str) else "" for name, value in row.items()}

    def arrival(self) -> tuple[float | datetime | None, Arrival | None]:
        """The row's time, and its arrival with `at` yet to be filled in; None for each that has a problem."""
        moment = self._field("arrival", _moment)
        task_type = self._texts["type"]
        if not TASK_TYPE.fullmatch(task_type):
            self.problems.append(f"type: {task_type!r} is no task type")
        plan, approval, apply = (
            self._field(name, _seconds) if self._texts.get(name) else None
            for name in ("plan_seconds", "approval_seconds", "apply_seconds")
        )
        priority = self._field("priority", _priority) if self._texts.get("priority") else 0
        self.problems += _step_problems(
            task_type, *(bool(self._texts.get(f"{name}_seconds")) for name in ("plan", "approval", "apply"))
        )
        if self.problems:
            return moment, None
        return moment, Arrival(
            at=0.0,
            type=task_type,
            plan_seconds=plan,
            approval_seconds=approval,
            apply_seconds=apply,
            lock_key=self._texts.get("lockKey") or None,
            priority=priority or 0,
        )

    def _field(self, name: str, parse: Callable[[str], T]) -> T | None:
        try:
            return parse(self._texts[name])
        except ValueError as error:
            self.problems.append(f"{name}: {error}")
            return None


def _step_problems(task_type: str, plan: bool, approval: bool, apply: bool) -> Iterator[str]:
    """Each type has the steps that a SlotTask of that type has. The three say which columns are filled in."""
    if not plan and not apply:
        yield "neither plan_seconds nor apply_seconds is given"
    elif task_type == "plan" and (approval or apply):
        yield "a task of type plan has no approval_seconds and no apply_seconds"
    elif task_type == "apply" and (plan or approval):
        yield "a task of type apply has no plan_seconds and no approval_seconds"
    elif not plan and (approval or task_type == "plan_and_apply"):
        yield "plan_seconds is missing"


def _moment(text: str) -> float | datetime:
    try:
        float(text)
    except ValueError:
        pass
    else:
        return _seconds(text)
    moment = given_time(text, otherwise="neither a number of seconds nor a time")
    if moment.year not in YEARS:
        raise ValueError(f"{text!r} is not between {YEARS[0]} and {YEARS[-1]}")
    return moment


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number of seconds") from None
    if not (math.isfinite(value) and 0 <= value <= MAX_SECONDS):
        raise ValueError(f"{text!r} is not between 0 and {MAX_SECONDS:.0f} seconds")
    return value


def _priority(text: str) -> int:
    if len(text) > MAX_DIGITS or not text.removeprefix("-").isdecimal() or abs(int(text)) > MAX_PRIORITY:
        raise ValueError(f"{text!r} is no integer from -{MAX_PRIORITY} to {MAX_PRIORITY}")
    return int(text)


def _trace(found: list[tuple[float | datetime, Arrival]], origin: str) -> Trace:
    if not found:
        raise InvalidTrace(f"{origin}: no task in it")
    dated = [moment for moment, _ in found if isinstance(moment, datetime)]
    if dated and len(dated) < len(found):
        raise InvalidTrace(f"{origin}: {_mixed(found)}")
    start = min(dated) if dated else DEFAULT_START
    if dated and (max(dated) - start).total_seconds() > MAX_SECONDS:
        raise InvalidTrace(f"{origin}: more than a year lies between the first and the last arrival")
    arrivals = [_placed(arrival, moment, start) for moment, arrival in found]
    return Trace(tuple(sorted(arrivals, key=lambda arrival: arrival.at)), start)


def _mixed(found: list[tuple[float | datetime, Arrival]]) -> str:
    times = next(arrival.line for moment, arrival in found if isinstance(moment, datetime))
    seconds = next(arrival.line for moment, arrival in found if not isinstance(moment, datetime))
    return f"some arrivals are seconds (line {seconds}) and some are times (line {times}); all have to be of one kind"


def _placed(arrival: Arrival, moment: float | datetime, start: datetime) -> Arrival:
    return replace(arrival, at=(moment - start).total_seconds() if isinstance(moment, datetime) else moment)
