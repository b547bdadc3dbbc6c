"""What a reconcile decides on: one pool with its Pods and tasks, read once from the caches and frozen.

Built by `reconcile.py` from raw objects and agents' reports. Everything that decides (`scaling`, `plan`,
`assignment`, `progress`) takes a `PoolView` and returns values; none of it does I/O or reads a clock.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from agent.wire import AgentState, Slot, SlotState
from controller.pool import PoolSpec
from controller.task import Task


class PodState(StrEnum):
    """The label `podslots.dev/state`."""

    STARTING = "starting"
    ACTIVE = "active"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodView:
    """One Pod of the pool.

    `agent` is the last state its agent reported, None if it never did. `connected` tells whether that is fresh: an
    agent that is not connected may have taken or ended anything since, and is treated as holding all it may hold.
    `dead` is proof of death. `in_flight` is set while an operation on the Pod, or a dispatch to it, is under way.
    """

    name: str
    uid: str
    resource_version: str
    state: PodState
    created: datetime
    running: bool = False
    ready: bool = False
    deleting: bool = False
    dead: bool = False
    agent: AgentState | None = None
    connected: bool = False
    in_flight: bool = False
    drain_requested: bool = False
    node_cordoned: bool = False
    template_hash: str = ""

    @property
    def held(self) -> tuple[Slot, ...]:
        """Slots that the agent last reported as running or reserved."""
        return tuple(s for s in self.agent.slots if s.state is not SlotState.IDLE) if self.agent else ()

    @property
    def reserved(self) -> bool:
        """Whether a slot is reserved: such a Pod stays, whatever the scale."""
        return any(slot.state is SlotState.RESERVED for slot in self.held)

    @property
    def counts(self) -> bool:
        """Whether the Pod is part of the pool's size: neither dead, nor on its way out."""
        return not (self.dead or self.deleting or self.state is PodState.DRAINING)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolView:
    """A pool at one moment. `now` is wall time; `tasks` are those of the pool that are not final.

    `blocked` are UIDs of queued tasks that wait for a lockKey: no demand. `creating` counts Pods whose creation is
    under way and that are not among `pods` yet: they are coming capacity.
    `synced` is False while any list that this view rests on is not known to be complete: then nothing shrinks.
    """

    namespace: str
    name: str
    uid: str
    spec: PoolSpec
    pods: tuple[PodView, ...]
    tasks: tuple[Task, ...]
    now: datetime
    creating: int = 0
    blocked: frozenset[str] = field(default_factory=frozenset)
    deleting: bool = False
    synced: bool = True
