"""The checker finds what it is there to find, and nothing in a run that was as it should be."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from controller import names
from tests.checker.verdict import Verdict, check
from tests.support.made_logs import DIGEST, KUBELET, RUNNING, MadeRun
from tests.support.repository import ROOT


@pytest.fixture
def run(tmp_path: Path) -> MadeRun:
    """A run with a Pod that is open and a task; each test goes on from there."""
    made = MadeRun(tmp_path)
    made.pod(0)
    made.task(1, "t")
    return made


def verdict(run: MadeRun) -> Verdict:
    return check(run.save())


def found(run: MadeRun) -> dict[str, int]:
    """The kinds of findings that are not empty."""
    return {kind: len(texts) for kind, texts in verdict(run).findings.items() if texts}


def whole(run: MadeRun) -> MadeRun:
    """The rest of a run as it should be."""
    run.planned(2, "t")
    run.approve(4, "t")
    run.applied(5, "t")
    run.gone(7)
    return run


def test_a_run_as_it_should_be_is_clean(run: MadeRun) -> None:
    judged = verdict(whole(run))
    assert judged.ok, judged.report()
    assert judged.looked_at["applies"] == 1


def test_it_uses_nothing_of_the_product() -> None:
    for path in (ROOT / "tests" / "checker").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                top = name.partition(".")[0]
                assert top in sys.stdlib_module_names or name.startswith("tests.checker"), f"{path} imports {name}"


def test_the_command_ends_with_counts_and_a_true_status(run: MadeRun) -> None:
    def command() -> tuple[int, dict[str, object]]:
        ended = subprocess.run(
            [sys.executable, "-m", "tests.checker", str(run.folder)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
        )
        return ended.returncode, json.loads(ended.stdout.splitlines()[-1])

    whole(run).save()
    status, line = command()
    assert (status, line["ok"], line["busy_pods_deleted"]) == (0, True, 0)
    run.phase(20, "t", "Failed")
    run.save()
    status, line = command()
    assert (status, line["ok"], line["final_phases_changed"]) == (1, False, 1)


# --- Pods -------------------------------------------------------------------------------------------------------------


def test_a_pod_deleted_with_a_held_slot_is_found(run: MadeRun) -> None:
    run.planned(2, "t")
    run.delete(3.5)
    run.phase(5, "t", "Lost")
    assert found(run) == {"busy_pods_deleted": 2}  # held, and without a drain


def test_a_dry_run_deletes_nothing(run: MadeRun) -> None:
    whole(run)
    run.begin(3.5, "delete", "pods:p", user="anna", query="dryRun=All")
    run.finish(3.6)
    assert found(run) == {}


def test_whoever_deletes_it(run: MadeRun) -> None:
    """Be it by force: the first that is seen is then the kubelet's own, at the end of the containers."""
    run.planned(2, "t")
    run.write(4, "delete", "pods:p", {"gracePeriodSeconds": 0}, user="anna")
    run.phase(5, "t", "Lost")
    assert found(run) == {"busy_pods_deleted": 2}


def test_an_eviction_that_is_granted_is_a_delete(run: MadeRun) -> None:
    """The Pod may end in good order afterwards, drained and all: its work was stopped even so."""
    run.planned(2, "t")
    run.write(3.5, "create", "pods/eviction:p", {}, user="anna", code=429)
    assert found(run) == {"tasks_lost": 1}
    run.write(4, "create", "pods/eviction:p", {}, user="anna", code=201)
    run.slot(4.5, "reserved>idle", "t", fence=3)
    run.phase(5, "t", "Cancelled")
    run.gone(6)
    assert found(run) == {"busy_pods_deleted": 2}


def test_a_result_without_its_ack_is_busy_too(run: MadeRun) -> None:
    whole(run)
    lines = run.logs["u-p", "slot-agent", 0]
    run.logs["u-p", "slot-agent", 0] = [line for line in lines if "acknowledged" not in line]
    assert found(run) == {"busy_pods_deleted": 1}


def test_an_idle_pod_without_a_drain_is_found(run: MadeRun) -> None:
    run.delete(3)
    run.phase(5, "t", "Cancelled")
    assert found(run) == {"busy_pods_deleted": 1}


