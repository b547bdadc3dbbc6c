"""Tasks on virtual time, one situation a test: what must come of it, and by when."""

import asyncio
import json
import random
from typing import Any

import pytest

from agent.wire import Outcome, SlotState
from controller import names
from controller.kube.api import LEASES, NODES, PODS, SLOTPOOLS, SLOTTASKS
from controller.objects.task import TaskPhase
from tests.simulation.faults import Faults
from tests.simulation.node import NODE
from tests.simulation.replica import NS
from tests.simulation.story import LEADER_SECONDS, RESYNC_SECONDS, all_final, holder, play, slots_of
from tests.simulation.world import POOL, World, phase_of


@pytest.mark.parametrize("seed", range(12))
def test_an_approved_apply_runs_whatever_moment_the_leader_dies_at(seed: int) -> None:
    """T2, T10, T11, T22: within a lease and a resync, once, in the slot of its plan, although all others are taken."""

    async def story(world: World) -> None:
        rng = random.Random(seed)
        world.add_task("t", "plan_and_apply", seconds=5)
        await world.until(lambda: world.phase("t") is TaskPhase.AWAITING_APPROVAL, 60, "waiting")
        for number in range(2):
            world.add_task(f"other-{number}", "plan", seconds=400)
        await asyncio.sleep(5)
        pod = holder(world, "t")
        leader = next(replica for replica in world.replicas if replica.leading)
        world.approve("t")
        await asyncio.sleep(rng.uniform(0.0, 0.08))
        await leader.kill()
        began = world.elapsed
        await world.until(
            lambda: world.phase("t") is TaskPhase.SUCCEEDED, world.lease_seconds + RESYNC_SECONDS + 10, "applied"
        )
        assert world.elapsed - began < world.lease_seconds + RESYNC_SECONDS + 10
        task = world.task("t")
        assert task is not None
        assert task["status"]["podUID"] == pod.uid
        assert sum(count for (_, step), count in world.rules.steps.starts.items() if step == "apply") == 1

    play(story, seed=seed)


@pytest.mark.parametrize("seed", range(4))
def test_running_tasks_go_on_under_the_next_leader(seed: int) -> None:
    """T22, T3: none is failed, none is repeated; what ended in between is told."""

    async def story(world: World) -> None:
        for number in range(4):
            world.add_task(f"t{number}", "plan", seconds=[1, 10, 40, 100][number])
        await world.until(lambda: slots_of(world)["running"] >= 3, 60, "running")
        for replica in [replica for replica in world.replicas if replica.leading]:
            await replica.kill()
        await world.until(lambda: all_final(world), 200, "done")
        assert {phase_of(task) for task in world.tasks()} == {TaskPhase.SUCCEEDED}
        assert set(world.rules.steps.starts.values()) == {1}

    play(story, seed=seed)


@pytest.mark.parametrize("minutes", [1, 20])
def test_a_partition_of_any_length_heals(minutes: int) -> None:
    """T25, D1: its Pod stays, its tasks are neither lost nor repeated, and their ends are told afterwards."""

    async def story(world: World) -> None:
        world.add_task("t", "plan_and_apply", seconds=30)
        world.add_task("u", "plan", seconds=30)
        await world.until(lambda: world.phase("t") is TaskPhase.RUNNING, 60, "running")
        pod = holder(world, "t")
        for replica in world.replicas:
            assert replica.network is not None
            replica.network.cut_off.add(pod.address)
        await asyncio.sleep(minutes * 60)
        assert world.phase("t") is TaskPhase.RUNNING
        assert not pod.over
        for replica in world.replicas:
            assert replica.network is not None
            replica.network.cut_off.clear()
        await world.until(lambda: world.phase("t") is TaskPhase.AWAITING_APPROVAL, RESYNC_SECONDS, "heard again")
        assert world.phase("u") is TaskPhase.SUCCEEDED
        world.approve("t")
        await world.until(lambda: world.phase("t") is TaskPhase.SUCCEEDED, 60, "applied")

    play(story)


