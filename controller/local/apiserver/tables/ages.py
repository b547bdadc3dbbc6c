"""How long ago something was, in the words of kubectl: `5s`, `3m20s`, `2d`.

After k8s.io/apimachinery/pkg/util/duration.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

UNKNOWN = "<unknown>"
INVALID = "<invalid>"

_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86400, 365 * 86400

# Below the limit: the larger unit, the smaller one shown beside it (0: none), and both as letters.
_STEPS = (
    (2 * _MINUTE, 1, 0, "s", ""),
    (10 * _MINUTE, _MINUTE, 1, "m", "s"),
    (3 * _HOUR, _MINUTE, 0, "m", ""),
    (8 * _HOUR, _HOUR, _MINUTE, "h", "m"),
    (2 * _DAY, _HOUR, 0, "h", ""),
    (8 * _DAY, _DAY, _HOUR, "d", "h"),
    (2 * _YEAR, _DAY, 0, "d", ""),
    (8 * _YEAR, _YEAR, _DAY, "y", "d"),
)


def age(stamp: Any, now: datetime) -> str:
    """The time since a stamp; `<unknown>` for none, `<invalid>` for one that is no time or lies ahead."""
    if not stamp:
        return UNKNOWN
    try:
        began = datetime.fromisoformat(stamp)
    except (TypeError, ValueError):
        return INVALID
    return human_duration(int((now - began).total_seconds()))


def human_duration(seconds: int) -> str:
    """A duration as kubectl shows it."""
    if seconds < -1:
        return INVALID  # clocks may differ by a second, not by more
    seconds = max(seconds, 0)
    for limit, large, small, large_letter, small_letter in _STEPS:
        if seconds < limit:
            rest = seconds % large // small if small else 0
            return f"{seconds // large}{large_letter}" + (f"{rest}{small_letter}" if rest else "")
    return f"{seconds // _YEAR}y"
