"""How long to wait before the next try. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BackoffPolicy:
    """Restarts of a container. The defaults are Kubernetes' own: at once, then after 10 s, 20 s, … 300 s.

    A run that lasted `reset_after_seconds` starts the row anew.
    """

    first_seconds: float = 10.0
    limit_seconds: float = 300.0
    reset_after_seconds: float = 600.0

    def count_short(self, before: int, run_seconds: float) -> int:
        """How many short runs in a row, counting one that just ended after `before` others."""
        return 1 if run_seconds >= self.reset_after_seconds else before + 1

    def delay_seconds(self, short_runs: int) -> float:
        """The pause after the end of the last of so many short runs in a row."""
        if short_runs <= 1:
            return 0.0
        doublings = min(short_runs - 2, 32)  # past that the limit holds, and 2 ** n need not grow
        return min(self.limit_seconds, self.first_seconds * float(2**doublings))
