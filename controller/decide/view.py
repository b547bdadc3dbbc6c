"""What a reconcile decides on: one pool with its Pods and tasks, read once from the caches and frozen.

Built by `controller.world` from raw objects and agents' reports. All decisions (`scaling`, `pod_actions`, `assignment`,
`task_actions`) take a `PoolView` and return values. They do no I/O and read no clock.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum, StrEnum
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from agent.wire import AgentState, Phase, Slot, SlotState
from controller.decide.agent_version import is_too_old
from controller.decide.reading import Reading
from controller.decide.start_problem import StartProblem
from controller.objects.pool import Layout, PoolSpec
from controller.objects.scaling_history import ScalingHistory
from controller.objects.task import Task


class PodState(StrEnum):
    """The label `podslots.dev/state`."""

    STARTING = "starting"
    ACTIVE = "active"
    DRAINING = "draining"


class PodOperation(StrEnum):
    """What is under way with a Pod. If several are, the first in this order counts."""

    REMOVE = "remove"  # a drain and delete, or a delete
    OPEN = "open"  # an open, or a drain taken back
    DISPATCH = "dispatch"  # a task on its way to it


class Offer(Enum):
    """What a Pod's idle slots are good for."""

    NOW = "now"  # a task can be given to it
    COMING = "coming"  # it will take tasks once it is opened, or its agent is heard
    NOTHING = "nothing"  # it takes nothing new
    UNKNOWN = "unknown"  # its agent is not heard, or lost its journal: it may hold anything


_NOW = Offer.NOW
"""Looked up once: it is compared with every Pod's offer at every pass."""


