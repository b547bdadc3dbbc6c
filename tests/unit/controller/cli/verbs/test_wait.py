"""`wait`: for the end if nothing is named, for several tasks, and never for what has gone by."""

from typing import Any

import click
import pytest

from controller.cli.task.seeing import CouldNotSee, EndedOtherwise
from controller.cli.verbs import wait as verb
from controller.cli.verbs.wait import TimedOut, Wait
from controller.kube.api import SLOTTASKS
from tests.support.cli_api import CliApi, task


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> CliApi:
    monkeypatch.setattr(verb, "POLL_SECONDS", 0.001)
    return CliApi()


def wait(
    api: CliApi, *names: str, wanted: set[str] | None = None, timeout: float | None = 30
) -> tuple[list[str], list[str]]:
    """What came on stdout, and what was said beside it."""
    told: list[str] = []
    said: list[str] = []
    phases = None if wanted is None else frozenset(wanted)
    Wait(api.connection(), names, phases, timeout, say=said.append, tell=lambda change: told.append(change.line)).run()
    return told, said


def put(api: CliApi, name: str, phase: str, **status: Any) -> None:
    made = task(phase, **status)
    api.put(SLOTTASKS, name, {**made, "metadata": {**made["metadata"], "name": name, "uid": name}})


def test_without_a_phase_it_waits_for_success_and_says_so(api: CliApi) -> None:
    put(api, "a", "Running")
    put(api, "b", "Succeeded")
    reads = iter(range(10))
    api.on_get = lambda: put(api, "a", "Succeeded") if next(reads) == 4 else None
    assert wait(api, "a", "b") == (["b: Succeeded", "a: Succeeded"], ["waiting for the end of a"])


def test_another_end_is_a_failure_and_the_others_are_still_waited_for(
    api: CliApi, capsys: pytest.CaptureFixture[str]
) -> None:
    put(api, "bad", "Failed")
    put(api, "good", "Running")
    reads = iter(range(10))
    api.on_get = lambda: put(api, "good", "Succeeded") if next(reads) == 3 else None
    with pytest.raises(EndedOtherwise, match="bad ended as Failed"):
        wait(api, "bad", "good", timeout=None)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("reason", "shown"), [("Failed", ""), ("PodLost", "PodLost: ")])
def test_why_a_task_ended_is_said_however_long_it_is(api: CliApi, reason: str, shown: str) -> None:
    message = "there is no file 'tfplan', " * 40 + "which the task names as its planFile"
    put(api, "bad", "Failed", reason=reason, message=message)
    with pytest.raises(EndedOtherwise) as ended:
        wait(api, "bad")
    assert str(ended.value) == f"bad ended as Failed: {shown}{message}"


def test_of_several_failures_the_worst_is_the_exit_code_and_all_are_said(
    api: CliApi, capsys: pytest.CaptureFixture[str]
) -> None:
    put(api, "bad", "Failed")
    put(api, "slow", "Running")
    put(api, "gone", "Running")
    reads = iter(range(1000))

    def vanish() -> None:
        if next(reads) == 3:
            api.objects.pop((SLOTTASKS.plural, "gone"))

    api.on_get = vanish
    with pytest.raises(CouldNotSee, match="gone was deleted"):
        wait(api, "bad", "gone", "slow", timeout=0.05)
    said = capsys.readouterr().err
    assert "Error: bad ended as Failed" in said
    assert "Error: slow did not become Succeeded in 0.05 s" in said


@pytest.mark.parametrize(
    ("now", "wanted", "words"),
    [
        ("AwaitingApproval", {"Running"}, "is AwaitingApproval already, past Running; it runs again once"),
        ("Running", {"Queued", "Assigned"}, "is Running already, past Queued or Assigned"),
        ("Succeeded", {"Running"}, "ended as Succeeded"),
    ],
)
def test_what_has_gone_by_is_not_waited_for(api: CliApi, now: str, wanted: set[str], words: str) -> None:
    put(api, "a", now)
    with pytest.raises(EndedOtherwise, match=words):
        wait(api, "a", wanted=wanted)


@pytest.mark.parametrize(
    ("now", "wanted"),
    [("Running", {"AwaitingApproval"}), ("AwaitingApproval", {"Running", "Failed"}), ("Queued", {"Running"})],
)
def test_what_may_still_come_is(api: CliApi, now: str, wanted: set[str]) -> None:
    put(api, "a", now)
    with pytest.raises(TimedOut):
        wait(api, "a", wanted=wanted, timeout=0.02)


def test_phases_are_taken_as_people_write_them() -> None:
    phases = verb.Phases()
    assert phases.convert("phase=succeeded, Failed", None, None) == frozenset({"Succeeded", "Failed"})
    with pytest.raises(click.BadParameter, match=r"no such phase: Done\. Phases are Queued, Assigned"):
        phases.convert("Done", None, None)
    with pytest.raises(click.BadParameter, match=r"Did you mean 'Succeeded'\?"):
        phases.convert("Suceeded", None, None)
