"""One history: trouble for some minutes, then none, and everything comes to its end."""

import asyncio
import contextlib
import random
from typing import Any

from agent.wire import SlotState
from controller import names
from controller.kube.api import DEPLOYMENTS, LEASES, REPLICASETS, SECRETS, SLOTPOOLS, Object
from controller.local.apiserver.errors import ApiError as Refusal
from controller.local.apiserver.store.deletion import DeleteOptions
from controller.objects.task import FINAL_PHASES
from tests.simulation.bystander import Bystander
from tests.simulation.changes import Operator
from tests.simulation.chaos import Chaos
from tests.simulation.faults import Faults, leases_fail
from tests.simulation.person import Person
from tests.simulation.prometheus import SIGNAL
from tests.simulation.replica import NS
from tests.simulation.themes import Theme, theme_of
from tests.simulation.trace import Trace
from tests.simulation.world import POOL, World, phase_of
from tests.support.at_once import AT_ONCE


async def live(seed: int, trace: Trace | None = None, *, about: Theme | None = None) -> World:
    """Live through one history, about a theme if one is given: else the seed has one.

    Raises AssertionError with what was broken, or is not as it should be in the end.
    """
    rng = random.Random(f"{seed}/setting")
    theme = about or theme_of(rng)
    async with contextlib.AsyncExitStack() as stack:
        if theme.leases_fail:
            stack.enter_context(leases_fail())
        world = await stack.enter_async_context(
            World(
                seed,
                faults=Faults.plenty(rng, theme),
                layout=rng.choice(theme.layouts),
                lease_seconds=rng.choice(theme.lease_seconds),
                trace=trace,
            )
        )
        world.rules.minds_leases = not theme.leases_fail
        world.rules.note(f"=== a history of {theme.name}")
        pool = _pool(seed, rng, theme)
        world.node.mount_seconds = theme.mount_seconds
        world.pools = (POOL, *(f"{POOL}-{number}" for number in range(2, theme.pools + 1)))
        for name in world.pools:
            world.add_pool(name, **pool)
        person, chaos = Person(world, theme, rng.randint(2, theme.tasks), 120.0), Chaos(world, theme)
        operator = Operator(world, rng.choice([10.0, 60.0]), theme)
        world.spawn(person.bring_tasks())
        world.spawn(person.look_after_them())
        trouble = [world.spawn(chaos.run())]
        if theme.signal:
            world.spawn(world.prometheus.scrape())
        if rng.random() < theme.operator_share:
            trouble.append(world.spawn(operator.run()))
        bystander = Bystander(world, rng.choice([5.0, 20.0]))
        if rng.random() < theme.bystander_share:
            trouble.append(world.spawn(bystander.run()))
        await world.until(lambda: person.done and world.elapsed > 180, 400, "over with the trouble")
        if rng.random() < theme.replace_share:
            await _replace_pool(world, pool, rng.choice(["Background", "Foreground"]))
        for task in trouble:
            task.cancel()
        person.content = True
        world.faults.end()
        await chaos.mend()
        world.set_clocks()
        operator.put_back()
        await bystander.give_back()
        world.rules.note("=== nothing goes wrong any more")
        if theme.gives_up:
            await asyncio.sleep(30.0)
            person.give_up()
        await world.until(lambda: all(phase_of(task) in FINAL_PHASES for task in world.tasks()), 1200, "all final")
        await world.until(lambda: settled(world), 900, "settled")
        for found in world.cluster.all(SLOTPOOLS):
            options = DeleteOptions(propagation=rng.choice(["Background", "Foreground"]))
            world.cluster.delete(SLOTPOOLS, NS, found["metadata"]["name"], options)
        await world.until(lambda: empty(world), 300, "gone")
        return world