@dataclass(frozen=True, kw_only=True)
class PodView:
    """One Pod of the pool. A view is kept for as long as nothing about its Pod changes, with what was derived from it.

    `agent` is the last state its agent reported, None if it never did. `connected` tells whether that is fresh: an
    agent that is not connected may have taken or ended anything since, and is treated as holding all it may hold.
    `contacting`: it is not connected, but only since a moment (the controller or the agent has just started), so that
    the slots it is believed to have free still count as capacity to come. `gone_by` is when a deleted Pod's grace is
    over. `opened` is when the controller last opened it, where that is known. `dead` is proof of death. `in_flight` is
    the operation under way.
    """

    name: str
    uid: str
    resource_version: str
    state: PodState
    created: datetime
    running: bool = False
    ready: bool = False
    deleting: bool = False
    gone_by: datetime | None = None
    dead: bool = False
    agent: AgentState | None = None
    connected: bool = False
    contacting: bool = False
    in_flight: PodOperation | None = None
    opened: datetime | None = None
    drain_requested: bool = False
    node_cordoned: bool = False
    disowned: bool = False
    """Whether it belongs to an earlier pool of this name, so that the garbage collector may delete it at any time."""
    template_hash: str = ""
    token_secret: str | None = None
    """UID of the token Secret that is its second owner."""
    start_problem: StartProblem | None = None
    """Why it does not start, if it was never opened and something speaks against it."""
    stuck: bool = False
    """Whether that has been so for a while: it is not counted on any more."""
    retiring: bool = False
    """Whether it makes room for one of the present template: not in what is kept, only in a view (see `rollout`)."""
    tracked: bool = False
    """Whether its object stays, by our finalizer, until its end is recorded."""
    deployment: str = ""
    """The Deployment that its template was of; empty for one that the controller made itself."""
    replica_set: str = ""
    """UID of the ReplicaSet that manages it, if one does."""
    ended: bool = False
    """Whether its phase is a terminal one. No proof of death, but no ReplicaSet counts it any more."""
    idle_seen: datetime | None = None
    """Since when the controller has seen it idle, by the controller's own clock: a node's may be wrong."""

    @cached_property
    def held(self) -> tuple[Slot, ...]:
        """Slots that the agent last reported as running or reserved."""
        return tuple(s for s in self.agent.slots if s.state is not SlotState.IDLE) if self.agent else ()

    @cached_property
    def counts(self) -> bool:
        """Whether the Pod is part of the pool's size: neither dead nor being deleted."""
        if self.dead or self.deleting or self.in_flight is PodOperation.REMOVE:
            return False
        return self.state is not PodState.DRAINING or self.in_flight is PodOperation.OPEN

    @cached_property
    def word(self) -> str:
        """The word that it is counted under: its state, or `dead`."""
        return "dead" if self.dead else self.state.value

    @cached_property
    def alive(self) -> bool:
        """Whether the Pod takes up room: a draining one still does, and its drain can be taken back."""
        return not (self.dead or self.deleting)

    @cached_property
    def agent_too_old(self) -> bool:
        """Whether its agent is older than this controller can work with: it keeps what it holds, and gets no more."""
        return self.agent is not None and is_too_old(self.agent.version)

    @property
    def leaving(self) -> bool:
        """Whether somebody wants it gone: it takes nothing new, and is drained as it falls idle."""
        return self.drain_requested or self.node_cordoned or self.disowned or self.retiring

    @property
    def why_leaving(self) -> str:
        """The reason why it is to go, if it is."""
        reasons = {
            "DrainRequested": self.drain_requested,
            "NodeCordoned": self.node_cordoned,
            "EarlierPool": self.disowned,
            "Retiring": self.retiring,
        }
        return next((reason for reason, is_so in reasons.items() if is_so), "Surplus")

    @property
    def useless(self) -> bool:
        """Whether it will never take work again: once it holds nothing, another Pod replaces it.

        A starting Pod with a too old agent does not count: another Pod would have the same image.
        """
        return self.leaving or (self.agent_too_old and self.state is not PodState.STARTING)

    @cached_property
    def offer(self) -> Offer:
        """What its idle slots accept. Empty if the Pod takes no work now."""
        if self.leaving or not self.counts:
            return Offer.NOTHING
        agent = self.agent
        if agent is not None and agent.closing:
            return Offer.NOTHING
        if self.stuck:
            return Offer.NOTHING
        if self.state is PodState.STARTING or self.in_flight is PodOperation.OPEN:
            return Offer.COMING
        if self.agent_too_old:
            return Offer.NOTHING
        if not self.connected or agent is None:
            return Offer.COMING if self.contacting else Offer.UNKNOWN
        if agent.recovering:
            return Offer.UNKNOWN
        return Offer.NOW if agent.phase is Phase.OPEN else Offer.COMING

    @cached_property
    def idle_since(self) -> datetime | None:
        """Since when every slot is idle and every result stored elsewhere; None if that is not so."""
        agent = self.agent
        if agent is None or agent.ended or agent.recovering:
            return None
        since = self.created
        if self.opened is not None and self.opened > since:
            since = self.opened
        for slot in agent.slots:
            if slot.state is not SlotState.IDLE:
                return None
            since = max(since, slot.since)
        return self.idle_seen or since

    @cached_property
    def taken(self) -> tuple[tuple[tuple[str, ...], SlotState], ...]:
        """What each slot accepts that is not idle, and its state."""
        return _same_taken(tuple((slot.accepts, slot.state) for slot in self.held))

    @cached_property
    def load(self) -> "SlotLoad":
        """How its slots stand, as its agent last said."""
        free: list[tuple[str, ...]] = []
        running = reserved = 0
        for slot in self.agent.slots if self.agent is not None else ():
            if slot.state is SlotState.IDLE:
                free.append(slot.accepts)
            elif slot.state is SlotState.RUNNING:
                running += 1
            else:
                reserved += 1
        return _same_load(running, reserved, tuple(free))


class SlotLoad(NamedTuple):
    """Slots of one Pod: how many run and are reserved, and what the idle ones accept."""

    running: int
    reserved: int
    free: Layout


@lru_cache(maxsize=4096)
def _same_taken(taken: tuple[tuple[tuple[str, ...], SlotState], ...]) -> tuple[tuple[tuple[str, ...], SlotState], ...]:
    """One value for all Pods that are alike."""
    return taken


@lru_cache(maxsize=4096)
def _same_load(running: int, reserved: int, free: Layout) -> SlotLoad:
    """One value for all Pods that are alike: thousands of them share a handful."""
    return SlotLoad(running, reserved, free)


class Alike(NamedTuple):
    """Pods with the same state of their slots."""

    load: SlotLoad
    pods: list[PodView]


