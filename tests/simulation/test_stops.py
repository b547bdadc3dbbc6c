"""Steps that are stopped, on virtual time, one situation a test. `THEME`'s histories are about nothing else."""

import asyncio
import os
from typing import Any

import pytest

from controller.kube.api import PODS
from controller.objects.task import TaskPhase
from tests.simulation.processes import Doing, Program
from tests.simulation.replica import NS
from tests.simulation.runner import run_seed
from tests.simulation.story import all_final, holder, play
from tests.simulation.themes import BY_NAME
from tests.simulation.worker import GRACE_SECONDS
from tests.simulation.world import World

THEME = BY_NAME["steps that are stopped"]
QUICK, ALL = 6, 30
FIRST = int(os.environ.get("PODSLOTS_SEEDS", "0:").partition(":")[0])
TIDIES = Program(seconds=500.0, code=0, tidy_seconds=8.0, behind_shell=True)


@pytest.mark.parametrize(
    "seed", [pytest.param(FIRST + n, marks=[] if n < QUICK else pytest.mark.long) for n in range(ALL)]
)
def test_the_rules_hold_however_steps_are_stopped(seed: int) -> None:
    result = run_seed(seed, theme=THEME)
    assert result.problem is None, f"seed {seed}: {result.problem}\n" + "\n".join(result.events)


async def begun(world: World, name: str, kind: str, doing: Doing, **spec: Any) -> None:
    """A task of one step, which runs for some seconds already."""
    world.add_task(name, kind, doings={"plan": doing, "apply": doing}, **spec)
    await world.until(lambda: world.phase(name) is TaskPhase.RUNNING, 60, "running")
    await asyncio.sleep(3.0)


def said(world: World, name: str) -> str:
    task = world.task(name)
    assert task is not None
    return str(task["status"].get("message"))


def delete_pod(world: World, name: str) -> None:
    """Past all protection."""
    pod = holder(world, name)
    world.taken_by_force.add(pod.uid)
    world.cluster.delete(PODS, NS, pod.name)


def test_a_cancelled_step_ends_when_its_last_process_has_tidied_up() -> None:
    """Its shell dies at once."""

    async def story(world: World) -> None:
        await begun(world, "t", "apply", Doing((TIDIES,), grace_seconds=20))
        began = world.elapsed
        world.edit_task("t", cancel=True)
        await world.until(lambda: all_final(world), 30, "over")
        assert world.phase("t") is TaskPhase.CANCELLED
        assert 8.0 < world.elapsed - began < 12.0

    play(story)


def test_what_does_not_tidy_up_in_its_grace_is_ended_with_it() -> None:
    async def story(world: World) -> None:
        deaf = Program(seconds=500.0, code=0, behind_shell=True, leaves_seconds=500.0)
        await begun(world, "t", "apply", Doing((deaf,), grace_seconds=40))
        began = world.elapsed
        world.edit_task("t", cancel=True)
        await world.until(lambda: all_final(world), 60, "over")
        assert 35.0 < world.elapsed - began < 42.0, "at SIGTERM, five seconds before the end of the grace"

    play(story)


def test_a_cancel_while_one_command_prepares_starts_no_other() -> None:
    """That one tidies up and ends with 0, as if all were well."""

    async def story(world: World) -> None:
        prepares = Program(seconds=100.0, code=0, tidy_seconds=1.0, stopped_code=0)
        await begun(world, "t", "apply", Doing((prepares, TIDIES), grace_seconds=20))
        world.edit_task("t", cancel=True)
        await world.until(lambda: all_final(world), 30, "over")
        assert world.phase("t") is TaskPhase.CANCELLED
        assert [line for line in world.rules.history if "command 1 of" in line] == []

    play(story)


def test_a_command_before_that_fails_ends_the_step_and_is_named() -> None:
    async def story(world: World) -> None:
        doing = Doing((Program(5.0, 0), Program(5.0, 3), TIDIES))
        world.add_task("t", "apply", doings={"apply": doing, "plan": doing})
        await world.until(lambda: all_final(world), 90, "over")
        assert (world.phase("t"), said(world, "t")) == (TaskPhase.FAILED, "before-1 ended with 3")

    play(story)


def test_one_time_limit_covers_all_commands() -> None:
    async def story(world: World) -> None:
        doing = Doing((Program(15.0, 0), Program(15.0, 0), TIDIES), grace_seconds=20, timeout_seconds=20)
        await begun(world, "t", "apply", doing)
        began = world.elapsed
        await world.until(lambda: all_final(world), 40, "over")
        assert said(world, "t").startswith("time limit of 20 s")
        assert world.elapsed - began < 25.0

    play(story)


@pytest.mark.parametrize("seconds", [30.0, 500.0])
def test_a_deleted_pods_apply_runs_on_until_its_own_grace_is_left(seconds: float) -> None:
    """What ends by then has succeeded; what does not is stopped, and keeps what it did."""

    async def story(world: World) -> None:
        doing = Doing((Program(seconds, 0, tidy_seconds=3.0, behind_shell=True),), grace_seconds=5)
        await begun(world, "t", "apply", doing)
        began = world.elapsed
        delete_pod(world, "t")
        await world.until(lambda: all_final(world), 90, "over")
        took = world.elapsed - began
        if seconds < GRACE_SECONDS:
            assert world.phase("t") is TaskPhase.SUCCEEDED
            assert took < seconds
        else:
            assert (world.phase("t"), said(world, "t")) == (TaskPhase.FAILED, "Pod stopped")
            assert GRACE_SECONDS - 5 - 15 < took < GRACE_SECONDS - 5

    play(story)


def test_a_plan_that_its_pods_end_stopped_is_planned_again() -> None:
    async def story(world: World) -> None:
        doing = Doing((Program(50.0, 0, tidy_seconds=3.0),), grace_seconds=5)
        await begun(world, "t", "plan", doing)
        delete_pod(world, "t")
        await world.until(lambda: all_final(world), 200, "over")
        task = world.task("t")
        assert task is not None
        assert (world.phase("t"), task["status"]["attempt"]) == (TaskPhase.SUCCEEDED, 2)
        reasons = [entry["reason"] for entry in task["status"]["conditions"] if entry["type"] == "Retried"]
        assert reasons == ["PodStopped"]

    play(story)


def test_why_a_step_was_stopped_outlives_the_worker_that_stopped_it() -> None:
    """Its container was told to end, the agent did not hear of the step's end, and the next worker tells it."""

    async def story(world: World) -> None:
        await begun(world, "t", "apply", Doing((TIDIES,), grace_seconds=10))
        pod = holder(world, "t")
        (slot,) = pod.working
        worker = pod.workers[slot]
        assert worker is not None
        worker.stop()
        await asyncio.sleep(GRACE_SECONDS - 10 - 15 + 1)
        pod.workers_hang = True
        await pod.worker_ends(slot)
        assert world.phase("t") is TaskPhase.RUNNING
        pod.start_worker(slot)
        pod.workers_hang = False
        await world.until(lambda: all_final(world), 60, "over")
        assert (world.phase("t"), said(world, "t")) == (TaskPhase.FAILED, "Pod stopped")

    play(story)
