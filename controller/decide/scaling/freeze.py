"""Whether a pool's size is frozen now, and until when."""

from collections.abc import Iterable
from datetime import datetime

from controller.objects.freeze import FreezeWindow


def frozen_until(windows: Iterable[FreezeWindow], now: datetime) -> datetime | None:
    """When the last of the windows that are open now ends; None if none is open."""
    ends = (window.ends(now) for window in windows)
    return max((end for end in ends if end is not None), default=None)
