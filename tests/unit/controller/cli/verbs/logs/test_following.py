"""`logs -f` and `wait` see a task to its end: over retries, Pods, rotated logs and an API server that is away."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from controller.cli.show.sink import Sink
from controller.cli.task import seeing
from controller.cli.task.seeing import CouldNotSee, EndedOtherwise
from controller.cli.verbs import wait
from controller.cli.verbs.logs import following
from controller.cli.verbs.logs.following import Follower
from controller.errors import ApiUnavailable
from controller.kube.api import SLOTTASKS, Object
from tests.support.cli_api import CliApi, echoed, ended, keep, task

PLACE = ("pod-1", "worker-0")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(following, "QUIET_SECONDS", 0.02)
    monkeypatch.setattr(wait, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(seeing, "FIRST_RETRY_SECONDS", 0.01)


@pytest.fixture
def api() -> CliApi:
    return CliApi()


def story(api: CliApi, *acts: object) -> None:
    """At each read of the task the next act: a new state of it, or a function. The last state stays."""
    left: Iterator[object] = iter(acts)

    def act() -> None:
        match next(left, None):
            case dict() as state:
                api.put(SLOTTASKS, "net", state)
            case None:
                pass
            case do if callable(do):
                do()

    api.on_get = act


def follow(api: CliApi) -> None:
    Follower(api.connection(), "net", step=None, sink=Sink(raw=True)).run()


def log(api: CliApi, *lines: bytes | Exception | None, pod: str = "pod-1") -> None:
    api.logs.setdefault((pod, "worker-0"), []).extend(lines)


def running(**status: Any) -> Object:
    return task("Running", **status)


def test_everything_is_shown_once_while_the_task_runs_and_after(
    api: CliApi, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    lines = echoed(b"one\ntwo\nthree\n")
    story(
        api,
        task("Queued", attempt=0, step=None),
        running(),
        lambda: log(api, *lines[:2]),
        lambda: log(api, *lines[2:4]),
        lambda: keep(api, b"one\ntwo\nthree\n"),
        task("Succeeded", steps={"plan": ended(b"one\ntwo\nthree\n")}),
    )
    follow(api)
    assert capfdbinary.readouterr() == (b"one\ntwo\nthree\n", b"")


@pytest.mark.parametrize("end", [None, ApiUnavailable("cut"), "emptied"])
def test_a_log_that_ends_is_read_again_and_nothing_is_shown_twice(
    api: CliApi, capfdbinary: pytest.CaptureFixture[bytes], end: Exception | str | None
) -> None:
    whole = b"one\nt\xffwo\nthree\nfour"
    lines = echoed(whole)

    def cut() -> None:
        if end == "emptied":
            api.logs[PLACE] = [None]
        else:
            log(api, end if isinstance(end, Exception) else None)

    def again() -> None:
        api.logs[PLACE] = list(lines[:4]) if end != "emptied" else []

    story(
        api,
        running(),
        lambda: log(api, *lines[:3]),
        running(),
        running(),
        cut,
        again,
        running(),
        lambda: keep(api, whole),
        task("Succeeded", steps={"plan": ended(whole)}),
    )
    follow(api)
    out, err = capfdbinary.readouterr()
    assert out == whole
    assert err == b""


def test_that_an_approval_is_missing_is_said_after_the_plan(
    api: CliApi, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", sys.stdout)
    keep(api, b"the plan\n")
    done = {"plan": ended(b"the plan\n")}
    story(api, task("AwaitingApproval", steps=done), task("Succeeded", steps=done))
    follow(api)
    plan, words = capfd.readouterr().out.splitlines()
    assert plan == "the plan"
    assert words.startswith("net does not go on: it waits for an approval (")


def test_it_goes_on_over_a_retry_and_says_where_the_attempt_ended(
    api: CliApi, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    retried = [{"type": "Retried", "status": "True", "reason": "WorkerLost", "message": "the worker was lost"}]
    first = echoed(b"first 1\nfirst 2\n", attempt=1, over=False)
    second = echoed(b"second\n", attempt=2)
    story(
        api,
        running(),
        lambda: log(api, *first[:2]),
        running(),
        running(),
        lambda: keep(api, b"first 1\nfirst 2\n", attempt=1),
        task("Queued", attempt=2, step=None, conditions=retried),
        lambda: log(api, *second, pod="pod-2"),
        running(attempt=2, conditions=retried),
        lambda: keep(api, b"second\n", attempt=2),
        task("Succeeded", attempt=2, steps={"plan": ended(b"second\n")}),
    )
    follow(api)
    out, err = capfdbinary.readouterr()
    assert out == b"first 1\nfirst 2\nsecond\n"
    assert err.decode() == "attempt 1 ended here (the worker was lost); attempt 2:\n"


def test_an_api_server_that_is_away_for_a_while_is_waited_for(
    api: CliApi, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    def away(*, yes: bool) -> None:
        api.away = yes

    story(
        api,
        running(),
        lambda: log(api, *echoed(b"one\n", over=False)),
        lambda: away(yes=True),
        lambda: None,
        lambda: None,
        lambda: away(yes=False),
        lambda: keep(api, b"one\n"),
        task("Failed", steps={"plan": ended(b"one\n")}),
    )
    with pytest.raises(EndedOtherwise) as error:
        follow(api)
    assert error.value.exit_code == 1
    out, err = capfdbinary.readouterr()
    assert out == b"one\n"
    assert b"can't be reached" in err
    assert b"the Kubernetes API is back" in err


def test_what_can_no_longer_be_seen_is_told_from_a_failure(api: CliApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeing, "PATIENCE_SECONDS", 0.05)
    story(api, task("Queued", attempt=0, step=None), api.objects.clear)
    with pytest.raises(CouldNotSee, match="was deleted"):
        follow(api)
    story(api, task("Queued", attempt=0, step=None), lambda: setattr(api, "away", True))
    with pytest.raises(CouldNotSee, match="can't be reached") as error:
        wait.Wait(api.connection(), ("net",), None, None).run()
    assert error.value.exit_code == 4


def test_wait_does_not_call_it_a_timeout_when_it_could_not_see(api: CliApi) -> None:
    story(api, task("Queued", attempt=0, step=None), lambda: setattr(api, "away", True))
    with pytest.raises(CouldNotSee, match="How net goes on is not known"):
        wait.Wait(api.connection(), ("net",), None, 0.1).run()


def test_a_log_whose_beginning_is_gone_says_so_and_how_much_was_missed(
    api: CliApi, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    lines = echoed(b"one\ntwo\nthree\n")
    story(
        api,
        running(),
        lambda: log(api, *lines[2:]),
        running(),
        running(),
        lambda: keep(api, b"one\ntwo\nthree\n"),
        task("Succeeded", steps={"plan": ended(b"one\ntwo\nthree\n")}),
    )
    follow(api)
    out, err = capfdbinary.readouterr()
    assert out == b"two\nthree\n"
    assert b"no longer has its beginning" in err
    assert b"4 of its 14 bytes were not in the container's log" in err


def test_a_step_without_any_trace_is_not_silently_empty(api: CliApi, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    story(api, running(), task("Lost", steps={"plan": {"endTime": "2026-03-01T11:00:00Z"}}))
    with pytest.raises(EndedOtherwise):
        follow(api)
    assert b"not in the container's log, nor anywhere else" in capfdbinary.readouterr().err


def test_wait_and_follow_say_what_a_task_is_queued_for_once(
    api: CliApi, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    queued = task("Queued", attempt=0, step=None, queuedReason="for lockKey prod/vpc, held by holder")
    done = task("Succeeded", steps={"plan": ended(b"")})
    keep(api, b"")
    story(api, queued, queued, queued, done)
    follow(api)
    assert capfdbinary.readouterr().err == b"net is queued: for lockKey prod/vpc, held by holder\n"
    story(api, queued, queued, done)
    wait.Wait(api.connection(), ("net",), None, None).run()
    out, err = capfdbinary.readouterr()
    assert out == b"net: Succeeded\n"
    assert err == b"net is queued: for lockKey prod/vpc, held by holder\nwaiting for the end of net\n"
