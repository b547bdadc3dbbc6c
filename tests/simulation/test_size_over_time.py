"""Windows, policies and freezes on virtual time: a size changes when its time has come, whoever leads by then."""

import asyncio
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from controller.kube.api import SLOTPOOLS
from controller.local.apiserver.store.versions import Change
from controller.objects.task import TaskPhase
from tests.simulation.replica import NS
from tests.simulation.story import LEADER_SECONDS, START_SECONDS, play
from tests.simulation.world import EPOCH, POOL, WITHOUT_RESYNC_SECONDS, World

ONE_A_MINUTE: dict[str, Any] = {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}


def departures(world: World) -> list[float]:
    """When Pods are deleted, as a list that goes on to grow."""
    found: dict[str, float] = {}
    times: list[float] = []

    def look(change: Change) -> None:
        metadata = change.record.body["metadata"]
        if change.record.resource == "pods" and "deletionTimestamp" in metadata and metadata["uid"] not in found:
            found[metadata["uid"]] = world.elapsed
            times.append(world.elapsed)

    world.cluster.observers.append(look)
    return times


def status_writes(world: World) -> list[float]:
    """When the pool's status is written, as a list that goes on to grow."""
    times: list[float] = []

    def look(change: Change) -> None:
        if change.record.resource == "slotpools":
            times.append(world.elapsed)

    world.cluster.observers.append(look)
    return times


def steps(times: list[float]) -> list[float]:
    """The time from each to the next."""
    return [round(later - earlier, 1) for earlier, later in pairwise(times)]


async def grow(world: World, pods: int) -> None:
    """Bring the pool to so many Pods, that are idle from then on."""
    for number in range(pods):
        world.add_task(f"t{number}", "apply", seconds=5)
    done = [f"t{number}" for number in range(pods)]
    await world.until(lambda: all(world.phase(name) is TaskPhase.SUCCEEDED for name in done), 90, "done")
    assert len(world.pods()) == pods


AUTOSCALING: dict[str, Any] = {
    "minReplicas": 0,
    "maxReplicas": 6,
    "minIdleSeconds": 10,
    "scaleUpUtilizationPercent": 100,
}


def test_by_default_idle_pods_go_one_by_one_and_nobody_has_to_look_in_between() -> None:
    """Each as soon as it may: a timer wakes the pool, no resync does."""

    async def story(world: World) -> None:
        gone = departures(world)
        await grow(world, 4)
        await world.until(lambda: not world.pods(), 90, "small again")
        assert steps(gone) == pytest.approx([15.0] * 3, abs=0.2)

    play(story, pool={"autoscaling": AUTOSCALING}, resync_seconds=WITHOUT_RESYNC_SECONDS)


def test_whoever_leads_next_goes_on_with_the_time_that_has_begun() -> None:
    """The history is in the pool's status: leaders that come and go take no Pod earlier."""

    async def story(world: World) -> None:
        gone = departures(world)
        await grow(world, 4)
        await world.until(lambda: bool(gone), 60, "the first one going")
        for _ in range(3):
            await asyncio.sleep(3)
            leader = next(replica for replica in world.replicas if replica.leading)
            await leader.kill()
            await world.until(lambda: any(replica.leading for replica in world.replicas), 60, "led again")
            leader.start()
        await world.until(lambda: not world.pods(), 400, "small again")
        assert min(steps(gone)) >= 60.0

    play(story, pool={"autoscaling": {**AUTOSCALING, "behavior": {"scaleDown": ONE_A_MINUTE}}}, lease_seconds=4.0)


def test_a_window_ends_when_it_ends() -> None:
    """What was needed in the last two minutes stays; then it goes without another cause."""

    async def story(world: World) -> None:
        gone = departures(world)
        await grow(world, 3)
        idle = world.elapsed
        await world.until(lambda: not world.pods(), 200, "small again")
        assert gone == pytest.approx([idle + 120] * 3, abs=15)
        assert steps(gone) == pytest.approx([0, 0], abs=0.5)

    behavior = {
        "scaleDown": {
            "stabilizationWindowSeconds": 120,
            "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
        }
    }
    pool = {"autoscaling": {**AUTOSCALING, "minIdleSeconds": 0, "behavior": behavior}}
    play(story, pool=pool, resync_seconds=WITHOUT_RESYNC_SECONDS)


def test_a_limit_that_holds_writes_nothing_while_it_holds() -> None:
    async def story(world: World) -> None:
        gone, writes = departures(world), status_writes(world)
        await grow(world, 3)
        await world.until(lambda: bool(gone), 60, "the first one going")
        await asyncio.sleep(20)
        writes.clear()
        await asyncio.sleep(35)
        assert writes == []
        assert len(world.pods()) == 2

    pool = {"autoscaling": {**AUTOSCALING, "behavior": {"scaleDown": ONE_A_MINUTE}}}
    play(story, pool=pool, resync_seconds=5.0)


def test_a_pool_starts_what_waits_in_the_very_moment_in_which_a_freeze_ends() -> None:
    """T29: until then it stays at zero, and says so on the task."""

    async def story(world: World) -> None:
        await asyncio.sleep(LEADER_SECONDS)
        world.add_task("t", "plan", seconds=1)
        end = EPOCH + timedelta(seconds=300)
        await asyncio.sleep(START_SECONDS)
        task = world.task("t")
        assert task is not None
        assert task["status"]["queuedReason"] == "for a slot: the size is frozen until 2026-03-01T12:05:00Z"
        pool = world.cluster.find(SLOTPOOLS, NS, POOL)
        assert pool is not None
        conditions = {entry["type"]: entry for entry in pool["status"]["conditions"]}
        assert (conditions["ScalingLimited"]["status"], conditions["ScalingLimited"]["reason"]) == ("True", "Frozen")
        await world.until(lambda: bool(world.pods()), 300, "there")
        assert world.elapsed == pytest.approx((end - EPOCH).total_seconds(), abs=1)
        await world.until(lambda: world.phase("t") is TaskPhase.SUCCEEDED, 30, "done")

    freeze = [{"start": "0 12 * * *", "durationSeconds": 300}]
    play(
        story,
        pool={"autoscaling": {**AUTOSCALING, "freeze": freeze}},
        resync_seconds=WITHOUT_RESYNC_SECONDS,
    )


def test_in_a_freeze_idle_pods_stay_and_work_goes_on() -> None:
    async def story(world: World) -> None:
        await grow(world, 2)
        await world.until(lambda: world.elapsed > 130, 200, "frozen")
        assert len(world.pods()) == 2
        world.add_task("late", "plan", seconds=5)
        await world.until(lambda: world.phase("late") is TaskPhase.SUCCEEDED, 30, "done")
        await world.until(lambda: world.elapsed > 650, 600, "still frozen")
        assert len(world.pods()) == 2
        await world.until(lambda: not world.pods(), 90, "small again")
        assert world.elapsed > 660

    freeze = [{"start": "1 12 * * *", "durationSeconds": 600}]
    pool = {"autoscaling": {**AUTOSCALING, "minIdleSeconds": 70, "freeze": freeze}}
    play(story, pool=pool)
