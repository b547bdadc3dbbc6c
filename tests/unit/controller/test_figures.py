"""T31: every figure of a controller follows what it measures, up and, if it is a gauge, down again.

By real controllers and agents on virtual time. Which families there are is asked of the registry: one that is added
without a test of its own fails here.
"""

import asyncio
import platform
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from controller import names
from controller.act.operations import Result
from controller.app import metrics_of
from controller.decide.scaling.size import Reason
from controller.kube.api import LEASES, PODS, SLOTPOOLS
from controller.objects.task import FINAL_PHASES, TaskPhase
from controller.passes.reconcile import Reconciler
from controller.passes.starting import OPERATION_KINDS
from tests.simulation.replica import NS, Replica
from tests.simulation.story import LEADER_SECONDS
from tests.simulation.world import POOL, World
from tests.support import virtual_time

Story = Callable[[World], Coroutine[Any, Any, None]]
STORIES: dict[str, tuple[Story, dict[str, Any]]] = {}
SCALED = {"minReplicas": 0, "maxReplicas": 4, "minIdleSeconds": 5}


def families() -> list[str]:
    registry = CollectorRegistry()
    metrics_of(registry, lambda: datetime.now(UTC))
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


@moves("podslots_controller_build_info")
async def what_runs(world: World) -> None:
    """The one figure that stands still: an update is another process."""
    labels = {"version": version("podslots"), "python": platform.python_version()}
    assert figure(world, "podslots_controller_build_info", **labels) == 1


@moves("podslots_controller_leadership_changes")
async def leadership(world: World) -> None:
    name = "podslots_controller_leadership_changes_total"
    first = leader(world)
    assert first
    (other,) = [replica for replica in world.replicas if replica is not first]

    def shown(replica: Replica) -> tuple[float | None, ...]:
        return tuple(replica.registry.get_sample_value(name, {"change": change}) for change in ("gained", "lost"))

    assert (shown(first), shown(other)) == ((1, 0), (0, 0))
    first.has_api = False
    await world.until(lambda: (shown(first), shown(other)) == ((1, 1), (1, 0)), 60, "another leads")


@moves("podslots_controller_passes")
async def passes_by_how_they_end(world: World) -> None:
    name = "podslots_controller_passes_total"
    done = figure(world, name, result="done") or 0
    replica = leader(world)
    assert replica
    assert replica.controller
    loop = replica.controller.loop
    whole = loop._reconciler
    world.add_task("t", "plan")
    await world.until(lambda: (figure(world, name, result="done") or 0) > done, 10, "looked at again")
    assert figure(world, name, result="broken") == 0
    loop._reconciler = cast("Reconciler", object())  # its pass breaks
    await world.until(lambda: (figure(world, name, result="broken") or 0) > 0, 60, "broken")
    loop._reconciler = whole


@moves("podslots_controller_agent_requests", autoscaling={**SCALED, "minReplicas": 1})
async def calls_of_agents(world: World) -> None:
    name = "podslots_controller_agent_requests_total"
    await until(world, 1, "podslots_pool_agents_connected")
    await until(world, 1, name, call="open", code="200")
    assert figure(world, name, call="acquire", code="200") is None
    world.add_task("t", "plan_and_apply", seconds=5)
    await world.until(lambda: world.phase("t") is TaskPhase.AWAITING_APPROVAL, 60, "planned")
    world.approve("t")
    await world.until(lambda: world.phase("t") is TaskPhase.SUCCEEDED, 60, "done")
    calls = ("acquire", "approve", "ack")
    await world.until(lambda: all(figure(world, name, call=call, code="200") for call in calls), 10, "answered")
    replica = leader(world)
    assert replica
    assert replica.network
    replica.network.cut_off.add(world.node.alive[0].address)
    await world.until(lambda: (figure(world, name, call="watch", code="none") or 0) > 0, 60, "no answer")
    replica.network.cut_off.clear()


@moves("podslots_pool_current_pods")
async def pods_that_make_up_the_size(world: World) -> None:
    for name in ("a", "b"):
        world.add_task(name, "apply", seconds=20)
    await until(world, 2, "podslots_pool_current_pods")
    await until(world, 0, "podslots_pool_current_pods", 120)


@moves("podslots_pool_min_pods")
async def the_least_size(world: World) -> None:
    await until(world, 0, "podslots_pool_min_pods")
    edit_pool(world, autoscaling={**SCALED, "minReplicas": 2})
    await until(world, 2, "podslots_pool_min_pods")
    edit_pool(world, autoscaling=None, replicas=1)
    await until(world, 1, "podslots_pool_min_pods")


