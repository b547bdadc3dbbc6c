"""T31: every figure of a controller follows what it measures, up and, if it is a gauge, down again.

By real controllers and agents on virtual time. Which families there are is asked of the registry: one that is added
without a test of its own fails here.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from controller.act.operations import Result
from controller.kube.api import SLOTPOOLS
from controller.objects.task import TaskPhase
from controller.passes.starting import OPERATION_KINDS
from metrics.controller import ControllerMetrics
from tests.simulation.replica import NS, Replica
from tests.simulation.story import LEADER_SECONDS
from tests.simulation.world import POOL, World
from tests.support import virtual_time

Story = Callable[[World], Coroutine[Any, Any, None]]
STORIES: dict[str, tuple[Story, dict[str, Any]]] = {}
SCALED = {"minReplicas": 0, "maxReplicas": 4, "minIdleSeconds": 5}


def families() -> list[str]:
    registry = CollectorRegistry()
    ControllerMetrics(registry, operations=OPERATION_KINDS, results=Result)
    return sorted(family.name for family in registry.collect())


def moves(family: str, **pool: Any) -> Callable[[Story], Story]:
    def add(story: Story) -> Story:
        assert family not in STORIES
        STORIES[family] = story, pool
        return story

    return add


@pytest.mark.parametrize("family", families())
def test_the_figure_moves(family: str) -> None:
    assert family in STORIES, f"{family} has no test that it moves"
    story, pool = STORIES[family]

    async def main() -> None:
        async with World(1) as world:
            world.add_pool(**{"autoscaling": SCALED, **pool})
            await world.until(lambda: figure(world, "podslots_pool_desired_pods") is not None, 60, "looked at")
            await story(world)
            world.check()

    virtual_time.run(main)


def test_no_test_is_left_of_a_family_that_is_gone() -> None:
    assert sorted(STORIES) == families()


def leader(world: World) -> Replica | None:
    return next((replica for replica in world.replicas if replica.leading), None)


def figure(world: World, name: str, **labels: str) -> float | None:
    """A series of the leader's; None if it has none, or there is no leader."""
    replica = leader(world)
    if replica is None:
        return None
    if name.startswith("podslots_pool_"):
        labels = {"namespace": NS, "pool": POOL, **labels}
    return replica.registry.get_sample_value(name, labels)


async def until(world: World, expected: float, name: str, seconds: float = 60, **labels: str) -> None:
    await world.until(lambda: figure(world, name, **labels) == expected, seconds, f"{name} {labels} at {expected}, ")


# --- the controller itself --------------------------------------------------------------------------------------------


@moves("podslots_controller_leader")
async def who_leads(world: World) -> None:
    def shown() -> dict[str, float | None]:
        name = "podslots_controller_leader"
        return {replica.name: replica.registry.get_sample_value(name) for replica in world.replicas}

    first = leader(world)
    assert first
    (other,) = [replica for replica in world.replicas if replica is not first]
    assert shown() == {first.name: 1, other.name: 0}
    first.has_api = False
    await world.until(lambda: shown() == {first.name: 0, other.name: 1}, 60, "another leads")


@moves("podslots_controller_reconcile_duration_seconds")
async def time_of_passes(world: World) -> None:
    name = "podslots_controller_reconcile_duration_seconds"
    before, total = figure(world, f"{name}_count"), figure(world, f"{name}_sum")
    assert before is not None
    assert total is not None
    world.add_task("t", "plan")
    await world.until(lambda: (figure(world, f"{name}_count") or 0) > before, 10, "looked at again")
    after = figure(world, f"{name}_sum")
    assert after is not None
    assert total <= after < total + 60


@moves("podslots_controller_operations")
async def operations_by_kind_and_end(world: World) -> None:
    name = "podslots_controller_operations_total"

    def moved() -> set[tuple[str, str]]:
        pairs = [(kind, result) for kind in OPERATION_KINDS for result in Result]
        return {pair for pair in pairs if figure(world, name, kind=pair[0], result=pair[1])}

    assert moved() <= {("pool", "done"), ("budget", "done"), ("status", "done"), ("history", "done")}
    world.faults.api_refused = 1.0
    world.add_task("t", "plan")
    await asyncio.sleep(2)
    world.faults.api_refused = 0.0
    await world.until(lambda: world.phase("t") is TaskPhase.SUCCEEDED, 100, "done")
    await world.until(lambda: not world.pods(), 60, "small again")
    done = {kind for kind, result in moved() if result == "done"}
    assert done >= {"pool", "status", "create", "pod", "task"}


