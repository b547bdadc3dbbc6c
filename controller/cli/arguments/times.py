"""Times that people give: on the command line and in files."""

from datetime import datetime

from controller.cli.show.times import time_or_none


def given_time(text: str, otherwise: str = "no time") -> datetime:
    """A time that somebody gives us, in UTC. Raises ValueError, which says what else a text is `otherwise`."""
    if (moment := time_or_none(text)) is not None:
        return moment
    if _has_no_zone(text):
        raise ValueError(f"{text!r} has no time zone: end it with Z or +01:00")
    raise ValueError(f"{text!r} is {otherwise} as 2026-03-01T08:00:00Z")


def _has_no_zone(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is None
    except ValueError:
        return False
