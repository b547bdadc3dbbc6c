"""After a lost journal an agent's slots are as they were born. For nobody who decides or counts are they idle."""

import dataclasses
from collections import Counter

import pytest

from agent.wire import RECOVERING, Phase
from controller.decide.pools.pool_figures import TaskCounts, pool_figures
from controller.decide.pools.pool_status import Before, pool_status
from controller.decide.problem import Problems
from controller.decide.scaling.basis import Basis
from controller.decide.scaling.capacity import promises, take_census
from controller.decide.scaling.size import decide_size
from controller.decide.tasks.assignment import assign
from controller.decide.view import PodView, PoolView
from tests.support.pools import pod, pods, pool, tasks

LOST = [pod("a", "???"), pod("a", "r.?"), pod("a", "???", phase=Phase.DRAINED)]


def census(view: PoolView) -> Counter[tuple[str, ...]]:
    return take_census(view, promises(view)).capacity


@pytest.mark.parametrize("lost", LOST)
def test_they_are_no_free_capacity_and_get_no_task(lost: PodView) -> None:
    view = pool([lost], tasks("plan", 2))
    assert not census(view)
    assert assign(Basis.of(view)) == ()
    assert decide_size(view).desired == 2, "what waits gets a Pod, as if this one were full"


@pytest.mark.parametrize("lost", LOST)
def test_the_pool_is_as_used_as_if_they_were_held(lost: PodView) -> None:
    """T3, R3: what is not known never makes a pool smaller, its other Pods neither."""
    full = pod("a", "rrr")
    rest = pods("...", "...", "...")
    view, same = pool([lost, *rest]), pool([full, *rest])
    assert take_census(view, {}).rest_used == take_census(same, {}).rest_used
    assert decide_size(view).desired == decide_size(same).desired


def test_they_are_counted_by_a_word_of_their_own() -> None:
    view = pool([pod("a", "r?R"), pod("b", "r..")], replicas=2)
    decision = decide_size(view)
    status = pool_status(view, decision, before=Before(generation=1), problems=Problems())
    assert status["slots"] == {"total": 6, "idle": 2, "running": 2, "reserved": 1}
    assert pool_figures(view, decision, TaskCounts()).slots == {"idle": 2, "running": 2, "reserved": 1, RECOVERING: 1}


def test_an_agent_that_does_not_say_which_are_meant_means_all() -> None:
    """One of a version that had one word for the whole of it."""
    lost = pod("a", "r..")
    assert lost.agent
    view = pool([dataclasses.replace(lost, agent=dataclasses.replace(lost.agent, recovering=True))], replicas=1)
    assert not census(view)
    assert pool_figures(view, decide_size(view), TaskCounts()).slots == {
        "idle": 0,
        "running": 1,
        "reserved": 0,
        RECOVERING: 2,
    }


def test_once_all_is_known_they_are_as_any_others() -> None:
    assert census(pool([pod("a", "...")]))
