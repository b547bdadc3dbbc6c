"""Every message that can start something follows a write that says so, and nothing starts twice, in any order."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from agent.rules import slots
from agent.rules.state import Event
from agent.rules.tasks import ExpireTasks
from agent.wire import ErrorCode, Origin, Outcome, SlotState, Step
from controller import names
from controller.decide.tasks.task_actions import (
    APPROVED,
    Acquire,
    Approve,
    Finish,
    Follow,
    Retry,
    Whereabouts,
    cancelling,
    next_action,
    unsaid,
)
from controller.errors import AgentRefused, AgentUnreachable, ApiUnavailable, Conflict, NotFound, NotLeader
from controller.kube.api import EVENTS, LEASES, PODS, SLOTTASKS, Object, Resource
from controller.objects.conditions import find
from controller.objects.ended_task import EndedTask
from controller.objects.task import Task, TaskPhase
from tests.support.dispatch_site import NS, DispatchReplica, DispatchSite, run
from tests.support.interleave import Scenario, chance, sample, step
from tests.support.machine_agent import DIGEST, MOMENT, MachineAgent

ERRORS = (AgentRefused, AgentUnreachable, ApiUnavailable, Conflict, NotFound)
APPROVAL = {"attempt": 1, "planDigest": DIGEST, "by": "anna"}


async def let_go(replica: DispatchReplica, task: Task) -> None:
    await replica.locks.release(task.namespace, task.spec.lock_key, task.uid)


def placed(site: DispatchSite, kind: str = "plan_and_apply", **spec: Any) -> Task:
    """A task that its agent holds, as far as its first step's start."""
    replica = site.replica()
    run(replica.assign(site.add(kind=kind, **spec)))
    site.agent.start("uid-t.1")
    run(replica.follow(site.task()))
    return site.task()


def waiting(site: DispatchSite, **spec: Any) -> Task:
    """A task that awaits approval."""
    placed(site, **spec)
    site.agent.finish("uid-t.1")
    run(site.replica().follow(site.task()))
    assert site.phase() is TaskPhase.AWAITING_APPROVAL
    return site.task()


# --- assign and acquire -----------------------------------------------------------------------------------------------


def test_lock_and_intent_are_written_before_the_agent_is_asked() -> None:
    """T20: whoever takes over finds Pod and attempt in the status, and the lock taken."""
    site = DispatchSite()
    seen: list[tuple[Any, ...]] = []

    async def asked(path: str) -> None:
        status = site.task().status
        seen.append((path, status.phase, status.pod, status.pod_uid, status.attempt, site.lock("vpc")))

    site.agent.before = asked
    run(site.replica().assign(site.add(lockKey="vpc")))
    assert seen == [("/slots/acquire", TaskPhase.ASSIGNED, "p", "uid-p", 1, "uid-t")]
    assert site.task().status.phase is TaskPhase.RUNNING
    assert site.agent.held == {"uid-t.1": SlotState.RUNNING}


def test_a_task_that_is_dispatched_at_once_is_held_in_the_api_before_anything_else() -> None:
    site = DispatchSite()
    document = site.api.objects[SLOTTASKS, NS, site.add(lockKey="vpc").name]
    document["metadata"]["finalizers"] = []
    task = Task.parse(site.api.put(SLOTTASKS, document))
    written: list[tuple[Any, ...]] = []

    async def writing(verb: str, resource: Any, _name: str) -> None:
        if verb in {"patch", "create"} and resource is not EVENTS:
            written.append((verb, resource.plural, site.task().finalizers, site.task().status.phase))

    site.api.before = writing
    run(site.replica().assign(task))
    assert written == [
        ("patch", "slottasks", (), TaskPhase.QUEUED),
        ("create", "leases", (names.TASK_FINALIZER,), TaskPhase.QUEUED),
        ("patch", "slottasks", (names.TASK_FINALIZER,), TaskPhase.QUEUED),
        ("patch", "slottasks", (names.TASK_FINALIZER,), TaskPhase.ASSIGNED),
    ]


def test_a_task_whose_lock_is_held_is_left_in_the_queue() -> None:
    """The agent is not asked, and the next pass knows why: the Lease is in the cache."""
    site = DispatchSite()
    replica = site.replica()
    first, second = site.add("a", lockKey="vpc"), site.add("b", lockKey="vpc")
    run(replica.assign(first))
    run(replica.assign(second))
    assert site.phase("b") is TaskPhase.QUEUED
    assert site.holders("uid-b") == []
    assert replica.locks.holder(NS, "vpc") == "uid-a"


def test_a_task_without_an_apply_needs_no_lock() -> None:
    site = DispatchSite()
    run(site.replica().assign(site.add("a", kind="plan", lockKey="vpc")))
    assert site.lock("vpc") is None
    assert site.holders("uid-a") == ["p"]


