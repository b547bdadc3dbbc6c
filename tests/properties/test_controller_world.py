"""The controller, its agents and all that can go wrong, in one process: rules that hold throughout, and a good end.

`PODSLOTS_SEEDS=FIRST:COUNT` chooses the seeds; a failure names its own, and its last few hundred events.
"""

import os
import random

import pytest

from agent.wire import SlotState
from controller import names
from controller.kube.api import LEASES, SECRETS, SLOTPOOLS
from controller.pool import DEFAULT_LAYOUT
from controller.task import FINAL_PHASES
from tests.support import virtual_time
from tests.support.sim_person import Person
from tests.support.sim_world import NS, POOL, Chaos, Faults, World, phase_of

FIRST, COUNT = (int(part) for part in os.environ.get("PODSLOTS_SEEDS", "0:50").split(":"))
CHUNK = 5
LAYOUTS = (DEFAULT_LAYOUT, (("plan", "apply", "plan_and_apply"),), (("plan", "apply", "plan_and_apply"),) * 2)


async def live(seed: int) -> World:
    """One history: trouble for some minutes, then none, and everything comes to its end."""
    rng = random.Random(f"{seed}/setting")
    async with World(seed, faults=Faults.plenty(rng), layout=rng.choice(LAYOUTS)) as world:
        least = rng.choice([0, 0, 1])
        world.add_pool(
            autoscaling={
                "minReplicas": least,
                "maxReplicas": least + rng.randint(1, 3),
                "minIdleSeconds": rng.choice([0, 5, 30]),
                "idleSlots": rng.choice([{}, {}, {"plan": 1}]),
            },
            reservation={"ttlSeconds": rng.choice([30, 86400])},
        )
        person, chaos = Person(world, rng.randint(2, 12), 120.0), Chaos(world)
        world.spawn(person.bring_tasks())
        world.spawn(person.look_after_them())
        trouble = world.spawn(chaos.run())
        await world.until(lambda: person.done and world.elapsed > 180, 400, "over with the trouble")
        trouble.cancel()
        world.faults.end()
        await chaos.mend()
        world.rules.note("=== nothing goes wrong any more")
        await world.until(lambda: all(phase_of(task) in FINAL_PHASES for task in world.tasks()), 1200, "all final")
        await world.until(lambda: settled(world, least), 900, "settled")
        world.cluster.delete(SLOTPOOLS, NS, POOL)
        await world.until(lambda: empty(world), 300, "gone")
        return world


def settled(world: World, least: int) -> bool:
    """As small as it may be, nothing locked, held, unsaid or under way."""
    pods = world.pods()
    idle_slots = world.cluster.all(SLOTPOOLS)[0]["spec"]["autoscaling"].get("idleSlots")
    if len(pods) != max(least, 1 if idle_slots else 0):
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
    return not (under_way.pods or under_way.dispatching or any(under_way.creating.values()))


def empty(world: World) -> bool:
    """Nothing of the pool is left."""
    return not (
        world.cluster.all(SLOTPOOLS)
        or world.pods()
        or [secret for secret in world.cluster.all(SECRETS) if names.POOL_LABEL in secret["metadata"].get("labels", {})]
    )


@pytest.mark.parametrize("first", range(FIRST, FIRST + COUNT, CHUNK))
def test_the_rules_hold_and_everything_comes_to_its_end(first: int) -> None:
    """T1, T2, T3, T7, T8, T9, T10, T11, T15, T19, T20, T21, T22, T23, T24, T25, R1, D1, O1, G1, B1.

    No Pod is deleted that holds anything, no task is in two slots, no step starts twice, no apply without its approval,
    no final phase changes, no reservation ends by itself: with crashes, pauses, partitions, lost, late and repeated
    messages. When they stop, every task ends, the pool shrinks to its least, and a deleted pool leaves nothing.
    """
    for seed in range(first, min(first + CHUNK, FIRST + COUNT)):
        virtual_time.run(lambda seed=seed: live(seed))  # type: ignore[misc]