def test_a_cancelled_task_ends_where_it_runs_and_frees_its_slot() -> None:
    """T24: running, waiting for approval, queued, and waiting for a lock."""

    async def story(world: World) -> None:
        world.add_task("runs", "plan", seconds=500)
        world.add_task("waits", "plan_and_apply", seconds=1, lockKey="k")
        await world.until(lambda: world.phase("waits") is TaskPhase.AWAITING_APPROVAL, 60, "waiting")
        world.add_task("locked", "apply", lockKey="k")
        await asyncio.sleep(5)
        assert world.phase("locked") is TaskPhase.QUEUED
        for name in ("runs", "locked", "waits"):
            world.edit_task(name, cancel=True)
        await world.until(lambda: all_final(world), 10, "cancelled")
        assert {phase_of(task) for task in world.tasks()} == {TaskPhase.CANCELLED}
        await world.until(lambda: slots_of(world)["idle"] == sum(slots_of(world).values()), 5, "free")
        await world.until(lambda: not world.pods(), 60, "small again")

    play(story)


def test_deleting_a_task_cancels_a_plan_and_waits_for_an_apply() -> None:
    async def story(world: World) -> None:
        world.add_task("plan", "plan", seconds=500)
        world.add_task("apply", "apply", seconds=60)
        await world.until(lambda: slots_of(world)["running"] == 2, 60, "running")
        await asyncio.sleep(2)
        for name in ("plan", "apply"):
            world.cluster.delete(SLOTTASKS, NS, name)
        await world.until(lambda: world.task("plan") is None, 10, "gone")
        await asyncio.sleep(10)
        assert world.task("apply") is not None
        assert slots_of(world)["running"] == 1
        await world.until(lambda: world.task("apply") is None, 60, "gone after its end")

    play(story)


def test_tasks_of_one_lock_run_one_at_a_time_and_in_order() -> None:
    async def story(world: World) -> None:
        for number in range(4):
            world.add_task(f"t{number}", "apply", seconds=10, lockKey="vpc")
            await asyncio.sleep(1.1)
        most = 0

        def done() -> bool:
            nonlocal most
            most = max(most, slots_of(world)["running"])
            return all_final(world)

        await world.until(done, 200, "done")
        assert most == 1
        ends = [(task["status"]["finishTime"], task["metadata"]["name"]) for task in world.tasks()]
        assert [name for _, name in sorted(ends)] == ["t0", "t1", "t2", "t3"]
        await world.until(lambda: not _locks(world), 30, "free of locks")

    play(story)


def _locks(world: World) -> list[str]:
    return [
        lease["metadata"]["name"]
        for lease in world.cluster.all(LEASES)
        if names.LOCK_LABEL in (lease["metadata"].get("labels") or {})
    ]


@pytest.mark.parametrize("locked", [True, False], ids=["locked", "first"])
@pytest.mark.parametrize("why", ["pool", "type", "spec", "template", "deleted", "unreadable"])
def test_a_task_that_can_not_run_holds_up_none_of_its_lock(why: str, locked: bool) -> None:
    """`locked`: it has the lockKey, as where its Pod was lost or a leader died over its assignment."""

    async def story(world: World) -> None:
        bad: dict[str, dict[str, Any]] = {
            "spec": {"autoscaling": {"minReplicas": 2, "maxReplicas": 1}},
            "template": {
                "template": {"spec": {"containers": [{"name": "worker", "image": "i"}], "shareProcessNamespace": True}}
            },
        }
        if why != "pool":
            world.add_pool("other", **bad.get(why, {}))
        if why == "deleted":
            world.add_task("holds", pool="other")
            await world.until(lambda: world.phase("holds") is TaskPhase.AWAITING_APPROVAL, 60, "waiting")
            world.cluster.delete(SLOTPOOLS, NS, "other")
        amiss: dict[str, dict[str, Any]] = {"type": {"type": "render"}, "unreadable": {"files": {"/etc/x": ""}}}
        spec = amiss.get(why, {})
        world.add_task("stuck", "apply", pool="other", lockKey="vpc", **spec)
        task = world.task("stuck")
        assert task is not None
        if locked:
            world.cluster.create(
                LEASES,
                NS,
                {
                    "metadata": {
                        "name": names.lock_lease("vpc"),
                        "labels": {names.LOCK_LABEL: "true"},
                        "annotations": {names.LOCK_KEY: "vpc", names.LOCK_TASK: "stuck"},
                    },
                    "spec": {"holderIdentity": task["metadata"]["uid"]},
                },
            )
        await asyncio.sleep(1.1)
        world.add_task("next", "apply", lockKey="vpc")
        await world.until(lambda: world.phase("next") is TaskPhase.SUCCEEDED, 90, "done")
        assert world.phase("stuck") is TaskPhase.QUEUED
        said = (world.task("stuck") or {})["status"]["conditions"]
        assert [entry["status"] for entry in said if entry["type"] == "Accepted"] == ["False"]
        if why == "deleted":
            world.approve("holds")

    play(story)


