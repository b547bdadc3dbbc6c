"""Times of the API as people read them."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from controller.cli.show.table import NONE

YEAR_SECONDS = 365 * 86400.0


def time_or_none(text: object) -> datetime | None:
    """A time of the API in UTC. None for what is no time with a zone: anybody may have written it."""
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
        return moment.astimezone(UTC) if moment is not None and moment.tzinfo is not None else None
    except (ValueError, OverflowError):  # its zone moves it out of the calendar
        return None


def until(text: object, now: datetime) -> str:
    """How long it is to a time of the API."""
    moment = time_or_none(text)
    return age_text(moment - now) if moment is not None else NONE


def age(obj: Mapping[str, Any], now: datetime) -> str:
    """How long ago the object was created, in its two largest units at most."""
    created = time_or_none(obj["metadata"].get("creationTimestamp"))
    return age_text(now - created) if created is not None else NONE


def age_text(length: timedelta) -> str:
    """A length of time in its two largest units at most."""
    seconds = max(0, length // timedelta(seconds=1))
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    if days:
        return f"{days}d{hours}h" if hours else f"{days}d"
    if hours:
        return f"{hours}h{minutes}m" if minutes else f"{hours}h"
    return f"{minutes}m{seconds % 60}s" if minutes else f"{seconds}s"
