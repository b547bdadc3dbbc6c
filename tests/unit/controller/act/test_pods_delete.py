"""Pods are opened and deleted by writes in an order that no other replica can get between. Every order is tried.

The replicas here have no Lease: the order of the writes alone has to do, for a leader that was paused may go on with
one that it decided on long ago.
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from agent.errors import Refusal
from agent.rules import slots
from agent.wire import Origin, Outcome, Phase, Steps, StepSpec, Work
from controller import names
from controller.act.pods import Pods
from controller.agents.client import AgentClient, Stamps
from controller.decide.death import death_proof
from controller.decide.view import PodState, PodView
from controller.errors import AgentRefused, AgentUnreachable, ApiUnavailable, Conflict, NotFound, NotLeader
from controller.kube.api import PODS, Object, Resource
from controller.kube.cache import Cache
from controller.kube.leading import LeadersApi
from tests.support import virtual_time
from tests.support.interleave import Scenario, chance, explore, sample, step
from tests.support.machine_agent import MOMENT, GuardedStamps, MachineAgent
from tests.support.memory_api import MemoryApi

NS = "ns"
ERRORS = (AgentRefused, AgentUnreachable, ApiUnavailable, Conflict, NotFound)
WORK = Work(name="ns/t", attempt=1, steps=Steps(plan=StepSpec(command=("true",))))


class Site:
    """One Pod, its agent, and the rule that must hold whenever it is deleted."""

    def __init__(self, *, state: str = "active", opened: bool = True, lossy: bool = False) -> None:
        self.api = MemoryApi()
        self.agent = MachineAgent("p")
        if opened:
            self.agent.execute(slots.Open(drain_id="born"))
        self.lossy = lossy
        self.api.before = self._api_step
        self.api.after = self._api_answer
        self.agent.before = self._agent_step
        self.agent.after = self._agent_answer
        self.deletions = 0
        self.api.put(
            PODS,
            {
                "metadata": {
                    "name": "p",
                    "namespace": NS,
                    "uid": self.agent.uid,
                    "creationTimestamp": "2026-03-01T12:00:00Z",
                    "labels": {names.POOL_LABEL: "pool", names.STATE_LABEL: state},
                    "annotations": {},
                    "finalizers": ["kubelet"],  # it lingers as long as its processes do
                },
                "spec": {"containers": [{"name": "worker-0"}]},
                "status": {"phase": "Running"},
            },
        )
        put = self.api.put

        def checked(resource: Resource, obj: Object) -> Object:
            stored = put(resource, obj)
            if obj["metadata"].get("deletionTimestamp"):
                self.deletions += 1
                assert self.agent.may_be_deleted, "deleted while it was open, or held something"
            return stored

        self.api.put = checked  # type: ignore[method-assign]

    async def _api_step(self, verb: str, resource: Resource, name: str) -> None:
        del verb, resource, name
        await step()

    async def _api_answer(self, verb: str, resource: Resource, name: str) -> None:
        del resource, name
        if self.lossy and verb != "get" and await chance():
            raise ApiUnavailable("the answer was lost")

    async def _agent_step(self, path: str) -> None:
        del path
        await step()

    async def _agent_answer(self, path: str) -> None:
        if path == "/open" and self.agent.view().phase is Phase.OPEN:
            assert names.POD_FINALIZER in self.pod["metadata"]["finalizers"], "opened without our finalizer"
        if self.lossy and await chance():
            raise AgentUnreachable("the answer was lost")

    @property
    def pod(self) -> Object:
        return self.api.objects[PODS, NS, "p"]

    @property
    def deleted(self) -> bool:
        return "deletionTimestamp" in self.pod["metadata"]

    def view(self) -> PodView:
        """What a replica knows now. It may act on it much later."""
        metadata = self.pod["metadata"]
        return PodView(
            name="p",
            uid=metadata["uid"],
            resource_version=metadata["resourceVersion"],
            state=PodState(metadata["labels"][names.STATE_LABEL]),
            created=MOMENT,
            running=True,
            ready=True,
            agent=self.agent.view(),
            connected=True,
            tracked=names.POD_FINALIZER in metadata["finalizers"],
        )

    def check(self) -> None:
        if self.deleted:
            assert self.agent.may_be_deleted, "opened, or given work, after it was deleted"


class Replica:
    """One controller's hands, with a cache of its own."""

    def __init__(self, site: Site, term: int, may_write: Callable[[], None] = lambda: None) -> None:
        self.site = site
        stamps = GuardedStamps(Stamps(lambda: term), may_write)
        self.client: AgentClient = site.agent.client(stamps=stamps)
        self.cache = Cache(PODS)
        self.cache.note(site.pod)
        self.pods = Pods(LeadersApi(site.api, may_write), self.cache, rng=random.Random(term))

    async def delete(self, times: int = 1) -> None:
        view = self.site.view()
        for _ in range(times):
            with suppress(*ERRORS):
                await self.pods.drain_and_delete(view, NS, self.client)

    async def delete_starting(self) -> None:
        view = self.site.view()
        with suppress(*ERRORS):
            await self.pods.delete_starting(view, NS)

    async def open_and_use(self, task: str, times: int = 1) -> None:
        """Open it on what is known at one moment, then give it work on that."""
        for turn in range(times):
            await step()
            view = self.site.view()
            with suppress(*ERRORS):
                await self.pods.open(view, NS, self.client)
                assert view.agent
                await self.client.acquire(view.agent.incarnation, f"{task}.{turn}", "plan", WORK)


