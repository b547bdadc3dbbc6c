"""The worker's decisions, one at a time, in virtual time."""

from typing import Any

import pytest

from agent.wire import (
    Assignment,
    Command,
    Empty,
    ExitCodes,
    ExitReport,
    Outcome,
    OutputAnswer,
    RegisterRequest,
    StartedReport,
    Step,
    WorkAnswer,
)
from agent.worker.rules.core import Worker
from agent.worker.rules.ports import Call, Channel, Ended, Request
from tests.support.worker_process import assignment
from tests.support.worker_world import WorkerWorld

WORK, REPORTS = Channel.WORK, Channel.REPORTS


def _request(worker: Worker, channel: Channel, call: Call) -> Request:
    request = worker.next_request(channel)
    assert request
    assert request.call is call
    return request


def _registered(world: WorkerWorld, instance: str = "w1", **options: float) -> Worker:
    worker = world.worker(instance, **options)
    _request(worker, WORK, Call.REGISTER)
    worker.answered(WORK, WorkAnswer())
    return worker


def _running(world: WorkerWorld, **options: int) -> Worker:
    """A worker whose start of task.1's plan was taken by the agent."""
    worker = _registered(world)
    _request(worker, WORK, Call.POLL)
    worker.answered(WORK, WorkAnswer(run=assignment("run", **options)))  # type: ignore[arg-type]
    _request(worker, REPORTS, Call.STARTED)
    worker.answered(REPORTS, Empty())
    return worker


def _after(world: WorkerWorld, worker: Worker, seconds: float) -> None:
    world.clock.seconds += seconds
    worker.tick()


def test_nothing_is_asked_or_reported_before_registration() -> None:
    worker = WorkerWorld().worker()
    assert worker.next_request(REPORTS) is None
    request = _request(worker, WORK, Call.REGISTER)
    assert isinstance(request.message, RegisterRequest)
    assert worker.next_request(WORK) is None, "one request at a time"


def test_retries_back_off_to_two_seconds_and_never_end() -> None:
    world = WorkerWorld()
    worker = world.worker()
    gaps = []
    for _ in range(20):
        before = world.clock.seconds
        while worker.next_request(WORK) is None:
            world.clock.seconds = worker.deadline() or 0.0
        gaps.append(round(world.clock.seconds - before, 3))
        worker.unanswered(WORK, "lost")
    assert gaps[:6] == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6]
    assert set(gaps[6:]) == {2.0}


def test_a_lasting_problem_is_said_once_and_again_after_it_was_over() -> None:
    world = WorkerWorld()
    worker = world.worker()
    for problems in (["refused"] * 5, ["timed out"] * 5):
        for problem in problems:
            assert worker.next_request(WORK)
            worker.unanswered(WORK, problem)
            _after(world, worker, 3.0)
    said = [about["error"] for event, about in world.log if event == "the agent does not answer; trying on"]
    assert said == ["refused", "timed out"]


def test_the_marker_comes_before_the_start_and_the_start_before_its_report() -> None:
    world = WorkerWorld()
    worker = _running(world)
    assert [launch.task_id for launch in world.runner.starts] == ["task.1"]
    assert world.disk.entries["task.1", Step.PLAN].started
    assert _request(worker, WORK, Call.POLL).params == {"instance": "w1", "task_id": "task.1", "step": "plan"}


def test_output_goes_in_parts_from_where_the_agent_is() -> None:
    world = WorkerWorld()
    worker = _running(world)
    entry = world.disk.entries["task.1", Step.PLAN]
    entry.log = b"x" * 100_000
    first = _request(worker, REPORTS, Call.OUTPUT)
    assert (first.params["offset"], len(first.data)) == ("0", 65536)
    worker.answered(REPORTS, OutputAnswer(offset=65536))
    second = _request(worker, REPORTS, Call.OUTPUT)
    assert (second.params["offset"], len(second.data)) == ("65536", 34464)
    worker.answered(REPORTS, OutputAnswer(offset=10))
    _after(world, worker, 1.0)
    assert _request(worker, REPORTS, Call.OUTPUT).params["offset"] == "10", "an agent that lost some gets it again"


