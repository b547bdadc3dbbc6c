"""What the decisions of one pass rest on: computed once, and handed on from the size to the Pods and the tasks."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from controller.decide.scaling.capacity import Census, demand, promises, take_census, waiting
from controller.decide.scaling.removal import Removable, removable
from controller.decide.scaling.signal import Judged, demand_with, judge
from controller.decide.view import PoolView
from controller.objects.task import Task


@dataclass(frozen=True, kw_only=True)
class Basis:
    """A view with its counts. `queue` counts the tasks that wait for a slot, by type.

    `demand` adds the waiting tasks that only the signal reports.
    """

    view: PoolView
    promised: Mapping[str, list[Task]]
    census: Census
    queue: Counter[str]
    demand: Counter[str]
    signal: Judged
    waits: list[Task] = field(default_factory=list)
    """The tasks that wait for nothing but a slot."""

    @staticmethod
    def of(view: PoolView) -> "Basis":
        """Count what is in a view."""
        promised, waits, signal = promises(view), waiting(view), judge(view)
        queue = demand(view, waits)
        return Basis(
            view=view,
            promised=promised,
            census=take_census(view, promised),
            queue=queue,
            demand=demand_with(queue, signal, view.spec.layout),
            signal=signal,
            waits=waits,
        )

    @cached_property
    def removable(self) -> Removable:
        """The Pods that could be removed now. Computed only when the pool is to shrink."""
        scaler = None if self.view.deleting else self.view.spec.scaler
        return removable(self.view, self.census, self.promised, scaler.min_idle_seconds if scaler else 0)

    @property
    def used(self) -> float:
        """The slots that are held, by the agents or the signal (the larger number), and those the queue will take."""
        return max(self.census.used, self.signal.used) + self.demand.total()

    @property
    def rest_used(self) -> float:
        """The same of Pods without a reservation."""
        return max(self.census.rest_used, self.signal.rest_used) + self.demand.total()

    @property
    def active(self) -> bool:
        """Whether anything runs or waits.

        Reservations alone call for no headroom: a pool whose layout they fill would never come down to the Pods that
        hold them (G2).
        """
        return self.used > self.census.reserved