@pytest.mark.parametrize("code", ["no_free_slot", "drained", "unknown_task_type"])
def test_a_refused_task_goes_back_to_the_queue(code: str) -> None:
    """It is certain that the agent does not have it, so another may be asked. The attempt is not used up."""
    site = DispatchSite()
    kind = "plan"
    if code == "no_free_slot":
        for number in range(3):
            site.agent.execute(slots.Acquire(task_id=f"other.{number}", task_type="plan"))
    elif code == "drained":
        site.agent.execute(slots.Drain(drain_id="d"))
    else:
        site.agents["p"] = MachineAgent("p", layout=(("apply",),))
        site.agent.execute(slots.Open(drain_id="born"))
    with pytest.raises(AgentRefused, match=code):
        run(site.replica().assign(site.add(kind=kind)))
    status = site.task().status
    assert (status.phase, status.pod, status.pod_uid, status.attempt) == (TaskPhase.QUEUED, None, None, 1)


@pytest.mark.parametrize("failure", ["lost before", "lost after", "storage", "restarted"])
def test_a_task_stays_with_the_agent_that_may_have_it(failure: str) -> None:
    """T19: no answer, or one that is not about the task, leaves the intent; the same agent is asked again."""
    site = DispatchSite()

    async def fail(path: str) -> None:
        if failure == "storage":
            raise AgentRefused(503, ErrorCode.STORAGE, "disk full")
        raise AgentUnreachable(path)

    pod = site.pod()
    if failure == "lost after":
        site.agent.after = fail
    elif failure == "restarted":
        site.agent.restart("j")
    else:
        site.agent.before = fail
    replica = site.replica()
    with pytest.raises((AgentRefused, AgentUnreachable)):
        run(replica.assign(site.add(), pod))
    status = site.task().status
    assert (status.phase, status.pod) == (TaskPhase.ASSIGNED, "p")
    site.agent.before = site.agent.after = MachineAgent("p").before
    run(replica.ask_again(site.task()))
    assert site.phase() is TaskPhase.RUNNING
    assert site.agent.held == {"uid-t.1": SlotState.RUNNING}


def test_asking_again_moves_the_version_first() -> None:
    """T19: so that a withdrawal of the intent that is still on its way comes too late."""
    site = DispatchSite()
    replica = site.replica()
    task = site.add()
    intent = Task.parse(run(site.api.patch(SLOTTASKS, NS, "t", _assigned(task), subresource="status")))
    seen: list[str] = []

    async def asked(path: str) -> None:
        del path
        seen.append(site.task().resource_version)

    site.agent.before = asked
    run(replica.ask_again(intent))
    assert int(seen[0]) > int(intent.resource_version)
    # And again, with nothing else changed in between.
    version = site.task().resource_version
    again = replace(site.task(), status=replace(site.task().status, phase=TaskPhase.ASSIGNED))
    run(replica.ask_again(again))
    assert int(seen[1]) > int(version)


def _assigned(task: Task) -> Object:
    status = {"phase": "Assigned", "pod": "p", "podUID": "uid-p", "attempt": 1}
    return {"metadata": {"resourceVersion": task.resource_version}, "status": status}


def test_work_that_no_agent_takes_fails_the_task() -> None:
    """Or it would be asked for for ever."""
    site = DispatchSite()

    async def refuse(path: str) -> None:
        raise AgentRefused(422, ErrorCode.INVALID, f"{path}: files: a path leads outside")

    site.agent.before = refuse
    run(site.replica().assign(site.add()))
    status = site.task().status
    assert (status.phase, status.reason) == (TaskPhase.FAILED, "WorkRefused")
    assert status.message is not None
    assert "leads outside" in status.message


@pytest.mark.parametrize("operation", ["assign", "ask_again", "approve", "cancel"])
def test_a_conflict_means_that_nothing_happens(operation: str) -> None:
    """T19, T23: an operation on an old version of the task reaches no agent, or changes nothing there."""
    site = DispatchSite()
    replica = site.replica()
    if operation == "approve":
        task = waiting(site, approval=APPROVAL)
    elif operation == "assign":
        task = site.add()
    else:
        run(site.api.patch(SLOTTASKS, NS, "t", _assigned(site.add()), subresource="status"))
        task = site.task()
    site.edit(priority=5)
    before = site.agent.held
    with pytest.raises(Conflict):
        run(getattr(replica, operation)(task))
    assert site.agent.held == before
    assert site.agent.applies == []
    assert not site.task().final


@pytest.mark.parametrize("operation", ["assign", "ask_again", "approve", "cancel", "follow"])
def test_a_replica_that_does_not_lead_writes_nothing(operation: str) -> None:
    """T22."""
    site = DispatchSite()
    if operation == "assign":
        task = site.add()
    elif operation == "ask_again":
        run(site.api.patch(SLOTTASKS, NS, "t", _assigned(site.add()), subresource="status"))
        task = site.task()
    else:
        task = waiting(site, approval=APPROVAL)
        if operation == "follow":
            site.agent.execute(slots.Acquire(task_id="uid-t.1", task_type="plan_and_apply"))

    def refuse() -> None:
        raise NotLeader("no")

    version, requests = site.api.version, len(site.agent.requests)
    with suppress(NotLeader):
        run(getattr(site.replica(may_write=refuse), operation)(task))
    assert site.api.version == version
    assert all(body is None for _, body in site.agent.requests[requests:])