def test_the_end_is_told_after_the_output_and_until_answered() -> None:
    world = WorkerWorld()
    worker = _running(world)
    world.disk.entries["task.1", Step.PLAN].log = b"out"
    worker.ended(Ended(exit_code=0, signal=None, output_bytes=3))
    _request(worker, REPORTS, Call.OUTPUT)
    worker.answered(REPORTS, OutputAnswer(offset=3))
    for _ in range(3):
        request = _request(worker, REPORTS, Call.EXIT)
        worker.unanswered(REPORTS, "lost")
        _after(world, worker, 2.0)
    assert isinstance(request.message, ExitReport)
    assert request.message.outcome is Outcome.SUCCEEDED
    _request(worker, REPORTS, Call.EXIT)
    worker.answered(REPORTS, Empty())
    assert worker.next_request(REPORTS) is None
    assert world.disk.entries["task.1", Step.PLAN].told


@pytest.mark.parametrize("status", [400, 413, 422])
def test_an_end_that_the_agent_can_not_read_is_told_with_less_in_it(status: int) -> None:
    """Else its task would run for ever."""
    world = WorkerWorld()
    worker = _running(world)
    worker.ended(world.ended())
    assert isinstance(_request(worker, REPORTS, Call.EXIT).message, ExitReport)
    worker.refused(REPORTS, status, "bad_request")
    told = _request(worker, REPORTS, Call.EXIT).message
    assert isinstance(told, ExitReport)
    assert (told.outcome, told.exit_code) == (Outcome.FAILED, 0)
    assert (told.plan_digest, told.outputs, told.log_bytes, told.changed) == (None, None, 0, None)
    assert told.reason
    assert "refused what the worker reported" in told.reason
    worker.refused(REPORTS, status, "bad_request")
    assert worker.next_request(REPORTS) is None, "it has nothing less to say"


def test_an_end_that_comes_too_late_is_not_told_again() -> None:
    world = WorkerWorld()
    worker = _running(world)
    worker.ended(world.ended())
    _request(worker, REPORTS, Call.EXIT)
    worker.refused(REPORTS, 409, "fenced")
    assert worker.next_request(REPORTS) is None


def test_the_agents_silence_is_waited_out_but_its_refusal_of_output_is_not() -> None:
    world = WorkerWorld()
    worker = _running(world)
    world.disk.entries["task.1", Step.PLAN].log = b"out"
    worker.ended(world.ended())
    for _ in range(100):
        assert _request(worker, REPORTS, Call.OUTPUT)
        worker.unanswered(REPORTS, "lost")
        _after(world, worker, 2.0)
    for _ in range(20):
        request = worker.next_request(REPORTS)
        assert request
        if request.call is Call.EXIT:
            break
        worker.refused(REPORTS, 503, "storage")
        _after(world, worker, 2.0)
    assert request
    assert request.call is Call.EXIT


def test_a_plan_that_can_be_applied_is_told_with_its_digest() -> None:
    world = WorkerWorld()
    worker = _registered(world)
    _request(worker, WORK, Call.POLL)
    worker.answered(WORK, WorkAnswer(run=assignment("plan", apply=("apply",))))
    worker.ended(world.ended())
    worker.tick()
    stored = world.disk.entries["task.1", Step.PLAN].exit
    assert stored
    assert stored.plan_digest == "sha256:task.1"


def test_time_limit_then_grace_then_sigterm_then_kill_until_it_ends() -> None:
    world = WorkerWorld()
    worker = _running(world, timeout_seconds=100, grace_seconds=8)
    _after(world, worker, 99.9)
    assert not world.runner.signals
    assert worker.deadline() == pytest.approx(world.clock.seconds + 0.1)
    _after(world, worker, 0.1)
    _after(world, worker, 5.9)
    assert world.runner.signals == ["SIGINT"], "once"
    _after(world, worker, 0.1)
    assert world.runner.signals == ["SIGINT", "TERM"]
    _after(world, worker, 2.0)
    _after(world, worker, 1.0)
    assert world.runner.signals == ["SIGINT", "TERM", "KILL", "KILL"]
    worker.ended(Ended(exit_code=None, signal=9, output_bytes=0))
    stored = world.disk.entries["task.1", Step.PLAN].exit
    assert stored
    assert (stored.outcome, stored.reason) == (Outcome.FAILED, "time limit of 100 s exceeded")