@moves("podslots_controller_operations_in_flight")
async def operations_under_way(world: World) -> None:
    name = "podslots_controller_operations_in_flight"
    await until(world, 0, name)
    world.faults.latency = 400.0
    world.add_task("t", "apply", seconds=1)
    await world.until(lambda: (figure(world, name) or 0) >= 1, 30, "a Pod's creation is under way")
    world.faults.latency = 1.0
    await world.until(lambda: world.phase("t") is TaskPhase.SUCCEEDED, 200, "done")
    await until(world, 0, name)


# --- pools ------------------------------------------------------------------------------------------------------------


@moves("podslots_pool_desired_pods")
async def size_decided_on(world: World) -> None:
    for name in ("a", "b"):
        world.add_task(name, "apply", seconds=20)
    await until(world, 2, "podslots_pool_desired_pods")
    await until(world, 0, "podslots_pool_desired_pods", 120)


@moves("podslots_pool_utilization_ratio", autoscaling={**SCALED, "minReplicas": 1})
async def how_much_is_used(world: World) -> None:
    await until(world, 0, "podslots_pool_utilization_ratio")
    world.add_task("a", "plan", seconds=30)
    await world.until(lambda: world.phase("a") is TaskPhase.RUNNING, 60, "running")
    await world.until(
        lambda: figure(world, "podslots_pool_utilization_ratio") == pytest.approx(1 / 3), 10, "one of three slots"
    )
    await until(world, 0, "podslots_pool_utilization_ratio")


@moves("podslots_pool_queued_tasks", autoscaling={**SCALED, "maxReplicas": 1})
async def tasks_that_wait_for_a_slot(world: World) -> None:
    await until(world, 0, "podslots_pool_queued_tasks")
    for number in range(3):
        world.add_task(f"t{number}", "apply", seconds=20)
    await until(world, 3, "podslots_pool_queued_tasks")
    for left in (2, 1, 0):
        await until(world, left, "podslots_pool_queued_tasks")


@moves("podslots_pool_blocked_tasks")
async def tasks_that_wait_for_a_lock(world: World) -> None:
    await until(world, 0, "podslots_pool_blocked_tasks")
    for number in range(3):
        world.add_task(f"t{number}", "apply", seconds=20, lockKey="vpc")
    for left in (2, 1, 0):
        await until(world, left, "podslots_pool_blocked_tasks", 100)


@moves("podslots_pool_agents_connected", autoscaling={**SCALED, "minReplicas": 1})
async def agents_that_are_heard_of(world: World) -> None:
    await until(world, 1, "podslots_pool_agents_connected")
    replica = leader(world)
    assert replica
    assert replica.network
    replica.network.cut_off.add(world.node.alive[0].address)
    await until(world, 0, "podslots_pool_agents_connected")
    replica.network.cut_off.clear()
    await until(world, 1, "podslots_pool_agents_connected")


@moves("podslots_pool_pods")
async def pods_by_state(world: World) -> None:
    """The API is slow here, or a Pod would be draining or dead for no longer than the blink of an eye."""
    states = ("starting", "active", "draining", "dead")
    name, seen = "podslots_pool_pods", set[str]()

    def look() -> bool:
        seen.update(state for state in states if figure(world, name, state=state))
        return True

    world.faults.latency = 100.0
    world.add_task("t", "plan", seconds=30)
    await world.until(lambda: look() and world.phase("t") is TaskPhase.RUNNING, 100, "running")
    assert figure(world, name, state="active") == 1
    world.node.end(world.node.alive[0])
    await world.until(lambda: look() and "dead" in seen, 20, "one is dead")
    await world.until(lambda: look() and world.phase("t") is TaskPhase.SUCCEEDED, 200, "done, on another")
    await world.until(lambda: look() and not world.pods(), 100, "gone")
    assert seen == set(states)
    for state in states:
        await until(world, 0, name, state=state)


@moves("podslots_pool_slots", autoscaling={**SCALED, "minReplicas": 1})
async def slots_by_state(world: World) -> None:
    async def shown(idle: int, running: int, reserved: int, recovering: int) -> None:
        expected = {"idle": idle, "running": running, "reserved": reserved, "recovering": recovering}
        for state, count in expected.items():
            await until(world, count, "podslots_pool_slots", state=state)

    await shown(3, 0, 0, 0)
    world.add_task("t", "plan_and_apply", seconds=20)
    await shown(2, 1, 0, 0)
    await shown(2, 0, 1, 0)
    world.approve("t")
    await shown(2, 1, 0, 0)
    await shown(3, 0, 0, 0)
    pod = world.node.alive[0]
    for slot in range(3):
        pod.kill_worker(slot)
    pod.kill_agent(lose_journal=True)
    pod.start_agent()
    await shown(0, 0, 0, 3)
    for slot in range(3):
        pod.start_worker(slot)
    await shown(3, 0, 0, 0)