# --- every order ------------------------------------------------------------------------------------------------------


class Shuffle:
    """Two replicas, each on what it knew some steps ago, two Pods of which one is full at first, and lost answers."""

    def __init__(self, kind: str) -> None:
        self.site = DispatchSite("p1", "p2")
        self.site.add(kind=kind)
        self.kind = kind
        for number in range(3):
            self.site.agents["p1"].execute(slots.Acquire(task_id=f"other.{number}", task_type="plan"))
        self.site.api.before = self._api_step
        self.site.api.after = self._api_answer
        for agent in self.site.agents.values():
            agent.before = self._agent_step
            agent.after = self._agent_answer

    async def _api_step(self, verb: str, resource: Resource, name: str) -> None:
        del verb, resource, name
        await step()

    async def _api_answer(self, verb: str, resource: Resource, name: str) -> None:
        del resource, name
        if verb != "get" and await chance() and await chance():
            raise ApiUnavailable("the answer was lost")

    async def _agent_step(self, path: str) -> None:
        await step()
        if await chance() and await chance():
            raise AgentUnreachable(path)

    async def _agent_answer(self, path: str) -> None:
        assert len(self.site.holders("uid-t")) <= 1, self.site.holders("uid-t")
        if await chance() and await chance():
            raise AgentUnreachable(path)

    async def replica(self, term: int, turns: int) -> None:
        """As the reconciler does: look, wait a while, act on what was seen."""
        hands = self.site.replica(term)
        for _ in range(turns):
            task = self.site.task()
            where = self.site.agents.get(task.status.pod or "")
            pods = {name: self.site.pod(name) for name in self.site.agents}
            await step()
            with suppress(*ERRORS):
                if task.queued:
                    await hands.assign(task, pods["p1" if await chance() else "p2"])
                elif where is not None and not task.final:
                    await self._act(hands, task, where)

    async def _act(self, hands: DispatchReplica, task: Task, where: MachineAgent) -> None:
        pod = self.site.pod(where.pod)
        match next_action(task, Whereabouts(pod=pod), lock_held=True, now=MOMENT):
            case Acquire():
                await hands.ask_again(task, pod)
            case Follow():
                await hands.follow(task, pod)

    async def room(self) -> None:
        """A slot falls idle in the full Pod."""
        await step()
        self.site.agents["p1"].execute(slots.Hold(call=Event.RELEASE, slot=0, task_id="other.2", fence=3))

    def check(self) -> None:
        assert len(self.site.holders("uid-t")) <= 1


@pytest.mark.parametrize("kind", ["plan", "plan_and_apply", "apply"])
@pytest.mark.parametrize("seed", range(3))
def test_no_task_is_ever_in_two_slots(kind: str, seed: int) -> None:
    """T19, T20, T28: two replicas on old views, lost answers and refusals, in random orders."""

    def make() -> Scenario:
        shuffle = Shuffle(kind)
        actors = {"one": shuffle.replica(1, 4), "two": shuffle.replica(2, 4), "room": shuffle.room()}
        return Scenario(actors, shuffle.check)

    sample(make, 400, seed)


@pytest.mark.parametrize("seed", range(2))
def test_a_lock_has_one_holder(seed: int) -> None:
    """Over takes and releases of three tasks with lost answers: whoever went on was the holder."""
    going: set[str] = set()

    async def use(site: DispatchSite, replica: DispatchReplica, name: str) -> None:
        for _ in range(2):
            with suppress(*ERRORS):
                if await replica.locks.take(site.task(name)):
                    assert not going, f"{name} beside {going}"
                    going.add(name)
                    await step()
                    going.discard(name)
                    await let_go(replica, site.task(name))

    def make() -> Scenario:
        going.clear()
        site = DispatchSite()

        async def pause(verb: str, resource: Resource, name: str) -> None:
            del verb, resource, name
            await step()

        async def lose(verb: str, resource: Resource, name: str) -> None:
            del resource, name
            if verb != "get" and await chance() and await chance():
                raise ApiUnavailable("lost")

        site.api.before, site.api.after = pause, lose
        for name in "abc":
            site.add(name, lockKey="vpc")
        return Scenario({name: use(site, site.replica(), name) for name in "abc"}, lambda: None)

    sample(make, 400, seed)


def test_a_lock_that_is_gone_already_leaves_the_cache() -> None:
    """B1: or it would be released again for ever, and hold up the next in line."""
    site = DispatchSite()
    replica = site.replica()
    task = site.add(lockKey="vpc")
    run(replica.locks.take(task))
    site.api.remove(LEASES, NS, names.lock_lease("vpc"))
    run(let_go(replica, task))
    assert replica.locks.holder(NS, "vpc") is None


