"""The agent's own time: it begins as the wall clock's, and from then on counts what has passed.

Limits are lengths of time. If they were measured on the wall clock, a clock that is set wrong for two seconds could end
reservations. So all times in the state are the agent's own. It advances with the time since boot, which includes sleep.
The journal notes both times, so a restart within the same boot does not disturb it. After a reboot it continues from
the last note, so the time that was left of a limit is still left.

Others are shown the wall clock's time. `shift` is the difference between the two.
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
    """The id of this boot. Empty if it is not known: then no two boots count as the same."""
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
