"""Times in which a pool's size stays as it is: `autoscaling.freeze`.

A window begins when a cron expression says so, by the clocks of its time zone, and lasts for so many seconds that pass.
So it may cross midnight, and it keeps its length when summer time begins or ends. If clocks skip the time of a start,
the window starts right after the skip. If they show it twice, it starts the first time.
"""

import re
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from controller.objects.fields import Fields

MAX_WINDOWS = 16
DURATION_SECONDS = (60, 7 * 86400)
MAX_START_LENGTH = 100
MAX_ZONE_LENGTH = 64

# What standard cron has, and no more: no seconds, no `L` and `#`, no `@daily`. The definition has a rule of it.
_MONTH = "JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC"
_DAY = "SUN|MON|TUE|WED|THU|FRI|SAT"


def _field(number: str) -> str:
    # No backslash: the definition has the same in a string of CEL.
    term = rf"([*]|({number})(-({number}))?)(/[1-9][0-9]?)?"
    return rf"{term}(,{term})*"


START = re.compile(
    " ".join(
        _field(number)
        for number in (
            "[0-5]?[0-9]",
            "[01]?[0-9]|2[0-3]",
            "0?[1-9]|[12][0-9]|3[01]",
            f"0?[1-9]|1[0-2]|{_MONTH}",
            f"[0-7]|{_DAY}",
        )
    ),
    re.IGNORECASE,
)
ZONE = re.compile(r"UTC|[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9][A-Za-z0-9_+-]*)+")


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeWindow:
    """From each `start`, a cron expression by the clocks of `time_zone`, for `duration_seconds`."""

    start: str
    duration_seconds: int
    time_zone: str = "UTC"

    def ends(self, now: datetime) -> datetime | None:
        """When the window that `now` is in will be over; None if it is in none."""
        began = _last_start(self.start, self.time_zone, now.replace(second=0, microsecond=0))
        if began is None:
            return None
        end = began + timedelta(seconds=self.duration_seconds)
        return end if now < end else None


@lru_cache(maxsize=1024)
def _last_start(start: str, time_zone: str, minute: datetime) -> datetime | None:
    """The last start at or before a moment. Starts are at whole minutes: one search serves all passes of a minute.

    It goes backwards over what clocks show, not over time: CronSim's own search backwards in a zone leaves starts out
    around a change of the clocks. In the second pass of a repeated hour all of the first one lies behind, so the search
    begins later on the clock.
    """
    zone = ZoneInfo(time_zone)
    local = minute.astimezone(zone)
    shown = local.replace(tzinfo=None) + (_offset(local.replace(fold=0)) - _offset(local))
    # Going backwards, a microsecond more makes the moment itself the first one that is looked at.
    moments = (_moment(each, zone) for each in CronSim(start, shown.replace(microsecond=1), reverse=True))
    return next((moment for moment in moments if moment <= minute), None)


def _moment(shown: datetime, zone: ZoneInfo) -> datetime:
    """When clocks show this: the first time if they do so twice, right after the change if they skip it."""
    moment = shown.replace(tzinfo=zone).astimezone(UTC)
    if moment.astimezone(zone).replace(tzinfo=None) == shown:
        return moment
    # Of a skipped time, fold 0 counts as if the clocks had not changed yet: that is after the change. Fold 1 is before.
    before = shown.replace(tzinfo=zone, fold=1).astimezone(UTC)
    minutes = [before + timedelta(minutes=count) for count in range((moment - before) // timedelta(minutes=1) + 1)]
    offset = _offset(before.astimezone(zone))
    return minutes[bisect(minutes, False, key=lambda each: _offset(each.astimezone(zone)) != offset)]


def _offset(moment: datetime) -> timedelta:
    return moment.utcoffset() or timedelta()


def _starts(start: str, zone: ZoneInfo) -> Iterator[datetime]:
    return CronSim(start, datetime(2024, 1, 1, tzinfo=zone))


def parse_freeze(autoscaling: Fields) -> tuple[FreezeWindow, ...]:
    """The windows of an `autoscaling`. Raises InvalidObject."""
    return tuple(_window(entry) for entry in autoscaling.children("freeze", most=MAX_WINDOWS))


def _window(given: Fields) -> FreezeWindow:
    start = given.text("start", most=MAX_START_LENGTH)
    if not START.fullmatch(start):
        raise given.fail("start", "must be five cron fields: minute, hour, day of month, month, day of week")
    zone = given.text("timeZone", "UTC", most=MAX_ZONE_LENGTH)
    if not ZONE.fullmatch(zone):
        raise given.fail("timeZone", "must be UTC or a name of the time zone database, as Europe/Berlin")
    least, most = DURATION_SECONDS
    duration = given.integer("durationSeconds", least=least, most=most)
    try:
        first = next(_starts(start, ZoneInfo(zone)), None)
    except (ZoneInfoNotFoundError, OSError, ValueError):
        raise given.fail("timeZone", f"there is no time zone {zone}") from None
    except CronSimError as error:
        raise given.fail("start", f"is no cron expression: {error}") from None
    if first is None:
        raise given.fail("start", "never comes")
    return FreezeWindow(start=start, duration_seconds=duration, time_zone=zone)
