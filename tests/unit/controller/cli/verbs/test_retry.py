"""An ended task is run again as a new object: the same work, and nothing of what was said of the earlier run."""

import click
import pytest

from controller.cli.verbs.retry import anew, candidates, run_again
from controller.kube.api import SLOTTASKS, Object
from tests.support.cli_api import CliApi, task


def done(name: str = "net", **annotations: str) -> Object:
    made = task("Failed")
    made["metadata"] |= {
        "name": name,
        "labels": {"team": "a"},
        "annotations": {"note": "kept", "kubectl.kubernetes.io/last-applied-configuration": "{}", **annotations},
        "finalizers": ["podslots.dev/task"],
    }
    made["spec"] |= {"approval": {"attempt": 1, "planDigest": "sha256:a"}, "cancel": True, "lockKey": "k"}
    return made


def test_the_same_work_without_approval_and_cancel() -> None:
    made = anew(done(), "net-2")
    assert made["spec"] == {"pool": "p", "type": "t", "lockKey": "k", "steps": done()["spec"]["steps"]}
    assert made["metadata"] == {
        "name": "net-2",
        "labels": {"team": "a"},
        "annotations": {"note": "kept", "podslots.dev/retry-of": "net"},
    }
    assert "status" not in made


def test_the_next_free_name_is_taken() -> None:
    api = CliApi()
    api.put(SLOTTASKS, "net", done())
    assert run_again(api.connection(), "net").line == "slottask/net-2 created"
    assert run_again(api.connection(), "net").line == "slottask/net-3 created"
    api.objects[SLOTTASKS.plural, "net-3"]["status"] = {"phase": "Lost"}
    assert run_again(api.connection(), "net-3").line == "slottask/net-4 created"
    assert api.objects[SLOTTASKS.plural, "net-4"]["metadata"]["annotations"]["podslots.dev/retry-of"] == "net-3"


def test_names_fit_and_a_number_of_ones_own_is_kept() -> None:
    assert next(candidates(done("region-7"))) == "region-7-2"
    assert len(next(candidates(done("a" * 253)))) == 253


@pytest.mark.parametrize("phase", ["Queued", "Assigned", "Running", "AwaitingApproval"])
def test_only_an_ended_task_can_be_run_again(phase: str) -> None:
    api = CliApi()
    api.put(SLOTTASKS, "net", task(phase))
    with pytest.raises(click.ClickException, match="only a task that has ended"):
        run_again(api.connection(), "net")
