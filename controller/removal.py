"""Which Pods could go without any loss, and in which order they should."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from agent.wire import Phase, SlotState
from controller.pool import Layout
from controller.task import Task
from controller.view import Operation, PodState, PodView, PoolView

# Members of an enumeration, looked up once: the loops below run over 30 000 slots.
_IDLE = SlotState.IDLE
_DRAINING = PodState.DRAINING
_REMOVE = Operation.REMOVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Removable:
    """Pods that could go without any loss.

    First `leaving` (somebody wants them gone), then those that never served, then those idle longest. `pending` counts
    Pods that never served and can't go yet (their creation or opening is under way, or they are younger than the
    minimum idle time): they would go before any Pod of `idle`, so that many of those stay (D2).

    `starting` and `idle` are in no order, each with the time that decides on it: see `victims`.
    """

    leaving: tuple[PodView, ...]
    pending: int
    starting: tuple[tuple[datetime, PodView], ...]
    idle: tuple[tuple[datetime, PodView], ...]

    @property
    def count(self) -> int:
        """By how many Pods the pool could shrink, now or soon."""
        return len(self.leaving) + self.pending + len(self.starting) + len(self.idle)

    def victims(self) -> list[PodView]:
        """Those that never served, the youngest first (it is the furthest from being of use); then idle longest."""
        starting = sorted(self.starting, key=_by_time, reverse=True)
        return [pod for _, pod in (*starting, *sorted(self.idle, key=_by_time))]

    def offered(self, layout: Layout) -> dict[tuple[int, Layout], Sequence[int]]:
        """The places in the order, rising, of Pods that are alike: by number of slots, and classes that they offer."""
        first = len(self.leaving)
        kinds = {_offered(pod, layout) for _, pod in (*self.starting, *self.idle)}
        places: dict[tuple[int, Layout], Sequence[int]] = {}
        if self.leaving:
            places[len(layout), ()] = range(first)
        if self.pending:
            kinds.add((len(layout), layout))
        if len(kinds) == 1:  # nearly always, and then the order is of no matter: sorting takes longer than all else
            places[kinds.pop()] = range(first, self.count)
            return places
        mixed: dict[tuple[int, Layout], list[int]] = {kind: [] for kind in kinds}
        if self.pending:
            mixed[len(layout), layout].extend(range(first, first + self.pending))
        for place, pod in enumerate(self.victims(), first + self.pending):
            mixed[_offered(pod, layout)].append(place)
        return {**places, **mixed}


def _by_time(entry: tuple[datetime, PodView]) -> tuple[datetime, str]:
    return entry[0], entry[1].name


def _offered(pod: PodView, layout: Layout) -> tuple[int, Layout]:
    """How many slots go with an idle Pod, and which classes of them were on offer."""
    agent = pod.agent
    if agent is None:
        return len(layout), layout
    slots = agent.slots
    return len(slots), () if agent.closing else tuple([slot.accepts for slot in slots])


def removable(view: PoolView, promised: Mapping[str, Sequence[Task]], min_idle_seconds: int) -> Removable:
    """The Pods that could go now."""
    latest = view.now - timedelta(seconds=min_idle_seconds)
    pending = view.creating
    leaving: list[PodView] = []
    starting: list[tuple[datetime, PodView]] = []
    idle: list[tuple[datetime, PodView]] = []
    for pod in view.pods:
        if pod.state is _DRAINING or pod.dead or pod.deleting or pod.in_flight is _REMOVE or pod.uid in promised:
            continue
        wanted_gone = pod.drain_requested or pod.node_cordoned
        if pod.state is PodState.STARTING:
            if pod.in_flight or (pod.created > latest and not wanted_gone):
                pending += 1
                continue
            since, group = _never_served_since(pod), starting
        else:
            since, group = _could_go_since(pod), idle
        if since is None:
            continue
        if wanted_gone:
            leaving.append(pod)
        elif since <= latest:
            group.append((since, pod))
    return Removable(leaving=tuple(leaving), pending=pending, starting=tuple(starting), idle=tuple(idle))


def _could_go_since(pod: PodView) -> datetime | None:
    return idle_since(pod) if pod.connected and pod.in_flight is None else None


def _never_served_since(pod: PodView) -> datetime | None:
    """When a starting Pod was created; None if its agent, where it was heard, does not confirm that it took nothing."""
    agent = pod.agent
    untouched = agent is None or (agent.phase is Phase.DRAINED and idle_since(pod) is not None)
    return pod.created if untouched else None


def idle_since(pod: PodView) -> datetime | None:
    """Since when every slot of the Pod is idle and every result stored elsewhere; None if that is not so."""
    agent = pod.agent
    if agent is None or agent.ended or agent.recovering:
        return None
    since = pod.created
    if pod.opened is not None and pod.opened > since:
        since = pod.opened
    for slot in agent.slots:
        if slot.state is not _IDLE:
            return None
        since = max(since, slot.since)
    return since
