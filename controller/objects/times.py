"""Times that others wrote: of statuses, annotations and Leases. Pure.

Whoever reads one adds a time to live or a time limit to it. So what is outside of `FIRST` to `LAST` is none: the sum
must stay within what a datetime can be.
"""

from datetime import UTC, datetime
from typing import Any

from agent.wire import parse_time

FIRST = datetime(1900, 1, 1, tzinfo=UTC)
LAST = datetime(9000, 1, 1, tzinfo=UTC)


def is_usable(moment: datetime) -> bool:
    """Whether times can be added to it and taken from it."""
    return FIRST <= moment <= LAST


def read_time(text: str) -> datetime:
    """The UTC datetime of an RFC 3339 text with a zone. Raises ValueError."""
    moment = parse_time(text)
    if not is_usable(moment):
        raise ValueError(f"{text!r} is not between {FIRST:%Y} and {LAST:%Y}")
    return moment


def time_or_none(text: Any) -> datetime | None:
    """The time that a value is, if it is one; None for anything else."""
    try:
        return read_time(text) if isinstance(text, str) else None
    except ValueError:
        return None
