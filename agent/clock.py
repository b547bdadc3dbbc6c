"""The agent's own time: it begins as the wall clock's, and from then on counts what has passed.

A limit is a length of time. Measured on the wall clock, a clock that is wrong for two seconds ends reservations. So all
times in the state are the agent's own. It goes on with the time since boot, which includes sleep; the journal notes
both, so that it goes on over a restart within the same boot as if there had been none. After another boot it goes on
from the last note: what was left of a limit then is left now.

What others are shown is the wall clock's time: `shift` is how far it is from the agent's own.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent.rules.state import ClockNoted, State

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def wall_time() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


def boot_seconds() -> float:
    """Seconds since the machine started, asleep or not."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def read_boot_id() -> str:
    """What tells this boot from others. Empty if it can't be known: then no two are the same."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


class AgentClock:
    """Starts as the wall clock; `resume` makes it go on with what a journal says."""

    def __init__(
        self,
        wall: Callable[[], datetime] = wall_time,
        since_boot: Callable[[], float] = boot_seconds,
        boot_id: str | None = None,
    ) -> None:
        self._wall = wall
        self._since_boot = since_boot
        self._boot_id = read_boot_id() if boot_id is None else boot_id
        self._origin = wall() - timedelta(seconds=since_boot())

    def resume(self, state: State) -> None:
        """Go on where this state was. One without a note is of a version that had the wall clock's time."""
        note = state.clock
        if note is None:
            return
        if self._boot_id and note.boot_id == self._boot_id and note.boot_seconds <= self._since_boot():
            self._origin = note.time - timedelta(seconds=note.boot_seconds)
            return
        latest = max(note.time, *(slot.since for slot in state.slots))
        self._origin = latest - timedelta(seconds=self._since_boot())

    def now(self) -> datetime:
        """The agent's time."""
        return self._origin + timedelta(seconds=self._since_boot())

    def note(self) -> ClockNoted:
        """What the journal has to keep of it."""
        seconds = self._since_boot()
        return ClockNoted(boot_id=self._boot_id, boot_seconds=seconds, time=self._origin + timedelta(seconds=seconds))

    def shift(self) -> timedelta:
        """What to add to the agent's time for the wall clock's, in whole seconds."""
        return timedelta(seconds=round((self._wall() - self.now()).total_seconds()))
