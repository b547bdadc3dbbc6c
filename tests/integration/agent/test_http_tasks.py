"""A task's way through a real agent: steps, approval, cancel, expiry, output, acknowledgement."""

import contextlib
import http.client
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from agent.wire import Outcome, Phase, SlotState, Step, TaskState, WatchLine, decode
from tests.support.agent_process import POOL_TOKEN, AgentProcess, Refused, running_agent, wait_for
from tests.support.fake_worker import DIGEST, FakeWorker, one_step, two_steps

APPROVAL = {"plan_digest": DIGEST, "attempt": 1}


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    with running_agent(tmp_path) as agent:
        agent.open()
        yield agent


@pytest.fixture
def worker(agent: AgentProcess) -> FakeWorker:
    worker = FakeWorker(agent, 0)
    worker.register()
    return worker


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(Refused) as refused:
        call()
    return refused.value.code


def test_plan_approval_apply_ack(agent: AgentProcess, worker: FakeWorker) -> None:
    """T8, T9, T10, H1: plan → reserved → approved → apply, in one slot; then gone with the ack."""
    agent.acquire("t.1", "plan_and_apply", two_steps())
    planned = worker.run()
    assert planned.step is Step.PLAN
    slot = agent.state().slots[0]
    assert (slot.state, slot.step) == (SlotState.RESERVED, Step.PLAN)
    assert slot.expires_at is not None
    assert agent.task("t.1").plan_digest == DIGEST
    for wrong in ({"plan_digest": "sha256:x", "attempt": 1}, {"plan_digest": DIGEST, "attempt": 2}):
        assert refusal(partial(agent.post, "/tasks/t.1/approve", wrong)) == "digest_mismatch"
    for _ in range(2):
        assert agent.post("/tasks/t.1/approve", APPROVAL)["step"] == "apply"
    slot = agent.state().slots[0]
    assert (slot.state, slot.step, slot.expires_at) == (SlotState.RUNNING, Step.APPLY, None)
    applied = worker.run()
    assert (applied.step, applied.plan_digest) == (Step.APPLY, DIGEST)
    assert agent.post("/tasks/t.1/approve", APPROVAL)["state"] == "ended"
    task = agent.task("t.1")
    assert (task.state, task.outcome) == (TaskState.ENDED, Outcome.SUCCEEDED)
    assert task.plan is not None
    assert task.apply is not None
    assert task.apply.exit_code == 0
    assert agent.state().ended == ("t.1",)
    for _ in range(2):
        assert agent.post("/tasks/t.1/ack") == {}
    assert agent.state().ended == ()
    assert refusal(lambda: agent.task("t.1")) == "not_found"
    assert refusal(lambda: agent.acquire("t.1", "plan_and_apply", two_steps())) == "illegal_transition"
    assert worker.poll().forget == ("t.1",)
    assert agent.post("/drain", {"drain_id": "d"})["phase"] == "drained"


def test_no_instant_of_idle_between_plan_and_reservation(agent: AgentProcess, worker: FakeWorker) -> None:
    """T8: whoever watches every change sees running, then reserved."""
    seen: list[str] = []
    connection = http.client.HTTPConnection(agent.address, agent.port, timeout=20)
    connection.request("GET", "/slots?watch=true")
    response = connection.getresponse()

    def read() -> None:
        while not seen or seen[-1] != SlotState.RESERVED:
            line = decode(WatchLine, json.loads(response.readline()))
            if line.state is not None:
                seen.append(line.state.slots[0].state)

    reader = threading.Thread(target=read)
    reader.start()
    agent.acquire("t.1", "plan_and_apply", two_steps())
    worker.run()
    reader.join(15)
    connection.close()
    deduplicated = [state for index, state in enumerate(seen) if index == 0 or seen[index - 1] != state]
    assert deduplicated == ["idle", "running", "reserved"]


def test_with_all_slots_full_an_approved_apply_resumes_in_its_own(agent: AgentProcess, worker: FakeWorker) -> None:
    """T2."""
    agent.acquire("t.1", "plan_and_apply", two_steps())
    worker.run()
    agent.acquire("a")
    agent.acquire("b")
    assert refusal(lambda: agent.acquire("c")) == "no_free_slot"
    assert agent.post("/tasks/t.1/approve", APPROVAL)["slot"] == 0
    assert worker.run().step is Step.APPLY


def test_failed_plan_is_never_reserved(agent: AgentProcess, worker: FakeWorker) -> None:
    agent.acquire("t.1", "plan_and_apply", two_steps())
    worker.run(Outcome.FAILED)
    assert agent.state().slots[0].state is SlotState.IDLE
    assert agent.task("t.1").outcome is Outcome.FAILED
    assert refusal(lambda: agent.post("/tasks/t.1/approve", APPROVAL)) == "illegal_transition"