def test_a_drain_that_was_taken_back_does_not_count(run: MadeRun) -> None:
    run.agent(2, "phase", phase="drained", drain_id="d1")
    run.agent(2.5, "phase", phase="open", drain_id="d1")
    run.delete(3)
    run.phase(5, "t", "Cancelled")
    assert found(run) == {"busy_pods_deleted": 1}


def test_work_taken_after_the_delete_is_found(run: MadeRun) -> None:
    run.gone(3)
    run.agent(3.5, "phase", phase="open", drain_id="d1")
    run.slot(3.6, "idle>running", "t", fence=1)
    run.phase(5, "t", "Lost")
    assert found(run) == {"busy_pods_deleted": 2}


def test_a_pod_that_was_never_opened_can_go(tmp_path: Path) -> None:
    run = MadeRun(tmp_path)
    run.pod(0)
    lines = run.logs["u-p", "slot-agent", 0]
    run.logs["u-p", "slot-agent", 0] = [line for line in lines if '"phase"' in line and "restored" in line]
    run.delete(1)
    assert found(run) == {}


def test_a_pod_that_was_proven_dead_can_go(run: MadeRun) -> None:
    run.planned(2, "t")
    ended = {"containerID": "x", "restartCount": 0, "state": {"terminated": {}}}
    status = {
        "phase": "Failed",
        "initContainerStatuses": [{"name": "slot-agent", **ended}],
        "containerStatuses": [{"name": "worker-0", **ended}, {"name": "worker-1", **ended}],
    }
    run.write(4, "patch", "pods/status:p", {"status": status}, user=KUBELET)
    run.delete(5)
    run.phase(6, "t", "Lost")
    assert found(run) == {}


def test_phase_failed_alone_proves_nothing(run: MadeRun) -> None:
    run.planned(2, "t")
    status = {"phase": "Failed", "containerStatuses": [{"name": "worker-0", **RUNNING}]}
    run.write(4, "patch", "pods/status:p", {"status": status}, user=KUBELET)
    run.delete(5)
    run.phase(6, "t", "Lost")
    assert "busy_pods_deleted" in found(run)


def test_a_person_may_declare_a_pod_dead(run: MadeRun) -> None:
    run.planned(2, "t")
    run.write(4, "patch", "pods:p", {"metadata": {"annotations": {"podslots.dev/forget": "u-p"}}}, user="anna")
    run.delete(5)
    run.phase(6, "t", "Lost")
    assert found(run) == {}


def test_a_drain_survives_a_restart_of_the_agent(run: MadeRun) -> None:
    run.agent(2, "phase", phase="drained", drain_id="d1")
    run.agent(2.5, "restored", run=1, phase="drained", drain_id="d1", fence=0, recovering=[])
    run.delete(3)
    run.phase(5, "t", "Cancelled")
    assert found(run) == {}


def test_a_drain_of_an_agent_that_lost_its_journal_does_not(run: MadeRun) -> None:
    run.agent(2, "phase", phase="drained", drain_id="d1")
    run.agent(2.5, "restored", run=1, phase="drained", drain_id="born-y", fence=9, recovering=[0, 1])
    run.delete(3)
    run.phase(5, "t", "Cancelled")
    assert found(run) == {"busy_pods_deleted": 1}


# --- tasks ------------------------------------------------------------------------------------------------------------


def test_a_task_without_an_end_is_lost(run: MadeRun) -> None:
    run.planned(2, "t")
    assert found(run) == {"tasks_lost": 1}
    assert check(run.folder, settled=False).ok


def test_a_task_that_vanished_is_lost(run: MadeRun) -> None:
    run.planned(2, "t")
    run.slot(3.5, "reserved>idle", "t", fence=3)
    run.agent(3.5, "task ended", task="u-t.1", outcome="cancelled")
    run.agent(3.6, "acknowledged", task="u-t.1")
    run.write(4, "delete", "slottasks:t", user="anna")
    assert found(run) == {"tasks_lost": 1}


def test_a_queued_task_may_be_deleted(run: MadeRun) -> None:
    run.write(4, "delete", "slottasks:t", user="anna")
    assert found(run) == {}


def test_a_success_that_no_agent_reported_is_found(run: MadeRun) -> None:
    run.phase(4, "t", "Succeeded")
    assert found(run) == {"wrong_results": 1}


