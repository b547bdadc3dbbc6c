"""The `podslots` command line against an embedded cluster with a controller: what each command does, and says."""

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from controller import names
from controller.cli.cluster.called import command
from controller.cli.local.processes import start_ticks
from controller.cli.main import main
from controller.kube.access import KubeSettings
from controller.kube.api import SECRETS, SLOTTASKS
from controller.kube.client import connect
from controller.version import own_version
from tests.support.kubectl import Kubectl
from tests.support.repository import ROOT
from tests.support.waiting import wait_until

PODSLOTS = str(Path(sys.executable).parent / "podslots")

POOL = """
apiVersion: podslots.dev/v1alpha1
kind: SlotPool
metadata: {name: terraform}
spec:
  autoscaling: {maxReplicas: 2, minIdleSeconds: 0}
  template: {spec: {containers: [{name: worker, image: any}]}}
"""


def task(name: str, plan: str, apply: str | None = None, **spec: object) -> str:
    steps: dict[str, object] = {"plan": {"command": ["sh", "-c", plan], "cancelGraceSeconds": 1}}
    if apply is not None:
        steps["apply"] = {"command": ["sh", "-c", apply]}
    kind = "plan" if apply is None else "plan_and_apply"
    document = {
        "apiVersion": "podslots.dev/v1alpha1",
        "kind": "SlotTask",
        "metadata": {"name": name},
        "spec": {"pool": "terraform", "type": kind, "steps": steps, **spec},
    }
    return f"---\n{yaml.safe_dump(document)}"


@dataclass(frozen=True)
class Cli:
    """Runs `podslots` on one cluster."""

    folder: Path

    def run(self, *arguments: str, text: str = "", code: int = 0, cluster: bool = True) -> str:
        """Its stdout, or its stderr where it is to fail. In this process: a start of its own costs a second."""
        chosen = ("--kubeconfig", str(self.folder / "cluster" / "kubeconfig")) if cluster else ()
        done = CliRunner(env={"KUBECONFIG": None}).invoke(main, [*chosen, *arguments], input=text)
        assert done.exit_code == code, done.output
        return done.stdout if code == 0 else done.stderr

    def submit(self, text: str) -> str:
        return self.run("submit", "-f", "-", text=text)

    def get(self, kind: str, name: str) -> dict[str, dict[str, object]]:
        found: dict[str, dict[str, object]] = json.loads(self.run("get", kind, name, "-o", "json"))
        return found

    def phase(self, name: str) -> object:
        return self.get("tasks", name).get("status", {}).get("phase")


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    folder = tmp_path_factory.mktemp("cli") / "local"
    cli = Cli(folder)
    # In a process of its own, which leaves the cluster's to init, as it does for people.
    up = [PODSLOTS, "local", "up", "--detach", "--state-dir", str(folder)]
    said = subprocess.run(up, check=True, timeout=200, stdout=subprocess.PIPE, text=True).stdout
    try:
        assert said.endswith(f"Stop it with: {command()} local down --state-dir {folder}\n")
        cli.submit(POOL)
        yield cli
    finally:
        cli.run("local", "down", "--force", "--state-dir", str(folder), cluster=False)


def test_submit_and_kubectl_apply_take_over_from_each_other(cli: Cli) -> None:
    """Whoever made an object, the other finds it as it was asked for, and says nothing."""
    kubectl = Kubectl(cli.folder / "cluster" / "kubeconfig")

    def apply(text: str) -> str:
        ran = asyncio.run(kubectl.run("apply", "-f", "-", stdin=text))
        assert (ran.status, ran.err) == (0, ""), ran
        return ran.out

    ours, theirs = task("ours", "echo '<&>'"), task("theirs", "true")
    assert cli.submit(ours) == "slottask/ours created\n"
    assert apply(ours) == "slottask.podslots.dev/ours unchanged\n"
    assert apply(theirs) == "slottask.podslots.dev/theirs created\n"
    assert cli.submit(theirs) == "slottask/theirs unchanged\n"
    more = task("theirs", "true", priority=7)
    assert cli.submit(more) == "slottask/theirs configured\n"
    assert apply(more) == "slottask.podslots.dev/theirs unchanged\n"
    apply(theirs)
    assert cli.get("tasks", "theirs")["spec"]["priority"] == 0, "what is asked for no more is taken away"
    kubectl.close()


def test_submit_creates_then_merges(cli: Cli) -> None:
    assert cli.submit(task("twice", "true")) == "slottask/twice created\n"
    assert cli.submit(task("twice", "true")) == "slottask/twice unchanged\n"
    assert cli.submit(task("twice", "true", priority=7)) == "slottask/twice configured\n"


