"""What keeps a pool from working as it should, as a value."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that keeps a pool from working as it should: a reason for programs and a message for people."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problems:
    """What keeps a pool from working as it should, and from changing its size."""

    degraded: Problem | None = None
    unable_to_scale: Problem | None = None