def test_only_a_cancel_of_the_running_step_stops_it_and_only_once() -> None:
    world = WorkerWorld()
    worker = _running(world)
    _request(worker, WORK, Call.POLL)
    worker.answered(WORK, WorkAnswer(run=assignment("other", task_id="task.2"), cancel=True))
    assert not world.runner.signals
    for _ in range(3):
        _after(world, worker, 1.0)
        _request(worker, WORK, Call.POLL)
        worker.answered(WORK, WorkAnswer(cancel=True))
    assert world.runner.signals == ["SIGINT"]


def test_an_agent_that_repeats_itself_is_not_asked_in_a_loop() -> None:
    world = WorkerWorld()
    worker = _running(world)
    asked = 0
    for _ in range(1000):
        if worker.next_request(WORK):
            asked += 1
            worker.answered(WORK, WorkAnswer(run=assignment("run")))
        _after(world, worker, 0.01)
    assert len(world.runner.starts) == 1
    assert asked <= 41, "in ten seconds"


def test_registering_again_and_again_is_not_done_in_a_loop() -> None:
    world = WorkerWorld()
    worker = world.worker()
    asked = 0
    for _ in range(1000):
        if request := worker.next_request(WORK):
            asked += 1
            if request.call is Call.REGISTER:
                worker.answered(WORK, WorkAnswer())
            else:
                worker.refused(WORK, 409, "unregistered")
        _after(world, worker, 0.01)
    assert asked <= 100, "in ten seconds"


def test_a_second_step_is_not_started_beside_the_first() -> None:
    world = WorkerWorld()
    worker = _running(world)
    _request(worker, WORK, Call.POLL)
    worker.answered(WORK, WorkAnswer(run=assignment("other", task_id="task.2")))
    assert len(world.runner.starts) == 1
    assert ("task.2", Step.PLAN) not in world.disk.entries


def test_a_plan_offered_late_does_not_run_after_its_apply() -> None:
    world = WorkerWorld()
    worker = _registered(world)
    for step, command in ((Step.PLAN, "plan"), (Step.APPLY, "apply"), (Step.PLAN, "plan")):
        _request(worker, WORK, Call.POLL)
        worker.answered(WORK, WorkAnswer(run=assignment(command, step=step)))
        if step is Step.PLAN and len(world.runner.starts) == 1:
            worker.ended(world.ended())
        _after(world, worker, 1.0)
    assert [launch.step for launch in world.runner.starts] == [Step.PLAN, Step.APPLY]


def test_a_marker_without_an_end_is_lost_only_when_nothing_remains() -> None:
    world = WorkerWorld()
    _running(world)
    world.disk.remains.add(("task.1", Step.PLAN))
    later = world.worker("w2")
    request = _request(later, WORK, Call.REGISTER)
    assert isinstance(request.message, RegisterRequest)
    assert [(kept.started, kept.exit) for kept in request.message.tasks] == [(True, None)]
    later.answered(WORK, WorkAnswer())
    for _ in range(100):
        _after(world, later, 0.1)
        assert later.next_request(REPORTS) is None
    _request(later, WORK, Call.POLL)
    later.answered(WORK, WorkAnswer(run=assignment("run"), forget=("task.1",)))
    world.disk.remains.clear()
    _after(world, later, 0.1)
    started = _request(later, REPORTS, Call.STARTED)
    assert isinstance(started.message, StartedReport)
    later.answered(REPORTS, Empty())
    _request(later, REPORTS, Call.OUTPUT)
    later.answered(REPORTS, OutputAnswer(offset=0))
    ended = _request(later, REPORTS, Call.EXIT)
    assert isinstance(ended.message, ExitReport)
    assert (ended.message.outcome, ended.message.instance) == (Outcome.LOST, "w2")
    assert len(world.runner.starts) == 1


def test_while_remains_of_an_old_step_run_nothing_new_starts() -> None:
    world = WorkerWorld()
    _running(world)
    world.disk.remains.add(("task.1", Step.PLAN))
    later = _registered(world, "w2")
    _request(later, WORK, Call.POLL)
    later.answered(WORK, WorkAnswer(run=assignment("run", task_id="task.2")))
    assert len(world.runner.starts) == 1