def test_submit_warns_of_a_task_that_its_pool_can_never_run(cli: Cli) -> None:
    steps = {"plan": {"command": ["true"], "cancelGraceSeconds": 571}}
    chosen = ("--kubeconfig", str(cli.folder / "cluster" / "kubeconfig"))
    text = task("patient", "true", steps=steps)
    done = CliRunner(env={"KUBECONFIG": None}).invoke(main, [*chosen, "submit", "-f", "-"], input=text)
    assert (done.exit_code, done.stdout) == (0, "slottask/patient created\n")
    assert done.stderr.startswith("Warning: slottask/patient can't run as it is: GraceTooLong: ")
    assert "needs 601 s" in done.stderr
    assert "get 600 s" in done.stderr
    wait_until(lambda: "needs 601 s" in cli.run("get", "tasks", "patient", "-o", "json"), 60, "it is not said")
    cli.run("cancel", "patient")


def test_the_api_servers_refusal_is_one_clear_line(cli: Cli) -> None:
    refused = cli.run("submit", "-f", "-", text=task("bad", "true", pool=7), code=1)
    assert refused.startswith("Error: ")
    assert "spec.pool" in refused
    assert len(refused.splitlines()) == 1


def test_a_field_that_is_not_known_is_refused_and_named(cli: Cli) -> None:
    """Dropped in silence it would be a task of another priority, and a pool that does not what its author thinks."""
    text = task("typo", "true", priorty=3)
    assert (
        cli.run("submit", "-f", "-", text=text, code=1)
        == "Error: slottask/typo: unknown field \"spec.priorty\" (did you mean 'priority'?)\n"
    )
    cli.submit(task("typo", "true"))
    assert (
        cli.run("submit", "-f", "-", text=text, code=1)
        == "Error: slottask/typo: unknown field \"spec.priorty\" (did you mean 'priority'?)\n"
    )
    pool = POOL.replace("spec:\n", "spec:\n  moode: Deployment\n")
    assert 'unknown field "spec.moode"' in cli.run("submit", "-f", "-", text=pool, code=1)


def test_one_that_is_refused_does_not_keep_those_after_it_away(cli: Cli) -> None:
    """As with kubectl: each is tried, each refusal is said, and the exit code tells that there was one."""
    text = task("typo-1", "true", priorty=3) + task("after-1", "true") + task("typo-2", "true", pool=7)
    chosen = ("--kubeconfig", str(cli.folder / "cluster" / "kubeconfig"))
    done = CliRunner(env={"KUBECONFIG": None}).invoke(main, [*chosen, "submit", "-f", "-"], input=text)
    assert (done.exit_code, done.stdout) == (1, "slottask/after-1 created\n")
    first, second = done.stderr.splitlines()
    assert first == "Error: slottask/typo-1: unknown field \"spec.priorty\" (did you mean 'priority'?)"
    assert second.startswith('Error: SlotTask.podslots.dev "typo-2" is invalid: ')


def test_each_submit_of_a_generated_name_is_another_task(cli: Cli) -> None:
    """With a warning like any other."""
    document = yaml.safe_load(task("x", "true", pool="none-such"))
    document["metadata"] = {"generateName": "drift-"}
    chosen = ("--kubeconfig", str(cli.folder / "cluster" / "kubeconfig"))
    names = set()
    for _ in range(2):
        text = yaml.safe_dump(document)
        done = CliRunner(env={"KUBECONFIG": None}).invoke(main, [*chosen, "submit", "-f", "-"], input=text)
        name = done.stdout.removeprefix("slottask/").removesuffix(" created\n")
        assert (done.exit_code, name.startswith("drift-")) == (0, True)
        assert done.stderr.startswith(f"Warning: slottask/{name} can't run as it is: PoolNotFound")
        names.add(name)
    assert len(names) == 2
    for name in names:
        cli.run("cancel", name)


def test_a_plan_runs_and_its_output_can_be_read(cli: Cli) -> None:
    cli.submit(task("reads", "echo one; echo two"))
    assert cli.run("wait", "reads", "--for", "Succeeded", "--timeout", "40") == "reads: Succeeded\n"
    assert cli.run("logs", "reads") == "one\ntwo\n"