def test_final_states_never_change(agent: AgentProcess) -> None:
    """T23: late, repeated and contradicting reports are answered and change nothing."""
    agent.acquire("t.1", "plan", one_step())
    other = FakeWorker(agent, 1)
    other.register()
    assignment = other.take()
    other.start(assignment)
    report = other.end(assignment)
    before = agent.get("/tasks/t.1")
    other.send_exit(report)
    other.end(assignment, Outcome.FAILED)
    other.start(assignment)
    assert agent.post("/tasks/t.1/cancel")["outcome"] == "succeeded"
    assert agent.get("/tasks/t.1") == before


def test_cancel_reaches_the_worker_and_is_reported(agent: AgentProcess, worker: FakeWorker) -> None:
    """T24: the agent says cancelled only after the worker did."""
    agent.acquire("t.1", "plan_and_apply", two_steps())
    assignment = worker.take()
    worker.start(assignment)
    polled: list[bool] = []
    poll = threading.Thread(target=lambda: polled.append(worker.poll(assignment).cancel))
    poll.start()
    agent.post("/tasks/t.1/cancel")
    poll.join(5)
    assert polled == [True], "the poll that was open is answered at once"
    assert worker.poll(assignment).cancel, "and the next one too, if that answer was lost"
    assert agent.state().slots[0].state is SlotState.RUNNING
    worker.end(assignment, Outcome.CANCELLED)
    assert agent.task("t.1").outcome is Outcome.CANCELLED
    assert agent.state().slots[0].state is SlotState.IDLE


def test_cancel_of_a_waiting_step_goes_through_the_worker(agent: AgentProcess, worker: FakeWorker) -> None:
    agent.acquire("t.1", "plan_and_apply", two_steps())
    agent.post("/tasks/t.1/cancel")
    answer = worker.poll()
    assert answer.cancel
    assert answer.run is not None
    assert agent.state().slots[0].state is SlotState.RUNNING
    worker.end(answer.run, Outcome.CANCELLED)
    assert agent.task("t.1").outcome is Outcome.CANCELLED


def test_cancel_beats_the_reservation(agent: AgentProcess, worker: FakeWorker) -> None:
    """A plan that succeeds after its cancel is never reserved; a reservation is cancelled at once."""
    agent.acquire("t.1", "plan_and_apply", two_steps())
    assignment = worker.take()
    agent.post("/tasks/t.1/cancel")
    worker.end(assignment, Outcome.SUCCEEDED)
    assert agent.task("t.1").outcome is Outcome.CANCELLED
    agent.acquire("t.2", "plan_and_apply", two_steps())
    worker.run()
    assert agent.post("/tasks/t.2/cancel")["outcome"] == "cancelled"
    assert agent.state().slots[0].state is SlotState.IDLE
    assert refusal(lambda: agent.post("/tasks/t.2/approve", APPROVAL)) == "illegal_transition"


@pytest.mark.long
def test_reservation_ends_by_its_own_limit(agent: AgentProcess, worker: FakeWorker) -> None:
    """T9: an expired reservation frees its slot by itself; a resumed one is not ended by the old limit."""
    agent.acquire("t.1", "plan_and_apply", two_steps(ttl_seconds=1))
    worker.run()
    agent.post("/tasks/t.1/approve", APPROVAL)
    assignment = worker.take()
    worker.start(assignment)
    hold = agent.acquire("h")
    reserved = agent.post(f"/slots/{hold['slot']}/reserve", {"task_id": "h", "fence": hold["fence"], "ttl_seconds": 2})
    assert reserved["state"] == "reserved"
    wait_for(lambda: agent.state().slots[hold["slot"]].state is SlotState.IDLE, "the hold expires")
    assert agent.task("t.1").state is TaskState.RUNNING, "its limit was over long before"
    worker.end(assignment)
    agent.post("/tasks/t.1/ack")
    agent.acquire("t.2", "plan_and_apply", two_steps(ttl_seconds=1))
    worker.run()
    wait_for(lambda: agent.state().ended == ("t.2",), "the reservation expires")
    assert agent.task("t.2").outcome is Outcome.EXPIRED
    assert refusal(lambda: agent.post("/tasks/t.2/approve", APPROVAL)) == "illegal_transition"


