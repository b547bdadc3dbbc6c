"""What a step may ask for: each field from the SlotTask through the embedded cluster to the process."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from controller.kube.api import SLOTTASKS, Object
from tests.support.cluster import NAMESPACE, Cluster, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

TIDY = """\
import pathlib, signal, sys
def tidy(number, _):
    print("tidied after", signal.Signals(number).name, flush=True)
    sys.exit(0)
signal.signal(getattr(signal, sys.argv[1]), tidy)
pathlib.Path(sys.argv[2]).touch()
while True:
    signal.pause()
"""

SOCKET = """\
import os, socket, tempfile
socket.socket(socket.AF_UNIX).bind(os.path.join(tempfile.gettempdir(), "plugin123456789"))
print("bound")
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path_factory.mktemp("steps")) as running:
        slots = [{"accepts": ["plan", "apply", "plan_and_apply"]}] * 3
        await running.create_pool("steps", slots=slots)
        yield running
        await running.settle()
        running.check()


async def submit(cluster: Cluster, name: str, steps: dict[str, Any], **spec: Any) -> Object:
    kind = "_and_".join(step for step in ("plan", "apply") if step in steps)
    body = {
        "apiVersion": SLOTTASKS.api_version,
        "kind": SLOTTASKS.kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"pool": "steps", "type": kind, "steps": steps, **spec},
    }
    return await cluster.api.create(SLOTTASKS, NAMESPACE, body)


def tail(status: dict[str, Any], step: str = "plan") -> str:
    return str(status["steps"][step]["logTail"])


def shell(text: str, **fields: Any) -> dict[str, Any]:
    return {"command": ["sh", "-c", text], "cancelGraceSeconds": 5, **fields}


async def test_what_comes_before_makes_the_directory_that_the_step_runs_in(cluster: Cluster) -> None:
    """An apply runs where its plan ran unless it says otherwise; what comes before it runs where it says."""
    steps = {
        "plan": shell(
            "cat made && basename $PWD > tfplan",
            before=[
                {"command": ["mkdir", "clone"], "workingDir": "."},
                {"command": ["sh", "-c", "echo by-before > made"]},
            ],
            workingDir="clone",
            planFile="tfplan",
        ),
        "apply": shell("cat tfplan ../top", before=[{"command": ["sh", "-c", "echo up > top"], "workingDir": "."}]),
    }
    await submit(cluster, "before", steps)
    await cluster.approve("before")
    status = await cluster.until_phase("before", "Succeeded")
    assert "by-before" in tail(status)
    assert tail(status, "apply").splitlines()[-2:] == ["clone", "up"]


async def test_a_command_before_the_step_that_fails_is_named(cluster: Cluster) -> None:
    steps = {"plan": shell("true", before=[{"command": ["sh", "-c", "exit 3"]}])}
    await submit(cluster, "broken", steps)
    status = await cluster.until_phase("broken", "Failed", "Succeeded")
    assert (status["phase"], status["steps"]["plan"]["exitCode"]) == ("Failed", 3)
    assert "sh -c exit 3 ended with 3" in status["message"]


@pytest.mark.parametrize(("code", "changed"), [(2, True), (0, False)])
async def test_exit_codes_say_whether_anything_is_to_be_changed(cluster: Cluster, code: int, changed: bool) -> None:
    steps = {"plan": shell(f"exit {code}", exitCodes={"changed": [2], "unchanged": [0]})}
    await submit(cluster, f"codes-{code}", steps)
    status = await cluster.until_phase(f"codes-{code}", "Succeeded", "Failed")
    assert (status["phase"], status["changed"]) == ("Succeeded", changed)


async def test_a_plan_that_changes_nothing_ends_its_task_without_an_approval(cluster: Cluster) -> None:
    """It never gets to what it was to hand over, which is no error."""
    steps = {"plan": shell("exit 0", exitCodes={"changed": [2], "unchanged": [0]}), "apply": shell("false")}
    await submit(cluster, "same", steps, outputs={"path": "outputs.json", "secretName": "same"})
    status = await cluster.until_phase("same", "Succeeded", "AwaitingApproval", "Failed")
    assert (status["phase"], status["reason"], status["changed"]) == ("Succeeded", "NoChanges", False)
    assert status["message"] == "the plan found nothing to change"