@moves("podslots_pool_tasks")
async def tasks_by_phase(world: World) -> None:
    name = "podslots_pool_tasks"
    seen = set[str]()

    def look() -> bool:
        seen.update(phase for phase in TaskPhase if figure(world, name, phase=phase))
        return {TaskPhase.SUCCEEDED, TaskPhase.CANCELLED} <= seen

    world.faults.latency = 150.0
    world.add_task("t", "plan_and_apply", seconds=20)
    await world.until(lambda: look() or world.phase("t") is TaskPhase.AWAITING_APPROVAL, 200, "planned")
    await until(world, 1, name, phase="AwaitingApproval")
    look()
    world.approve("t")
    world.add_task("c", "plan", seconds=20)
    world.edit_task("c", cancel=True)
    await world.until(look, 200, "both have ended")
    assert seen >= {"Queued", "Assigned", "Running", "AwaitingApproval", "Succeeded", "Cancelled"}
    await until(world, 0, name, phase="Running")


@moves("podslots_pool_token_since_timestamp_seconds")
async def since_when_a_token_is_used(world: World) -> None:
    first = figure(world, "podslots_pool_token_since_timestamp_seconds")
    assert first is not None
    began = world.elapsed
    world.ask_for_rotation("1")
    await world.until(lambda: figure(world, "podslots_pool_token_since_timestamp_seconds") != first, 60, "in use")
    second = figure(world, "podslots_pool_token_since_timestamp_seconds") or 0.0
    assert began - LEADER_SECONDS <= second - first <= world.elapsed


@moves("podslots_pool_token_rotation")
async def how_tokens_stand(world: World) -> None:
    await until(world, 1, "podslots_pool_token_rotation", reason="InUse")
    world.ask_for_rotation("1")
    await until(world, 1, "podslots_pool_token_rotation", reason="Dropping")
    assert figure(world, "podslots_pool_token_rotation", reason="InUse") == 0
    await until(world, 1, "podslots_pool_token_rotation", 200, reason="InUse")


@moves("podslots_pool_plans")
async def plans_by_what_they_found(world: World) -> None:
    for name, codes in (("same", {"unchanged": [0]}), ("other", {"changed": [0]})):
        world.add_task(name, "plan", seconds=5, steps={"plan": {"command": ["plan"], "exitCodes": codes}})
    await until(world, 1, "podslots_pool_plans", found="unchanged")
    await until(world, 1, "podslots_pool_plans", found="changed")
    world.add_task("silent", "plan", seconds=5)
    await world.until(lambda: world.phase("silent") is TaskPhase.SUCCEEDED, 200, "it has ended")
    await until(world, 1, "podslots_pool_plans", found="changed")


# --- and nothing outlives what it is about ----------------------------------------------------------------------------


def shown_pools(replica: Replica) -> set[str]:
    return {
        sample.labels["pool"]
        for family in replica.registry.collect()
        for sample in family.samples
        if family.name.startswith("podslots_pool_")
    }


def test_a_replica_that_leads_no_more_has_no_figures_of_pools() -> None:
    """K3: they would stand beside the new leader's for ever, as they were."""

    async def main() -> None:
        async with World(1) as world:
            world.add_pool(autoscaling={**SCALED, "minReplicas": 1})
            await until(world, 1, "podslots_pool_agents_connected", 100)
            first = leader(world)
            assert first
            assert shown_pools(first) == {POOL}
            first.has_api = False
            await world.until(lambda: leader(world) not in {None, first}, 60, "another leads")
            assert shown_pools(first) == set()
            await until(world, 1, "podslots_pool_agents_connected", 100)

    virtual_time.run(main)


def test_a_pool_that_is_gone_has_no_figures() -> None:
    async def main() -> None:
        async with World(1) as world:
            world.add_pool(autoscaling=SCALED)
            await until(world, 0, "podslots_pool_desired_pods", 100)
            replica = leader(world)
            assert replica
            world.cluster.delete(SLOTPOOLS, NS, POOL)
            await world.until(lambda: shown_pools(replica) == set(), 60, "gone")

    virtual_time.run(main)