@pytest.mark.parametrize("spec", [{}, {"holderIdentity": ""}, {"holderIdentity": None}, None], ids=str)
def test_a_lock_that_names_no_holder_is_free(spec: Any) -> None:
    """As leader elections release theirs. It was asked for again and again, and its task waited without a word."""
    site = DispatchSite()
    name = names.lock_lease("vpc")
    site.api.put(LEASES, {"metadata": {"name": name, "namespace": NS, "uid": "l"}, "spec": spec})
    replica, other = site.replica(), site.replica(2)
    first, second = site.add("a", lockKey="vpc"), site.add("b", lockKey="vpc")
    assert replica.locks.holder(NS, "vpc") is None
    assert run(replica.locks.take(first))
    assert not run(other.locks.take(second))
    assert site.lock("vpc") == "uid-a"
    assert names.LOCK_LABEL in site.api.objects[LEASES, NS, name]["metadata"]["labels"]
    run(let_go(replica, first))
    assert (LEASES, NS, name) not in site.api.objects


@pytest.mark.parametrize("holder", ["uid-a", "somebody"])
def test_a_lease_without_the_label_is_no_lock(holder: str) -> None:
    """A stranger made it before the first task came, whoever it names. Nothing keeps that stranger from deleting it."""
    site = DispatchSite()
    replica = site.replica()
    name = names.lock_lease("vpc")
    spec = {"holderIdentity": holder}
    site.api.put(LEASES, {"metadata": {"name": name, "namespace": NS, "uid": "l"}, "spec": spec})
    assert run(replica.locks.take(site.add("a", lockKey="vpc")))
    assert site.lock("vpc") == "uid-a"
    assert site.api.objects[LEASES, NS, name]["metadata"]["labels"] == {names.LOCK_LABEL: "true"}
    assert replica.locks.holder(NS, "vpc") == "uid-a"


def test_a_lease_that_is_taken_over_goes_with_no_owner_and_stays_for_no_finalizer() -> None:
    """Else the garbage collector takes the lock away with what a stranger made it for, while the task runs."""
    site = DispatchSite()
    replica = site.replica()
    strange = {"ownerReferences": [{"kind": "ConfigMap", "name": "c", "uid": "u"}], "finalizers": ["example.com/kept"]}
    site.api.put(LEASES, {"metadata": {"name": names.lock_lease("vpc"), "namespace": NS, "uid": "l", **strange}})
    assert run(replica.locks.take(site.add("a", lockKey="vpc")))
    assert not strange.keys() & site.api.objects[LEASES, NS, names.lock_lease("vpc")]["metadata"].keys()


def test_a_lease_on_its_way_out_is_no_lock() -> None:
    site = DispatchSite()
    replica = site.replica()
    going = {"deletionTimestamp": "2026-03-01T12:00:00Z", "finalizers": ["foregroundDeletion"]}
    site.api.put(LEASES, {"metadata": {"name": names.lock_lease("vpc"), "namespace": NS, "uid": "l", **going}})
    assert not run(replica.locks.take(site.add("a", lockKey="vpc")))


def test_a_lock_of_another_is_not_released() -> None:
    site = DispatchSite()
    replica = site.replica()
    run(replica.locks.take(site.add("a", lockKey="vpc")))
    run(let_go(replica, site.add("b", lockKey="vpc")))
    assert site.lock("vpc") == "uid-a"


# --- approval ---------------------------------------------------------------------------------------------------------


def test_an_approved_apply_resumes_in_its_own_slot_when_all_are_taken() -> None:
    """T2, T8, T9: no free slot is looked for; the reservation ends as the apply begins."""
    site = DispatchSite()
    task = waiting(site, approval=APPROVAL)
    slot = site.agent.state.slots[task.status.slot or 0]
    assert slot.expires_at is not None
    assert task.status.expires_at == slot.expires_at
    for number in range(2):
        site.agent.execute(slots.Acquire(task_id=f"other.{number}", task_type="plan"))
    run(site.replica().approve(task))
    after = site.agent.state.slots[slot.id]
    assert (after.task_id, after.state, after.step, after.expires_at) == (
        "uid-t.1",
        SlotState.RUNNING,
        Step.APPLY,
        None,
    )
    status = site.task().status
    assert (status.phase, status.step, status.expires_at) == (TaskPhase.RUNNING, Step.APPLY, None)


def test_the_intent_of_an_apply_is_written_before_its_agent_hears_of_it() -> None:
    """T10, T11: whoever takes over in between lets it go, and nobody else does."""
    site = DispatchSite()
    task = waiting(site, approval=APPROVAL)
    seen: list[Any] = []

    async def asked(path: str) -> None:
        status = site.task().status
        said = next(item for item in status.conditions if item.type == APPROVED)
        seen.append((path, status.phase, status.step, said.status, "anna" in said.message))
        raise AgentUnreachable("the leader dies here")

    site.agent.before = asked
    with pytest.raises(AgentUnreachable):
        run(site.replica().approve(task))
    assert seen == [("/tasks/uid-t.1/approve", TaskPhase.RUNNING, Step.APPLY, "True", True)]
    site.agent.before = MachineAgent("p").before
    where = Whereabouts(pod=site.pod())
    assert next_action(site.task(), where, lock_held=True, now=MOMENT) == Approve()
    run(site.replica(2).approve(site.task()))
    run(site.replica(2).approve(site.task()))
    assert site.agent.applies == ["uid-t.1"]