def test_a_task_that_can_not_be_read_while_it_runs_is_left_alone_until_it_can(caplog: pytest.LogCaptureFixture) -> None:
    """It says so once; no operation is tried again and again, and its end is written as soon as it can be read."""

    async def story(world: World) -> None:
        world.add_task("t", "apply", seconds=30)
        await world.until(lambda: world.phase("t") is TaskPhase.RUNNING, 60, "running")
        world.cluster.patch(SLOTTASKS, NS, "t", {"spec": {"files": {"/etc/x": ""}}})
        await asyncio.sleep(20)
        said = world.task("t")
        assert said is not None
        assert [entry["status"] for entry in said["status"]["conditions"] if entry["type"] == "Accepted"] == ["False"]
        caplog.clear()
        await asyncio.sleep(300)
        assert world.task("t") == said, "nothing is written again"
        assert [record.message for record in caplog.records if record.message.startswith("operation")] == []
        world.cluster.patch(SLOTTASKS, NS, "t", {"spec": {"files": None}})
        await world.until(lambda: world.phase("t") is TaskPhase.SUCCEEDED, 60, "done")

    play(story)


def test_an_apply_that_vanished_keeps_its_lock_until_its_death_is_proven() -> None:
    """R7: the object of its Pod is gone and proves nothing; a person's statement frees it."""

    async def story(world: World) -> None:
        world.add_task("t", "apply", seconds=500, lockKey="vpc")
        await world.until(lambda: world.phase("t") is TaskPhase.RUNNING, 60, "running")
        pod = holder(world, "t")
        world.taken_by_force.add(pod.uid)
        pod.doomed = True
        world.node.remove_by_force(pod)
        await world.until(lambda: world.phase("t") is TaskPhase.LOST, RESYNC_SECONDS, "lost")
        world.add_task("next", "apply", lockKey="vpc")
        await asyncio.sleep(100)
        assert world.phase("next") is TaskPhase.QUEUED
        assert len(_locks(world)) == 1
        pod.kill()  # whoever unlocks has looked
        world.cluster.delete(LEASES, NS, _locks(world)[0])
        await world.until(lambda: world.phase("next") is TaskPhase.SUCCEEDED, 60, "done")

    play(story)


def test_a_dead_pod_frees_its_locks_and_its_plans_are_planned_again() -> None:
    """R7, T27: the kubelet says that every container ended."""

    async def story(world: World) -> None:
        world.add_task("apply", "apply", seconds=500, lockKey="vpc")
        world.add_task("plan", "plan", seconds=60)
        await world.until(lambda: slots_of(world)["running"] == 2, 60, "running")
        await asyncio.sleep(2)
        for pod in world.node.alive:
            world.taken_by_force.add(pod.uid)
            world.node.end(pod)
        await world.until(lambda: world.phase("apply") is TaskPhase.LOST, 20, "lost")
        await world.until(lambda: not _locks(world), 20, "free")
        await world.until(lambda: world.phase("plan") is TaskPhase.SUCCEEDED, 120, "planned again")
        task = world.task("plan")
        assert task is not None
        assert task["status"]["attempt"] == 2

    play(story)


def test_failed_written_over_a_pod_that_runs_changes_nothing() -> None:
    """T1: the garbage collector writes it when a Node vanishes, and it does not end what runs there."""

    async def story(world: World) -> None:
        world.add_task("t", "plan", seconds=60)
        await world.until(lambda: world.phase("t") is TaskPhase.RUNNING, 60, "running")
        pod = holder(world, "t")
        world.node.write_status(pod, "Failed", "running")
        await world.until(lambda: world.phase("t") is TaskPhase.SUCCEEDED, 80, "done")
        assert world.rules.steps.starts == dict.fromkeys(world.rules.steps.starts, 1)
        assert len(world.rules.steps.starts) == 1

    play(story)


