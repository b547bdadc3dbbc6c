"""What is measured of a pool, as values. The controller counts them, and `pools` exposes them."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFigures:
    """One pool at its last reconcile. Times are seconds since 1970; None: there is no such thing.

    `pods`, `slots` and `tasks` are keyed by state, state and phase, `plans` by what was found, `rotation` by how the
    tokens stand, `class_slots` by the slot's class and its state, `free_slots` and `queue` by task type.
    """

    desired: int
    utilization_ratio: float
    queued_tasks: int
    blocked_tasks: int
    connected_agents: int
    current: int = 0
    least: int = 0
    most: int = 0
    unreachable_agents: int = 0
    not_starting_pods: int = 0
    leaving_pods: int = 0
    lost_locks: int = 0
    pods: Mapping[str, int] = field(default_factory=dict)
    slots: Mapping[str, int] = field(default_factory=dict)
    class_slots: Mapping[tuple[str, str], int] = field(default_factory=dict)
    free_slots: Mapping[str, int] = field(default_factory=dict)
    queue: Mapping[str, int] = field(default_factory=dict)
    tasks: Mapping[str, int] = field(default_factory=dict)
    plans: Mapping[str, int] = field(default_factory=dict)
    rotation: Mapping[str, int] = field(default_factory=dict)
    oldest_queued: float | None = None
    oldest_approval: float | None = None
    next_expiry: float | None = None
    token_since: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFigures:
    """What one write of a task's status adds to the metrics. Only the replica that wrote it measures it.

    A new leader reads the same status and measures nothing. `steps` has the durations in seconds of the steps that
    ended with this write, by step.
    """

    slot_wait_seconds: float | None = None
    approval_wait_seconds: float | None = None
    steps: Mapping[str, float] = field(default_factory=dict)
    ended: str | None = None
    reservation_ended: str | None = None