# --- steps ------------------------------------------------------------------------------------------------------------


def test_a_step_started_twice_is_found_across_workers(run: MadeRun) -> None:
    whole(run)
    run.worker(5.3, "step started", run=1, task_id="u-t.1", step="apply", digest=DIGEST)
    assert found(run) == {"steps_started_twice": 1}


def test_an_apply_in_two_attempts_is_found(run: MadeRun) -> None:
    whole(run)
    run.approve(5.9, "t", attempt=2)
    run.worker(5.95, "step ended", task_id="u-t.2", step="plan", outcome="succeeded", digest=DIGEST)
    run.agent(5.9, "slot", slot=0, task="u-t.2", from_="idle", to="running", fence=7)
    run.worker(6, "step started", task_id="u-t.2", step="apply", digest=DIGEST)
    run.agent(6.5, "slot", slot=0, task="u-t.2", from_="running", to="idle", fence=8)
    assert found(run) == {"steps_started_twice": 1}


def test_a_task_in_two_slots_is_found(run: MadeRun) -> None:
    run.pod(1, "q")
    whole(run)
    run.slot(3, "idle>running", "t", fence=1, pod="q")
    run.slot(3.1, "running>idle", "t", fence=2, pod="q")
    assert found(run) == {"tasks_in_two_slots": 1}


def test_one_slot_after_the_other_is_fine(run: MadeRun) -> None:
    run.pod(1, "q")
    whole(run)
    run.slot(1.5, "idle>running", "t", fence=1, pod="q")
    run.slot(1.9, "running>idle", "t", fence=2, pod="q")
    assert found(run) == {}


# --- approvals and locks ----------------------------------------------------------------------------------------------


def test_an_apply_nobody_approved_is_found(run: MadeRun) -> None:
    run.planned(2, "t")
    run.applied(5, "t")
    assert found(run) == {"applies_without_approval": 1}


@pytest.mark.parametrize("change", [{"digest": "sha256:bb"}, {"attempt": 2}, {"user": names.CONTROLLER_USER}])
def test_an_approval_of_something_else_does_not_count(run: MadeRun, change: dict[str, object]) -> None:
    run.planned(2, "t")
    run.approve(4, "t", **change)  # type: ignore[arg-type]  # each is of its own type
    run.applied(5, "t")
    assert found(run) == {"applies_without_approval": 1}


def test_an_approval_after_the_start_does_not_count(run: MadeRun) -> None:
    run.planned(2, "t")
    run.applied(5, "t")
    run.approve(5.15, "t")
    assert found(run) == {"applies_without_approval": 1}


def test_an_apply_of_another_plan_is_found(run: MadeRun) -> None:
    run.planned(2, "t")
    run.approve(4, "t", digest="sha256:bb")
    lines = len(run.logs["u-p", "worker-0", 0])
    run.applied(5, "t")
    log = run.logs["u-p", "worker-0", 0]
    log[lines] = log[lines].replace(DIGEST, "sha256:bb")
    assert found(run) == {"applies_without_approval": 1}


def test_an_automatic_approval_needs_none(tmp_path: Path) -> None:
    run = MadeRun(tmp_path)
    run.pod(0)
    run.task(1, "t", approvalPolicy="Auto")
    run.planned(2, "t")
    run.applied(5, "t")
    assert found(run) == {}


def test_an_approval_cut_short_by_a_kill_of_the_server_counts(run: MadeRun) -> None:
    run.planned(2, "t")
    run.begin(4, "patch", "slottasks:t", {"spec": {"approval": {"attempt": 1, "planDigest": DIGEST}}}, user="anna")
    run.applied(5, "t")
    assert found(run) == {}


def test_one_that_was_lost_with_the_server_does_not(run: MadeRun) -> None:
    """Its version was given to another write after the restart."""
    run.planned(2, "t")
    run.begin(4, "patch", "slottasks:t", {"spec": {"approval": {"attempt": 1, "planDigest": DIGEST}}}, user="anna")
    run.version -= 1
    cut_short = run.audit[-1]
    cut_short["auditID"] = "another"
    run.applied(5, "t")
    assert found(run) == {"applies_without_approval": 1}


