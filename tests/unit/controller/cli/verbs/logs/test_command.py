"""`podslots logs`: byte for byte, from wherever the output is, and never silently empty."""

import random

import click
import pytest

from controller.cli.show.sink import Sink
from controller.cli.task.seeing import CouldNotSee
from controller.cli.verbs.logs import command as logs
from controller.kube.api import SLOTTASKS
from tests.support.cli_api import CliApi, echoed, ended, keep, task

ODD = b"caf\xe9 \xff\xc3\n" + b"x" * 100_000 + "€".encode() * 50_000 + b"\nno end"
PLACE = ("pod-1", "worker-0")


@pytest.fixture
def api() -> CliApi:
    return CliApi()


def shown(
    api: CliApi, capfdbinary: pytest.CaptureFixture[bytes], *, step: str | None = None, attempt: str | None = None
) -> tuple[bytes, str]:
    """Stdout and stderr."""
    logs.show(api.connection(), "net", step=step, attempt=attempt, sink=Sink(raw=True))
    out, err = capfdbinary.readouterr()
    return out, err.decode()


def test_an_ended_step_is_shown_from_its_object_byte_for_byte(
    api: CliApi, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    api.put(SLOTTASKS, "net", task("Failed", steps={"plan": ended(ODD)}))
    keep(api, ODD)
    assert shown(api, capfdbinary) == (ODD, "")


def test_a_running_step_is_shown_from_the_log_and_only_this_run_of_it(
    api: CliApi, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    api.put(SLOTTASKS, "net", task("Running", steps={"plan": {}}))
    earlier = echoed(b"of an earlier task of that name\n", attempt=9)
    api.logs[PLACE] = [b'{"event": "x"}', *earlier, *echoed(ODD, over=True), *echoed(b"applied", step="apply")]
    assert shown(api, capfdbinary) == (ODD, "")


def test_what_is_missing_is_said(api: CliApi, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    noise = random.Random(1).randbytes(50_000)
    api.put(SLOTTASKS, "net", task("Succeeded", steps={"plan": ended(noise)}))
    keep(api, noise, limit=10_000)
    out, err = shown(api, capfdbinary)
    assert noise.startswith(out[:4000])
    assert noise.endswith(out[-4000:])
    assert f"{50_000 - len(out):,} bytes of the output are missing here" in err


def test_a_log_that_lost_its_beginning_says_so(api: CliApi, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    api.put(SLOTTASKS, "net", task("Running"))
    api.logs[PLACE] = list(echoed(b"one\ntwo\n", over=False)[2:])
    assert shown(api, capfdbinary) == (b"two\n", "plan step: the container's log no longer has its beginning\n")
    api.put(SLOTTASKS, "net", task("Failed", steps={"plan": ended(b"one\ntwo\n")}))
    out, err = shown(api, capfdbinary)
    assert (out, err) == (b"two\n", "[podslots: 4 bytes of the output are missing here, from byte 0]\n")


def test_the_status_stands_in_when_nothing_else_is_left(api: CliApi, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    api.put(SLOTTASKS, "net", task("Failed", steps={"plan": ended(b"a" * 5000)}))
    out, err = shown(api, capfdbinary)
    assert out == b"a" * 4096
    assert "this is its end, as the task's status has it" in err
    assert "904 bytes of the output are missing here" in err


def test_an_emptied_log_is_never_silently_empty(api: CliApi, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    api.put(SLOTTASKS, "net", task("Running"))
    api.logs[PLACE] = [b'{"event": "the worker started"}']
    with pytest.raises(CouldNotSee, match="nothing of net's output"):
        shown(api, capfdbinary)
    assert b"not in the container's log" in capfdbinary.readouterr().err


def test_a_step_that_printed_nothing_is_no_error(api: CliApi, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    api.put(SLOTTASKS, "net", task("Running"))
    api.logs[PLACE] = list(echoed(b"", over=False))
    assert shown(api, capfdbinary) == (b"", "")


def test_every_attempt_can_be_shown(api: CliApi, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    api.put(SLOTTASKS, "net", task("Succeeded", attempt=3, steps={"plan": ended(b"third\n")}))
    keep(api, b"first\n", attempt=1)
    keep(api, b"third\n", attempt=3)
    out, err = shown(api, capfdbinary)
    assert out == b"third\n"
    assert "this was attempt 3; --attempt all" in err
    assert (shown(api, capfdbinary, attempt="1"))[0] == b"first\n"
    out, err = shown(api, capfdbinary, attempt="all")
    assert out == b"first\nthird\n"
    assert "the output of attempt 2 was not kept" in err
    with pytest.raises(click.ClickException, match="net has no attempt 4; there are attempts 1 to 3") as refused:
        shown(api, capfdbinary, attempt="4")
    assert refused.value.exit_code == 1


def test_output_of_an_earlier_task_of_the_name_is_not_shown(
    api: CliApi, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    keep(api, b"of the earlier\n")
    mine = task("Failed", steps={"plan": ended(b"mine\n")})
    mine["metadata"]["uid"] = "uid-2"
    api.put(SLOTTASKS, "net", mine)
    assert (shown(api, capfdbinary))[0] == b"mine\n"


def test_one_step_alone(api: CliApi, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    api.put(SLOTTASKS, "net", task("Succeeded", steps={"plan": ended(b"p\n"), "apply": ended(b"a\n")}))
    keep(api, b"p\n")
    keep(api, b"a\n", step="apply")
    assert (shown(api, capfdbinary))[0] == b"p\na\n"
    assert (shown(api, capfdbinary, step="apply"))[0] == b"a\n"


@pytest.mark.parametrize("status", ["Queued", "Assigned", "Cancelled"])
def test_a_task_that_has_not_run_has_no_output(api: CliApi, status: str) -> None:
    api.put(SLOTTASKS, "net", task(status, attempt=0, step=None))
    with pytest.raises(CouldNotSee, match="has not run"):
        logs.show(api.connection(), "net", step=None, attempt=None, sink=Sink(raw=True))
