"""Situations on virtual time: a whole system, and a coroutine that says what happens and what must come of it."""

from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from controller.objects.task import FINAL_PHASES
from tests.simulation.node import SimPod
from tests.simulation.world import World, phase_of
from tests.support import virtual_time

RESYNC_SECONDS = 30.0
LEADER_SECONDS = 20.0
"""By then a first leader leads: it made the Lease, and so waits for one duration of it."""
START_SECONDS = LEADER_SECONDS + 10.0
"""By then its first Pods serve."""

Story = Callable[[World], Coroutine[Any, Any, None]]


def play(story: Story, *, seed: int = 1, pool: dict[str, Any] | None = None, **world: Any) -> None:
    """Live through a story; the rules of `rules.Rules` hold in it too."""

    async def main() -> None:
        async with World(seed, **world) as made:
            made.add_pool(**(pool or {}))
            await story(made)
            made.check()

    virtual_time.run(main)


def all_final(world: World) -> bool:
    """Whether every task is over."""
    return all(phase_of(task) in FINAL_PHASES for task in world.tasks())


async def most_pods(world: World, seconds: float) -> int:
    """How many Pods there were at most until every task was over."""
    most = 0

    def done() -> bool:
        nonlocal most
        most = max(most, len(world.pods()))
        return all_final(world)

    await world.until(done, seconds, "done")
    return most


def slots_of(world: World) -> Counter[str]:
    """How many slots are in each state, by the agents' own word."""
    return Counter(slot.state.value for pod in world.node.alive for slot in pod.state().slots)


def holder(world: World, name: str) -> SimPod:
    """The Pod whose agent holds a task."""
    task = world.task(name)
    assert task is not None
    uid = task["metadata"]["uid"]
    found = [
        pod for pod in world.node.alive if any((slot.task_id or "").startswith(f"{uid}.") for slot in pod.state().slots)
    ]
    assert len(found) == 1, found
    return found[0]
