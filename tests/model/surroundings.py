"""What happens besides the controller: workers, limits, restarts, deaths, the kubelet, and people."""

from collections.abc import Iterator
from typing import NamedTuple

from agent.wire import Outcome, Phase, SlotState, Step
from tests.model import invariants, workers
from tests.model import site as sites
from tests.model.checker import Move
from tests.model.flight import NEW_LOCK, NEW_POD, NEW_TASK, REPLACED, RESTARTED, Flight
from tests.model.objects import PodObject, TaskObject, plain
from tests.model.site import Kept, Result, Site, parse_task_id
from tests.model.tables import DELETION, State, Tables, put


class Event(NamedTuple):
    """Something that happens in a Pod. `task` and `began`: the task that it concerns, and what that has become."""

    text: str
    site: int
    fair: bool = True
    faults: int = 0
    wrong: str | None = None
    task: int | None = None
    began: int = 0
    restarted: bool = False
    kind: str = ""


class Surroundings:
    """Moves everything that is not an operation."""

    def __init__(self, tables: Tables, flight: Flight) -> None:
        self._tables = tables
        self._flight = flight
        self._bugs = tables.config.bugs
        self._kinds = tables.config.kinds
        self._stopping = tables.config.stopping

    def moves(self, state: State) -> Iterator[Move[State]]:
        """Everything that may happen."""
        yield from self._in_pods(state)
        yield from self._to_pods(state)
        yield from self._people(state)

    # --- in a Pod ---------------------------------------------------------------------------------------------------

    def _in_pods(self, state: State) -> Iterator[Move[State]]:
        for pod, site in enumerate(state.sites):
            if site == self._tables.dead:
                continue
            ending = self._tables.pods.of(state.pods[pod]).forced
            for event in self._tables.remember(self._events, site, state.tasks, ending):
                if event.faults > state.faults:
                    continue
                objects = state.tasks if event.task is None else put(state.tasks, event.task, event.began)
                reached = state._replace(
                    sites=put(state.sites, pod, event.site), tasks=objects, faults=state.faults - event.faults
                )
                if event.restarted:
                    told = self._flight.heard(reached, RESTARTED, pod=pod)
                    if told == self._flight.tidy(state._replace(faults=told.faults)):
                        continue  # nobody noticed
                    reached = told
                yield Move(f"Pod {pod}: {event.text}", event.fair, self._flight.tidy(reached), event.wrong)

    def _events(self, number: int, numbers: tuple[int, ...], ending: bool) -> list[Event]:
        site = self._tables.sites.of(number)
        begins = () if ending else self._steps_begin(site, [self._tables.tasks.of(n) for n in numbers])
        events = [
            *begins,
            *(self._steps_stop(site, ending=ending) if self._stopping else ()),
            *self._steps_end(site),
            *self._kept(site),
            *self._restarts(site),
        ]
        return [event for event in events if not event.kind or event.kind in self._kinds]

    def _event(self, text: str, result: Result, before: Site, *, kind: str = "") -> Event:
        wrong = invariants.at_transition(result.slot_events, before)
        return Event(text, self._tables.sites[result.site], not kind, int(bool(kind)), wrong, kind=kind)

    def _steps_begin(self, site: Site, objects: list[TaskObject]) -> Iterator[Event]:
        for task in workers.waiting(site):
            if workers.marked(site, task):
                again = workers.offered_again(site, task)
                if again.site != site:
                    text = f"the worker is offered {task.task_id} again, and reports how it went"
                    yield self._event(text, again, site)
                continue
            if workers.busy(site, task.slot):
                continue
            begun = workers.begin(site, task, own=not self._stopping)
            if task.cancel_requested:
                yield self._event(f"the worker claims the cancelled {task.step} of {task.task_id}", begun, site)
                continue
            number, attempt = parse_task_id(task.task_id)
            obj = objects[number]
            wrong = invariants.at_start(obj, attempt, task.step)
            after = self._tables.tasks[plain(obj._replace(began=obj.began | {(attempt, task.step)}))]
            text = f"the {task.step} of {task.task_id} starts"
            yield Event(text, self._tables.sites[begun.site], wrong=wrong, task=number, began=after)
            untold = self._tables.sites[workers.begin(site, task, told=False, own=not self._stopping).site]
            text += "; the report of that is held up"
            yield Event(text, untold, fair=False, faults=1, wrong=wrong, task=number, began=after, kind="report")

    def _steps_end(self, site: Site) -> Iterator[Event]:
        for slot, place in enumerate(site.kept):
            for kept in (kept for kept in place if kept.outcome is None):
                name = f"the {kept.step} of {kept.task_id}"
                if kept.stopping is not None or not kept.own:
                    yield from self._early_ends(site, slot, kept, name)
                    continue
                # How an apply ended, and whether a plan failed or was cancelled, makes no difference to the protocol.
                failed = workers.end(site, slot, Outcome.FAILED)
                if kept.step is Step.APPLY:
                    yield self._event(f"{name} ends", failed, site)
                else:
                    yield self._event(f"{name} fails", failed, site)
                    done = workers.end(site, slot, Outcome.SUCCEEDED)
                    if "reserve late" in self._bugs:
                        done = _not_reserved(done)
                    yield self._event(f"{name} succeeds", done, site)
                yield from self._killed(site, slot, kept)

    def _killed(self, site: Site, slot: int, kept: Kept) -> Iterator[Event]:
        if "no marker" in self._bugs:
            forgot = Result(workers.forgotten(site, {kept.task_id}))
            yield self._event("a worker is killed; the next one knows nothing", forgot, site, kind="worker")
        elif site.agent is not None and slot not in site.agent.recovering:
            text = f"the worker of {kept.task_id} is killed; the next one finds that nothing of it runs"
            lost = workers.end(site, slot, Outcome.LOST)
            yield self._event(text, lost, site, kind="worker")

    def _early_ends(self, site: Site, slot: int, kept: Kept, name: str) -> Iterator[Event]:
        """Of a step whose own command does not run yet, or that is being stopped: then all of it has ended."""
        stopping = kept.stopping
        if not kept.own and (stopping is None or "on after stop" in self._bugs):
            after = workers.goes_on(site, slot, own=True)
            event = self._event(f"the command before {name} ends well, and its own one starts", after, site)
            yield event._replace(wrong=event.wrong or invariants.at_next_command(kept))
        if stopping is None:
            yield self._event(f"the command before {name} fails", workers.end(site, slot, Outcome.FAILED), site)
        else:
            said = Outcome.SUCCEEDED if "stopped is well" in self._bugs else stopping
            event = self._event(f"nothing is left of {name}, which was stopped", workers.end(site, slot, said), site)
            yield event._replace(wrong=event.wrong or invariants.at_end(kept, said))
            if "first is last" in self._bugs:
                text = f"the first process of {name} ends, which was stopped; others are left"
                yield self._event(text, workers.end(site, slot, stopping, rest=True), site)
        yield from self._killed(site, slot, kept)

    def _steps_stop(self, site: Site, *, ending: bool) -> Iterator[Event]:
        """A step that runs is told to stop: by cancel, its time limit, or as its Pod ends. The first one counts."""
        agent = site.agent
        for slot, place in enumerate(site.kept):
            for kept in (kept for kept in place if kept.outcome is None and kept.stopping is None):
                name = f"the {kept.step} of {kept.task_id}"
                known = () if agent is None or slot in agent.recovering else agent.tasks
                if any(task.task_id == kept.task_id and task.cancel_requested for task in known):
                    after = workers.goes_on(site, slot, stopping=Outcome.CANCELLED)
                    yield self._event(f"{name} is told to stop, as it is cancelled", after, site)
                after = workers.goes_on(site, slot, stopping=Outcome.FAILED)
                yield self._event(
                    f"{name} is told to stop, as its {'Pod ends' if ending else 'limit is over'}", after, site
                )

    def _kept(self, site: Site) -> Iterator[Event]:
        agent = site.agent
        if agent is None:
            return
        for slot in agent.recovering:
            names = ", ".join(kept.task_id for kept in site.kept[slot]) or "nothing"
            yield self._event(f"a worker registers, which keeps {names}", workers.register(site, slot), site)
        for slot in workers.reserved(site):
            text = f"the reservation of {agent.slots[slot].task_id} expires"
            yield self._event(text, workers.expire(site, slot), site)
        for name in sorted(workers.forgettable(site)):
            after = Result(workers.forgotten(site, {name}))
            yield self._event(f"the worker removes the directory of {name}", after, site)

    def _restarts(self, site: Site) -> Iterator[Event]:
        number = self._tables.sites[site]
        yield Event("the agent restarts", number, fair=False, faults=1, restarted=True, kind="agent")
        after, text = workers.lose_journal(site), "the agent restarts, its journal lost"
        if "born open" in self._bugs and after.agent is not None:
            born = after.agent._replace(phase=Phase.OPEN, drain_id=None, recovering=())
            after, text = after._replace(agent=born), text + ", open"
        yield Event(text, self._tables.sites[after], fair=False, faults=1, restarted=True, kind="journal")

    # --- to a Pod ---------------------------------------------------------------------------------------------------

    def _to_pods(self, state: State) -> Iterator[Move[State]]:
        for pod, (number, site) in enumerate(zip(state.pods, state.sites, strict=True)):
            obj = self._tables.pods.of(number)
            if obj.there:
                yield from self._while_there(state, pod, obj, alive=site != self._tables.dead)
            elif site != self._tables.dead:
                ended = self._changed(state, pod, RESTARTED, site=self._tables.dead)
                yield Move(f"what was left of Pod {pod} ends", True, ended)
            elif self._may_create(state, pod):
                fresh = self._changed(state, pod, REPLACED, obj=PodObject(), site=self._tables.fresh)
                objects = tuple(self._tables.remember(self._elsewhere, n, pod) for n in fresh.tasks)
                yield Move(f"a Pod is created in the place of Pod {pod}", True, fresh._replace(tasks=objects))

    def _while_there(self, state: State, pod: int, obj: PodObject, *, alive: bool) -> Iterator[Move[State]]:
        touched = self._changed(state, pod, NEW_POD)
        if touched != state:
            yield Move(f"the kubelet writes the status of Pod {pod}", False, touched)
        if not alive and not obj.proof:
            proved = self._changed(state, pod, NEW_POD, obj=obj._replace(proof=True))
            yield Move(f"the end of Pod {pod} becomes known", True, proved)
        if obj.forced and alive:
            ended = self._changed(state, pod, RESTARTED, site=self._tables.dead)
            yield Move(f"the grace of Pod {pod} is over, and all of it ends", True, ended)
        elif obj.deleting and (alive or obj.proof):
            news = NEW_POD | RESTARTED
            gone = self._changed(state, pod, news, obj=obj._replace(there=False), site=self._tables.dead)
            yield Move(f"Pod {pod} is ended, and gone", True, gone)
        if not alive or not state.faults:
            return
        fewer = state._replace(faults=state.faults - 1)
        if DELETION in self._kinds and not obj.deleting:
            deleted = self._changed(fewer, pod, NEW_POD, obj=obj._replace(deleting=True, forced=True))
            yield Move(f"somebody deletes Pod {pod}, which has its grace to end", False, deleted)
        if "node" in self._kinds:
            crashed = self._changed(fewer, pod, RESTARTED, site=self._tables.dead)
            yield Move(f"all of Pod {pod} dies with its node", False, crashed)
        if "vanish" in self._kinds:
            vanished = self._changed(fewer, pod, NEW_POD, obj=obj._replace(there=False))
            yield Move(f"Pod {pod} vanishes from the API; its processes go on", False, vanished)
        if "failed is proof" in self._bugs and not obj.failed:
            failed = self._changed(fewer, pod, NEW_POD, obj=obj._replace(failed=True))
            yield Move(f"the garbage collector writes Failed over Pod {pod}, which runs", False, failed)

    def _changed(
        self, state: State, pod: int, news: int, *, obj: PodObject | None = None, site: int | None = None
    ) -> State:
        """The state after something happened to a Pod, and in it."""
        if obj is not None:
            state = state._replace(pods=put(state.pods, pod, self._tables.pods[obj]))
        if site is not None:
            state = state._replace(sites=put(state.sites, pod, site))
        return self._flight.heard(state, news, pod=pod)

    def _may_create(self, state: State, pod: int) -> bool:
        """Whether a Pod is wanted, and nobody speaks of the one that had this place."""
        if not self._tables.needed(state) or any(self._tables.ops.of(n).pod == pod for n in state.ops):
            return False
        return all((task := self._tables.tasks.of(n)).pod != pod or task.final for n in state.tasks)

    def _elsewhere(self, number: int, pod: int) -> int:
        task = self._tables.tasks.of(number)
        return self._tables.tasks[task._replace(pod=None)] if task.pod == pod else number

    # --- people -----------------------------------------------------------------------------------------------------

    def _people(self, state: State) -> Iterator[Move[State]]:
        for number, place in enumerate(state.tasks):
            task = self._tables.tasks.of(place)
            for text, fair, after in _of_people(number, task, locked=state.lock == number):
                places = state.sites
                if after.gone:
                    places = tuple(self._tables.remember(self._unacked, n, number) for n in places)
                objects = put(state.tasks, number, self._tables.tasks[after])
                reached = state._replace(sites=places, tasks=objects)
                yield Move(text, fair, self._flight.heard(reached, NEW_TASK, task=number))
        if state.lock is not None and self._tables.tasks.of(state.tasks[state.lock]).gone:
            unlocked = self._flight.heard(state._replace(lock=None), NEW_LOCK)
            yield Move("a person unlocks the key of a task that is gone", True, unlocked)

    def _unacked(self, site: int, task: int) -> int:
        """Nobody asks for a task that is gone: that its end was acknowledged need not be remembered."""
        return self._tables.sites[sites.without(self._tables.sites.of(site), task)]


def _of_people(number: int, task: TaskObject, *, locked: bool) -> Iterator[tuple[str, bool, TaskObject]]:
    if task.gone:
        return
    if task.final:
        if not locked:
            yield f"task {number} is deleted, its time to live over", True, plain(task._replace(gone=True))
        return
    if not task.cancel:
        yield f"a person cancels task {number}", False, task._replace(cancel=True)
    for attempt in sorted(task.seen):
        fixed = task.planned and task.approval == task.attempt
        if task.approval != attempt and not fixed:
            after = task._replace(approval=attempt, approved=task.approved | {attempt})
            yield f"a person approves the plan of attempt {attempt} of task {number}", False, after


def _not_reserved(result: Result) -> Result:
    """Planted: the slot falls idle as the plan ends, to be reserved a moment later; this is the moment."""
    agent = result.site.agent
    if agent is None:
        return result
    idle = tuple(type(s)(id=s.id, since=s.since) if s.state is SlotState.RESERVED else s for s in agent.slots)
    return Result(sites.tidy(result.site._replace(agent=agent._replace(slots=idle, tasks=()))))
