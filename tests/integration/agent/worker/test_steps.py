"""A real worker process runs real commands, offered by a fake agent."""

import base64
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from agent.wire import EnvFrom, EnvVar, ExitCodes, KeyRef, Outcome, Step
from agent.worker.step.marks import mark
from tests.support.fake_agent import FakeAgent
from tests.support.worker_fixtures import StartWorker, agent, start_worker
from tests.support.worker_process import WorkerProcess, alive, assignment, shell, until

__all__ = ["agent", "start_worker"]


def test_output_arrives_while_the_step_runs_and_is_echoed_line_by_line(
    agent: FakeAgent, start_worker: StartWorker, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    worker = start_worker()
    agent.offer(assignment(*shell(f"echo one; echo two >&2; while [ ! -e {gate} ]; do sleep 0.02; done; printf three")))
    agent.wait(lambda: agent.log("task.1") == b"one\ntwo\n")
    assert agent.started[0].task_id == "task.1"
    assert not agent.exits
    gate.touch()
    report = agent.exit_of("task.1", Step.PLAN)
    assert (report.outcome, report.exit_code, report.reason) == (Outcome.SUCCEEDED, 0, None)
    assert report.log_bytes == len(b"one\ntwo\nthree")
    assert agent.log("task.1") == b"one\ntwo\nthree"
    lines = (b": begins", b" one", b" two", b"+three", b": ended")
    echoed = b"".join(mark("team/task", "plan", "task.1") + line + b"\n" for line in lines)
    until(lambda: worker.stdout == echoed)


@pytest.mark.parametrize(
    ("script", "exit_code", "reason"),
    [
        ("exit 3", 3, "exit code 3"),
        ("kill -9 $$", 137, "ended by signal 9"),
        ("kill -TERM $$", 143, "ended by signal 15"),
    ],
)
def test_a_failed_command_is_reported_with_its_code_or_signal(
    agent: FakeAgent, start_worker: StartWorker, script: str, exit_code: int, reason: str
) -> None:
    start_worker()
    agent.offer(assignment(*shell(script)))
    report = agent.exit_of("task.1", Step.PLAN)
    assert (report.outcome, report.exit_code, report.reason) == (Outcome.FAILED, exit_code, reason)


@pytest.mark.parametrize("command", ["/no/such/program", "no-such-program", "/etc/hostname", "/"])
def test_a_command_that_cannot_run_fails_with_the_reason(
    agent: FakeAgent, start_worker: StartWorker, command: str
) -> None:
    start_worker()
    agent.offer(assignment(command))
    report = agent.exit_of("task.1", Step.PLAN)
    assert (report.outcome, report.exit_code) == (Outcome.FAILED, None)
    assert command in str(report.reason)
    agent.offer(assignment("true", task_id="task.2"))
    assert agent.exit_of("task.2", Step.PLAN).outcome is Outcome.SUCCEEDED


def test_whatever_lies_in_the_place_of_a_new_task_is_moved_away(
    agent: FakeAgent, start_worker: StartWorker, tmp_path: Path
) -> None:
    """An earlier task of the slot knows, at least, the name that its own next attempt will have."""
    planted = tmp_path / "work" / "tasks" / "task.1"
    (planted / "plan.log").mkdir(parents=True)
    (planted / "dir").mkdir()
    (planted / "dir" / "override.tf").write_text("planted")
    os.mkfifo(planted / "plan.assignment.json.new")
    start_worker()
    agent.offer(assignment("ls"))
    assert agent.exit_of("task.1", Step.PLAN).outcome is Outcome.SUCCEEDED
    assert agent.log("task.1") == b""


@pytest.mark.long
def test_two_hundred_megabytes_of_output_take_no_memory_and_keep_their_beginning_and_end(
    agent: FakeAgent, start_worker: StartWorker
) -> None:
    worker = start_worker(environ={"PATH": os.environ["PATH"]})
    agent.offer(assignment(*shell("echo begin; head -c 200000000 /dev/zero | tr '\\0' x | fold -w 99; echo; echo end")))
    agent.wait(lambda: agent.started)
    highest = 0

    def ended() -> bool:
        nonlocal highest
        status = Path(f"/proc/{worker.pid}/status").read_text()
        highest = max(highest, int(re.findall(r"VmRSS:\s+(\d+)", status)[0]))
        return bool(agent.exits)

    agent.wait(ended, 50)
    report = agent.exits[0]
    log = agent.log("task.1")
    assert report.outcome is Outcome.SUCCEEDED
    assert report.log_bytes > 202_000_000
    assert log.startswith(b"begin\n")
    assert log.endswith(b"\nend\n")
    left_out = int(re.findall(rb"\n\[slot-agent: (\d+) bytes of output left out here\]\n", log)[0])
    marker = len(f"\n[slot-agent: {left_out} bytes of output left out here]\n")
    assert len(log) - marker + left_out == report.log_bytes
    assert highest < 32 * 1024, "KiB"
    run = mark("team/task", "plan", "task.1")
    until(lambda: worker.stdout.endswith(run + b" end\n" + run + b": ended\n"))


def test_time_limit_ends_the_step(agent: FakeAgent, start_worker: StartWorker) -> None:
    start_worker()
    agent.offer(assignment(*shell("echo $$; exec sleep 1000"), timeout_seconds=1))
    report = agent.exit_of("task.1", Step.PLAN)
    assert (report.outcome, report.reason) == (Outcome.FAILED, "time limit of 1 s exceeded")
    assert not alive(int(agent.log("task.1")))


HIDDEN_CHILD = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for fd in range(3, 64):
            try: os.close(fd)
            except OSError: pass
        open(sys.argv[1], "w").write(str(os.getpid()))
        os.rename(sys.argv[1], sys.argv[1] + ".pid")
        time.sleep(1000)
    os._exit(0)
os.wait()
"""


def _hidden(tmp_path: Path, python: str) -> tuple[str, Path]:
    """A script that leaves a child of its own session, deaf to SIGTERM, without inherited descriptors."""
    program = tmp_path / "hidden.py"
    program.write_text(HIDDEN_CHILD)
    return f"{python} {program} {tmp_path / 'hidden'}", tmp_path / "hidden.pid"


def test_background_children_end_with_the_step_wherever_they_hid(
    agent: FakeAgent, start_worker: StartWorker, tmp_path: Path
) -> None:
    """R6: a finished job whose processes hang does not hold its slot; no child outlives the step."""
    start_worker()
    script, hidden = _hidden(tmp_path, "python3")
    agent.offer(assignment(*shell(f"{script}; nohup sleep 1000 & echo $!; sleep 1000 & echo $!")))
    assert agent.exit_of("task.1", Step.PLAN).outcome is Outcome.SUCCEEDED
    pids = [int(line) for line in agent.log("task.1").split() if line.isdigit()]
    until(hidden.exists)
    assert not [pid for pid in (*pids, int(hidden.read_text())) if alive(pid)]


def test_cancel_ends_every_process_even_those_deaf_to_sigterm(
    agent: FakeAgent, start_worker: StartWorker, tmp_path: Path
) -> None:
    """T24: cancel ends the process group and all else of the step, and says so."""
    start_worker()
    script, hidden = _hidden(tmp_path, "python3")
    agent.offer(assignment(*shell(f"trap '' INT TERM; echo $$; {script}; while :; do sleep 1; done"), grace_seconds=1))
    until(hidden.exists)
    agent.cancel("task.1")
    report = agent.exit_of("task.1", Step.PLAN)
    assert (report.outcome, report.reason, report.exit_code) == (Outcome.CANCELLED, "cancelled", 137)
    assert not alive(int(agent.log("task.1").split()[0]))
    assert not alive(int(hidden.read_text()))


def test_cancel_gives_the_command_its_grace(agent: FakeAgent, start_worker: StartWorker) -> None:
    start_worker()
    agent.offer(assignment(*shell("trap 'echo tidying; exit 0' INT; echo ready; while :; do sleep 0.05; done")))
    agent.wait(lambda: agent.log("task.1") == b"ready\n")
    agent.cancel("task.1")
    report = agent.exit_of("task.1", Step.PLAN)
    assert (report.outcome, report.exit_code) == (Outcome.CANCELLED, 0)
    assert agent.log("task.1").endswith(b"tidying\n")


def test_a_step_cancelled_while_it_waited_never_runs(
    agent: FakeAgent, start_worker: StartWorker, tmp_path: Path
) -> None:
    proof = tmp_path / "ran"
    agent.cancel("task.1")
    agent.offer(assignment("touch", str(proof)))
    worker = start_worker()
    report = agent.exit_of("task.1", Step.PLAN)
    assert (report.outcome, report.start_time is None) == (Outcome.CANCELLED, False)
    assert (worker.task_dir("task.1") / "plan.started").exists()
    agent.offer_running_too = True
    agent.offer(assignment("touch", str(proof)))
    agent.wait(lambda: len(agent.exits) > 1)
    assert not proof.exists()


def test_sigterm_lets_the_step_run_to_its_end_and_takes_no_other(
    agent: FakeAgent, start_worker: StartWorker, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    worker = start_worker(environ={"PODSLOTS_GRACE_SECONDS": "60"})
    agent.offer(assignment(*shell(f"while [ ! -e {gate} ]; do sleep 0.02; done")))
    agent.wait(lambda: agent.started)
    worker.terminate()
    until(lambda: worker.said("asked to stop"))
    worker.terminate()
    agent.offer(assignment("true", task_id="task.2"))
    gate.touch()
    assert worker.wait() == 0
    assert [(report.task_id, report.outcome) for report in agent.exits] == [("task.1", Outcome.SUCCEEDED)]


def test_sigterm_ends_a_step_that_outlasts_the_grace(agent: FakeAgent, start_worker: StartWorker) -> None:
    worker = start_worker(environ={"PODSLOTS_GRACE_SECONDS": "16"})
    agent.offer(assignment(*shell("trap 'exit 5' INT; echo ready; while :; do sleep 0.05; done")))
    agent.wait(lambda: agent.log("task.1") == b"ready\n")
    worker.terminate()
    report = agent.exit_of("task.1", Step.PLAN)
    assert (report.outcome, report.reason, report.exit_code) == (Outcome.FAILED, "Pod stopped", 5)
    assert worker.wait() == 0


def test_an_idle_worker_stops_at_once(agent: FakeAgent, start_worker: StartWorker) -> None:
    worker = start_worker()
    agent.wait(lambda: agent.requests["/work"])
    worker.terminate()
    assert worker.wait(5) == 0


@pytest.mark.parametrize("path", ["../outside", "a/../../outside", "/outside", "a//b", "", "a/.", "file\0"])
def test_a_file_that_leads_out_of_the_directory_is_refused(
    agent: FakeAgent, start_worker: StartWorker, tmp_path: Path, path: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    start_worker()
    agent.offer(assignment("true", files={path: "text"}))
    report = agent.exit_of("task.1", Step.PLAN)
    assert (report.outcome, report.exit_code) == (Outcome.FAILED, None)
    assert repr(path) in str(report.reason)
    assert not list(outside.iterdir())


def test_files_and_environment_reach_the_command(agent: FakeAgent, start_worker: StartWorker, tmp_path: Path) -> None:
    secret, settings = tmp_path / "secret", tmp_path / "settings"
    for folder in (secret, settings):
        (folder / "..2026").mkdir(parents=True)
    (secret / "password").write_text("s3cret\n")
    (settings / "COLOUR").write_text("blue")
    (settings / "SIZE").write_text("small")
    worker = start_worker(
        environ={
            "PODSLOTS_SECRETS": f'{{"db": "{secret}"}}',
            "PODSLOTS_CONFIG_MAPS": f'{{"settings": "{settings}"}}',
            "FROM_IMAGE": "yes",
        }
    )
    agent.offer(
        assignment(
            *shell('cat sub/main.tf; echo "$PWORD|$APP_COLOUR|$SIZE|$FROM_IMAGE|$PLAIN|${MAYBE-unset}"; env'),
            files={"sub/main.tf": "hällo\n"},
            env=(
                EnvVar(name="PWORD", secret=KeyRef(name="db", key="password")),
                EnvVar(name="SIZE", value="large"),
                EnvVar(name="PLAIN", value="a=b c"),
                EnvVar(name="MAYBE", config_map=KeyRef(name="gone", key="x", optional=True)),
            ),
            env_from=(EnvFrom(config_map="settings", prefix="APP_"), EnvFrom(config_map="other", optional=True)),
        )
    )
    agent.exit_of("task.1", Step.PLAN)
    lines = agent.log("task.1").decode().splitlines()
    assert lines[0] == "hällo"
    assert lines[1:3] == ["***", "|blue|large|yes|a=b c|unset"]
    variables = dict(line.split("=", 1) for line in lines[3:] if "=" in line)
    assert variables["HOME"] == str(worker.task_dir("task.1") / "dir")
    assert variables["PODSLOTS_TASK_ID"] == "task.1"
    assert variables["PODSLOTS_ATTEMPT"] == "1"
    assert not [name for name in variables if name.startswith("PODSLOTS_CREDENTIAL")]
    assert "s3cret" not in worker._stderr.read_text()


def _with_secrets(start_worker: StartWorker, tmp_path: Path, **values: str) -> WorkerProcess:
    secret = tmp_path / "secret"
    secret.mkdir(exist_ok=True)
    for key, value in values.items():
        (secret / key).write_text(value)
    mounts = f'{{"cloud": "{secret}"}}'
    container = {
        "PODSLOTS_SECRET_VARIABLES": "FROM_POOL,NOT_SET",
        "FROM_POOL": "pool-password",
        "OPEN": "plain-text",
        **{f"{before}KEY": value for before, value in WHOLE.items()},
    }
    return start_worker(environ={"PODSLOTS_SECRETS": mounts, **container})


WHOLE = {
    "": "of-the-last-secret",
    "PODSLOTS_CREDENTIAL_FROM_SECRET_0_": "of-the-first-secret",
    "PODSLOTS_CREDENTIAL_FROM_SECRET_1_": "of-the-last-secret",
}
"""Two Secrets of the pool's `envFrom` that have the same key."""

CLOUD: dict[str, Any] = {"env_from": (EnvFrom(secret="cloud"),)}


def test_values_of_secrets_leave_the_worker_in_no_copy(
    agent: FakeAgent, start_worker: StartWorker, tmp_path: Path
) -> None:
    """In the log that is uploaded and in what is echoed, in pieces, in base64, from the task and from the pool."""
    key = "-----BEGIN KEY-----\nMIIEpAIBAAKCAQEA75\n-----END KEY-----\n"
    worker = _with_secrets(start_worker, tmp_path, TOKEN="wJalr-not-a-real-key-9931", KEY=key, PIN="1234")
    script = (
        'set -x; : "key: $TOKEN"; env; printf %s "$KEY"; printf "user:$TOKEN" | base64; '
        'set +x; echo of-the-first-secret; printf wJalr-not; sleep 0.2; echo -a-real-key-9931; echo "$OPEN $PIN"'
    )
    agent.offer(assignment(*shell(script), **CLOUD))
    assert agent.exit_of("task.1", Step.PLAN).log_bytes == len(agent.log("task.1"))
    log = agent.log("task.1")
    until(lambda: worker.stdout.endswith(b": ended\n"))
    for copy in (log, worker.stdout, worker._stderr.read_bytes()):
        for secret in (b"wJalr", b"real-key", b"pool-password", b"of-the-", b"MIIEpAIB", b"d0phbHItbm90"):
            assert secret not in copy
    assert b"TOKEN=***\n" in log
    assert b"FROM_POOL=***\n" in log
    assert b"\nKEY=***\n" in log
    assert b"FROM_SECRET" not in log
    assert log.endswith(b"***\nplain-text 1234\n")
    note = b": note the value of cloud/PIN has fewer than 6 bytes: it is not masked in the output\n"
    assert mark("team/task", "plan", "task.1") + note in worker.stdout


def test_secrets_are_shown_if_the_task_asks_for_it(agent: FakeAgent, start_worker: StartWorker, tmp_path: Path) -> None:
    _with_secrets(start_worker, tmp_path, TOKEN="wJalr-not-a-real-key-9931")
    agent.offer(assignment(*shell("echo $TOKEN"), mask_secrets=False, **CLOUD))
    agent.exit_of("task.1", Step.PLAN)
    assert agent.log("task.1") == b"wJalr-not-a-real-key-9931\n"


def test_the_last_step_hands_its_file_over_with_its_end(agent: FakeAgent, start_worker: StartWorker) -> None:
    start_worker()
    plan, apply = shell("mkdir out; echo early > out/a.json; echo p > tfplan"), shell("printf '\\377done' > out/a.json")
    options: dict[str, Any] = {"plan_file": "tfplan", "outputs_path": "out/a.json"}
    agent.offer(assignment(*plan, apply=apply, **options))
    planned = agent.exit_of("task.1", Step.PLAN)
    assert planned.outputs is None
    agent.offer(assignment(*apply, step=Step.APPLY, plan=plan, plan_digest=planned.plan_digest, **options))
    assert base64.b64decode(agent.exit_of("task.1", Step.APPLY).outputs or "") == b"\xffdone"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("true", "there is no file 'o', which the task names as its outputs"),
        ("head -c 262145 /dev/zero > o", "'o', the task's outputs, has more than 262144 bytes"),
        ("ln -s /etc/passwd o", "'o' is not a plain file: symbolic links are not followed"),
    ],
)
def test_a_file_that_can_not_be_handed_over_is_said_and_the_step_has_succeeded(
    agent: FakeAgent, start_worker: StartWorker, script: str, words: str
) -> None:
    start_worker()
    agent.offer(assignment(*shell(script), outputs_path="o"))
    report = agent.exit_of("task.1", Step.PLAN)
    assert (report.outcome, report.exit_code, report.outputs) == (Outcome.SUCCEEDED, 0, None)
    assert words in str(report.reason)