# --- leaving ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["annotation", "cordon"])
def test_a_pod_that_somebody_wants_gone_goes_as_it_falls_idle(how: str) -> None:
    """R1: what it holds ends first, and nothing new comes."""

    async def story(world: World) -> None:
        world.add_task("t", "plan", seconds=60)
        await world.until(lambda: world.phase("t") is TaskPhase.RUNNING, 60, "running")
        pod = holder(world, "t")
        if how == "annotation":
            annotations = {names.DRAIN_REQUESTED: "true"}
            world.cluster.patch(PODS, NS, pod.name, {"metadata": {"annotations": annotations}})
        else:
            world.cluster.patch(NODES, "", NODE, {"spec": {"unschedulable": True}})
        await asyncio.sleep(5)
        assert not pod.doomed
        world.add_task("u", "plan", seconds=5)
        await world.until(lambda: world.phase("t") is TaskPhase.SUCCEEDED, 80, "done")
        await world.until(lambda: pod.over, 30, "gone")
        if how == "annotation":
            assert world.phase("u") is TaskPhase.SUCCEEDED
            task = world.task("u")
            assert task is not None
            assert task["status"]["podUID"] != pod.uid

    play(story, pool={"autoscaling": {"minReplicas": 1, "maxReplicas": 3, "minIdleSeconds": 0}})


def test_a_deleted_pool_drains_and_leaves_nothing() -> None:
    """T30: what is held ends first; then Pods, Secret and the pool itself are gone."""

    async def story(world: World) -> None:
        world.add_task("runs", "plan", seconds=40)
        world.add_task("waits", "plan_and_apply", seconds=1)
        await world.until(lambda: world.phase("waits") is TaskPhase.AWAITING_APPROVAL, 60, "waiting")
        world.cluster.delete(SLOTPOOLS, NS, POOL)
        await asyncio.sleep(60)
        assert world.phase("runs") is TaskPhase.SUCCEEDED
        assert world.phase("waits") is TaskPhase.AWAITING_APPROVAL
        assert len(world.cluster.all(SLOTPOOLS)) == 1
        world.approve("waits")
        await world.until(lambda: not world.cluster.all(SLOTPOOLS), 60, "gone")
        assert world.phase("waits") is TaskPhase.SUCCEEDED
        assert not world.pods()

    play(story)


def test_a_pool_deleted_by_force_waits_for_a_program_that_holds_a_slot_and_says_so() -> None:
    """T30: nobody but the program releases that; its tasks are cancelled."""

    async def story(world: World) -> None:
        world.add_pool("forced", deletionPolicy="Force")
        world.add_task("runs", "plan", seconds=900, pool="forced")
        await world.until(lambda: world.phase("runs") is TaskPhase.RUNNING, 60, "running")
        pod = holder(world, "runs")
        headers = {"Authorization": f"Bearer {pod.home.local_token}"}

        async def call(path: str, **body: Any) -> dict[str, Any]:
            assert pod.agent is not None
            asked = pod.agent.request("POST", path, headers, json.dumps(body).encode())
            status, answer = await pod.agent.run(asked, 10.0)
            assert status == 200, answer
            return dict(json.loads(answer))

        held = await call("/slots/acquire", task_id="job-7", task_type="plan")
        world.cluster.delete(SLOTPOOLS, NS, "forced")

        def said() -> str:
            pool = next((each for each in world.cluster.all(SLOTPOOLS) if each["metadata"]["name"] == "forced"), {})
            conditions = (pool.get("status") or {}).get("conditions") or ()
            return next((each["message"] for each in conditions if each["reason"] == "DeletionWaits"), "")

        await world.until(lambda: world.phase("runs") is TaskPhase.CANCELLED, 60, "cancelled")
        await world.until(lambda: f"slot {held['slot']} (job-7)" in said(), 30, "said")
        await asyncio.sleep(300)
        assert said()
        world.rules.released.add((pod.uid, "job-7"))
        await call(f"/slots/{held['slot']}/release", task_id="job-7", fence=held["fence"])
        await world.until(lambda: len(world.cluster.all(SLOTPOOLS)) == 1, 60, "gone")

    play(story)