async def _local(site: Site) -> None:
    """A program in the Pod takes a slot by itself."""
    await step()
    with suppress(Refusal):
        command = slots.Acquire(task_id="local", task_type="plan", origin=Origin.LOCAL)
        site.agent.execute(command)


async def _person(site: Site) -> None:
    """Somebody edits the Pod: its version moves."""
    await step()
    site.api.put(PODS, {**site.pod, "status": {"phase": "Running", "message": "edited"}})


@pytest.mark.long
def test_a_delete_against_an_open_in_every_order() -> None:
    """T1, R1, A1: the second of the two to write fails, or stops; a busy Pod is never deleted."""
    ends = set()

    def make() -> Scenario:
        site = Site()
        deleter, opener = Replica(site, 1), Replica(site, 2)

        def check() -> None:
            site.check()
            ends.add((site.deleted, bool(site.agent.held)))

        return Scenario({"delete": deleter.delete(), "open": opener.open_and_use("t", times=2)}, check)

    assert explore(make) > 1000
    assert ends >= {(True, False), (False, True)}, "each of them wins in some order"
    assert (True, True) not in ends, "and never both; where both have lost, each looks again"


def test_a_delete_by_the_newer_leader_against_an_open_by_the_older() -> None:
    """T1: stamps stop what an older leader sends later; the order of writes does the rest."""

    def make() -> Scenario:
        site = Site(state="draining", opened=False)
        site.agent.execute(slots.Drain(drain_id="d0"))
        deleter, opener = Replica(site, 2), Replica(site, 1)
        return Scenario({"delete": deleter.delete(times=2), "open": opener.open_and_use("t")}, site.check)

    assert explore(make) > 500


def test_a_delete_against_an_open_with_lost_answers() -> None:
    """T1, T3: every answer may be lost after its effect, and the replica that missed it tries again."""

    def make() -> Scenario:
        site = Site(lossy=True)
        deleter, opener = Replica(site, 1), Replica(site, 2)
        actors = {"delete": deleter.delete(times=2), "open": opener.open_and_use("t", times=2)}
        return Scenario(actors, site.check)

    sample(make, 3000)