class RolloutStand(StrEnum):
    """How the replacement of Pods of an earlier template stands: a condition's reason."""

    NONE = "UpToDate"
    ROLLING = "RollingOut"
    PAUSED = "RolloutPaused"
    STUCK = "RolloutStuck"
    ON_DELETE = "OnDelete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """The state of a rollout from one template to the next. `updated` of its `total` Pods have the present one.

    `extra` Pods are wanted beyond the size: one that shows whether the present template starts. `tolerated` beyond it
    are not taken away. `max_surge`: by how many all Pods may exceed the size; None: nothing is replaced, no bound.
    `why` is what a person should know about it, empty if there is nothing to add.
    """

    stand: RolloutStand = RolloutStand.NONE
    why: str = ""
    updated: int = 0
    total: int = 0
    extra: int = 0
    tolerated: int = 0
    max_surge: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentView:
    """A Deployment of the pool, with its ReplicaSets' UIDs and names.

    `settled`: it has had a ReplicaSet, and is paused. `failure` is what keeps its ReplicaSet from making or deleting a
    Pod: the reason and the message.
    """

    name: str
    uid: str
    template_hash: str
    replicas: int
    known: bool = False
    paused: bool = False
    deleting: bool = False
    replica_sets: tuple[tuple[str, str], ...] = ()
    failure: tuple[str, str] | None = None

    @property
    def settled(self) -> bool:
        """Whether it can be given a size."""
        return self.known and self.paused

    @property
    def sound(self) -> bool:
        """Whether it is as it was made: one ReplicaSet, since there was one at all, and nobody deletes it."""
        return not self.deleting and len(self.replica_sets) <= 1 and (bool(self.replica_sets) or not self.known)


@dataclass(frozen=True, kw_only=True)
class PoolView:
    """A pool at one moment. `now` is wall time; `tasks` are those of the pool that are not final.

    `blocked` are UIDs of queued tasks that wait for a lockKey: no demand. `dispatching` maps the UIDs of tasks whose
    status still says Queued, but whose dispatch is under way, to the UID of their Pod: they are held there.
    `creating` counts Pods whose creation is under way and that are not among `pods` yet: they are coming capacity.
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
    dispatching: Mapping[str, str] = field(default_factory=dict)
    template_hash: str | None = None
    """Of the Pods that would be made now; None if the template can't be used."""
    token_secret: str | None = None
    """UID of the pool's token Secret, if there is one: every Pod is to have it as its second owner."""
    history: ScalingHistory = field(default_factory=ScalingHistory)
    """Of its size: what the decision before has left."""
    reading: Reading | None = None
    """What Prometheus said last, if the pool asks one."""
    deleting: bool = False
    synced: bool = True
    unguarded: bool = False
    """Whether its PodDisruptionBudget is still to be made, or mended. Where that is refused, it does not count."""
    rollout: Rollout = field(default_factory=Rollout)
    deployments: tuple[DeploymentView, ...] = ()
    """In Deployment mode, and until the last Pod of that mode has gone."""
    orphaned_sets: tuple[tuple[str, str], ...] = ()
    """UIDs and names of ReplicaSets of the pool whose Deployment is gone."""

    @property
    def serving(self) -> list[Alike]:
        """The Pods that just serve: they take work now, and no operation is under way with them.

        Nearly all of 10 000 Pods do. They count, are active, have an agent that is heard, and are neither dead nor
        being deleted. So most questions about a Pod need not be asked for them.
        """
        return self._parted[0]

    @property
    def others(self) -> list[PodView]:
        """All other Pods, whether they count or not."""
        return self._parted[1]

    def but(self, **changes: Any) -> "PoolView":
        """The view with some fields changed. What was worked out of its Pods is kept where these are the same."""
        other = replace(self, **changes)
        if other.pods is self.pods and "_parted" in self.__dict__:
            other.__dict__["_parted"] = self._parted
        return other

    @cached_property
    def _parted(self) -> tuple[list[Alike], list[PodView]]:
        serving: dict[SlotLoad, list[PodView]] = defaultdict(list)
        others: list[PodView] = []
        for pod in self.pods:
            if pod.offer is _NOW and pod.in_flight is None:
                serving[pod.load].append(pod)
            else:
                others.append(pod)
        return [Alike(load, pods) for load, pods in serving.items()], others