def test_output_is_kept_followed_and_resumed(agent: AgentProcess, worker: FakeWorker) -> None:
    agent.acquire("t.1", "plan_and_apply", two_steps())
    assignment = worker.take()
    worker.start(assignment)
    assert worker.output(assignment, 0, b"one\n") == 4
    assert worker.output(assignment, 0, b"one\ntwo\n") == 8, "what is there already is not taken twice"
    assert worker.output(assignment, 100, b"gap") == 8, "a gap takes nothing and says where to go on"
    followed: list[bytes] = []

    def follow() -> None:
        with contextlib.suppress(http.client.HTTPException, OSError):  # the agent is killed under the first of them
            followed.append(agent.call("GET", "/tasks/t.1/log?step=plan&follow=true")[1])

    reader = threading.Thread(target=follow)
    reader.start()
    worker.output(assignment, 8, b"three\n")
    agent.restart()
    reader.join(10)
    worker.register()
    assert worker.output(assignment, 0, b"") == 14, "after a restart the agent goes on where its file ends"
    reader = threading.Thread(target=follow)
    reader.start()
    worker.output(assignment, 14, b"\xff four\n")
    worker.end(assignment)
    reader.join(10)
    assert followed[-1] == b"one\ntwo\nthree\n\xff four\n"
    assert agent.call("GET", "/tasks/t.1/log?offset=8")[1] == b"three\n\xff four\n"
    task = agent.task("t.1")
    assert task.plan is not None
    assert task.plan.log_tail == "one\ntwo\nthree\n\N{REPLACEMENT CHARACTER} four\n"
    agent.post("/tasks/t.1/cancel")
    agent.post("/tasks/t.1/ack")
    assert not list((agent.state_dir / "logs").iterdir())


def test_output_past_the_cap_is_counted_not_kept(agent: AgentProcess, worker: FakeWorker) -> None:
    agent.acquire("t.1", "plan_and_apply", one_step())
    assignment = worker.take()
    worker.start(assignment)
    piece, total = b"x" * (1 << 20), 17 << 20
    for offset in range(0, total, len(piece)):
        worker.output(assignment, offset, piece)
    worker.output(assignment, total, b"the end")
    worker.end(assignment)
    kept = agent.state_dir / "logs" / "t.1" / "plan.log"
    assert kept.stat().st_size == 16 << 20
    task = agent.task("t.1")
    assert task.plan is not None
    assert task.plan.log_bytes == total + 7
    assert task.plan.log_tail.endswith("xthe end")
    log = agent.call("GET", "/tasks/t.1/log")[1]
    assert b"was not kept" in log[-100:]
    assert (task.plan.log_kept_bytes, task.plan.log_end_bytes) == (16 << 20, 64 << 10)
    page = agent.call("GET", f"/tasks/t.1/log?step=plan&part=page&offset={15 << 20}")[1]
    assert page == b"x" * (1 << 20), "what is kept, and no words about the rest"
    assert agent.call("GET", f"/tasks/t.1/log?part=page&offset={16 << 20}")[1] == b""
    end = agent.call("GET", "/tasks/t.1/log?part=end")[1]
    assert end == b"x" * ((64 << 10) - 7) + b"the end"


def test_a_file_that_is_handed_over_is_there_until_the_ack_and_for_the_pool_alone(
    agent: AgentProcess, worker: FakeWorker
) -> None:
    agent.acquire("t.1", "plan_and_apply", one_step())
    assignment = worker.take()
    worker.start(assignment)
    report = replace(worker.exit_report(assignment, Outcome.SUCCEEDED), outputs="/3h4")
    worker.send_exit(report)
    worker.send_exit(report)
    assert agent.task("t.1").has_outputs
    assert agent.call("GET", "/tasks/t.1/outputs")[0] == 401
    agent.restart()
    assert agent.call("GET", "/tasks/t.1/outputs", token=POOL_TOKEN)[1] == b"\xffxx"
    agent.post("/tasks/t.1/ack")
    assert not list((agent.state_dir / "logs").iterdir())


def test_a_worker_must_register_and_a_newer_one_supersedes_it(agent: AgentProcess) -> None:
    old = FakeWorker(agent, 0)
    assert refusal(old.poll) == "unregistered"
    old.register()
    agent.acquire("t.1", "plan_and_apply", two_steps())
    assignment = old.take()
    old.start(assignment)
    new = old.successor()
    new.register()
    for call in (old.poll, old.register, lambda: old.end(assignment), lambda: old.output(assignment, 0, b"x")):
        assert refusal(call) == "superseded"
    assert agent.state().slots[0].worker is not None
    assert agent.task("t.1").state is TaskState.RUNNING, "that it was replaced does not say that its step is gone"