@pytest.mark.long
async def test_a_plan_that_fails_as_its_task_foresees_is_tried_again_after_a_pause(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Nothing but the pause's end wakes the queue. What an attempt has printed stays."""
    steps = {"plan": shell(f"cd {tmp_path}; test -e first || {{ touch first; echo too many requests; exit 7; }}")}
    await submit(cluster, "again", steps, retry={"planMaxAttempts": 2, "planExitCodes": [7]})
    await until(lambda: waits_for(cluster, "again", "for its next attempt, not before "), "it is said")
    status = await cluster.until_phase("again", "Succeeded", "Failed")
    assert (status["phase"], status["attempt"], "notBefore" in status) == ("Succeeded", 2, False)
    (kept,) = [item for item in status["conditions"] if item["type"] == "Retried"]
    assert (kept["reason"], kept["message"]) == ("PlanFailed", "The plan failed: exit code 7.")


async def waits_for(cluster: Cluster, name: str, word: str) -> bool:
    return str((await cluster.status(name)).get("queuedReason")).startswith(word)


async def test_files_have_their_bytes_and_their_permissions(cluster: Cluster) -> None:
    data = bytes(range(256))
    files = {
        "bin/tool": {"text": "#!/bin/sh\necho the tool ran\n", "mode": "0755"},
        "secret": {"text": "x", "mode": 0o600},
        "data": {"base64": base64.b64encode(data).decode()},
        "plain": "text\n",
    }
    look = "bin/tool; stat -c %a secret data plain bin/tool; wc -c < data; tail -c 1 data | od -An -tx1"
    await submit(cluster, "files", {"plan": shell(look)}, files=files)
    status = await cluster.until_phase("files", "Succeeded", "Failed")
    assert tail(status).split() == ["the", "tool", "ran", "600", "644", "644", "755", "256", "ff"]


async def test_a_task_finds_nothing_of_another_in_its_home(cluster: Cluster) -> None:
    """Unless the pool's author has set one: then that stands."""
    slots = [{"accepts": ["plan"]}]
    worker = {"name": "worker", "image": "podslots/tools:test"}
    chosen = {**worker, "env": [{"name": "HOME", "value": "/chosen"}]}
    for pool, container in (("own-home", worker), ("chosen-home", chosen)):
        await cluster.create_pool(pool, slots=slots, template={"spec": {"containers": [container]}})
    look = 'echo "[$(ls ~)] $HOME"; touch ~/left-behind || true'
    for name, pool in (("home-1", "own-home"), ("home-2", "own-home"), ("home-3", "chosen-home")):
        await submit(cluster, name, {"plan": shell(look)}, pool=pool)
        await cluster.until_phase(name, "Succeeded", "Failed")
    first, second, third = [tail(await cluster.status(f"home-{number}")) for number in (1, 2, 3)]
    assert first.startswith("[] /")
    assert second.startswith("[] /")
    assert first != second
    assert "[] /chosen" in third


async def test_a_provider_finds_room_for_its_socket_in_tmpdir(cluster: Cluster) -> None:
    await submit(
        cluster,
        "socket",
        {"plan": {"command": ["python3", "sock.py"], "cancelGraceSeconds": 5}},
        files={"sock.py": SOCKET},
    )
    status = await cluster.until_phase("socket", "Succeeded", "Failed")
    assert tail(status).endswith("bound\n")


@pytest.mark.parametrize("form", ["direct", "behind-sh", "before"])
async def test_a_cancelled_step_gets_its_stop_signal_and_time_to_tidy_up(
    cluster: Cluster, tmp_path: Path, form: str
) -> None:
    ready = tmp_path / "ready"
    tool = ["python3", "tidy.py", "SIGUSR1", str(ready)]
    name, stop = f"stopped-{form}", {"stopSignal": "SIGUSR1", "cancelGraceSeconds": 10}
    steps: dict[str, dict[str, Any]] = {
        "direct": {"command": tool},
        # The shell dies of the signal; what it ran is not cut short.
        "behind-sh": {"command": ["sh", "-c", f"{' '.join(tool)} && echo over"]},
        "before": {"command": ["true"], "before": [{"command": tool}]},
    }
    await submit(cluster, name, {"apply": {**steps[form], **stop}}, files={"tidy.py": TIDY})
    await until(ready.exists, "the step runs")
    await cluster.patch_task(name, {"cancel": True})
    status = await cluster.until_phase(name, "Cancelled", "Failed", "Succeeded")
    assert status["phase"] == "Cancelled"
    assert "tidied after SIGUSR1" in tail(status, "apply")


@pytest.mark.parametrize("form", ["direct", "in-script"])
async def test_a_time_limit_stops_with_sigint_unless_another_signal_is_asked_for(
    cluster: Cluster, tmp_path: Path, form: str
) -> None:
    tool = ["python3", "tidy.py", "SIGINT", str(tmp_path / "ready")]
    command = tool if form == "direct" else ["bash", "-c", f"{' '.join(tool)}; echo done"]
    steps = {"plan": {"command": command, "timeoutSeconds": 2, "cancelGraceSeconds": 10}}
    await submit(cluster, f"limit-{form}", steps, files={"tidy.py": TIDY})
    status = await cluster.until_phase(f"limit-{form}", "Failed", "Succeeded")
    assert (status["phase"], "time limit of 2 s" in status["message"]) == ("Failed", True)
    assert "tidied after SIGINT" in tail(status)