@moves("podslots_pool_max_pods")
async def the_greatest_size(world: World) -> None:
    await until(world, 4, "podslots_pool_max_pods")
    edit_pool(world, autoscaling={**SCALED, "maxReplicas": 2})
    await until(world, 2, "podslots_pool_max_pods")
    edit_pool(world, autoscaling=None, replicas=1)
    await until(world, 1, "podslots_pool_max_pods")


@moves("podslots_pool_size_decisions")
async def decisions_by_reason(world: World) -> None:
    name = "podslots_pool_size_decisions_total"
    for reason in Reason:
        assert figure(world, name, reason=reason) == 0
    world.add_task("a", "apply", seconds=20)
    await until(world, 1, name, reason="QueuedTasks")
    await until(world, 1, name, 120, reason="UtilizationBelow")


@moves("podslots_pool_condition")
async def conditions(world: World) -> None:
    name = "podslots_pool_condition"
    await until(world, 1, name, condition="Ready")
    await until(world, 0, name, condition="Degraded")
    edit_pool(world, autoscaling={**SCALED, "minReplicas": 1})
    await until(world, 0, name, condition="Ready")
    await until(world, 1, name, condition="Ready")


@moves("podslots_pool_not_starting_pods")
async def pods_that_do_not_start(world: World) -> None:
    await until(world, 0, "podslots_pool_not_starting_pods")
    world.node.refuses = True
    world.add_task("a", "apply", seconds=5)
    await world.until(lambda: (figure(world, "podslots_pool_not_starting_pods") or 0) >= 1, 60, "one is refused")
    world.node.refuses = False
    await world.until(lambda: world.phase("a") is TaskPhase.SUCCEEDED, 200, "done")
    await until(world, 0, "podslots_pool_not_starting_pods", 100)


@moves("podslots_pool_leaving_pods", autoscaling={**SCALED, "minReplicas": 1})
async def pods_that_are_to_go(world: World) -> None:
    await until(world, 0, "podslots_pool_leaving_pods")
    world.add_task("t", "plan", seconds=60)
    await world.until(lambda: world.phase("t") is TaskPhase.RUNNING, 60, "running")
    (pod,) = world.pods()
    annotations = {names.DRAIN_REQUESTED: "true"}
    world.cluster.patch(PODS, NS, pod["metadata"]["name"], {"metadata": {"annotations": annotations}})
    await until(world, 1, "podslots_pool_leaving_pods")
    assert world.phase("t") is TaskPhase.RUNNING
    await until(world, 0, "podslots_pool_leaving_pods", 100)


@moves("podslots_pool_agents_unreachable", autoscaling={**SCALED, "minReplicas": 1})
async def agents_that_do_not_answer(world: World) -> None:
    await until(world, 1, "podslots_pool_agents_connected")
    await until(world, 0, "podslots_pool_agents_unreachable")
    replica = leader(world)
    assert replica
    assert replica.network
    replica.network.cut_off.add(world.node.alive[0].address)
    await until(world, 1, "podslots_pool_agents_unreachable")
    replica.network.cut_off.clear()
    await until(world, 0, "podslots_pool_agents_unreachable")


@moves("podslots_pool_drains", autoscaling={**SCALED, "minReplicas": 1, "minIdleSeconds": 0})
async def drains_by_answer(world: World) -> None:
    """Something beside the agent takes a slot just before the agent is asked: it refuses."""
    name = "podslots_pool_drains_total"
    await until(world, 1, "podslots_pool_agents_connected")
    assert (figure(world, name, result="granted"), figure(world, name, result="refused")) == (0, 0)
    replica = leader(world)
    assert replica
    assert replica.controller
    pod = world.node.alive[0]
    view = next(view for view in replica.controller.world.views.pods((NS, POOL)).values() if view.uid == pod.uid)
    agent = replica.controller.world.following.client(pod.uid)
    assert agent
    world.add_task("t", "plan", seconds=20)
    await world.until(lambda: world.phase("t") is TaskPhase.RUNNING, 60, "running")
    pods = replica.controller.reconciler._pod_starts._pods
    assert not await replica._context.copy().run(asyncio.ensure_future, pods.drain_and_delete(view, NS, agent))
    assert figure(world, name, result="refused") == 1
    assert figure(world, name, result="granted") == 0
    edit_pool(world, autoscaling=SCALED)
    await until(world, 1, name, 100, result="granted")