def test_a_step_is_lost_by_proof_only(agent: AgentProcess) -> None:
    """R5: a new instance without the step's directory is proof; with it, it reports itself; silence is none."""
    worker = FakeWorker(agent, 0)
    worker.register()
    agent.acquire("t.1", "plan_and_apply", two_steps())
    assignment = worker.take()
    worker.start(assignment)
    second = worker.successor()
    second.register()
    assert agent.task("t.1").state is TaskState.RUNNING
    third = second.successor(forget=True)
    third.register()
    task = agent.task("t.1")
    assert (task.state, task.outcome) == (TaskState.ENDED, Outcome.LOST)
    assert agent.state().slots[0].state is SlotState.IDLE
    assert agent.state().ended == ("t.1",), "a lost task waits for its ack like any other"


def test_close_refuses_new_work_and_keeps_what_is_held(agent: AgentProcess, worker: FakeWorker) -> None:
    """A4: reports are taken until the end."""
    agent.acquire("t.1", "plan_and_apply", two_steps())
    assignment = worker.take()
    assert agent.post("/close", token=agent.close_token) == {}
    assert agent.state().closing
    assert refusal(lambda: agent.acquire("t.2")) == "closing"
    assert agent.acquire("t.1", "plan_and_apply")["slot"] == 0
    worker.start(assignment)
    worker.end(assignment)
    assert agent.state().slots[0].state is SlotState.RESERVED


def test_sigterm_lets_steps_end_then_exits_true(agent: AgentProcess, worker: FakeWorker) -> None:
    agent.acquire("t.1", "plan_and_apply", two_steps())
    agent.acquire("t.2", "plan", one_step())
    reserver = FakeWorker(agent, 1)
    reserver.register()
    assignment = worker.take()
    worker.start(assignment)
    reserver.run()
    agent.terminate()
    wait_for(lambda: agent.state().closing, "it refuses new work")
    assert refusal(lambda: agent.acquire("t.3")) == "closing"
    worker.end(assignment)
    agent.post("/tasks/t.2/ack")
    assert agent.process is not None
    assert agent.process.wait(10) == 0
    agent.start()
    assert agent.state().slots[0].state is SlotState.RESERVED
    assert agent.state().phase is Phase.OPEN


def test_sigterm_lets_results_be_fetched(agent: AgentProcess, worker: FakeWorker) -> None:
    """The journal goes with the Pod: what is not fetched by then is lost, though the step has ended."""
    agent.acquire("t.1", "plan_and_apply", one_step())
    worker.run()
    agent.terminate()
    assert agent.process is not None
    with pytest.raises(subprocess.TimeoutExpired):
        agent.process.wait(3)
    assert agent.task("t.1").outcome is Outcome.SUCCEEDED
    agent.post("/tasks/t.1/ack")
    assert agent.process.wait(10) == 0


def test_sigterm_waits_for_nobody_to_fetch_longer_than_the_grace(tmp_path: Path) -> None:
    with running_agent(tmp_path, grace_seconds=17) as agent:
        agent.open()
        worker = FakeWorker(agent, 0)
        worker.register()
        agent.acquire("t.1", "plan_and_apply", one_step())
        worker.run()
        agent.terminate()
        assert agent.process is not None
        assert agent.process.wait(10) == 0


def test_sigterm_does_not_wait_longer_than_the_grace(tmp_path: Path) -> None:
    with running_agent(tmp_path, grace_seconds=16) as agent:
        agent.open()
        agent.acquire("t.1")
        agent.terminate()
        assert agent.process is not None
        assert agent.process.wait(10) == 0


def test_sidecar_mode_takes_no_work(tmp_path: Path) -> None:
    with running_agent(tmp_path, workers=False) as agent:
        agent.open()
        assert refusal(lambda: agent.acquire("t.1", "plan", one_step())) == "invalid"
        hold = agent.acquire("t.1", "plan", token=agent.credential("local"))
        path = f"/slots/{hold['slot']}"
        body = {"task_id": "t.1", "fence": hold["fence"]}
        token = agent.credential("local")
        for call in ("reserve", "resume", "release"):
            answer = agent.post(f"{path}/{call}", body, token=token)
            assert agent.post(f"{path}/{call}", body, token=token) == answer, "the same call again, the same answer"
            assert answer["fence"] > body["fence"]
            body = {"task_id": "t.1", "fence": answer["fence"]}
        assert refusal(lambda: agent.post(f"{path}/reserve", {"task_id": "t.1", "fence": 1}, token=token)) == "fenced"
        assert agent.post("/drain", {"drain_id": "d"}, token=POOL_TOKEN)["phase"] == "drained"
