"""What is said of a pool that is being deleted while nothing is wrong with it."""

from dataclasses import replace

import pytest

from controller.cli.show import tables
from controller.decide.pools.pool_deletion import deletion_stand
from controller.decide.pools.pool_status import Before, pool_status
from controller.decide.problem import Problems
from controller.decide.scaling.size import decide_size
from controller.decide.view import PoolView
from controller.objects.task import Task, TaskPhase
from tests.support.pools import NOW, pod, pool, task


def held(name: str, phase: TaskPhase) -> Task:
    found = task(name)
    return replace(found, status=replace(found.status, phase=phase))


def ready(view: PoolView) -> tuple[str, str, str]:
    document = pool_status(view, decide_size(view), before=Before(generation=3), problems=Problems())
    entry = next(entry for entry in document["conditions"] if entry["type"] == "Ready")
    return entry["status"], entry["reason"], entry["message"]


def test_a_pool_that_stays_says_nothing_of_it() -> None:
    assert deletion_stand(pool([pod("a", "...")])) is None


@pytest.mark.parametrize(
    ("tasks", "pods", "words"),
    [
        (
            (held("net", TaskPhase.AWAITING_APPROVAL),),
            1,
            "Waits for task net, which waits for its approval; 1 Pod",
        ),
        (
            (held("b", TaskPhase.RUNNING), held("a", TaskPhase.ASSIGNED)),
            0,
            "Waits for task a, which runs, task b",
        ),
        ((held("q", TaskPhase.QUEUED),), 2, "Waits for 2 Pods to be drained and deleted"),
        ((), 0, "Its last Pod is gone."),
    ],
)
def test_it_says_which_tasks_and_how_many_pods_it_waits_for(tasks: tuple[Task, ...], pods: int, words: str) -> None:
    view = pool([pod(f"p{number}", "...") for number in range(pods)], tasks, deleting=True)
    status, reason, message = ready(view)
    assert (status, reason) == ("False", "Deleting")
    assert message.startswith(words)


def test_of_many_tasks_some_are_named() -> None:
    found = deletion_stand(pool([], tuple(held(f"t{number}", TaskPhase.RUNNING) for number in range(9)), deleting=True))
    assert found is not None
    assert found.message.endswith("task t4, which runs and 4 more")


def test_it_is_in_the_table_too_and_before_the_controller_has_said_anything() -> None:
    going = {"metadata": {"name": "p", "deletionTimestamp": "2026-03-01T12:00:00Z"}}
    assert tables.standing(going) == "Deleting"
    conditions = [{"type": "Ready", "status": "False", "reason": "Deleting", "message": "waits for 2 Pods"}]
    said = {**going, "status": {"conditions": conditions}}
    assert tables.standing(said) == "Deleting: waits for 2 Pods"
    assert "Deleting: waits for 2 Pods" in tables.pools([said], NOW, namespaces=False).text()
