"""Which Pods could go without any loss, and in which order they should."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from agent.wire import Phase
from controller.decide.scaling.capacity import Census
from controller.decide.view import PodState, PodView, PoolView
from controller.objects.pool import Layout
from controller.objects.task import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Removable:
    """Pods that could go without any loss.

    `retiring` ones make room for Pods of the present template and are no longer counted. Of those that are,
    first `leaving` (somebody wants them gone, or they take nothing any more), then those that never served, then those
    idle longest. `pending` counts Pods that never served and can't go yet (their creation or opening is under way, or
    they are younger than the minimum idle time): they would go before any Pod of `idle`, so that many of those stay
    (D2).

    `starting` and `idle` are in no order, each Pod with the time that decides on it; the latter by the classes of the
    slots that would be lost.
    """

    retiring: tuple[PodView, ...]
    leaving: tuple[PodView, ...]
    pending: int
    starting: list[tuple[datetime, PodView]]
    idle: dict[Layout, list[tuple[datetime, PodView]]]

    @property
    def count(self) -> int:
        """By how many Pods the pool could shrink, now or soon."""
        return len(self.leaving) + self.pending + len(self.starting) + sum(map(len, self.idle.values()))

    def victims(self) -> list[PodView]:
        """Those that never served, the youngest first (it is the furthest from being of use); then idle longest."""
        starting = sorted(self.starting, key=_by_time, reverse=True)
        idle = sorted((entry for group in self.idle.values() for entry in group), key=_by_time)
        return [pod for _, pod in (*starting, *idle)]

    def offered(self, layout: Layout) -> list[tuple[int, Layout, Sequence[int]]]:
        """Pods that are alike: the number of their slots, the classes of those on offer, their places in the order.

        Pods that never served are taken to have the pool's layout; sorting, which takes longer than all the rest, is
        left out while all have the same.
        """
        first = len(self.leaving)
        fresh = first + self.pending + len(self.starting)
        places: list[tuple[int, Layout, Sequence[int]]] = [
            (len(layout), (), range(first)),
            (len(layout), layout, range(first, fresh)),
        ]
        if len(self.idle) == 1:
            (classes,) = self.idle
            return [*places, (len(classes), classes, range(fresh, self.count))]
        order = sorted((*_by_time(entry), number) for number, group in enumerate(self.idle.values()) for entry in group)
        mixed: list[list[int]] = [[] for _ in self.idle]
        for place, (_, _, number) in enumerate(order, fresh):
            mixed[number].append(place)
        return [*places, *((len(classes), classes, found) for classes, found in zip(self.idle, mixed, strict=True))]


def _by_time(entry: tuple[datetime, PodView]) -> tuple[datetime, str]:
    return entry[0], entry[1].name


def removable(
    view: PoolView, census: Census, promised: Mapping[str, Sequence[Task]], min_idle_seconds: int
) -> Removable:
    """The Pods that could go now."""
    latest = view.now - timedelta(seconds=min_idle_seconds)
    pending = view.creating
    leaving: list[PodView] = []
    starting: list[tuple[datetime, PodView]] = []
    idle: dict[Layout, list[tuple[datetime, PodView]]] = {}
    for classes, pods in census.idle.items():
        if group := [(since, pod) for pod in pods if (since := pod.idle_since) is not None and since <= latest]:
            idle[classes] = group
    for pod in census.others:
        if pod.uid in promised:
            continue
        if pod.state is PodState.STARTING and (pod.in_flight or (pod.created > latest and not pod.leaving)):
            pending += 1
            continue
        since = _never_served_since(pod) if pod.state is PodState.STARTING else _could_go_since(pod)
        if since is None:
            continue
        if pod.useless:
            leaving.append(pod)
        elif since <= latest and pod.state is PodState.STARTING:
            starting.append((since, pod))
        elif since <= latest:
            idle.setdefault(_offered(pod), []).append((since, pod))
    return Removable(
        retiring=tuple(pod for pod in leaving if pod.retiring),
        leaving=tuple(pod for pod in leaving if not pod.retiring),
        pending=pending,
        starting=starting,
        idle=idle,
    )


def _offered(pod: PodView) -> Layout:
    """The classes of the slots that go with an idle Pod that does not just serve: if it is drained, they would come."""
    agent = pod.agent
    return () if agent is None or agent.closing else tuple(slot.accepts for slot in agent.slots)


def _could_go_since(pod: PodView) -> datetime | None:
    return pod.idle_since if pod.connected and pod.in_flight is None else None


def _never_served_since(pod: PodView) -> datetime | None:
    """When a starting Pod was created; None if its agent, where it was heard, does not confirm that it took nothing."""
    agent = pod.agent
    untouched = agent is None or (agent.phase is Phase.DRAINED and pod.idle_since is not None)
    return pod.created if untouched else None
