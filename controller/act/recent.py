"""The last decisions, in memory: what this replica has said of pools, tasks and Pods, for the status page.

Each of them is an Event, which the recorder notes here too. They are not stored: a new leader starts with an empty
list.
"""

from collections import defaultdict, deque
from dataclasses import dataclass, replace
from datetime import datetime

MOST_OF_KIND = 50
"""How many decisions are kept for each kind of object, so that many tasks do not push out those about pools."""

MAX_MESSAGE = 500
"""Characters of a message that are remembered: all of them are sent at a change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Something that was decided about an object, or happened to it. `number` counts from 1 and never repeats.

    `times`: the same was said so often, last at `at`.
    """

    number: int
    at: datetime
    kind: str
    namespace: str
    name: str
    reason: str
    message: str
    warning: bool = False
    times: int = 1


class RecentDecisions:
    """A ring for each kind of object: the oldest goes when it is full."""

    def __init__(self, most_of_kind: int = MOST_OF_KIND) -> None:
        self._kept: defaultdict[str, deque[Decision]] = defaultdict(lambda: deque(maxlen=most_of_kind))
        self._noted = 0

    @property
    def noted(self) -> int:
        """Moves with each decision that is noted."""
        return self._noted

    def newest_first(self) -> list[Decision]:
        """All that are remembered."""
        every = (decision for kept in self._kept.values() for decision in kept)
        return sorted(every, key=lambda decision: -decision.number)

    def note(
        self, kind: str, namespace: str, name: str, *, reason: str, message: str, warning: bool, at: datetime
    ) -> None:
        """Remember one. If the last one about the same kind says the same of the same object, it is counted instead."""
        self._noted += 1
        new = Decision(
            number=self._noted,
            at=at,
            kind=kind,
            namespace=namespace,
            name=name,
            reason=reason,
            message=message if len(message) <= MAX_MESSAGE else f"{message[: MAX_MESSAGE - 1]}…",
            warning=warning,
        )
        kept = self._kept[kind]
        last = kept[-1] if kept else None
        if last is not None and replace(last, number=new.number, at=at, times=1) == new:
            kept[-1] = replace(new, times=last.times + 1)
        else:
            kept.append(new)
