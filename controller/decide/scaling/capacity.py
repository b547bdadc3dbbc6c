"""The slots of a pool by state, counted from the agents' reports and from the tasks that were just given to them.

Counts are derived anew for each decision, never kept: nothing can leak (B1).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent.wire import AgentState
from controller.decide.scaling.matching import SlotClass, agents_choice
from controller.decide.view import Offer, PodState, PodView, PoolView, SlotLoad
from controller.names import TASK_ID_SEPARATOR
from controller.objects.acceptance import fits
from controller.objects.pool import Layout
from controller.objects.task import Task, TaskPhase

# Looked up once: the loops below run over 30 000 tasks.
_QUEUED = TaskPhase.QUEUED


@dataclass(slots=True, kw_only=True)
class Census:
    """The slots of the Pods that count.

    `now` and `coming` are free slots by class. `promised` are tasks given to a Pod whose agent does not show them yet:
    each is counted as held there. `rest_*` leave out the Pods that hold a reservation: those stay, even without load. A
    Pod whose agent is not heard, or is recovering, counts in `rest_used` as full. `idle` are the Pods that serve and
    hold nothing, by the classes of their slots, and `others` all that do not just serve: what `removal` looks at.
    Retiring Pods are counted in `others` only: they finish what they hold, and the pool's size does not include them.
    """

    size: int = 0
    total_slots: int = 0
    running: int = 0
    reserved: int = 0
    promised: int = 0
    rest_slots: int = 0
    rest_used: int = 0
    now: Counter[SlotClass] = field(default_factory=Counter)
    coming: Counter[SlotClass] = field(default_factory=Counter)
    idle: dict[Layout, list[PodView]] = field(default_factory=dict)
    others: list[PodView] = field(default_factory=list)

    @property
    def used(self) -> int:
        """Slots that are held."""
        return self.running + self.reserved + self.promised

    @property
    def capacity(self) -> Counter[SlotClass]:
        """Slots that are free, or will be."""
        return self.now + self.coming


def promises(view: PoolView) -> dict[str, list[Task]]:
    """Tasks that were given to a Pod whose agent shows them neither as held nor as ended, by the Pod's UID."""
    given: dict[str, list[Task]] = {}
    for task in view.tasks:
        pod_uid = view.dispatching.get(task.uid) if task.status.phase is _QUEUED else task.status.pod_uid
        if pod_uid is not None:
            given.setdefault(pod_uid, []).append(task)
    if not given:
        return {}
    result: dict[str, list[Task]] = {}
    for pod in view.pods:
        if pod.uid in given:
            unseen = [task for task in given[pod.uid] if not _seen(pod.agent, task)]
            if unseen:
                result[pod.uid] = unseen
    return result


def _seen(agent: AgentState | None, task: Task) -> bool:
    if agent is None:
        return False
    # A task never has two slots, so any attempt of it that is held is the one that was given to the Pod.
    mine = task.uid + TASK_ID_SEPARATOR
    for slot in agent.slots:
        if slot.task_id is not None and slot.task_id.startswith(mine):
            return True
    return task.status.phase is not _QUEUED and task.task_id in agent.ended


def take_census(view: PoolView, promised: Mapping[str, Sequence[Task]]) -> Census:
    """Count the slots: of Pods that just serve, all at once that are alike."""
    census = Census(size=view.creating)
    expecting: list[PodView] = []
    for load, pods in view.serving:
        expected = [pod for pod in pods if pod.uid in promised] if promised else []
        expecting += expected
        _count_alike(census, load, [pod for pod in pods if pod.uid not in promised] if expected else pods)
    fresh = view.creating
    for pod in (*view.others, *expecting):
        if pod.counts:
            census.others.append(pod)
            if pod.retiring:
                continue
            census.size += 1
            unheard = pod.agent is None and pod.state is PodState.STARTING
            if unheard and not pod.leaving and pod.uid not in promised:
                fresh += 1
            else:
                _count(census, pod, view.spec.layout, promised.get(pod.uid, ()))
    for slot_class in view.spec.layout:
        census.coming[slot_class] += fresh
    census.total_slots += fresh * len(view.spec.layout)
    census.rest_slots += fresh * len(view.spec.layout)
    return census


def _count_alike(census: Census, load: SlotLoad, pods: Sequence[PodView]) -> None:
    """Count the slots of Pods that take work now and that nothing is on its way to."""
    running, reserved, free = load
    if pods and not (running or reserved):
        census.idle.setdefault(free, []).extend(pods)
    total = len(pods) * (running + reserved + len(free))
    census.size += len(pods)
    census.total_slots += total
    census.running += len(pods) * running
    census.reserved += len(pods) * reserved
    if not reserved:
        census.rest_slots += total
        census.rest_used += len(pods) * running
    for slot_class in free:
        census.now[slot_class] += len(pods)


def _count(census: Census, pod: PodView, layout: Layout, expected: Sequence[Task]) -> None:
    """Count the slots of any one Pod."""
    running, reserved, classes = pod.load
    free = list(layout if pod.agent is None else classes)
    total = len(free) + running + reserved
    recovering = pod.agent is not None and pod.agent.recovering
    take_promised(free, expected)
    census.total_slots += total
    census.running += running
    census.reserved += reserved
    census.promised += len(expected)
    if not reserved:
        known = not recovering and (pod.connected or pod.state is PodState.STARTING)
        census.rest_slots += total
        census.rest_used += min(total, running + len(expected)) if known else total
    if pod.offer is Offer.NOW:
        census.now.update(free)
    elif pod.offer is Offer.COMING:
        census.coming.update(free)


def take_promised(free: list[SlotClass], tasks: Sequence[Task]) -> None:
    """Take out of `free` the slots that these tasks will get, those with the fewest choices first."""
    for task in sorted(tasks, key=lambda task: sum(task.spec.type in accepts for accepts in free)):
        chosen = agents_choice(free, task.spec.type)
        if chosen is not None:
            free.remove(chosen)


def waiting(view: PoolView) -> list[Task]:
    """The tasks that wait for nothing but a slot of this pool, in no order."""
    found = [
        task
        for task in view.tasks
        if task.status.phase is _QUEUED
        and not (task.spec.cancel or task.deleting)
        and task.uid not in view.blocked
        and task.uid not in view.dispatching
        and not (task.status.not_before is not None and view.now < task.status.not_before)
    ]
    grace_seconds = view.spec.grace_seconds
    unknown = {name for name in {task.spec.type for task in found} if not view.spec.accepts(name)}
    return [task for task in found if task.spec.type not in unknown and task.spec.needed_grace_seconds <= grace_seconds]


def demand(view: PoolView, waits: list[Task] | None = None) -> Counter[str]:
    """How many tasks of each type wait for a slot; `waits` are those that `waiting` found, if it was asked before.

    A task that was given to a Pod which is gone or dead, and never known to be there, will be queued again.
    """
    wanted = Counter([task.spec.type for task in (waiting(view) if waits is None else waits)])
    assigned = [task for task in view.tasks if task.status.phase is TaskPhase.ASSIGNED and not task.unwanted]
    if assigned:
        alive = {pod.uid for pod in view.pods if not pod.dead}
        for task in assigned:
            if task.status.pod_uid not in alive and fits(view.spec, task.spec):
                wanted[task.spec.type] += 1
    return wanted