@pytest.mark.parametrize("seed", range(4))
def test_two_deletes_an_open_a_local_holder_and_an_edit(seed: int) -> None:
    """T1, O1: a mix of everybody who may touch a Pod, in random orders."""

    def make() -> Scenario:
        site = Site(lossy=seed % 2 == 1)
        actors = {
            "delete-1": Replica(site, 1).delete(times=2),
            "delete-2": Replica(site, 2).delete(),
            "open": Replica(site, 3).open_and_use("t", times=2),
            "local": _local(site),
            "edit": _person(site),
        }
        return Scenario(actors, site.check)

    sample(make, 700, seed)


def test_a_starting_pod_is_deleted_or_opened_and_never_both() -> None:
    """D2: without a question to the agent, for opening it would have moved its version."""
    ends = set()

    def make() -> Scenario:
        site = Site(state="starting", opened=False)

        def check() -> None:
            site.check()
            ends.add((site.deleted, site.agent.state.phase))

        deleter, opener = Replica(site, 1), Replica(site, 2)
        return Scenario({"delete": deleter.delete_starting(), "open": opener.open_and_use("t")}, check)

    explore(make)
    assert (True, Phase.DRAINED) in ends
    assert (False, Phase.OPEN) in ends
    assert (True, Phase.OPEN) not in ends


# --- single cases -----------------------------------------------------------------------------------------------------


def _run(coroutine: Any) -> Any:
    """Run one coroutine to its end."""
    while True:
        try:
            coroutine.send(None)
        except StopIteration as end:
            return end.value


def test_the_agent_confirms_the_drain_after_the_label_and_before_the_delete() -> None:
    site = Site()
    replica = Replica(site, 1)
    assert _run(replica.pods.drain_and_delete(site.view(), NS, replica.client)) is True
    assert [verb for verb, _ in site.api.calls] == ["get", "patch", "delete"]
    drains = [body for path, body in site.agent.requests if path == "/drain"]
    assert len(drains) == 2
    assert drains[0]["drain_id"] == drains[1]["drain_id"] == site.pod["metadata"]["annotations"][names.DRAIN_ID]
    assert site.pod["metadata"]["labels"][names.STATE_LABEL] == PodState.DRAINING
    assert site.deleted


def test_a_busy_pod_stays_as_it_is() -> None:
    """R1: the drain is refused, and nothing was written."""
    site = Site()
    site.agent.execute(slots.Acquire(task_id="t.1", task_type="plan", work=WORK))
    version = site.pod["metadata"]["resourceVersion"]
    replica = Replica(site, 1)
    assert _run(replica.pods.drain_and_delete(site.view(), NS, replica.client)) is False
    assert site.pod["metadata"]["resourceVersion"] == version
    assert site.agent.state.phase is Phase.OPEN


def test_an_ended_task_that_nobody_acknowledged_keeps_its_pod() -> None:
    site = Site()
    site.agent.execute(slots.Acquire(task_id="t.1", task_type="plan", work=WORK))
    site.agent.start("t.1")
    site.agent.finish("t.1", Outcome.FAILED)
    replica = Replica(site, 1)
    assert _run(replica.pods.drain_and_delete(site.view(), NS, replica.client)) is False
    assert not site.deleted


def test_a_busy_pod_that_is_labelled_draining_gets_its_protection_back() -> None:
    """O1: a label that somebody edited, or that outlived a lost journal, is put right before anything else."""
    site = Site(state="draining")
    site.agent.execute(slots.Acquire(task_id="t.1", task_type="plan", work=WORK))
    replica = Replica(site, 1)
    assert _run(replica.pods.drain_and_delete(site.view(), NS, replica.client)) is False
    assert site.pod["metadata"]["labels"][names.STATE_LABEL] == PodState.ACTIVE
    assert site.pod["metadata"]["finalizers"] == ["kubelet", names.POD_FINALIZER]