def test_a_former_leader_does_not_call_an_apply_back() -> None:
    """T10: what it read before the approval, and writes after, comes too late."""
    site = DispatchSite()
    placed(site, approval=APPROVAL)
    site.agent.finish("uid-t.1")
    old = site.task()
    run(site.replica(2).follow(site.task()))
    run(site.replica(2).approve(site.task()))
    with pytest.raises(Conflict):
        run(site.replica(1).follow(old))
    assert site.task().status.step is Step.APPLY


def test_an_approval_whose_message_is_on_its_way_stays_written() -> None:
    """T10: an agent that still reports the reservation does not turn the intent back."""
    site = DispatchSite()
    task = waiting(site, approval=APPROVAL)

    async def lost(path: str) -> None:
        raise AgentUnreachable(path)

    site.agent.before = lost
    with pytest.raises(AgentUnreachable):
        run(site.replica().approve(task))
    site.agent.before = MachineAgent("p").before
    version = site.task().resource_version
    run(site.replica().follow(site.task()))
    assert site.task().resource_version == version


def test_the_agent_refuses_an_approval_of_another_plan() -> None:
    """T10: even where status and approval agree on it."""
    site = DispatchSite()
    task = waiting(site, approval=APPROVAL)
    other = replace(task, status=replace(task.status, plan_digest="sha256:bb"))
    with pytest.raises(AgentRefused, match="digest_mismatch"):
        run(site.replica().approve(other))
    assert site.agent.applies == []


# --- ends -------------------------------------------------------------------------------------------------------------


def test_a_result_is_stored_before_the_agent_may_forget_it() -> None:
    """T21: with exit codes, times and the end of the output."""
    site = DispatchSite()
    task = placed(site, "plan")
    site.agent.finish("uid-t.1")
    seen: list[Any] = []

    async def asked(path: str) -> None:
        if path.endswith("/ack"):
            status = site.task().status
            seen.append((status.phase, status.plan.exit_code if status.plan else None, status.finished_at))

    site.agent.before = asked
    run(site.replica().follow(task))
    assert seen == [(TaskPhase.SUCCEEDED, 0, MOMENT)]
    assert site.agent.state.tasks == {}


@pytest.mark.parametrize(
    ("outcome", "phase"),
    [
        (Outcome.SUCCEEDED, TaskPhase.SUCCEEDED),
        (Outcome.FAILED, TaskPhase.FAILED),
        (Outcome.CANCELLED, TaskPhase.CANCELLED),
        (Outcome.LOST, TaskPhase.LOST),
    ],
)
def test_an_outcome_becomes_the_final_phase(outcome: Outcome, phase: TaskPhase) -> None:
    """An apply that is lost is never tried again."""
    site = DispatchSite()
    task = placed(site, "apply")
    site.agent.finish("uid-t.1", outcome)
    run(site.replica().follow(task))
    assert site.phase() is phase
    assert site.task().status.attempt == 1


def test_a_lost_plan_is_planned_again_until_its_attempts_are_used_up() -> None:
    """T28: as the next attempt, one at a time, with nothing left of the one before."""
    site = DispatchSite()
    replica = site.replica()
    run(replica.assign(site.add(kind="plan", retry={"planMaxAttempts": 2})))
    site.agent.start("uid-t.1")
    site.agent.finish("uid-t.1", Outcome.LOST)
    run(replica.follow(site.task()))
    status = site.task().status
    assert (status.phase, status.attempt, status.pod, status.step, status.plan) == (
        TaskPhase.QUEUED,
        2,
        None,
        None,
        None,
    )
    run(replica.assign(site.task()))
    site.agent.start("uid-t.2")
    site.agent.finish("uid-t.2", Outcome.LOST)
    run(replica.follow(site.task()))
    assert site.phase() is TaskPhase.LOST


def test_a_final_phase_is_never_written_over() -> None:
    """T23: a late report meets a version that has moved."""
    site = DispatchSite()
    task = placed(site, "plan")
    late = site.replica(1)
    site.agent.finish("uid-t.1", Outcome.FAILED)
    run(site.replica(2).follow(task))
    assert site.phase() is TaskPhase.FAILED
    for operation in (late.follow, late.cancel, late.ask_again, late.approve):
        with suppress(*ERRORS):
            run(operation(task))
    assert site.phase() is TaskPhase.FAILED


def test_an_expired_reservation_ends_the_task() -> None:
    site = DispatchSite()
    task = waiting(site)
    site.agent.now = task.status.expires_at or MOMENT
    site.agent.execute(ExpireTasks())
    run(site.replica().follow(task))
    assert site.phase() is TaskPhase.EXPIRED


