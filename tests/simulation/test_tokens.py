"""A pool's tokens over time: replaced while everything runs, made again when somebody deletes them."""

import asyncio

import pytest

from controller import names
from controller.decide.pools.rotation import KEPT, PATIENCE
from controller.kube.api import SECRETS, SLOTPOOLS, Object
from controller.local.apiserver.store.deletion import DeleteOptions
from controller.objects.task import TaskPhase
from controller.objects.token_secret import TokenState, token_state, tokens_of
from tests.simulation.node import SimPod
from tests.simulation.replica import NS
from tests.simulation.story import LEADER_SECONDS, START_SECONDS, holder, play
from tests.simulation.world import POOL, World

SECRET = names.token_secret(POOL)
ONE_POD = {"minReplicas": 1, "maxReplicas": 3, "minIdleSeconds": 0}
MOUNT_SECONDS = 90.0


def secret(world: World) -> Object:
    found = world.cluster.find(SECRETS, NS, SECRET)
    assert found is not None
    return found


def tokens(world: World) -> TokenState:
    return token_state(secret(world))


def cut_off(world: World, addresses: set[str]) -> None:
    for replica in world.replicas:
        assert replica.network is not None
        replica.network.cut_off = addresses


def condition(world: World) -> Object:
    pool = world.cluster.find(SLOTPOOLS, NS, POOL)
    assert pool is not None
    return next(entry for entry in pool["status"]["conditions"] if entry["type"] == "TokensInSync")


async def with_work(world: World) -> tuple[SimPod, SimPod]:
    """One task waits for its approval, another runs for long; their Pods."""
    world.node.mount_seconds = MOUNT_SECONDS
    world.add_task("waits", "plan_and_apply", seconds=1)
    await world.until(lambda: world.phase("waits") is TaskPhase.AWAITING_APPROVAL, 60, "waiting")
    world.add_task("runs", "apply", seconds=1500)
    await world.until(lambda: world.phase("runs") is TaskPhase.RUNNING, 60, "running")
    return holder(world, "waits"), holder(world, "runs")


@pytest.mark.parametrize("killed_after", ["nothing", "the first write", "the second write", "the third write"])
def test_a_rotation_disturbs_nothing_wherever_it_is_interrupted(killed_after: str) -> None:
    """T16, T17: no call is refused (the rules see to that), and nothing that is held ends."""
    steps = {
        "the first write": lambda state: state.next is not None,
        "the second write": lambda state: state.previous is not None,
        "the third write": lambda state: state.next is None and state.previous is None,
    }

    async def story(world: World) -> None:
        pods = await with_work(world)
        before = tokens(world).current
        world.ask_for_rotation("1")
        if (reached := steps.get(killed_after)) is not None:
            await world.until(lambda: tokens(world).requested == "1" and reached(tokens(world)), 400, killed_after)
            leader = next(replica for replica in world.replicas if replica.controller is world.leader)
            await leader.kill()
            leader.start()
        await world.until(lambda: tokens(world).current != before, 200, "in use")
        await world.until(lambda: before not in tokens_of(secret(world)), KEPT.total_seconds() + 60, "dropped")
        await asyncio.sleep(MOUNT_SECONDS)
        assert not any(pod.doomed for pod in pods)
        assert world.phase("runs") is TaskPhase.RUNNING
        world.approve("waits")
        await world.until(lambda: world.phase("waits") is TaskPhase.SUCCEEDED, 60, "applied")
        assert len(tokens_of(secret(world))) == 1
        await world.until(lambda: condition(world)["status"] == "True", 30, "in sync")

    play(story, pool={"autoscaling": ONE_POD})


@pytest.mark.parametrize("size", [0, 2])
def test_a_token_is_replaced_once_in_its_period_at_any_size(size: int) -> None:
    """T17."""
    period = 900.0

    async def story(world: World) -> None:
        made: set[str] = set()
        world.cluster.observers.append(lambda change: made.update(_ids(change.record.body)))
        await asyncio.sleep(LEADER_SECONDS + 3.5 * period)
        assert len(made) == 4

    def _ids(body: Object) -> set[str]:
        return set(tokens_of(body)) if body["metadata"]["name"] == SECRET else set()

    scaling = {"minReplicas": size, "maxReplicas": 3, "minIdleSeconds": 0}
    play(story, pool={"autoscaling": scaling, "auth": {"rotationPeriodSeconds": int(period)}}, resync_seconds=600.0)


def test_an_agent_that_is_silent_is_waited_for_and_then_named() -> None:
    async def story(world: World) -> None:
        await asyncio.sleep(START_SECONDS)
        (pod,) = world.node.alive
        cut_off(world, {pod.address})
        before = tokens(world).current
        world.ask_for_rotation("1")
        await asyncio.sleep(PATIENCE.total_seconds() - 30)
        assert tokens(world).current == before
        assert condition(world)["reason"] == "WaitingForAgents"
        await world.until(lambda: tokens(world).current != before, 60, "in use")
        await world.until(lambda: condition(world)["reason"] == "AgentsBehind", 200, "named")
        assert pod.name in condition(world)["message"]
        cut_off(world, set())
        await world.until(lambda: condition(world)["status"] == "True", 60, "in sync")

    play(story, pool={"autoscaling": ONE_POD})


@pytest.mark.parametrize(
    ("propagation", "pause"),
    [("Background", 0.0), ("Background", 0.02), ("Background", 1.0), ("Foreground", 1.0), ("Foreground", 30.0)],
)
def test_a_deleted_secret_and_then_a_deleted_pool_take_nothing_that_is_held(propagation: str, pause: float) -> None:
    """T16: the garbage collector follows owners, and a Pod's second owner is the Secret.

    Whoever deletes both in the foreground within the same moment is for the admission policies to stop.
    """

    async def story(world: World) -> None:
        pods = await with_work(world)
        before, content = secret(world)["metadata"]["uid"], secret(world)["data"]
        world.cluster.delete(SECRETS, NS, SECRET, DeleteOptions(propagation=propagation))
        if pause >= 1:
            await world.until(lambda: secret(world)["metadata"]["uid"] != before, 20, "made again")
            assert secret(world)["data"] == content
        await asyncio.sleep(pause)
        world.cluster.delete(SLOTPOOLS, NS, POOL, DeleteOptions(propagation="Foreground"))
        await asyncio.sleep(120)
        assert not any(pod.doomed for pod in pods)
        world.approve("waits")
        await world.until(lambda: world.phase("waits") is TaskPhase.SUCCEEDED, 60, "applied")
        await world.until(lambda: not world.cluster.all(SLOTPOOLS), 1600, "gone")
        assert world.phase("runs") is TaskPhase.SUCCEEDED
        assert world.cluster.find(SECRETS, NS, SECRET) is None

    play(story, pool={"autoscaling": ONE_POD})