@pytest.mark.parametrize("shared", [True, False])
def test_two_applies_of_one_lock_at_a_time_are_found(tmp_path: Path, shared: bool) -> None:
    run = MadeRun(tmp_path)
    run.pod(0)
    run.pod(0, "q")
    for name in ("t", "s"):
        run.task(1, name, lockKey="vpc" if shared else name)
    run.planned(2, "t")
    run.planned(4, "s", pod="q")
    for name in ("t", "s"):
        run.approve(6, name)
    run.applied(7, "t")
    run.applied(7.3, "s", pod="q")
    assert found(run) == ({"lock_overlaps": 1} if shared else {})


def test_a_lock_is_held_until_a_killed_worker_is_known_to_be_gone(tmp_path: Path) -> None:
    run = MadeRun(tmp_path)
    run.pod(0)
    for name in ("t", "s"):
        run.task(1, name, lockKey="vpc")
    run.planned(2, "t")
    run.planned(4, "s", fence=5, slot=1)
    for name in ("t", "s"):
        run.approve(6, name)
    run.applied(7, "t", fence=10)
    log = run.logs["u-p", "worker-0", 0]
    del log[-1]  # the end of the apply
    run.applied(8, "s", fence=20, slot=1)
    run.gone(10)
    assert found(run) == {"lock_overlaps": 1}
    run.worker(7.9, "step ended", run=1, task_id="u-t.1", step="apply", outcome="lost")
    assert found(run) == {}


# --- evidence ---------------------------------------------------------------------------------------------------------


def test_missing_logs_are_said(run: MadeRun) -> None:
    whole(run)
    del run.logs["u-p", "worker-1", 0]
    assert found(run) == {"missing_evidence": 1}


def test_the_log_of_each_run_of_a_container_is_needed(run: MadeRun) -> None:
    whole(run)
    again = {**RUNNING, "name": "worker-1", "restartCount": 2}
    run.write(3, "patch", "pods/status:p", {"status": {"phase": "Running", "containerStatuses": [again]}}, user=KUBELET)
    assert found(run) == {"missing_evidence": 2}


def test_a_run_that_never_began_needs_no_log(run: MadeRun) -> None:
    """Its kubelet was killed, or its disk was full, while it started the container."""
    whole(run)
    unknown = {"reason": "ContainerStatusUnknown", "startedAt": "1970-01-01T00:00:00Z"}
    for count, ended in ((1, unknown), (2, {**unknown, "startedAt": "2026-03-01T12:00:00Z"})):
        again = {**RUNNING, "name": "worker-1", "restartCount": count, "state": {"terminated": ended}}
        status = {"phase": "Running", "containerStatuses": [again]}
        run.write(3, "patch", "pods/status:p", {"status": status}, user=KUBELET)
    assert found(run) == {"missing_evidence": 1}, "of the one that began"


def test_a_transition_that_was_not_logged_is_said(run: MadeRun) -> None:
    whole(run)
    lines = run.logs["u-p", "slot-agent", 0]
    run.logs["u-p", "slot-agent", 0] = [line for line in lines if '"to": "idle"' not in line]
    assert "missing_evidence" in found(run) or "busy_pods_deleted" in found(run)
    run.logs["u-p", "slot-agent", 0] = [line for line in lines if '"from": "idle"' not in line]
    assert "missing_evidence" in found(run)


def test_what_a_killed_agent_did_not_say_is_taken_from_its_next_start(run: MadeRun) -> None:
    run.planned(2, "t")
    run.agent(3.5, "restored", run=1, phase="open", drain_id="born-x", fence=4, recovering=[])
    run.agent(3.5, "result restored", run=1, task="u-t.1", outcome="cancelled")
    run.phase(4, "t", "Cancelled")
    run.agent(4.1, "acknowledged", run=1, task="u-t.1")
    run.agent(5, "phase", run=1, phase="drained", drain_id="d1")
    run.delete(5.1)
    assert found(run) == {}


def test_dropped_lines_are_said(run: MadeRun) -> None:
    whole(run)
    run.logs["u-p", "slot-agent", 0].append('{"message": "log lines dropped", "lines": 3}')
    assert found(run) == {"missing_evidence": 1}


def test_nothing_at_all_is_no_evidence(tmp_path: Path) -> None:
    assert len(check(tmp_path).findings["missing_evidence"]) == 2