def test_a_full_disk_starts_nothing_and_an_end_it_cannot_store_is_told_and_stored_later() -> None:
    world = WorkerWorld()
    worker = _registered(world)
    world.disk.full = True
    _request(worker, WORK, Call.POLL)
    worker.answered(WORK, WorkAnswer(run=assignment("run")))
    assert not world.runner.starts
    world.disk.full = False
    _after(world, worker, 1.0)
    _request(worker, WORK, Call.POLL)
    worker.answered(WORK, WorkAnswer(run=assignment("run")))
    world.disk.full = True
    worker.ended(world.ended(exit_code=2))
    worker.tick()
    _request(worker, REPORTS, Call.STARTED)
    worker.answered(REPORTS, Empty())
    _request(worker, REPORTS, Call.EXIT)
    world.disk.full = False
    _after(world, worker, 1.0)
    assert world.disk.entries["task.1", Step.PLAN].exit


@pytest.mark.parametrize("place", ["disk", "runner"])
def test_a_step_that_cannot_be_prepared_or_run_has_failed_for_good(place: str) -> None:
    world = WorkerWorld()
    getattr(world, place).refusal = "no such program"
    worker = _registered(world)
    for _ in range(2):
        _request(worker, WORK, Call.POLL)
        worker.answered(WORK, WorkAnswer(run=assignment("run")))
        getattr(world, place).refusal = None
        _after(world, worker, 1.0)
    stored = world.disk.entries["task.1", Step.PLAN].exit
    assert stored
    assert (stored.outcome, stored.reason) == (Outcome.FAILED, "no such program")
    assert not world.runner.starts


def test_a_registration_leaves_out_the_files_of_started_tasks() -> None:
    world = WorkerWorld()
    worker = _registered(world)
    _request(worker, WORK, Call.POLL)
    worker.answered(WORK, WorkAnswer(run=assignment("run", files={"a": "x" * 100_000})))
    _request(worker, REPORTS, Call.STARTED)
    worker.refused(REPORTS, 409, "unregistered")
    _after(world, worker, 3.0)
    request = _request(worker, WORK, Call.REGISTER)
    assert isinstance(request.message, RegisterRequest)
    assert request.message.tasks[0].assignment.work.files == {}
    assert request.message.tasks[0].assignment.work.name == "team/task"


@pytest.mark.parametrize(
    ("grace", "own", "interrupt", "term", "kill", "leave"),
    [(600.0, 60, 525.0, 580.0, 585.0, 599.0), (60.0, 300, 0.0, 52.0, 57.0, 59.0), (10.0, 60, 0.0, 5.5, 7.0, 9.0)],
)
def test_a_stopped_pods_step_runs_until_its_own_grace_and_fifteen_seconds_are_left(  # noqa: PLR0917 - a table
    grace: float, own: int, interrupt: float, term: float, kill: float, leave: float
) -> None:
    world = WorkerWorld()
    worker = _registered(world, grace_seconds=grace)
    _request(worker, WORK, Call.POLL)
    worker.answered(WORK, WorkAnswer(run=assignment("run", grace_seconds=own)))
    began = world.clock.seconds
    worker.stop()
    moments: dict[str, float] = {}
    while worker.exit_status is None:
        worker.tick()
        for name in world.runner.signals:
            moments.setdefault(name, world.clock.seconds - began)
        if "KILL" in moments and "ended" not in moments:
            worker.ended(Ended(exit_code=None, signal=9, output_bytes=0))
            moments["ended"] = 0.0
        world.clock.seconds += 0.5
    assert moments["SIGINT"] == pytest.approx(interrupt)
    assert moments["TERM"] == pytest.approx(term)
    assert moments["KILL"] == pytest.approx(kill)
    assert world.clock.seconds - began - 0.5 == pytest.approx(leave), "unheard, it leaves in time"
    assert worker.exit_status == 0


def test_a_worker_that_comes_late_to_its_pods_end_gives_the_step_what_is_left_of_it() -> None:
    """It was paused. SIGTERM at once would end what just begins to tidy up."""
    world = WorkerWorld()
    worker = _registered(world, grace_seconds=60.0)
    _request(worker, WORK, Call.POLL)
    worker.answered(WORK, WorkAnswer(run=assignment("run", grace_seconds=10)))
    worker.stop()
    world.clock.seconds += 53.0
    worker.tick()
    assert world.runner.signals == ["SIGINT"]
    world.clock.seconds += 2.9
    worker.tick()
    assert world.runner.signals == ["SIGINT"]
    world.clock.seconds += 0.1
    worker.tick()
    assert world.runner.signals == ["SIGINT", "TERM"]
    world.clock.seconds += 1.0
    worker.tick()
    assert world.runner.signals == ["SIGINT", "TERM", "KILL"]


