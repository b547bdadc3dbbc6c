"""What is measured of a pool, as values: whoever decides counts, `controller` exposes."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFigures:
    """One pool at its last reconcile.

    The mappings are keyed by state, state, phase, what was found, and how the tokens stand.
    """

    desired: int
    utilization_ratio: float
    queued_tasks: int
    blocked_tasks: int
    connected_agents: int
    pods: Mapping[str, int] = field(default_factory=dict)
    slots: Mapping[str, int] = field(default_factory=dict)
    tasks: Mapping[str, int] = field(default_factory=dict)
    plans: Mapping[str, int] = field(default_factory=dict)
    rotation: Mapping[str, int] = field(default_factory=dict)
    token_since: float | None = None
    """Seconds since 1970."""
