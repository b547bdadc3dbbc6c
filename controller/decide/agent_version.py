"""Which agents this controller can work with. See docs/compatibility.md."""

import re
from functools import cache

MINIMUM = "0.1.0"
"""The oldest agent version that this controller can work with. Raised with the change that needs it."""

_NUMBERS = re.compile(r"\d+(?:\.\d+)*")


@cache
def is_too_old(version: str) -> bool:
    """Whether an agent's version is below the minimum. One that is no number is somebody's own build: not judged."""
    numbers = _numbers(version)
    return bool(numbers) and numbers < _numbers(MINIMUM)


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version; what follows them (`-rc.1`, `+build`) does not order agents."""
    match = _NUMBERS.match(version)
    numbers = tuple(int(part) for part in match[0].split(".")[:3]) if match else ()
    return numbers + (0,) * (3 - len(numbers)) if numbers else ()