def test_a_superseded_worker_kills_and_leaves() -> None:
    world = WorkerWorld()
    worker = _running(world)
    _request(worker, WORK, Call.POLL)
    worker.refused(WORK, 409, "superseded")
    assert (worker.exit_status, world.runner.signals) == (3, ["KILL"])
    assert worker.next_request(REPORTS) is None


# --- stopping, preparing, exit codes ----------------------------------------------------------------------------------


def _exit_after(world: WorkerWorld, ended: Ended, *, cancel: bool = False, **options: Any) -> ExitReport:
    worker = _registered(world)
    _request(worker, WORK, Call.POLL)
    given = assignment("run", **options)
    worker.answered(WORK, WorkAnswer(run=given))
    if cancel:
        _after(world, worker, 1.0)
        _request(worker, WORK, Call.POLL)
        worker.answered(WORK, WorkAnswer(cancel=True))
    worker.ended(ended)
    worker.tick()
    stored = world.disk.entries["task.1", given.step].exit
    assert stored
    return stored


@pytest.mark.parametrize("step", Step)
def test_what_was_cancelled_and_ended_with_0_is_said_to_be_both(step: Step) -> None:
    """A shell goes on after a command that was cut off and ends with 0; an apply may have come to its end in time."""
    stored = _exit_after(WorkerWorld(), Ended(exit_code=0, signal=None, output_bytes=0), cancel=True, step=step)
    assert (stored.outcome, stored.exit_code, stored.reason) == (Outcome.CANCELLED, 0, "cancelled")


@pytest.mark.parametrize(
    ("code", "outcome", "changed"),
    [(0, Outcome.SUCCEEDED, False), (2, Outcome.SUCCEEDED, True), (1, Outcome.FAILED, None)],
)
def test_exit_codes_say_whether_anything_changes(code: int, outcome: Outcome, changed: bool | None) -> None:
    world = WorkerWorld()
    codes = ExitCodes(changed=(2,), unchanged=(0,))
    ended = Ended(exit_code=code, signal=None, output_bytes=0)
    stored = _exit_after(world, ended, exit_codes=codes, apply=("apply",))
    assert (stored.outcome, stored.changed, stored.exit_code) == (outcome, changed, code)
    assert (stored.plan_digest is not None) == (changed is True)


def test_a_command_before_the_steps_own_is_named_when_it_fails() -> None:
    ended = Ended(exit_code=1, signal=None, output_bytes=0, command=0)
    stored = _exit_after(WorkerWorld(), ended, before=(Command(command=("terraform", "init")),))
    assert (stored.outcome, stored.reason, stored.exit_code) == (Outcome.FAILED, "terraform init ended with 1", 1)


def test_the_reason_says_that_memory_ran_out() -> None:
    ended = Ended(exit_code=None, signal=9, output_bytes=0, memory="memory ran out (limit 64 MiB)")
    stored = _exit_after(WorkerWorld(), ended)
    assert stored.reason == "ended by signal 9; memory ran out (limit 64 MiB)"


def test_a_plan_that_is_hashed_for_long_can_be_cancelled() -> None:
    world = WorkerWorld()
    world.disk.hashes = False
    worker = _registered(world)
    _request(worker, WORK, Call.POLL)
    worker.answered(WORK, WorkAnswer(run=assignment("plan", apply=("apply",))))
    worker.ended(world.ended())
    _after(world, worker, 100.0)
    assert not world.disk.entries["task.1", Step.PLAN].exit
    _request(worker, WORK, Call.POLL)
    worker.answered(WORK, WorkAnswer(cancel=True))
    stored = world.disk.entries["task.1", Step.PLAN].exit
    assert stored
    assert (stored.outcome, world.disk.hashing) == (Outcome.CANCELLED, None)


def _approved(nonce: str | None = None) -> Assignment:
    return assignment("apply", step=Step.APPLY, plan=("plan",), plan_digest="sha256:task.1", nonce=nonce)


def test_an_apply_is_not_claimed_before_its_plan_is_hashed_again() -> None:
    world = WorkerWorld()
    world.disk.hashes = False
    worker = _registered(world)
    for _ in range(3):
        _request(worker, WORK, Call.POLL)
        worker.answered(WORK, WorkAnswer(run=_approved()))
        _after(world, worker, 1.0)
        assert not world.disk.entries["task.1", Step.APPLY].started
    world.disk.hashes = True
    worker.tick()
    assert world.disk.entries["task.1", Step.APPLY].started
    assert len(world.runner.starts) == 1