def test_an_agent_that_lost_its_journal_is_not_believed_before_its_workers_spoke() -> None:
    """T7, T28: they may bring the very task that it doesn't know; started anew, it would run twice."""
    site = DispatchSite()
    task = placed(site, "plan")
    site.agent.restart("j", lost=True)
    with pytest.raises(AgentRefused, match="not_ready"):
        run(site.replica().follow(task))
    assert site.phase() is TaskPhase.RUNNING
    cancelled = site.edit(cancel=True)
    with pytest.raises(AgentRefused, match="not_ready"):
        run(site.replica().cancel(cancelled))
    assert not site.task().final
    site.agent.state = replace(site.agent.state, recovering=())  # each has said that it has nothing
    run(site.replica().follow(site.task()))
    assert site.phase() is TaskPhase.LOST, "cancelled, so not tried again"


# --- cancel and orphans -----------------------------------------------------------------------------------------------


def test_a_cancel_reaches_the_agent_and_is_written_down() -> None:
    """T24."""
    site = DispatchSite()
    task = placed(site, "plan", cancel=True)
    run(site.replica().cancel(task))
    assert site.agent.state.tasks["uid-t.1"].cancel_requested
    assert cancelling(site.task(), site.pod())
    site.agent.finish("uid-t.1", Outcome.CANCELLED)
    run(site.replica().follow(site.task()))
    assert site.phase() is TaskPhase.CANCELLED
    assert site.agent.held == {}


def test_a_cancelled_task_says_that_it_was_cancelled_and_not_that_it_failed() -> None:
    """A cancel is what somebody asked for: its Event is no warning."""
    site = DispatchSite()
    replica = site.replica()
    run(replica.cancel(placed(site, "plan", cancel=True)))
    site.agent.finish("uid-t.1", Outcome.CANCELLED)
    run(replica.follow(site.task()))
    conditions = {found.type: found for found in site.task().status.conditions}
    assert "Failed" not in conditions
    assert (conditions["Cancelled"].status, conditions["Cancelled"].reason) == ("True", "Cancelled")
    assert conditions["Cancelled"].message.startswith("The task was cancelled")
    assert (conditions["Cancelling"].status, conditions["Cancelling"].message) == ("False", "The task has ended.")
    [said] = [told for told in replica.events.recent.newest_first() if told.reason == "Cancelled"]
    assert not said.warning
    assert "The task was cancelled" in said.message