def _pool(seed: int, rng: random.Random, theme: Theme) -> dict[str, Any]:
    """The pool's spec."""
    least = rng.choice([0, 0, 1])
    pool: dict[str, Any] = {
        "autoscaling": {
            "minReplicas": least,
            "maxReplicas": least + rng.choice(theme.more_pods),
            "minIdleSeconds": rng.choice(theme.min_idle_seconds),
            "idleSlots": rng.choice([{}, {}, {"plan": 1}]),
            "behavior": AT_ONCE,
        },
        "reservation": {"ttlSeconds": rng.choice(theme.ttl_seconds)},
    }
    if len(theme.rotation_seconds) > 1:
        period = random.Random(f"{seed}/tokens").choice(theme.rotation_seconds)
        pool["auth"] = {"rotationPeriodSeconds": period}
    if theme.behaviors:
        pool["autoscaling"] |= {
            "behavior": random.Random(f"{seed}/behavior").choice(theme.behaviors),
            "freeze": list(theme.freezes),
        }
    if theme.signal:
        pool["autoscaling"]["signal"] = SIGNAL
    if len(theme.modes) > 1:
        pool["mode"] = random.Random(f"{seed}/mode").choice(theme.modes)
    if theme.sizes:
        of_pool = random.Random(f"{seed}/size")
        pool["autoscaling"], pool["replicas"] = None, of_pool.choice(theme.sizes)
        pool["updateStrategy"] = of_pool.choice(theme.updates)
    return pool


async def _replace_pool(world: World, pool: dict[str, Any], propagation: str) -> None:
    """Somebody deletes the pool in the middle of it all, and makes it again when it is gone."""
    world.rules.note("--- somebody deletes the pool")
    world.cluster.delete(SLOTPOOLS, NS, POOL, DeleteOptions(propagation=propagation))
    world.faults.end()
    await world.until(lambda: world.cluster.find(SLOTPOOLS, NS, POOL) is None, 1500, "rid of the pool")
    try:
        world.add_pool(**pool)
    except Refusal as refusal:
        raise AssertionError(f"the pool can't be made again: {refusal.message}") from refusal


def settled(world: World) -> bool:
    """Each pool as small as it may be, and no other there; nothing locked, held, unsaid or under way."""
    pools = world.cluster.all(SLOTPOOLS)
    if {pool["metadata"]["name"] for pool in pools} != set(world.pools):
        return False
    if any(len(_pods_of(world, pool)) != _least(pool) for pool in pools):
        return False
    if not all(_fits(world, pool) for pool in pools):
        return False
    if any(names.LOCK_LABEL in (lease["metadata"].get("labels") or {}) for lease in world.cluster.all(LEASES)):
        return False
    for pod in world.node.alive:
        state = pod.state()
        if state.ended or any(slot.state is not SlotState.IDLE for slot in state.slots):
            return False
    leader = world.leader
    if leader is None or len(leader.operations):
        return False
    under_way = leader.world.under_way
    return not (under_way.dispatching or any(under_way.creating.values()))


def _pods_of(world: World, pool: Object) -> list[Object]:
    name = pool["metadata"]["name"]
    return [pod for pod in world.pods() if pod["metadata"]["labels"].get(names.POOL_LABEL) == name]


def _fits(world: World, pool: Object) -> bool:
    """Whether a pool in Deployment mode has no Deployment but that of its Pods, and any other has none."""
    name = pool["metadata"]["name"]
    of_pool = [obj for obj in world.cluster.all(DEPLOYMENTS) if obj["metadata"]["labels"][names.POOL_LABEL] == name]
    sizes = [deployment["spec"]["replicas"] for deployment in of_pool if deployment["spec"]["replicas"]]
    if pool["spec"].get("mode", "Pods") == "Pods":
        return not of_pool
    return len(of_pool) <= 1 and sum(sizes) == len(_pods_of(world, pool))


def _least(pool: Object) -> int:
    """How many Pods a pool has without any work."""
    scaler = pool["spec"].get("autoscaling")
    if scaler is None:
        return int(pool["spec"]["replicas"])
    return max(int(scaler.get("minReplicas", 0)), 1 if scaler.get("idleSlots") else 0)


def empty(world: World) -> bool:
    """Nothing of the pool is left."""
    return not (
        world.cluster.all(SLOTPOOLS)
        or world.pods()
        or world.cluster.all(DEPLOYMENTS)
        or world.cluster.all(REPLICASETS)
        or [secret for secret in world.cluster.all(SECRETS) if names.POOL_LABEL in secret["metadata"].get("labels", {})]
    )