@pytest.mark.parametrize("how", ["cancel", "stop"])
def test_what_is_cancelled_or_stopped_while_its_plan_is_hashed_never_runs(how: str) -> None:
    world = WorkerWorld()
    world.disk.hashes = False
    worker = _registered(world)
    _request(worker, WORK, Call.POLL)
    worker.answered(WORK, WorkAnswer(run=_approved()))
    if how == "stop":
        worker.stop()
    else:
        _after(world, worker, 1.0)
        _request(worker, WORK, Call.POLL)
        worker.answered(WORK, WorkAnswer(run=_approved(), cancel=True))
    world.disk.hashes = True
    worker.tick()
    entry = world.disk.entries["task.1", Step.APPLY]
    assert not world.runner.starts
    assert entry.started == (how == "cancel"), "a stopped one is offered to the next worker"
    assert (entry.exit and entry.exit.outcome) == (Outcome.CANCELLED if how == "cancel" else None)


# --- what a task wrote into the worker's folder -----------------------------------------------------------------------


def test_a_forged_start_and_end_of_an_apply_keep_the_real_one_from_nothing() -> None:
    world = WorkerWorld()
    forged = _approved(nonce="made up")
    world.disk.assign(forged)
    entry = world.disk.entries["task.1", Step.APPLY]
    entry.started, entry.start_time = True, world.clock.now()
    entry.exit = ExitReport(
        instance="w0",
        task_id="task.1",
        step=Step.APPLY,
        fence=7,
        outcome=Outcome.SUCCEEDED,
        end_time=world.clock.now(),
        nonce="made up",
    )
    worker = _registered(world)
    _request(worker, WORK, Call.POLL)
    worker.answered(WORK, WorkAnswer(run=_approved(nonce="the agent's")))
    worker.tick()
    assert len(world.runner.starts) == 1
    assert world.disk.entries["task.1", Step.APPLY].exit is None


def test_a_step_that_this_worker_started_is_never_started_again_whatever_nonce_is_offered() -> None:
    world = WorkerWorld()
    worker = _registered(world)
    for nonce in ("one", "two", "two"):
        _request(worker, WORK, Call.POLL)
        worker.answered(WORK, WorkAnswer(run=assignment("run", nonce=nonce)))
        _after(world, worker, 1.0)
    assert len(world.runner.starts) == 1


def test_a_directory_that_cannot_be_read_is_told_as_that_and_looked_at_again() -> None:
    world = WorkerWorld()
    world.disk.unread, world.disk.damaged = ("task.1",), ("task.2",)
    worker = world.worker()
    request = _request(worker, WORK, Call.REGISTER)
    assert isinstance(request.message, RegisterRequest)
    assert (request.message.unread, request.message.damaged) == (("task.1",), ("task.2",))
    worker.answered(WORK, WorkAnswer())
    world.disk.unread = ()
    world.disk.assign(assignment("run"))
    _after(world, worker, 5.0)
    again = _request(worker, WORK, Call.REGISTER)
    assert isinstance(again.message, RegisterRequest)
    assert ([kept.assignment.task_id for kept in again.message.tasks], again.message.unread) == (["task.1"], ())


def test_output_that_an_agent_has_lost_is_sent_again_though_its_end_was_told() -> None:
    world = WorkerWorld()
    worker = _running(world)
    world.disk.entries["task.1", Step.PLAN].log = b"output"
    worker.ended(world.ended())
    _request(worker, REPORTS, Call.OUTPUT)
    worker.answered(REPORTS, OutputAnswer(offset=6))
    _request(worker, REPORTS, Call.EXIT)
    worker.answered(REPORTS, Empty())
    assert worker.next_request(REPORTS) is None
    later = world.worker("w2")
    _request(later, WORK, Call.REGISTER)
    later.answered(WORK, WorkAnswer(output={"task.1/plan": 2}))
    again = _request(later, REPORTS, Call.OUTPUT)
    assert (again.params["offset"], again.data) == ("2", b"tput")
    later.answered(REPORTS, OutputAnswer(offset=6))
    assert later.next_request(REPORTS) is None