def test_a_cancelled_task_that_its_agent_never_got_can_not_get_there_any_more() -> None:
    """T24: the acquire that was on its way is older than the cancel."""
    site = DispatchSite()
    replica = site.replica()
    delayed: list[tuple[str, bytes | None]] = []
    deliver = site.agent.deliver

    def hold(method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        if path == "/slots/acquire":
            delayed.append((path, body))
            raise AgentUnreachable("on its way")
        return deliver(method, path, body)

    site.agent.deliver = hold  # type: ignore[method-assign]
    with pytest.raises(AgentUnreachable):
        run(replica.assign(site.add(cancel=True)))
    run(replica.cancel(site.task()))
    assert site.phase() is TaskPhase.CANCELLED
    status, answer = deliver("POST", *delayed[0])
    assert (status, b"stale" in answer) == (409, True)
    assert site.agent.held == {}


def test_an_orphan_is_ended_and_acknowledged() -> None:
    """B1: a task whose object somebody removed with its finalizer frees its slot."""
    site = DispatchSite()
    placed(site, "plan")
    site.api.remove(SLOTTASKS, NS, "t")
    run(site.replica().settle_orphan("uid-t.1"))
    assert site.agent.state.tasks["uid-t.1"].cancel_requested
    site.agent.finish("uid-t.1", Outcome.CANCELLED)
    run(site.replica().settle_orphan("uid-t.1"))
    assert site.agent.state.tasks == {}


def test_an_orphaned_apply_is_waited_for() -> None:
    site = DispatchSite()
    placed(site, "apply")
    site.api.remove(SLOTTASKS, NS, "t")
    run(site.replica().settle_orphan("uid-t.1"))
    assert not site.agent.state.tasks["uid-t.1"].cancel_requested


def test_a_task_that_a_live_read_finds_is_no_orphan() -> None:
    """T7: the cache may be older than the agent's report."""
    site = DispatchSite()
    placed(site, "plan")
    run(site.replica().settle_orphan("uid-t.1"))
    assert not site.agent.state.tasks["uid-t.1"].cancel_requested


def test_a_task_that_ended_elsewhere_is_ended_here() -> None:
    """T24: a final task is never left running by an agent that lost its journal and got it back."""
    site = DispatchSite()
    task = placed(site, "plan")
    document = {"metadata": {"resourceVersion": task.resource_version}, "status": {"phase": "Cancelled"}}
    run(site.api.patch(SLOTTASKS, NS, "t", document, subresource="status"))
    run(site.replica().settle_orphan("uid-t.1"))
    assert site.agent.state.tasks["uid-t.1"].cancel_requested


def test_a_slot_that_somebody_took_by_hand_is_left_alone() -> None:
    """It has no work, so there is nothing to ask about and nothing to end."""
    site = DispatchSite()
    site.agent.execute(slots.Acquire(task_id="by-hand.1", task_type="plan", origin=Origin.CONTROLLER))
    run(site.replica().settle_orphan("by-hand.1"))
    assert site.agent.held == {"by-hand.1": SlotState.RUNNING}


def test_a_task_does_not_go_without_its_lock() -> None:
    """Even where the cache does not show it: nobody could tell then which task held it. A lost apply's stays."""
    for phase, freed in ((TaskPhase.SUCCEEDED, True), (TaskPhase.LOST, False)):
        site = DispatchSite()
        run(site.replica().locks.take(site.add(kind="apply", lockKey="vpc")))
        status = {"phase": phase.value, "step": "apply", "attempt": 1}
        run(site.api.patch(SLOTTASKS, NS, "t", {"status": status}, subresource="status"))
        run(site.replica().writer.remove_finalizer(EndedTask.of(site.task())))
        assert site.task().finalizers == ()
        assert (site.lock("vpc") is None) is freed


# --- what the plan found --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plan", "plan_and_apply"])
def test_a_plan_that_finds_nothing_to_change_ends_its_task_and_says_so(kind: str) -> None:
    """With `outputs` asked for: of a plan_and_apply nothing is handed over, and nothing is wrong with that."""
    site = DispatchSite()
    asked = {"outputs": {"path": "o.json", "secretName": "o"}} if kind == "plan_and_apply" else {}
    placed(site, kind, **asked)
    site.agent.finish("uid-t.1", changed=False)
    run(site.replica().follow(site.task()))
    status = site.task().status
    assert (status.phase, status.changed) == (TaskPhase.SUCCEEDED, False)
    said = find(status.conditions, "Changed")
    assert said is not None
    assert (said.status, said.reason) == ("False", "NoChanges")
    if kind == "plan_and_apply":
        assert (status.reason, status.message) == ("NoChanges", "the plan found nothing to change")


def test_a_plan_that_finds_changes_says_so_while_it_waits_and_after() -> None:
    site = DispatchSite()
    placed(site)
    site.agent.finish("uid-t.1", changed=True)
    replica = site.replica()
    run(replica.follow(site.task()))
    for phase in (TaskPhase.AWAITING_APPROVAL, TaskPhase.SUCCEEDED):
        status = site.task().status
        said = find(status.conditions, "Changed")
        assert said is not None
        assert (status.phase, status.changed, said.status, said.reason) == (phase, True, "True", "ChangesFound")
        if phase is TaskPhase.AWAITING_APPROVAL:
            site.edit(approval=APPROVAL)
            run(replica.approve(site.task()))
            site.agent.start("uid-t.1")
            site.agent.finish("uid-t.1")
            run(replica.follow(site.task()))


def test_what_an_earlier_attempt_found_is_not_said_of_the_next() -> None:
    site = DispatchSite()
    placed(site, onLostReservation="Replan")
    site.agent.finish("uid-t.1", changed=True)
    replica = site.replica()
    run(replica.follow(site.task()))
    run(replica.writer.retry(site.task(), Retry("PodLost", "gone")))
    status = site.task().status
    assert (status.attempt, status.changed, find(status.conditions, "Changed")) == (2, None, None)


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plan", "plan_and_apply"])
def test_a_step_that_was_lost_as_memory_ran_out_says_so(kind: str) -> None:
    """Where the whole container was killed its worker can't say why: its Pod's status does."""
    site = DispatchSite()
    placed(site, kind, retry={"planMaxAttempts": 1})
    worker = {"name": "worker-0", "resources": {"limits": {"memory": "512Mi"}}}
    slot = site.agent.state.tasks["uid-t.1"].slot
    killed = {"reason": "OOMKilled", "exitCode": 137, "finishedAt": MOMENT.isoformat()}
    pod = {
        "metadata": {"name": "p", "namespace": NS, "uid": "uid-p"},
        "spec": {"containers": [{**worker, "name": f"worker-{slot}"}]},
        "status": {"containerStatuses": [{"name": f"worker-{slot}", "lastState": {"terminated": killed}}]},
    }
    site.api.put(PODS, pod)
    site.agent.finish("uid-t.1", Outcome.LOST)
    run(site.replica().follow(site.task()))
    status = site.task().status
    assert status.phase is TaskPhase.LOST
    assert f"memory ran out (limit 512Mi): container worker-{slot} was killed" in str(status.message)


# --- the object -------------------------------------------------------------------------------------------------------


def test_a_task_that_is_gone_already_leaves_the_cache() -> None:
    """B1: or it would be deleted again for ever."""
    site = DispatchSite()
    replica = site.replica()
    task = site.add()
    replica.tasks.note(site.api.objects[SLOTTASKS, NS, "t"])
    site.api.remove(SLOTTASKS, NS, "t")
    run(replica.writer.delete(EndedTask.of(task)))
    assert replica.tasks.get(NS, "t") is None


def test_saying_nothing_new_writes_nothing() -> None:
    site = DispatchSite()
    task = placed(site, "plan")
    version = site.api.version
    run(site.replica().follow(task))
    assert site.api.version == version


def test_an_assignment_from_before_a_lock_was_given_up_comes_too_late() -> None:
    """A late write of a former leader names a version that is not the present one any more."""
    site = DispatchSite()
    task = site.add(lockKey="vpc")
    run(site.replica().locks.take(task))
    run(site.replica().writer.words.say_not_accepted(task, "UnknownTaskType", "no slot takes it"))
    refused = site.task()
    run(site.replica(2).writer.words.give_up_lock(refused))
    assert site.lock("vpc") is None
    with pytest.raises(Conflict):
        run(site.replica().assign(refused))
    assert site.phase() is TaskPhase.QUEUED
    assert site.holders("uid-t") == []


def test_finalizers_of_others_are_kept() -> None:
    site = DispatchSite()
    replica = site.replica()
    document = site.api.objects[SLOTTASKS, NS, site.add().name]
    document["metadata"]["finalizers"] = ["other/one", names.TASK_FINALIZER]
    task = Task.parse(site.api.put(SLOTTASKS, document))
    run(replica.writer.remove_finalizer(EndedTask.of(task)))
    assert site.task().finalizers == ("other/one",)
    run(replica.writer.add_finalizer(site.task()))
    assert site.task().finalizers == ("other/one", names.TASK_FINALIZER)


@pytest.mark.parametrize("cancel", [False, True])
def test_a_task_that_can_not_be_read_says_why_and_can_be_cancelled(cancel: bool) -> None:
    """Its definition should have refused it; where that did not, nobody would ever know."""
    site = DispatchSite()
    task = site.add("a", cancel=cancel)
    site.api.put(SLOTTASKS, broken := {**site.api.all(SLOTTASKS)[NS, "a"], "spec": {"pool": "pool", "cancel": cancel}})
    del broken
    obj = site.api.all(SLOTTASKS)[NS, "a"]
    problem = unsaid(obj, "spec.type: is required")
    assert problem == "spec.type: is required"
    replica = site.replica()
    run(replica.locks.take(site.add("b", lockKey="vpc")))
    run(replica.locks.take(replace(task, spec=replace(task.spec, lock_key="dns"))))
    run(replica.writer.words.say_unreadable(obj, problem))
    assert (site.lock("dns"), site.lock("vpc")) == (None, "uid-b"), "what can't run holds no lock"
    status = site.api.all(SLOTTASKS)[NS, "a"]["status"]
    assert status["phase"] == ("Cancelled" if cancel else "Queued")
    assert [entry["message"] for entry in status["conditions"] if entry["type"] == "Accepted"] == [problem]
    assert any(entry["type"] == "Cancelled" for entry in status["conditions"]) == cancel
    if not cancel:
        assert unsaid(site.api.all(SLOTTASKS)[NS, "a"], problem) is None, "once"
    assert task.uid == obj["metadata"]["uid"]


def read_status(site: DispatchSite) -> dict[str, Any]:
    """The status as kubectl's columns read it."""
    found: dict[str, Any] = site.api.objects[SLOTTASKS, NS, "t"]["status"]
    return found


def test_a_task_that_waits_says_its_phase_and_for_what_from_the_first_word_on() -> None:
    """The phase is Queued by default: a write of what has changed alone would never write it."""
    site = DispatchSite()
    words = site.replica().writer.words
    run(words.say_not_accepted(site.add(), "PoolNotFound", "there is no SlotPool"))
    assert (read_status(site)["phase"], read_status(site)["queuedReason"]) == ("Queued", "there is no SlotPool")
    run(words.say_accepted(site.task()))
    assert read_status(site)["phase"] == "Queued"
    assert read_status(site).get("queuedReason") is None
    run(words.say_waiting(site.task(), "for a slot"))
    assert read_status(site)["queuedReason"] == "for a slot"
    run(site.replica().writer.finish(site.task(), Finish(TaskPhase.CANCELLED, "Cancelled", "before it was assigned")))
    assert read_status(site).get("queuedReason") is None


UNREADABLE = {"files": {"/etc/passwd": ""}}


@pytest.mark.parametrize("kind", ["plan", "apply"])
def test_what_an_agent_has_of_a_task_that_can_not_be_read_is_left_to_it(kind: str) -> None:
    """Nothing is concluded, and nothing fails: it is no orphan, or it may be none."""
    site = DispatchSite()
    placed(site, kind)
    site.api.put(SLOTTASKS, {**site.api.objects[SLOTTASKS, NS, "t"], "spec": {"pool": "pool", **UNREADABLE}})
    run(site.replica().settle_orphan("uid-t.1"))
    assert not site.agent.state.tasks["uid-t.1"].cancel_requested
    site.agent.finish("uid-t.1")
    run(site.replica().settle_orphan("uid-t.1"))
    assert "uid-t.1" in site.agent.state.tasks, "its result is nowhere else"


def test_the_stored_result_of_a_task_that_can_not_be_read_any_more_is_acknowledged() -> None:
    site = DispatchSite()
    placed(site, "plan")
    site.agent.finish("uid-t.1")
    document = site.api.objects[SLOTTASKS, NS, "t"]
    status = {**document["status"], "phase": "Succeeded"}
    site.api.put(SLOTTASKS, {**document, "spec": {"pool": "pool", **UNREADABLE}, "status": status})
    run(site.replica().settle_orphan("uid-t.1"))
    assert site.agent.state.tasks == {}