@moves("podslots_pool_class_slots", autoscaling={**SCALED, "minReplicas": 1})
async def slots_by_class(world: World) -> None:
    name, full = "podslots_pool_class_slots", "plan+apply+plan_and_apply"
    await until(world, 1, name, 60, **{"class": full, "state": "idle"})
    await until(world, 2, name, 60, **{"class": "plan", "state": "idle"})
    world.add_task("t", "plan_and_apply", seconds=20)
    await until(world, 1, name, 60, **{"class": full, "state": "running"})
    await until(world, 1, name, 60, **{"class": full, "state": "reserved"})
    assert figure(world, name, **{"class": full, "state": "idle"}) == 0
    assert figure(world, name, **{"class": "plan", "state": "idle"}) == 2
    assert figure(world, name, **{"class": "other", "state": "idle"}) == 0


@moves("podslots_pool_free_type_slots", autoscaling={**SCALED, "minReplicas": 1, "maxReplicas": 1})
async def slots_that_take_a_type(world: World) -> None:
    name = "podslots_pool_free_type_slots"
    await until(world, 3, name, type="plan")
    await until(world, 1, name, type="apply")
    world.add_task("t", "apply", seconds=20)
    await until(world, 0, name, type="apply")
    await until(world, 2, name, type="plan")
    await until(world, 1, name, type="apply")


@moves("podslots_pool_queued_type_tasks", autoscaling={**SCALED, "maxReplicas": 1})
async def tasks_that_wait_by_type(world: World) -> None:
    name = "podslots_pool_queued_type_tasks"
    for number in range(3):
        world.add_task(f"t{number}", "apply", seconds=20)
    await until(world, 3, name, type="apply")
    assert figure(world, name, type="plan") == 0
    await until(world, 0, name, 200, type="apply")


@moves("podslots_pool_oldest_queued_age_seconds", autoscaling={**SCALED, "maxReplicas": 1})
async def how_long_the_oldest_waits(world: World) -> None:
    name = "podslots_pool_oldest_queued_age_seconds"
    await until(world, 0, name)
    world.add_task("first", "apply", seconds=60)
    await world.until(lambda: world.phase("first") is TaskPhase.RUNNING, 60, "running")
    world.add_task("second", "apply", seconds=1)
    await asyncio.sleep(20)
    assert figure(world, name) == pytest.approx(20, abs=5)
    await until(world, 0, name, 100)


@moves("podslots_pool_oldest_approval_age_seconds")
async def how_long_the_oldest_plan_waits(world: World) -> None:
    name = "podslots_pool_oldest_approval_age_seconds"
    await until(world, 0, name)
    world.add_task("t", "plan_and_apply", seconds=5)
    await world.until(lambda: world.phase("t") is TaskPhase.AWAITING_APPROVAL, 60, "planned")
    await asyncio.sleep(100)
    assert figure(world, name) == pytest.approx(100, abs=10)
    world.approve("t")
    await until(world, 0, name)


@moves("podslots_pool_next_expiry_timestamp_seconds", reservation={"ttlSeconds": 3600})
async def when_the_first_reservation_ends(world: World) -> None:
    name = "podslots_pool_next_expiry_timestamp_seconds"
    assert figure(world, name) is None
    world.add_task("t", "plan_and_apply", seconds=5)
    await world.until(lambda: figure(world, name) is not None, 60, "planned")
    assert (figure(world, name) or 0) - world.now().timestamp() == pytest.approx(3600, abs=10)
    world.approve("t")
    await world.until(lambda: figure(world, name) is None, 60, "approved")


@moves("podslots_pool_lost_task_locks")
async def locks_of_lost_tasks(world: World) -> None:
    name = "podslots_pool_lost_task_locks"
    await until(world, 0, name)
    world.add_task("t", "apply", seconds=500, lockKey="vpc")
    await world.until(lambda: world.phase("t") is TaskPhase.RUNNING, 60, "running")
    (pod,) = world.node.alive
    world.taken_by_force.add(pod.uid)
    pod.doomed = True
    world.node.remove_by_force(pod)
    await until(world, 1, name, 100)
    pod.kill()
    (lock,) = [
        lease for lease in world.cluster.all(LEASES) if names.LOCK_LABEL in (lease["metadata"].get("labels") or {})
    ]
    world.cluster.delete(LEASES, NS, lock["metadata"]["name"])
    await until(world, 0, name)


@moves("podslots_pool_slot_wait_seconds", autoscaling={**SCALED, "maxReplicas": 1})
async def how_long_tasks_waited(world: World) -> None:
    name = "podslots_pool_slot_wait_seconds"
    await until(world, 0, f"{name}_count")
    world.add_task("first", "apply", seconds=100)
    await until(world, 1, f"{name}_count")
    before = figure(world, f"{name}_sum") or 0
    world.add_task("second", "apply", seconds=1)
    await until(world, 2, f"{name}_count", 200)
    assert (figure(world, f"{name}_sum") or 0) - before == pytest.approx(100, abs=15)


