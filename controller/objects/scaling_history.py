"""What a pool's status remembers of its size, for the windows of `behavior`: `status.scaling`.

Its size is bounded: entries that are too many are put together, so that a limit holds rather longer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agent.wire import format_time
from controller.errors import InvalidObject
from controller.objects.conditions import time
from controller.objects.fields import Fields

MOST = 32
"""Entries of each list."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A number of Pods, and a moment."""

    time: datetime
    pods: int


Entries = tuple[Entry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingHistory:
    """`desired` is the size that was decided on last, None if there was none.

    `ups` and `downs` are the changes that policies count: when, and by how many Pods. `lows` and `highs` are sizes that
    were asked for, and since when: each stands until the next one's time. `lows` rise and `highs` fall, so that the
    first that is still in a window is the least and the greatest of it.
    """

    desired: int | None = None
    ups: Entries = ()
    downs: Entries = ()
    lows: Entries = ()
    highs: Entries = ()

    @staticmethod
    def of(pool: dict[str, Any]) -> "ScalingHistory":
        """From the SlotPool object. What somebody else may have written there instead is no history."""
        try:
            status = Fields(pool, "").optional_child("status") or Fields({}, "status")
            kept = status.optional_child("scaling") or Fields({}, "status.scaling")
            return ScalingHistory(
                desired=status.optional_integer("desiredReplicas"),
                **{name: _parse(kept.children(name, most=MOST)) for name in _LISTS},
            )
        except InvalidObject:
            return ScalingHistory()

    def to_json(self) -> dict[str, Any] | None:
        """As it stands in a status; None if there is nothing to say."""
        lists = {name: [_entry(entry) for entry in getattr(self, name)] for name in _LISTS}
        return lists if any(lists.values()) else None


_LISTS = ("ups", "downs", "lows", "highs")


def _parse(entries: Sequence[Fields]) -> Entries:
    found = []
    for entry in entries:
        moment = time(entry, "time")
        if moment is None:
            raise entry.fail("time", "is required")
        found.append(Entry(moment, entry.integer("pods")))
    return tuple(found)


def _entry(entry: Entry) -> dict[str, Any]:
    return {"time": format_time(entry.time), "pods": entry.pods}