def test_plans_that_differ_in_a_secrets_value_alone_are_two_plans(
    agent: FakeAgent, start_worker: StartWorker, tmp_path: Path
) -> None:
    """The digest over a plan's output is taken before it is masked, and holds when the apply looks again."""
    _with_secrets(start_worker, tmp_path, A="value-one", B="value-two")
    apply = shell("true")
    digests = []
    for task_id, name in (("task.1", "A"), ("other.1", "B")):
        plan = shell(f"echo set to ${name}")
        agent.offer(assignment(*plan, apply=apply, task_id=task_id, **CLOUD))
        digests.append(agent.exit_of(task_id, Step.PLAN).plan_digest)
        assert agent.log(task_id) == b"set to ***\n"
        approved = assignment(*apply, step=Step.APPLY, plan=plan, task_id=task_id, plan_digest=digests[-1], **CLOUD)
        agent.offer(approved)
        assert agent.exit_of(task_id, Step.APPLY).outcome is Outcome.SUCCEEDED
    assert digests[0] != digests[1]


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"env": (EnvVar(name="A", secret=KeyRef(name="gone", key="k")),)}, "key k of Secret gone"),
        ({"env": (EnvVar(name="A", config_map=KeyRef(name="gone", key="k")),)}, "key k of ConfigMap gone"),
        ({"env_from": (EnvFrom(config_map="gone"),)}, "ConfigMap gone of envFrom"),
        ({"env": (EnvVar(name="A=B", value="x"),)}, "'A=B' can't be set"),
    ],
)
def test_a_missing_reference_fails_the_step_before_anything_starts(
    agent: FakeAgent, start_worker: StartWorker, tmp_path: Path, extra: dict[str, Any], words: str
) -> None:
    start_worker()
    agent.offer(assignment("touch", str(tmp_path / "ran"), **extra))
    report = agent.exit_of("task.1", Step.PLAN)
    assert (report.outcome, report.exit_code) == (Outcome.FAILED, None)
    assert words in str(report.reason)
    assert not (tmp_path / "ran").exists()