@moves("podslots_pool_approval_wait_seconds")
async def how_long_plans_waited(world: World) -> None:
    name = "podslots_pool_approval_wait_seconds"
    await until(world, 0, f"{name}_count")
    world.add_task("t", "plan_and_apply", seconds=5)
    await world.until(lambda: world.phase("t") is TaskPhase.AWAITING_APPROVAL, 60, "planned")
    await asyncio.sleep(300)
    world.approve("t")
    await until(world, 1, f"{name}_count")
    assert figure(world, f"{name}_sum") == pytest.approx(300, abs=10)


@moves("podslots_pool_step_duration_seconds")
async def how_long_steps_took(world: World) -> None:
    name = "podslots_pool_step_duration_seconds"
    world.add_task("t", "plan_and_apply", seconds=30)
    await until(world, 1, f"{name}_count", 100, step="plan")
    assert figure(world, f"{name}_count", step="apply") == 0
    world.approve("t")
    await until(world, 1, f"{name}_count", 100, step="apply")
    assert figure(world, f"{name}_count", step="plan") == 1
    assert figure(world, f"{name}_sum", step="plan") == pytest.approx(30, abs=5)


@moves("podslots_pool_tasks_ended")
async def tasks_by_how_they_ended(world: World) -> None:
    name = "podslots_pool_tasks_ended_total"
    for phase in FINAL_PHASES:
        assert figure(world, name, phase=phase) == 0
    world.add_task("t", "plan", seconds=5)
    world.add_task("c", "plan", seconds=5)
    world.edit_task("c", cancel=True)
    await until(world, 1, name, 100, phase="Succeeded")
    await until(world, 1, name, 100, phase="Cancelled")


@moves("podslots_pool_reservations_ended", reservation={"ttlSeconds": 60})
async def reservations_by_how_they_ended(world: World) -> None:
    name = "podslots_pool_reservations_ended_total"
    for task in ("approved", "cancelled", "expired"):
        world.add_task(task, "plan_and_apply", seconds=1)
    tasks = ("approved", "cancelled", "expired")
    await world.until(
        lambda: all(world.phase(task) is TaskPhase.AWAITING_APPROVAL for task in tasks), 100, "all are planned"
    )
    world.approve("approved")
    world.edit_task("cancelled", cancel=True)
    for task in tasks:
        await until(world, 1, name, 200, how=task)
    world.add_task("lost", "plan_and_apply", seconds=1)
    await world.until(lambda: world.phase("lost") is TaskPhase.AWAITING_APPROVAL, 100, "planned")
    for pod in world.node.alive:
        world.taken_by_force.add(pod.uid)
        world.node.end(pod)
    await until(world, 1, name, 100, how="lost")


def edit_pool(world: World, **spec: Any) -> None:
    world.cluster.patch(SLOTPOOLS, NS, POOL, {"spec": spec})


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


def test_what_was_measured_is_not_measured_again_by_the_next_leader() -> None:
    """Waits, durations and outcomes are counted by whoever made the write that says so: once, of all replicas."""

    async def main() -> None:
        async with World(1) as world:
            world.add_pool(autoscaling=SCALED)
            world.add_task("t", "plan_and_apply", seconds=5)
            await world.until(lambda: world.phase("t") is TaskPhase.AWAITING_APPROVAL, 100, "planned")
            first = leader(world)
            assert first
            counted = {
                ("podslots_pool_slot_wait_seconds_count", ""): [1.0, 0.0],
                ("podslots_pool_step_duration_seconds_count", "plan"): [1.0, 0.0],
                ("podslots_pool_step_duration_seconds_count", "apply"): [0.0, 1.0],
                ("podslots_pool_approval_wait_seconds_count", ""): [0.0, 1.0],
            }
            for (name, step), (before, _) in counted.items():
                assert figure(world, name, **({"step": step} if step else {})) == before, name
            await first.kill()
            await world.until(lambda: leader(world) not in {None, first}, 60, "another leads")
            await until(world, 1, "podslots_pool_tasks", phase="AwaitingApproval")
            world.approve("t")
            await world.until(lambda: world.phase("t") is TaskPhase.SUCCEEDED, 100, "done")
            for (name, step), (_, after) in counted.items():
                assert figure(world, name, **({"step": step} if step else {})) == after, name
            await until(world, 1, "podslots_pool_tasks_ended_total", phase="Succeeded")

    virtual_time.run(main)
