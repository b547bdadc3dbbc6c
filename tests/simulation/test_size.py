"""The size of a pool on virtual time, one situation a test: what must come of it, and by when."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from controller import names
from controller.kube.api import PODS, SLOTPOOLS, SLOTTASKS, Resource
from controller.local.apiserver.store.versions import Change
from controller.objects.task import TaskPhase
from tests.simulation.replica import NS, Fate, Trap
from tests.simulation.story import LEADER_SECONDS, RESYNC_SECONDS, START_SECONDS, all_final, holder, most_pods, play
from tests.simulation.world import POOL, World, phase_of


def test_a_queued_task_brings_up_a_pool_from_nothing_and_the_pool_goes_again() -> None:
    """T4, G2: with min 0 and no Pods, no metrics and no history."""

    async def story(world: World) -> None:
        await asyncio.sleep(LEADER_SECONDS)
        world.add_task("t", "plan")
        await world.until(lambda: world.phase("t") is TaskPhase.RUNNING, 10, "running")
        await world.until(lambda: world.phase("t") is TaskPhase.SUCCEEDED, 15, "done")
        await world.until(lambda: not world.pods(), 40, "small again")

    play(story)


def test_an_api_that_answers_nothing_for_minutes_costs_nothing() -> None:
    """T4, K1: an error in reading never shrinks, and what runs goes on."""

    async def story(world: World) -> None:
        world.add_task("long", "plan", seconds=300)
        world.add_task("short", "plan", seconds=5)
        await world.until(lambda: world.phase("long") is TaskPhase.RUNNING, 60, "running")
        pods = {pod["metadata"]["uid"] for pod in world.pods()}
        world.faults.api_refused = 1.0
        await asyncio.sleep(200)
        world.faults.api_refused = 0.0
        assert {pod["metadata"]["uid"] for pod in world.pods()} == pods
        await world.until(lambda: all_final(world), 200, "done")
        assert world.phase("long") is TaskPhase.SUCCEEDED

    play(story, pool={"autoscaling": {"minReplicas": 0, "maxReplicas": 4, "minIdleSeconds": 10}})


@pytest.mark.parametrize("late_seconds", [0.0, 5.0])
def test_as_many_pods_are_made_as_are_needed_however_late_the_watch_is(late_seconds: float) -> None:
    """A3, T18: creates are remembered until the watch shows them."""

    async def story(world: World) -> None:
        for replica in world.replicas:
            assert replica.controller is not None
            api: Any = replica.controller.caches._api
            before = api.after

            async def after(verb: str, resource: Resource, name: str, before: Any = before) -> None:
                if verb == "event" and resource == PODS:
                    await asyncio.sleep(late_seconds)
                await before(verb, resource, name)

            api.after = after
        for number in range(6):
            world.add_task(f"t{number}", "apply", seconds=30)
        assert await most_pods(world, 200) == 6

    play(story, pool={"autoscaling": {"minReplicas": 0, "maxReplicas": 10, "minIdleSeconds": 0}})


def test_a_reservation_keeps_its_own_pod_and_no_other() -> None:
    """T15: the rest of the pool goes down past it, and up beside it."""

    async def story(world: World) -> None:
        for number in range(3):
            world.add_task(f"t{number}", "plan_and_apply", seconds=5)

        def waiting() -> int:
            return sum(phase_of(task) is TaskPhase.AWAITING_APPROVAL for task in world.tasks())

        await world.until(lambda: waiting() == 3, 90, "waiting")
        world.edit_task("t1", cancel=True)
        world.edit_task("t2", cancel=True)
        await world.until(lambda: len(world.pods()) == 1, 120, "down to one Pod")
        assert holder(world, "t0").name == world.pods()[0]["metadata"]["name"]
        world.add_task("more", "apply", seconds=5)
        await world.until(lambda: world.phase("more") is TaskPhase.SUCCEEDED, 60, "done beside it")
        assert world.phase("t0") is TaskPhase.AWAITING_APPROVAL
        await asyncio.sleep(120)
        assert world.phase("t0") is TaskPhase.AWAITING_APPROVAL
        assert len(world.pods()) == 1

    play(story)


def test_a_settled_pool_is_left_alone() -> None:
    """T21, B1: with a step that runs and a reservation, nothing is written but the Lease, and no agent is asked.

    It is looked at every half minute all the same.
    """

    async def story(world: World) -> None:
        world.add_task("long", "plan", seconds=1000)
        world.add_task("waits", "plan_and_apply", seconds=1)
        await world.until(lambda: world.phase("waits") is TaskPhase.AWAITING_APPROVAL, 60, "waiting")
        await asyncio.sleep(60)
        version = {resource: _version(world, resource) for resource in (PODS, SLOTTASKS, SLOTPOOLS)}
        counts: Counter[str] = Counter()
        for replica in world.replicas:
            assert replica.controller is not None
            assert replica.network is not None
            _count(replica.controller, replica.network, counts)
        await asyncio.sleep(300)
        assert {resource: _version(world, resource) for resource in version} == version
        assert counts["requests"] == 0
        assert 0.9 * 300 / RESYNC_SECONDS <= counts["passes"] <= 1.2 * 300 / RESYNC_SECONDS

    play(story, resync_seconds=RESYNC_SECONDS)


def _version(world: World, resource: Resource) -> int:
    return max(int(obj["metadata"]["resourceVersion"]) for obj in world.cluster.all(resource))


def _count(controller: Any, network: Any, counts: Counter[str]) -> None:
    request, reconcile = network.request, controller.reconciler.reconcile

    async def counted(*args: Any, **kwargs: Any) -> Any:
        counts["requests"] += 1
        return await request(*args, **kwargs)

    def passed(key: Any) -> None:
        counts["passes"] += 1
        reconcile(key)

    network.request = counted
    controller.reconciler.reconcile = passed


def test_a_pool_stays_within_its_bounds_whatever_is_asked_for() -> None:
    """T5: up to the most, down to the least, and never beyond."""

    async def story(world: World) -> None:
        for number in range(12):
            world.add_task(f"t{number}", "apply", seconds=10)
        assert await most_pods(world, 300) == 3
        await world.until(lambda: len(world.pods()) == 2, 90, "at its least")
        await asyncio.sleep(120)
        assert len(world.pods()) == 2

    play(story, pool={"autoscaling": {"minReplicas": 2, "maxReplicas": 3, "minIdleSeconds": 0}})


def test_a_pod_gets_no_work_before_its_workers_are_there_and_then_at_once() -> None:
    """T6: serving alone is not enough."""

    async def story(world: World) -> None:
        world.faults.local_loss = 1.0
        world.add_task("t", "plan", seconds=1)
        await world.until(lambda: bool(world.node.alive), 60, "there")
        await asyncio.sleep(90)
        assert world.phase("t") is TaskPhase.QUEUED
        world.faults.local_loss = 0.0
        await world.until(lambda: world.phase("t") is TaskPhase.SUCCEEDED, 10, "done")

    play(story, pool={"autoscaling": {"minReplicas": 1, "maxReplicas": 1}})


def test_tasks_that_wait_for_a_lock_ask_for_no_pod() -> None:
    """T12: one runs, five are blocked."""

    async def story(world: World) -> None:
        for number in range(6):
            world.add_task(f"t{number}", "apply", seconds=10, lockKey="vpc")
        assert await most_pods(world, 300) == 1

    play(story, pool={"autoscaling": {"minReplicas": 0, "maxReplicas": 6, "scaleUpUtilizationPercent": 100}})


@pytest.mark.parametrize(
    ("mix", "pods"),
    [
        ({"plan": 1, "apply": 1}, 1),
        ({"plan": 2, "apply": 1}, 1),
        ({"plan": 3}, 1),
        ({"plan": 4}, 2),
        ({"apply": 2}, 2),
        ({"plan": 4, "apply": 2}, 2),
        ({"plan": 5, "plan_and_apply": 2}, 3),
    ],
)
def test_as_few_pods_are_made_as_the_layout_allows(mix: dict[str, int], pods: int) -> None:
    """T13, H2: every type counts, and each where it fits."""

    async def story(world: World) -> None:
        for kind, count in mix.items():
            for number in range(count):
                world.add_task(f"{kind.replace('_', '-')}-{number}", kind, seconds=60, approvalPolicy="Auto")
        assert await most_pods(world, 300) == pods

    play(story, pool={"autoscaling": {"minReplicas": 0, "maxReplicas": 9, "scaleUpUtilizationPercent": 100}})


def test_whoever_leads_next_makes_no_pod_where_slots_are_free() -> None:
    """T14, G1: tasks came while nobody led, and Pods with free slots are there."""

    async def story(world: World) -> None:
        world.add_task("long", "plan", seconds=300)
        await world.until(lambda: world.phase("long") is TaskPhase.RUNNING, 60, "running")
        before = {pod["metadata"]["uid"] for pod in world.pods()}
        for replica in world.replicas:
            await replica.kill()
        for number in range(2):
            world.add_task(f"t{number}", ("plan", "apply")[number], seconds=5)
        await asyncio.sleep(600)
        for replica in world.replicas:
            replica.start()
        await world.until(lambda: all_final(world), 90, "done")
        assert {pod["metadata"]["uid"] for pod in world.pods()} == before
        assert world.phase("long") is TaskPhase.SUCCEEDED
        await world.until(lambda: not world.pods(), 120, "small again")

    play(story, pool={"autoscaling": {"minReplicas": 0, "maxReplicas": 6, "scaleUpUtilizationPercent": 100}})


def test_a_new_template_ends_nothing_that_runs_or_waits() -> None:
    """T16: the Pods from before are kept as they are."""

    async def story(world: World) -> None:
        world.add_task("long", "plan", seconds=120)
        world.add_task("waits", "plan_and_apply", seconds=1)
        await world.until(lambda: world.phase("waits") is TaskPhase.AWAITING_APPROVAL, 60, "waiting")
        pod = holder(world, "waits")
        worker = {"name": "worker", "image": "terraform:2"}
        world.cluster.patch(SLOTPOOLS, NS, POOL, {"spec": {"template": {"spec": {"containers": [worker]}}}})
        await asyncio.sleep(200)
        assert world.phase("long") is TaskPhase.SUCCEEDED
        assert holder(world, "waits") is pod
        world.approve("waits")
        await world.until(lambda: world.phase("waits") is TaskPhase.SUCCEEDED, 30, "applied")

    play(story)


def test_a_pod_that_was_promised_a_task_is_not_taken_for_idle() -> None:
    """R2, T20: the acquire does not arrive for minutes."""

    async def story(world: World) -> None:
        await asyncio.sleep(LEADER_SECONDS)
        world.add_task("t", "plan", seconds=1)
        leader = next(replica for replica in world.replicas if replica.leading)
        leader.trap = Trap("POST", "/slots/acquire", Fate.HELD_UP, 1e6)
        await world.until(lambda: leader.trap is None, 30, "held up")
        world.faults.network.lost = 1.0
        (pod,) = world.pods()
        await asyncio.sleep(180)
        assert world.phase("t") is TaskPhase.ASSIGNED
        assert world.pods()[0]["metadata"]["uid"] == pod["metadata"]["uid"]
        world.faults.network.lost = 0.0
        await world.until(lambda: world.phase("t") is TaskPhase.SUCCEEDED, 60, "done")
        task = world.task("t")
        assert task is not None
        assert (task["status"]["podUID"], task["status"]["attempt"]) == (pod["metadata"]["uid"], 1)

    play(story, pool={"autoscaling": {"minReplicas": 0, "maxReplicas": 2, "minIdleSeconds": 0}})


@pytest.mark.parametrize(
    ("verb", "what"), [("POST", "/drain"), ("patch", "pods"), ("delete", "pods"), ("POST", "/open")]
)
def test_a_pod_on_its_way_out_is_kept_if_it_is_needed_again(verb: str, what: str) -> None:
    """O1: whoever drains it is held up at each of the steps, and another leads meanwhile."""

    async def story(world: World) -> None:
        world.add_task("first", "plan", seconds=1)
        await world.until(lambda: world.phase("first") is TaskPhase.SUCCEEDED, 60, "done")
        leader = next(replica for replica in world.replicas if replica.leading)
        leader.trap = Trap(verb, what, Fate.PAUSED, 60.0)

        def caught() -> bool:
            if (
                what == "/open"
                and len(world.tasks()) == 1
                and world.pods()[0]["metadata"]["labels"].get(names.STATE_LABEL) == "draining"
            ):
                world.add_task("again", "plan", seconds=120)
            return leader.trap is None

        await world.until(caught, 60, "held up")
        if what != "/open":
            world.add_task("again", "plan", seconds=120)
        await world.until(lambda: world.phase("again") is TaskPhase.SUCCEEDED, 300, "done")
        await world.until(lambda: not world.pods(), 120, "small again")

    play(story, pool={"autoscaling": {"minReplicas": 0, "maxReplicas": 1, "minIdleSeconds": 3}})


def test_a_leader_that_stands_still_is_replaced_and_its_queue_goes_on() -> None:
    """R4: warm Pods are there, and tasks wait."""

    async def story(world: World) -> None:
        await asyncio.sleep(START_SECONDS)
        leader = next(replica for replica in world.replicas if replica.leading)
        leader.pause(100_000.0)
        for number in range(3):
            world.add_task(f"t{number}", "plan", seconds=1)
        await world.until(lambda: all_final(world), world.lease_seconds + RESYNC_SECONDS + 10, "done")

    play(story, pool={"autoscaling": {"minReplicas": 1, "maxReplicas": 1}})


def test_a_pod_that_an_earlier_pool_asked_for_is_not_opened() -> None:
    """G1: its create arrives when the pool was deleted and made again; the garbage collector will take it."""

    async def story(world: World) -> None:
        await asyncio.sleep(LEADER_SECONDS)
        leader = next(replica for replica in world.replicas if replica.leading)
        leader.trap = Trap("create", "pods", Fate.HELD_UP, 100.0)
        world.add_task("t", "plan", seconds=1)
        await world.until(lambda: world.phase("t") is TaskPhase.SUCCEEDED, 60, "done")
        world.cluster.delete(SLOTPOOLS, NS, POOL)
        await world.until(lambda: not world.cluster.all(SLOTPOOLS), 60, "gone")
        world.add_pool(autoscaling={"minReplicas": 1, "maxReplicas": 3})
        uid = world.cluster.all(SLOTPOOLS)[0]["metadata"]["uid"]
        late: list[str] = []

        def look(change: Change) -> None:
            metadata = change.record.body["metadata"]
            if change.record.resource == "pods" and metadata["ownerReferences"][0]["uid"] != uid:
                late.append(metadata["labels"][names.STATE_LABEL])

        world.cluster.observers.append(look)
        await asyncio.sleep(150)
        assert set(late) == {"starting"}
        assert len(world.pods()) == 1

    play(story, pool={"autoscaling": {"minReplicas": 0, "maxReplicas": 3, "minIdleSeconds": 0}})