def test_a_pod_whose_finalizer_went_after_it_was_looked_at_gets_it_back_before_it_is_opened() -> None:
    """N5: another replica has drained it meanwhile, and its label says so: what was known of it is old."""
    site = Site()
    site.agent.execute(slots.Drain(drain_id="d0"))
    site.api.put(PODS, {**site.pod, "metadata": {**site.pod["metadata"], "finalizers": [names.POD_FINALIZER]}})
    known = site.view()
    site.api.put(PODS, {**site.pod, "metadata": {**site.pod["metadata"], "finalizers": ["kubelet"]}})
    replica = Replica(site, 1)
    _run(replica.pods.open(known, NS, replica.client))
    assert site.pod["metadata"]["finalizers"] == ["kubelet", names.POD_FINALIZER]
    assert site.agent.view().phase is Phase.OPEN


def test_a_silent_agent_keeps_its_pod() -> None:
    """D1: no answer is no grant."""
    site = Site()

    async def silent(path: str) -> None:
        raise AgentUnreachable(path)

    site.agent.before = silent
    replica = Replica(site, 1)
    with pytest.raises(AgentUnreachable):
        _run(replica.pods.drain_and_delete(site.view(), NS, replica.client))
    assert not site.deleted


def test_an_agent_that_restarted_is_asked_anew() -> None:
    """T3: what was decided on an earlier start of the agent does not count."""
    site = Site()
    view = site.view()
    site.agent.restart("j")
    replica = Replica(site, 1)
    with pytest.raises(AgentRefused, match="restarted"):
        _run(replica.pods.drain_and_delete(view, NS, replica.client))
    assert not site.deleted


def test_each_round_of_a_delete_names_a_drain_of_its_own() -> None:
    """O1: or an open that takes back the first round's drain could take back a later one, already confirmed."""
    site = Site()
    rounds = 0

    async def edited(verb: str, resource: Resource, name: str) -> None:
        nonlocal rounds
        del resource, name
        if verb == "patch" and rounds < 2:
            rounds += 1
            site.api.put(PODS, {**site.pod, "status": {"phase": "Running", "message": str(rounds)}})

    site.api.before = edited
    replica = Replica(site, 1)
    assert _run(replica.pods.drain_and_delete(site.view(), NS, replica.client)) is True
    drains = [body["drain_id"] for path, body in site.agent.requests if path == "/drain"]
    assert len(set(drains)) == 3