def test_a_task_without_a_pool_says_so_and_runs_once_there_is_one() -> None:
    async def story(world: World) -> None:
        world.cluster.delete(SLOTPOOLS, NS, POOL)
        await world.until(lambda: not world.cluster.all(SLOTPOOLS), 60, "gone")
        world.add_task("t", "plan", seconds=1)

        def told() -> str:
            conditions = ((world.task("t") or {}).get("status") or {}).get("conditions") or []
            return next((entry["reason"] for entry in conditions if entry["type"] == "Accepted"), "")

        await world.until(lambda: told() == "PoolNotFound", 40, "told")
        world.add_pool()
        await world.until(lambda: world.phase("t") is TaskPhase.SUCCEEDED, 60, "done")
        assert told() == "Accepted"

    play(story)


def test_a_failing_task_fails_and_is_not_tried_again() -> None:
    async def story(world: World) -> None:
        world.add_task("t", "plan", seconds=1, outcome=Outcome.FAILED)
        await world.until(lambda: all_final(world), 60, "done")
        assert world.phase("t") is TaskPhase.FAILED
        assert list(world.rules.steps.starts.values()) == [1]

    play(story)


def test_a_reservation_ends_at_its_limit() -> None:
    """T9: and not before; the slot is free, and the Pod can go."""

    async def story(world: World) -> None:
        world.add_task("t", "plan_and_apply", seconds=1)
        await world.until(lambda: world.phase("t") is TaskPhase.AWAITING_APPROVAL, 60, "waiting")
        began = world.elapsed
        await world.until(lambda: world.phase("t") is TaskPhase.EXPIRED, 130, "expired")
        assert world.elapsed - began >= 118
        await world.until(lambda: not world.pods(), 60, "small again")

    play(story, pool={"reservation": {"ttlSeconds": 120}})


def test_a_world_without_faults_needs_no_second_look() -> None:
    """T21: every step follows the one before at once, none waits for the resync."""

    async def story(world: World) -> None:
        await asyncio.sleep(LEADER_SECONDS)
        world.add_task("warm", "plan", seconds=1)
        await world.until(lambda: world.phase("warm") is TaskPhase.SUCCEEDED, 20, "warm")
        began = world.elapsed
        world.add_task("t", "plan_and_apply", seconds=2, approvalPolicy="Auto")
        await world.until(lambda: world.phase("t") is TaskPhase.SUCCEEDED, 10, "done")
        assert world.elapsed - began < 6
        assert all(state == SlotState.IDLE for state in slots_of(world))

    play(story, resync_seconds=3600.0, faults=Faults(), pool={"autoscaling": {"minReplicas": 1, "maxReplicas": 2}})


def test_the_steps_of_a_worker_that_was_killed_are_lost_within_seconds_and_planned_again() -> None:
    """R5: killed as by lack of memory; its container is started again."""

    async def story(world: World) -> None:
        world.add_task("t", "plan", seconds=60)
        await world.until(lambda: world.phase("t") is TaskPhase.RUNNING, 60, "running")
        pod = holder(world, "t")
        slot = next(slot.id for slot in pod.state().slots if slot.task_id)
        await asyncio.sleep(5)
        pod.kill_worker(slot)
        await asyncio.sleep(1)
        pod.start_worker(slot)

        def attempt() -> int:
            task = world.task("t")
            assert task is not None
            return int(task["status"].get("attempt", 0))

        await world.until(lambda: attempt() == 2, 10, "tried again")
        await world.until(lambda: world.phase("t") is TaskPhase.SUCCEEDED, 90, "done")

    play(story)


def test_ended_tasks_are_deleted_with_no_controller_there() -> None:
    """Its end stored, and forgotten by its agent: nothing holds a task any more. One that was never assigned, too."""

    async def story(world: World) -> None:
        for number in range(3):
            world.add_task(f"t{number}", "plan", seconds=5)
        world.add_task("unwanted", "plan", seconds=5)
        world.edit_task("unwanted", cancel=True)

        def let_go() -> bool:
            return all_final(world) and not any(task["metadata"].get("finalizers") for task in world.tasks())

        await world.until(let_go, 60, "ended and let go")
        for replica in world.replicas:
            await replica.kill()
        for task in world.tasks():
            world.cluster.delete(SLOTTASKS, NS, task["metadata"]["name"])
        assert not world.tasks()

    play(story)
