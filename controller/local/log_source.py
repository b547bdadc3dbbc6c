"""What the API server asks of whoever runs the containers, when somebody wants a log.

A real API server asks the kubelet over HTTPS; here both may run in one process.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Which part of a container's log is wanted."""

    container: str
    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    # Seconds since 1970: lines from then on.
    since: float | None = None
    limit_bytes: int | None = None


class LogUnavailableError(LookupError):
    """The container has no log to give; the text says why."""


class LogSource(Protocol):
    """Whoever runs the containers."""

    def stream(self, namespace: str, pod: str, pod_uid: str, options: LogOptions) -> AsyncIterator[bytes]:
        """The log in pieces; with `follow` until the container ends. Raises LogUnavailableError before the first."""
