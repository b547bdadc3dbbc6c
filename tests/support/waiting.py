"""Waiting for a condition in tests that are not coroutines."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], timeout_seconds: float, otherwise: str) -> None:
    """Return once `condition` holds; fail with `otherwise` if it never does."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{otherwise} after {timeout_seconds:g} s")
        time.sleep(0.02)