def test_following_shows_everything_and_ends_with_the_task(cli: Cli, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    cli.submit(task("follows", f"echo begun; while ! test -e {gate}; do sleep 0.1; done; echo over"))
    cli.run("wait", "follows", "--for", "Running", "--timeout", "40")
    following = subprocess.Popen(
        [PODSLOTS, "--kubeconfig", str(cli.folder / "cluster" / "kubeconfig"), "logs", "-f", "follows"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert following.stdout is not None
    assert following.stdout.readline() == "begun\n"
    gate.touch()
    rest, _ = following.communicate(timeout=120)
    assert (rest, following.returncode) == ("over\n", 0)


def test_an_approval_is_asked_for_and_names_the_plan(cli: Cli) -> None:
    cli.submit(task("net", "echo the plan; echo p >tfplan", "echo applied; cat tfplan"))
    cli.run("wait", "net", "--for", "phase=AwaitingApproval", "--timeout", "40")
    assert "reserved" in cli.run("get", "slots")
    declined = cli.run("approve", "net", text="n\n", code=1)
    assert "not approved" in declined
    assert "look at the plan again" in cli.run("approve", "net", "--yes", "--digest", "0" * 64, code=1)
    assert cli.phase("net") == "AwaitingApproval"
    digest = str(cli.get("tasks", "net")["status"]["planDigest"])
    listed = cli.run("plans")
    assert listed.startswith("net   waits ")
    approve = f"{command()} approve net --kubeconfig {cli.folder}/cluster/kubeconfig"
    assert listed.splitlines()[1:3] == ["  the plan", f"  {approve}"]
    shown = cli.run("approve", "net", text="y\n")
    assert "the plan\n" in shown
    assert "WARNING" not in shown
    assert digest in shown
    assert f"net: plan {digest} approved by admin\n" in shown
    assert cli.run("plans") == "no plan waits for an approval\n"
    cli.run("wait", "net", "--for", "Succeeded", "--timeout", "30")
    assert cli.run("logs", "net", "--step", "apply") == "applied\np\n"
    assert cli.get("tasks", "net")["spec"]["approval"] == {"attempt": 1, "planDigest": digest, "by": "admin"}
    assert "only a task that is AwaitingApproval" in cli.run("approve", "net", "--yes", code=1)


@pytest.mark.long
def test_the_whole_output_outlives_the_pod(cli: Cli) -> None:
    cli.submit(task("keeps", r"seq 100000; printf 'no text: \377 no end'"))
    cli.run("wait", "keeps", "--for", "Succeeded", "--timeout", "40")
    status = cli.get("tasks", "keeps")["status"]
    assert status["steps"]["plan"]["output"] == "keeps-1-plan"  # type: ignore[index]
    wait_until(lambda: str(status["pod"]) not in cli.run("get", "pods"), 40, "the Pod is still there")
    shown = subprocess.run(
        [PODSLOTS, "--kubeconfig", str(cli.folder / "cluster" / "kubeconfig"), "logs", "keeps"],
        check=True,
        capture_output=True,
    )
    assert shown.stdout == b"".join(b"%d\n" % number for number in range(1, 100_001)) + b"no text: \xff no end"
    assert shown.stderr == b""
    audit = (cli.folder / "cluster" / "audit.jsonl").read_text().splitlines()
    verbs = {event["verb"] for event in map(json.loads, audit) if event.get("objectRef", {}).get("resource") == KEPT}
    assert verbs <= {"create", "get", "delete"}, "nobody lists or watches outputs"


KEPT = "slottaskoutputs"


def test_what_a_task_hands_over_is_in_a_secret_that_outlives_it(cli: Cli) -> None:
    asked = {"path": "outputs.json", "secretName": "vpc-outputs"}
    cli.submit(
        task("hands", "echo p >tfplan", "echo '{\"id\": 7}' > outputs.json", outputs=asked, approvalPolicy="Auto")
    )
    cli.run("wait", "hands", "--for", "Succeeded", "--timeout", "40")
    kubectl_delete(cli, "hands")

    async def read() -> dict[str, object]:
        settings = KubeSettings(kubeconfig=str(cli.folder / "cluster" / "kubeconfig"))
        async with connect(settings, lambda: datetime.now(UTC)) as api:
            found: dict[str, object] = (await api.get(SECRETS, "default", "vpc-outputs"))["data"]
            return found

    assert asyncio.run(read()) == {"outputs.json": base64.b64encode(b'{"id": 7}\n').decode()}


def test_a_script_approves_by_digest_and_is_not_asked(cli: Cli) -> None:
    cli.submit(task("scripted", "echo p >tfplan", "true"))
    cli.run("wait", "scripted", "--for", "AwaitingApproval", "--timeout", "40")
    digest = str(cli.get("tasks", "scripted")["status"]["planDigest"])
    assert "approved by admin" in cli.run("approve", "scripted", "--digest", digest)
    cli.run("wait", "scripted", "--for", "Succeeded", "--timeout", "30")


def test_an_ended_task_is_run_anew(cli: Cli) -> None:
    cli.submit(task("again", "echo ran; exit 3"))
    cli.run("wait", "again", "--for", "Failed", "--timeout", "40")
    assert cli.run("retry", "again") == "slottask/again-2 created\n"
    cli.run("wait", "again-2", "--for", "Failed", "--timeout", "40")
    assert cli.run("logs", "again-2") == "ran\n"


def test_output_can_not_steer_a_terminal_and_is_exact_when_asked_for(cli: Cli) -> None:
    cli.submit(task("odd", r"printf 'db DESTROYED\n\033[1A\033[2K\033[31mred\033[0m'"))
    cli.run("wait", "odd", "--for", "Succeeded", "--timeout", "40")
    assert cli.run("logs", "odd") == "db DESTROYED\n\\x1b[1A\\x1b[2K\x1b[31mred\x1b[0m"
    assert cli.run("logs", "odd", "--raw") == "db DESTROYED\n\x1b[1A\x1b[2K\x1b[31mred\x1b[0m"


def test_a_long_line_comes_through_unbroken(cli: Cli) -> None:
    cli.submit(task("wide", "python3 -c \"print('ø' * 500000)\""))
    cli.run("wait", "wide", "--for", "Succeeded", "--timeout", "40")
    assert cli.run("logs", "wide") == "ø" * 500_000 + "\n"


def test_a_task_of_the_same_name_shows_its_own_output_alone(cli: Cli) -> None:
    for text in ("first", "second"):
        cli.submit(task("same", f"echo {text}"))
        cli.run("wait", "same", "--for", "Succeeded", "--timeout", "40")
        assert cli.run("logs", "same") == f"{text}\n"
        kubectl_delete(cli, "same")


def kubectl_delete(cli: Cli, name: str) -> None:
    """Delete a task and wait until it is gone."""
    settings = KubeSettings(kubeconfig=str(cli.folder / "cluster" / "kubeconfig"))

    async def delete() -> None:
        async with connect(settings, lambda: datetime.now(UTC)) as api:
            await api.delete(SLOTTASKS, "default", name)

    asyncio.run(delete())
    wait_until(lambda: f"\n{name} " not in cli.run("get", "tasks"), 30, f"{name} is still there")


def test_cancel_ends_a_running_step(cli: Cli) -> None:
    """T24."""
    cli.submit(task("endless", "sleep 1000"))
    cli.run("wait", "endless", "--for", "Running", "--timeout", "40")
    cli.run("cancel", "endless")
    assert cli.run("wait", "endless", "--for", "Cancelled", "--timeout", "30") == "endless: Cancelled\n"
    assert "is Cancelled already" in cli.run("cancel", "endless", code=1)


def test_wait_tells_another_end_from_a_timeout(cli: Cli) -> None:
    cli.submit(task("fails", "exit 3") + task("sleeps", "sleep 1000"))
    assert "fails ended as Failed: exit code 3" in cli.run(
        "wait", "fails", "--for", "Succeeded", "--timeout", "40", code=1
    )
    assert "did not become Succeeded" in cli.run("wait", "sleeps", "--for", "Succeeded", "--timeout", "0.5", code=3)
    assert "no such phase" in cli.run("wait", "fails", "--for", "Done", code=2)
    cli.run("cancel", "sleeps")


@pytest.mark.long
def test_wait_says_once_why_a_task_does_not_go_on(cli: Cli) -> None:
    cli.submit(task("homeless", "true", pool="nowhere"))
    wait_until(lambda: "PoolNotFound" in cli.run("get", "tasks", "homeless"), 60, "nobody leads, or it is not said")
    said = cli.run("wait", "homeless", "--for", "Succeeded", "--timeout", "3", code=3).splitlines()
    assert said[0].startswith("homeless does not go on: PoolNotFound: there is no SlotPool 'nowhere'")
    assert said[1:2] == ["waiting for Succeeded of homeless"]
    assert len(said) == 3
    assert "PoolNotFound: there is no SlotPool 'nowhere'" in cli.run("get", "tasks", "homeless")
    following = subprocess.Popen(
        [PODSLOTS, "--kubeconfig", str(cli.folder / "cluster" / "kubeconfig"), "logs", "-f", "homeless"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert following.stderr is not None
    assert following.stderr.readline().startswith("homeless does not go on: PoolNotFound")
    following.terminate()
    following.communicate(timeout=120)
    cli.submit(task("waits", "true >tfplan", "true"))
    said = cli.run("wait", "waits", "--for", "Succeeded", "--timeout", "10", code=3).splitlines()
    assert said[-2].startswith("waits does not go on: it waits for an approval (")
    assert "podslots approve waits --kubeconfig " in said[-2]
    for name in ("homeless", "waits"):
        cli.run("cancel", name)


def test_a_lock_is_freed_only_when_asked_twice(cli: Cli) -> None:
    cli.submit(task("locks", "true >tfplan", "true", lockKey="vpc prod/7"))
    cli.run("wait", "locks", "--for", "AwaitingApproval", "--timeout", "40")
    assert "not unlocked" in cli.run("unlock", "vpc prod/7", text="n\n", code=1)
    warning = cli.run("unlock", "--task", "locks", "--yes")
    assert "held by task locks" in warning
    assert "'vpc prod/7' is free" in warning
    cli.run("cancel", "locks")
    assert "is not held" in cli.run("unlock", "no such key", "--yes", code=1)


def test_a_drained_pod_goes_when_it_is_idle(cli: Cli, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    cli.submit(task("holds", f"while ! test -e {gate}; do sleep 0.1; done"))
    cli.run("wait", "holds", "--for", "Running", "--timeout", "40")
    pod = str(cli.get("tasks", "holds")["status"]["pod"])
    cli.run("drain", pod)
    assert "drain" in cli.run("get", "pods", pod)
    assert cli.phase("holds") == "Running"
    gate.touch()
    cli.run("wait", "holds", "--for", "Succeeded", "--timeout", "30")
    wait_until(lambda: pod not in cli.run("get", "pods"), 90, f"{pod} is still there")


def test_forget_asks_first(cli: Cli, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    cli.submit(task("stays", f"while ! test -e {gate}; do sleep 0.1; done"))
    cli.run("wait", "stays", "--for", "Running", "--timeout", "40")
    pod = str(cli.get("tasks", "stays")["status"]["pod"])
    assert "not forgotten" in cli.run("forget", pod, text="\n", code=1)
    assert cli.phase("stays") == "Running"
    gate.touch()


def test_one_of_a_kind_can_be_named_in_the_singular(cli: Cli) -> None:
    for kind in ("pool", "pod", "task", "slot"):
        assert cli.run("get", kind).split()[:1] == cli.run("get", f"{kind}s").split()[:1]
    assert "terraform" in cli.run("get", "pool", "terraform")


def test_a_kind_has_the_short_names_of_kubectl_and_every_option_may_stand_last(cli: Cli) -> None:
    assert "terraform" in cli.run("get", "slp", "terraform", "-n", "default")
    assert cli.run("-n", "elsewhere", "get", "slp", "-n", "default", "-o", "name") == cli.run(
        "get", "slp", "-o", "name"
    )
    assert "slotpool.podslots.dev/terraform\n" in cli.run("get", "slp", "-o", "name")
    assert yaml.safe_load(cli.run("get", "pools", "-o", "yaml"))["items"][0]["metadata"]["name"] == "terraform"
    cli.submit(task("wide-1", "true"))
    heads = {kind: cli.run("get", kind, "-o", "wide").splitlines()[0].split() for kind in ("pools", "tasks")}
    assert {"UPDATED", "IMAGES"} <= set(heads["pools"])
    assert {"LOCKKEY", "PRIORITY", "EXPIRES"} <= set(heads["tasks"])


def test_several_are_done_one_after_the_other_and_one_that_fails_keeps_no_other_away(cli: Cli) -> None:
    cli.submit(task("many-1", "true", pool="none-such") + task("many-2", "true", pool="none-such"))
    chosen = ("--kubeconfig", str(cli.folder / "cluster" / "kubeconfig"))
    done = CliRunner().invoke(main, ["cancel", "many-1", "nobody", "slottask/many-2", *chosen])
    assert (done.exit_code, done.stdout) == (1, "many-1: cancel requested\nmany-2: cancel requested\n")
    assert done.stderr.startswith("Error: no SlotTask nobody in namespace default")
    assert cli.run("wait", "many-1", "many-2", "--for", "cancelled", "--timeout", "1m").split() == [
        *("many-1:", "Cancelled"),
        *("many-2:", "Cancelled"),
    ]


def test_a_pool_or_type_that_was_mistyped_is_answered_with_the_nearest(cli: Cli) -> None:
    chosen = ("--kubeconfig", str(cli.folder / "cluster" / "kubeconfig"))
    text = task("mistyped-1", "true", pool="terrafrom") + task("mistyped-2", "true", type="plann")
    said = CliRunner().invoke(main, [*chosen, "submit", "-f", "-"], input=text).stderr.splitlines()
    assert [line.rpartition("; ")[2] for line in said] == ["did you mean 'terraform'?", "did you mean 'plan'?"]
    cli.run("cancel", "mistyped-1", "mistyped-2")


def test_describe_tells_what_happened_in_order_and_why(cli: Cli) -> None:
    cli.submit(task("told", "echo p >tfplan; exit 3"))
    cli.run("wait", "told", "--timeout", "40", code=1)
    wait_until(lambda: "assigned to Pod" in cli.run("describe", "task", "told"), 30, "its Events are not there")
    text = cli.run("describe", "task", "told")
    assert "Phase:      Failed\nReason:     Failed: exit code 3\n" in text
    happened = text.partition("What happened:\n")[2].splitlines()
    words = [line.split()[2] for line in happened if line.startswith("20")]  # long texts go on below
    assert "Assigned" in words, "an Event, of the second in which it was written: perhaps after the step's start"
    assert [word for word in words if word != "Assigned"][:3] == ["Created", "StepStarted", "StepEnded"]
    assert words.count("Failed") == 1
    pool = cli.run("describe", "pool", "terraform")
    assert "Size:       0 to 2 Pods, by demand\n" in pool
    assert "CONDITION" in pool
    assert "SuccessfulCreate" in pool


def test_what_a_pod_is_doing_is_told(cli: Cli) -> None:
    cli.submit(task("inside", "sleep 1000"))
    cli.run("wait", "inside", "--for", "Running", "--timeout", "40")
    name = str(cli.get("tasks", "inside")["status"]["pod"])
    text = cli.run("describe", f"pod/{name}")
    assert f"Name:       {name}\n" in text
    assert "State:      active\n" in text
    slots = text.partition("Slots:\n")[2].partition("\n\n")[0].splitlines()
    assert slots[0].split() == ["POD", "SLOT", "STATE", "TASK", "STEP"]
    states = [line.split()[2:4] for line in slots[1:]]
    assert ["running", "inside"] in states
    assert len(states) == 3
    assert "last opened for work: " in text
    words = [line.split()[2] for line in text.partition("What happened:\n")[2].splitlines() if line.startswith("20")]
    assert {"Created", "Scheduled", "Ready=True"} <= set(words)
    cli.run("cancel", "inside")


def test_things_are_named_in_the_forms_of_kubectl(cli: Cli) -> None:
    cli.submit(task("form", "true", pool="none-such"))
    assert "\nform " in cli.run("get", "task/form")
    both = cli.run("get", "tasks,pools")
    assert "\nslottask/form " in both
    assert "\n\nNAME" in both
    assert "\nslotpool/terraform " in both
    everything = cli.run("get", "all", "-o", "name").splitlines()
    assert {"slotpool.podslots.dev/terraform", "slottask.podslots.dev/form"} <= set(everything)
    listed = json.loads(cli.run("get", "pool/terraform", "task/form", "-o", "json"))
    assert [item["kind"] for item in listed["items"]] == ["SlotPool", "SlotTask"]
    found = CliRunner(env={"KUBECONFIG": None}).invoke(main, [*chosen(cli), "get", "task/form", "task/none"])
    assert found.exit_code == 1
    assert "\nform " in found.stdout, "what is there is shown"
    assert found.stderr.startswith("Error: no SlotTask none in namespace default")
    cli.run("cancel", "form")


def chosen(cli: Cli) -> tuple[str, str]:
    return ("--kubeconfig", str(cli.folder / "cluster" / "kubeconfig"))


def test_an_empty_namespace_is_told_from_one_that_is_not_there(cli: Cli) -> None:
    """As kubectl has it: both are lists of nothing, and exit 0."""
    for namespace, said in (
        ("kube-public", "No resources found in kube-public namespace.\n"),
        ("nowhere", "No resources found in nowhere namespace. There is no namespace nowhere.\n"),
    ):
        done = CliRunner(env={"KUBECONFIG": None}).invoke(main, [*chosen(cli), "get", "tasks", "-n", namespace])
        assert (done.exit_code, done.stdout, done.stderr) == (0, "", said)


def test_a_namespace_or_pool_that_is_not_there_is_said_wherever_nothing_is_found(cli: Cli) -> None:
    lack = "There is no namespace nowhere"
    for words in (
        ("approve", "net"),
        ("get", "task/net"),
        ("describe", "pool", "p"),
        ("plans", "net"),
        ("logs", "net"),
    ):
        assert lack in cli.run(*words, "-n", "nowhere", code=1), words
    assert lack in cli.run("plans", "-n", "nowhere")
    done = CliRunner(env={"KUBECONFIG": None}).invoke(main, [*chosen(cli), "get", "tasks", "-p", "terrafomr"])
    assert done.stderr.endswith(". There is no SlotPool 'terrafomr'; did you mean 'terraform'?\n")


def test_the_object_after_a_change_can_be_had_by_programs(cli: Cli, tmp_path: Path) -> None:
    """And what people are shown and asked leaves stdout to them."""
    (tmp_path / "pool.yaml").write_text(POOL)
    (tmp_path / "task.yml").write_text(task("shown", "echo the plan; echo p >tfplan", "true"))
    names = cli.run("submit", "-f", str(tmp_path), "-o", "name").splitlines()
    assert names == ["slotpool.podslots.dev/terraform", "slottask.podslots.dev/shown"]
    waited = json.loads(cli.run("wait", "shown", "--for", "AwaitingApproval", "--timeout", "40", "-o", "json"))
    assert waited["status"]["phase"] == "AwaitingApproval"
    assert cli.run("plans", "shown", "-o", "name") == "slottask.podslots.dev/shown\n"
    assert waited["status"]["planDigest"] in cli.run("plans", "shown", "-o", "wide")
    done = CliRunner(env={"KUBECONFIG": None}).invoke(
        main, [*chosen(cli), "approve", "shown", "-o", "json"], input="y\n"
    )
    assert json.loads(done.stdout)["spec"]["approval"]["by"] == "admin"
    assert "the plan\n" in done.stderr
    assert "Apply this plan?" in done.stderr
    cli.run("wait", "shown", "--timeout", "40")
    again = yaml.safe_load(cli.run("retry", "shown", "-o", "yaml"))
    assert (again["kind"], again["metadata"]["name"]) == ("SlotTask", "shown-2")
    cancelled = cli.run("cancel", "shown-2", "-o", "name")
    assert cancelled == "slottask.podslots.dev/shown-2\n"


def test_a_pool_without_a_worker_is_warned_of_and_a_task_for_it_is_not_left_waiting(cli: Cli) -> None:
    text = POOL.replace("terraform", "no-worker").replace("name: worker", "name: main")
    done = CliRunner(env={"KUBECONFIG": None}).invoke(main, [*chosen(cli), "submit", "-f", "-"], input=text)
    assert done.exit_code == 0
    assert done.stderr.startswith(
        "Warning: slotpool/no-worker has no container named 'worker' (but main), so no SlotTask"
    )
    done = CliRunner(env={"KUBECONFIG": None}).invoke(
        main, [*chosen(cli), "submit", "-f", "-"], input=task("misled", "true").replace("terraform", "no-worker")
    )
    assert done.stderr.startswith("Warning: slottask/misled can't run as it is: NoWorker: ")
    wait_until(lambda: "NoWorker" in cli.run("get", "tasks", "misled"), 60, "it is not said")
    cli.run("cancel", "misled")


def test_a_text_where_a_list_is_needed_is_one_clear_line(cli: Cli) -> None:
    text = task("textual", "true", steps={"plan": {"command": "terraform plan"}})
    assert cli.run("submit", "-f", "-", text=text, code=1) == (
        'Error: SlotTask.podslots.dev "textual" is invalid: '
        "spec.steps.plan.command: a text, where a list is needed, as [terraform, plan]\n"
    )


def test_plans_are_shown_as_they_begin_to_wait(cli: Cli) -> None:
    with watching(cli, "plans", "-w", "-o", "name") as watch:
        cli.submit(task("comes", "echo p >tfplan", "true"))
        assert watch.stdout is not None
        assert watch.stdout.readline() == "slottask.podslots.dev/comes\n"
        watch.send_signal(signal.SIGINT)
        watch.communicate(timeout=30)
    assert watch.returncode == 130
    cli.run("cancel", "comes")


def watching(cli: Cli, *arguments: str) -> subprocess.Popen[str]:
    chosen = ("--kubeconfig", str(cli.folder / "cluster" / "kubeconfig"))
    return subprocess.Popen([PODSLOTS, *arguments, *chosen], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_watched_a_table_goes_on_with_what_changes_until_ctrl_c(cli: Cli) -> None:
    cli.submit(task("watched", "true", pool="none-such"))
    with watching(cli, "get", "tasks", "watched", "-w") as watch:
        assert watch.stdout is not None
        head, first = watch.stdout.readline(), watch.stdout.readline()
        assert (head.split()[0], first.split()[:4]) == ("NAME", ["watched", "none-such", "plan", "Queued"])
        cli.run("cancel", "watched")
        while "Cancelled" not in (row := watch.stdout.readline()):
            assert row.split()[0] == "watched"
        watch.send_signal(signal.SIGINT)
        _, said = watch.communicate(timeout=30)
    assert (watch.returncode, said.strip()) == (130, "")


def test_watched_slots_go_on_with_those_that_change(cli: Cli) -> None:
    with watching(cli, "get", "slots", "-w") as watch:
        assert watch.stdout is not None
        assert watch.stdout.readline().split() == ["POD", "SLOT", "STATE", "TASK", "STEP"]
        cli.submit(task("slotted", "sleep 1000"))
        while "slotted" not in (row := watch.stdout.readline()):
            assert row
        assert row.split()[2:] == ["running", "slotted", "plan"]
        watch.send_signal(signal.SIGINT)
        watch.communicate(timeout=30)
    assert watch.returncode == 130
    cli.run("cancel", "slotted")


def test_ctrl_c_ends_a_followed_log_at_once(cli: Cli) -> None:
    cli.submit(task("silent", "echo begun; sleep 1000"))
    with watching(cli, "logs", "-f", "silent") as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "begun\n"
        following.send_signal(signal.SIGINT)
        _, said = following.communicate(timeout=30)
    assert (following.returncode, "Traceback" in said) == (130, False)
    cli.run("cancel", "silent")


def test_names_are_completed_from_the_cluster(cli: Cli) -> None:
    cli.submit(task("complete-1", "true", pool="none-such") + task("complete-2", "true", pool="none-such"))

    def complete(*words: str) -> list[str]:
        environ = {
            **os.environ,
            "KUBECONFIG": str(cli.folder / "cluster" / "kubeconfig"),
            "_PODSLOTS_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(["podslots", *words]),
            "COMP_CWORD": str(len(words)),
        }
        done = subprocess.run([PODSLOTS], check=True, env=environ, capture_output=True, text=True, timeout=60)
        assert done.stderr == ""
        return [line.partition(",")[2] for line in done.stdout.split()]

    assert complete("describe", "ta") == ["tasks"]
    assert complete("get", "slt", "complete-1", "comp") == ["complete-2"]
    assert complete("cancel", "-n", "default", "complete-") == ["complete-1", "complete-2"]
    assert complete("approve", "complete-") == [], "neither of them waits for an approval"
    assert complete("get", "slt", "-n", "elsewhere", "comp") == []
    assert "_podslots_completion" in cli.run("completion", "bash", cluster=False)
    cli.run("cancel", "complete-1", "complete-2")


def test_version_is_of_the_command_the_controller_and_the_api_server(cli: Cli, tmp_path: Path) -> None:
    own = f"Client version: {own_version()}\n"
    wait_until(lambda: "unknown" not in cli.run("version"), 30, "nobody leads")
    assert cli.run("version").startswith(f"{own}Controller version: {own_version()}\nKubernetes version: v1.")
    assert cli.run("version", "--client", "--kubeconfig", f"{tmp_path}/none", cluster=False) == own


def test_a_missing_kubeconfig_is_one_clear_line(cli: Cli, tmp_path: Path) -> None:
    error = cli.run("--kubeconfig", f"{tmp_path}/none", "get", "pools", code=1, cluster=False)
    assert f"there is no kubeconfig {tmp_path}/none. Name a kubeconfig with --kubeconfig" in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("get", "pools", "none"),
        ("approve", "none"),
        ("cancel", "none"),
        ("retry", "none"),
        ("drain", "none"),
        ("forget", "none"),
        ("unlock", "--task", "none"),
        ("logs", "none"),
        ("logs", "-f", "none"),
        ("wait", "none", "--for", "Failed"),
    ],
)
def test_what_does_not_exist_is_named(cli: Cli, arguments: tuple[str, ...]) -> None:
    """To try again would not help: that is what `wait` and `logs` say by 4."""
    assert "none" in cli.run(*arguments, code=1)


@pytest.mark.parametrize("verb", [("get", "task"), ("describe", "task"), ("logs",), ("wait",), ("cancel",)])
def test_a_name_that_comes_near_is_asked_for_and_another_namespace_is_named(cli: Cli, verb: tuple[str, ...]) -> None:
    cli.submit(task("nearby", "true", pool="none-such"))
    assert "no SlotTask nearbye in namespace default; did you mean 'nearby'?" in cli.run(*verb, "nearbye", code=1)
    elsewhere = cli.run(*verb, "nearby", "-n", "kube-system", code=1)
    assert "no SlotTask nearby in namespace kube-system; there is one in namespace default" in elsewhere


def test_an_api_server_that_is_away_is_one_clear_line(cli: Cli, tmp_path: Path) -> None:
    text = (cli.folder / "cluster" / "kubeconfig").read_text()
    server = yaml.safe_load(text)["clusters"][0]["cluster"]["server"]
    (tmp_path / "kubeconfig").write_text(text.replace(server, "https://127.0.0.1:1"))
    error = cli.run("--kubeconfig", str(tmp_path / "kubeconfig"), "get", "pools", code=1, cluster=False)
    assert error.startswith("Error: the Kubernetes API can't be reached")


def test_local_down_refuses_while_a_task_runs_and_up_refuses_twice(cli: Cli, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    cli.submit(task("busy", f"while ! test -e {gate}; do sleep 0.1; done"))
    cli.run("wait", "busy", "--for", "Running", "--timeout", "40")
    state = ("--state-dir", str(cli.folder))
    assert "still running: " in cli.run("local", "down", *state, code=1, cluster=False)
    assert "run already" in cli.run("local", "up", "--detach", *state, code=1, cluster=False)
    assert cli.run("local", "status", *state, cluster=False).startswith("Cluster      running, pid ")
    gate.touch()
    cli.run("wait", "busy", "--for", "Succeeded", "--timeout", "30")


def kill(cli: Cli, name: str) -> None:
    """SIGKILL the cluster or the controller."""
    records = json.loads((cli.folder / "processes.json").read_text())
    (pid,) = (record["pid"] for record in records if record["name"] == name)
    os.kill(pid, signal.SIGKILL)
    while start_ticks(pid) is not None:
        time.sleep(0.01)


@pytest.mark.long
def test_up_replaces_what_was_killed_and_down_stops_what_a_killed_cluster_left(cli: Cli, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    cli.submit(task("outlives", f"while ! test -e {gate}; do sleep 0.1; done"))
    cli.run("wait", "outlives", "--for", "Running", "--timeout", "40")
    up = ("local", "up", "--detach", "--state-dir", str(cli.folder))
    for name in ("controller", "cluster"):
        kill(cli, name)
        subprocess.run([PODSLOTS, *up], check=True, timeout=200)
        assert cli.phase("outlives") == "Running"
    kill(cli, "cluster")
    refused = subprocess.run(
        [PODSLOTS, "local", "down", "--state-dir", str(cli.folder)], check=False, timeout=200, capture_output=True
    )
    assert b"still running: outlives" in refused.stderr
    gate.touch()
    cli.run("wait", "outlives", "--for", "Succeeded", "--timeout", "30")


def test_the_controllers_role_grants_all_that_it_asked_for(cli: Cli) -> None:
    """The embedded cluster looks at no RBAC objects: what was asked of it is compared with the ClusterRole here."""
    documents = yaml.safe_load_all((ROOT / "manifests/base/rbac/controller.yaml").read_text())
    rules = next(document["rules"] for document in documents if document["kind"] == "ClusterRole")
    asked = set()
    for line in (cli.folder / "cluster" / "audit.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["user"]["username"] == names.CONTROLLER_USER and "objectRef" in event:
            reference = event["objectRef"]
            parts = (reference["resource"], reference.get("subresource"))
            asked.add((event["verb"], reference.get("apiGroup", ""), "/".join(part for part in parts if part)))
    assert asked
    for verb, group, resource in asked:
        assert any(
            group in rule["apiGroups"] and resource in rule["resources"] and verb in rule["verbs"] for rule in rules
        ), f"{verb} {group}/{resource}"