def test_the_apply_runs_in_the_plans_directory_which_goes_when_forgotten(
    agent: FakeAgent, start_worker: StartWorker
) -> None:
    worker = start_worker()
    plan, apply = shell("mkdir -p deep/er; echo plan-v1 > tfplan; echo kept > other"), shell("cat tfplan other")
    agent.offer(assignment(*plan, apply=apply, plan_file="tfplan"))
    digest = agent.exit_of("task.1", Step.PLAN).plan_digest
    assert digest
    assert re.fullmatch("sha256:[0-9a-f]{64}", digest)
    assert (worker.task_dir("task.1") / "dir" / "other").exists()
    agent.offer(assignment(*apply, step=Step.APPLY, plan=plan, plan_file="tfplan", plan_digest=digest))
    assert agent.exit_of("task.1", Step.APPLY).outcome is Outcome.SUCCEEDED
    assert agent.log("task.1", Step.APPLY) == b"plan-v1\nkept\n"
    assert worker.task_dir("task.1").exists()
    agent.forget("task.1")
    until(lambda: not worker.task_dir("task.1").exists() and not list((worker.work_dir / "trash").iterdir()))


CHANGED = "the plan, or what its apply runs with, changed since it was approved"
CHANGES: dict[str, dict[str, Any]] = {
    "the plan file": {"tamper": "echo plan-v2 > tfplan"},
    "the plan file removed": {"tamper": "rm tfplan"},
    "the plan file made a link": {"tamper": "mv tfplan real; ln -s real tfplan"},
    "the command": {"apply": ("touch", "applied", "again")},
    "a variable": {"env": (EnvVar(name="A", value="2"),)},
    "a reference": {"env": (EnvVar(name="A", secret=KeyRef(name="s", key="k", optional=True)),)},
    "envFrom": {"env_from": (EnvFrom(config_map="s", optional=True),)},
    "the attempt": {"attempt": 2},
    "no approval": {"digest": None},
    "another approval": {"digest": "sha256:" + "0" * 64},
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_apply_of_anything_but_what_was_approved_never_runs(
    agent: FakeAgent, start_worker: StartWorker, change: str
) -> None:
    """T10: no apply without an approval naming this plan's digest."""
    changed = dict(CHANGES[change])
    worker = start_worker()
    plan = shell("echo plan-v1 > tfplan")
    env = (EnvVar(name="A", value="1"),)
    agent.offer(assignment(*plan, apply=("touch", "applied"), plan_file="tfplan", env=env))
    digest = agent.exit_of("task.1", Step.PLAN).plan_digest
    directory = worker.task_dir("task.1") / "dir"
    os.system(f"cd {directory} && {changed.pop('tamper', 'true')}")  # noqa: S605 - a test's own words
    options = {"env": env, "plan_digest": changed.pop("digest", digest), **changed}
    apply = options.pop("apply", ("touch", "applied"))
    agent.offer(assignment(*apply, step=Step.APPLY, plan=plan, plan_file="tfplan", **options))
    report = agent.exit_of("task.1", Step.APPLY)
    assert (report.outcome, report.exit_code) == (Outcome.FAILED, None)
    assert not (directory / "applied").exists()


@pytest.mark.parametrize(
    "reference",
    [
        {"env_from": (EnvFrom(config_map="settings", prefix="TF_"),)},
        {"env": (EnvVar(name="TF_COLOUR", config_map=KeyRef(name="settings", key="COLOUR")),)},
    ],
)
def test_an_apply_does_not_run_with_another_content_of_a_config_map(
    agent: FakeAgent, start_worker: StartWorker, tmp_path: Path, reference: dict[str, Any]
) -> None:
    """Whoever may edit it may not be one who may approve, and `TF_CLI_ARGS_apply` is a variable like others."""
    mount = tmp_path / "settings"
    mount.mkdir()
    start_worker(environ={"PODSLOTS_CONFIG_MAPS": json.dumps({"settings": str(mount)})})
    plan, apply = shell("echo $TF_COLOUR > tfplan"), shell("echo $TF_COLOUR")
    ends = []
    for task_id, later in (("same.1", "blue"), ("other.1", "red")):
        (mount / "COLOUR").write_text("blue")
        agent.offer(assignment(*plan, apply=apply, task_id=task_id, plan_file="tfplan", **reference))
        digest = agent.exit_of(task_id, Step.PLAN).plan_digest
        (mount / "COLOUR").write_text(later)
        options = {"task_id": task_id, "plan": plan, "plan_file": "tfplan", "plan_digest": digest, **reference}
        agent.offer(assignment(*apply, step=Step.APPLY, **options))
        ends.append((agent.exit_of(task_id, Step.APPLY).outcome, agent.log(task_id, Step.APPLY)))
    assert ends == [(Outcome.SUCCEEDED, b"blue\n"), (Outcome.FAILED, b"")]


def test_without_a_plan_file_the_output_is_what_was_approved(agent: FakeAgent, start_worker: StartWorker) -> None:
    worker = start_worker()
    agent.offer(assignment("echo", "the plan", apply=("true",)))
    digest = agent.exit_of("task.1", Step.PLAN).plan_digest
    log = worker.task_dir("task.1") / "plan.log"
    log.write_bytes(log.read_bytes() + b"!")
    agent.offer(assignment("true", step=Step.APPLY, plan=("echo", "the plan"), plan_digest=digest))
    assert agent.exit_of("task.1", Step.APPLY).reason == CHANGED


def test_a_plan_file_that_is_named_and_not_written_fails_the_plan(agent: FakeAgent, start_worker: StartWorker) -> None:
    """An approval would cover its output alone, and what it did write could be changed before it is applied."""
    start_worker()
    agent.offer(assignment("touch", "tfplan", apply=("true",), plan_file="tf.plan"))
    report = agent.exit_of("task.1", Step.PLAN)
    assert report.outcome is Outcome.FAILED
    assert "no file 'tf.plan'" in str(report.reason)


@pytest.mark.parametrize(("written", "outcome"), [("tf.plan", Outcome.SUCCEEDED), ("tfplan", Outcome.FAILED)])
def test_a_plan_without_an_apply_writes_the_file_that_it_names_too(
    agent: FakeAgent, start_worker: StartWorker, written: str, outcome: Outcome
) -> None:
    start_worker()
    agent.offer(assignment("touch", written, plan_file="tf.plan"))
    report = agent.exit_of("task.1", Step.PLAN)
    assert (report.outcome, report.plan_digest) == (outcome, None)
    assert ("no file 'tf.plan'" in str(report.reason)) == (outcome is Outcome.FAILED)


def test_a_plan_that_finds_nothing_to_change_need_not_write_its_file(
    agent: FakeAgent, start_worker: StartWorker
) -> None:
    start_worker()
    agent.offer(assignment("true", plan_file="tf.plan", exit_codes=ExitCodes(unchanged=(0,))))
    report = agent.exit_of("task.1", Step.PLAN)
    assert (report.outcome, report.changed) == (Outcome.SUCCEEDED, False)


def test_a_plan_file_that_is_not_named_is_covered_by_its_usual_name(
    agent: FakeAgent, start_worker: StartWorker
) -> None:
    worker = start_worker()
    agent.offer(assignment("touch", "tfplan", apply=("true",)))
    digest = agent.exit_of("task.1", Step.PLAN).plan_digest
    (worker.task_dir("task.1") / "dir" / "tfplan").write_text("another")
    agent.offer(assignment("true", step=Step.APPLY, plan=("touch", "tfplan"), plan_digest=digest))
    assert agent.exit_of("task.1", Step.APPLY).reason == CHANGED


def test_a_plan_file_that_is_no_plain_file_fails_the_plan(agent: FakeAgent, start_worker: StartWorker) -> None:
    start_worker()
    agent.offer(assignment("mkfifo", "tfplan", apply=("true",), plan_file="tfplan"))
    report = agent.exit_of("task.1", Step.PLAN)
    assert report.outcome is Outcome.FAILED
    assert "plain file" in str(report.reason)


def test_a_stopped_reader_of_stdout_slows_the_command_and_holds_nothing_else_up(
    agent: FakeAgent, start_worker: StartWorker, tmp_path: Path
) -> None:
    """Cancel works, and memory stays bounded, while nobody reads the worker's stdout."""
    reader, writer = os.pipe()
    worker = start_worker(work_dir=tmp_path / "stuck", stdout=writer)
    try:
        agent.offer(assignment(*shell("exec cat /dev/zero"), grace_seconds=0))
        agent.wait(lambda: len(agent.log("task.1")) > 65536)
        agent.cancel("task.1")
        assert agent.exit_of("task.1", Step.PLAN).outcome is Outcome.CANCELLED
        worker.terminate()
        assert worker.wait() == 0
    finally:
        os.close(reader)
        os.close(writer)