def test_nothing_is_written_by_a_replica_that_does_not_lead() -> None:
    """T22: asked before every single write, so one that loses the Lease in between stops there."""
    for allowed in range(4):
        site = Site()
        left = [allowed]

        def may_write(left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise NotLeader("no")

        replica = Replica(site, 1, may_write)
        with pytest.raises(NotLeader):
            _run(replica.pods.drain_and_delete(site.view(), NS, replica.client))
        assert not site.deleted
        writes = len(site.agent.requests) + sum(verb != "get" for verb, _ in site.api.calls)
        assert writes == allowed


def test_another_pod_of_the_same_name_is_left_alone() -> None:
    site = Site()
    view = site.view()
    site.api.put = MemoryApi.put.__get__(site.api)  # type: ignore[method-assign]
    site.api.remove(PODS, NS, "p")
    site.api.put(PODS, {"metadata": {"name": "p", "namespace": NS, "uid": "other", "labels": {}}})
    replica = Replica(site, 1)
    assert _run(replica.pods.drain_and_delete(view, NS, replica.client)) is False
    assert _run(replica.pods.delete_starting(view, NS)) is False
    assert site.pod["metadata"]["uid"] == "other"
    assert not _run(replica.pods.exists(NS, "p", view.uid))


def test_a_dead_pod_is_judged_on_a_live_read() -> None:
    """T1: phase Failed over containers that may still run is no proof, whatever the cache said."""
    site = Site()
    site.agent.execute(slots.Acquire(task_id="t.1", task_type="plan", work=WORK))
    site.api.put(PODS, {**site.pod, "status": {"phase": "Failed"}})
    replica = Replica(site, 1)

    def proof(pod: Object) -> str | None:
        return death_proof(pod, None)

    assert _run(replica.pods.delete_dead(site.view(), NS, proof, force=False)) is False
    ended = {"name": "worker-0", "state": {"terminated": {"exitCode": 1}}}
    site.agent.state = MachineAgent("p").state  # nothing of it is left
    site.api.put(PODS, {**site.pod, "status": {"phase": "Failed", "containerStatuses": [ended]}})
    assert _run(replica.pods.delete_dead(site.view(), NS, proof, force=False)) is True


@pytest.mark.parametrize("force", [False, True])
def test_a_dead_pod_is_labelled_draining_before_it_is_deleted(force: bool) -> None:
    """Policies have an API server refuse the deletion of a Pod that is labelled active, to the controller too."""
    site = Site()
    site.agent.state = MachineAgent("p").state
    site.api.put(
        PODS, {**site.pod, "metadata": {**site.pod["metadata"], "finalizers": [names.POD_FINALIZER, "kubelet"]}}
    )
    labels: list[str] = []

    async def note(verb: str, resource: Resource, name: str) -> None:
        del resource, name
        if verb == "delete":
            labels.append(site.pod["metadata"]["labels"][names.STATE_LABEL])

    site.api.before = note
    replica = Replica(site, 1)
    assert _run(replica.pods.delete_dead(site.view(), NS, lambda _: "it is dead", force=force)) is True
    assert labels == ["draining"]
    assert site.pod["metadata"]["finalizers"] == ["kubelet"]
    assert site.pod["metadata"]["annotations"][names.SAFE_TO_EVICT] == "true"


def test_a_dead_pod_that_was_never_opened_keeps_its_label() -> None:
    """That it was never opened may be the only proof that it can go."""
    site = Site(state="starting", opened=False)
    replica = Replica(site, 1)
    assert _run(replica.pods.delete_dead(site.view(), NS, lambda _: "it is dead", force=False)) is True
    assert site.pod["metadata"]["labels"][names.STATE_LABEL] == "starting"


def test_a_create_whose_answer_was_lost_is_found_again() -> None:
    """A3: one Pod, not two."""
    site = Site()
    lost = [2]

    async def lose(verb: str, resource: Resource, name: str) -> None:
        del resource, name
        if verb == "create" and lost[0]:
            lost[0] -= 1
            raise ApiUnavailable("lost")

    site.api.after = lose
    replica = Replica(site, 1)
    name = replica.pods.new_name("pool")
    body = {"metadata": {"name": name, "namespace": NS, "labels": {names.POOL_LABEL: "pool"}}}
    created: list[Object] = []

    async def main() -> None:
        started = asyncio.get_running_loop().time()
        created.append(await replica.pods.create(body))
        assert asyncio.get_running_loop().time() - started >= 0.1, "with a pause before each further try"

    virtual_time.run(main)
    assert created[0]["metadata"]["name"] == name
    assert len(site.api.all(PODS)) == 2
    assert replica.cache.get(NS, name) is not None


def test_live_reads_reach_the_cache() -> None:
    """T21: or the next pass would decide the same on the same old object, at once, for ever."""
    site = Site()
    replica = Replica(site, 1)
    site.api.put(PODS, {**site.pod, "status": {"phase": "Failed"}})
    assert _run(replica.pods.exists(NS, "p", site.agent.uid))
    known = replica.cache.get(NS, "p")
    assert known is not None
    assert known["status"]["phase"] == "Failed"
    site.api.put = MemoryApi.put.__get__(site.api)  # type: ignore[method-assign]
    site.api.remove(PODS, NS, "p")
    assert not _run(replica.pods.exists(NS, "p", site.agent.uid))
    assert replica.cache.get(NS, "p") is None
