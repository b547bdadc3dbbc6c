"""A real agent, killed in every phase of a task and started again, keeps what it held."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.wire import AgentState, Outcome, Phase, SlotState, Step, TaskState
from tests.integration.agent.test_commands import slot_agent
from tests.support.agent_process import AgentProcess, Refused, running_agent, wait_for
from tests.support.fake_worker import DIGEST, FakeWorker, one_step, two_steps

APPROVAL = {"plan_digest": DIGEST, "attempt": 1}


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    with running_agent(tmp_path) as agent:
        agent.open()
        yield agent


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(Refused) as refused:
        call()
    return refused.value.code


def restart_keeping_everything(agent: AgentProcess, task_id: str | None = None) -> AgentState:
    """SIGKILL and start; but for the incarnation and the workers, the state is the same."""
    before = agent.get("/slots")
    task = agent.get(f"/tasks/{task_id}") if task_id else None
    agent.restart()
    after = agent.get("/slots")
    assert after["incarnation"] != before["incarnation"]
    for data in (before, after):
        for name in ("incarnation", "revision"):
            del data[name]
        for slot in data["slots"]:
            slot["worker"] = None
    assert after == before
    if task_id:
        assert agent.get(f"/tasks/{task_id}") == task
    return agent.state()


def test_killed_in_every_phase_of_a_task(agent: AgentProcess) -> None:
    """T3, T10, T11: reservations too; the apply starts by its approval only, and once."""
    restart_keeping_everything(agent)
    worker = FakeWorker(agent, 0)
    agent.acquire("t.1", "plan_and_apply", two_steps())
    restart_keeping_everything(agent, "t.1")

    worker.register()
    assignment = worker.take()
    restart_keeping_everything(agent, "t.1")

    worker.register()
    worker.start(assignment)
    state = restart_keeping_everything(agent, "t.1")
    assert state.slots[0].state is SlotState.RUNNING
    assert refusal(lambda: agent.post("/drain", {"drain_id": "d"})) == "busy"

    assert refusal(lambda: worker.end(assignment)) == "unregistered"
    worker.register()
    worker.end(assignment)
    state = restart_keeping_everything(agent, "t.1")
    assert state.slots[0].state is SlotState.RESERVED
    worker.register()
    assert agent.state().slots[0].state is SlotState.RESERVED, "a registration starts no apply"
    assert refusal(lambda: agent.post("/drain", {"drain_id": "d"})) == "busy"

    agent.post("/tasks/t.1/approve", APPROVAL)
    state = restart_keeping_everything(agent, "t.1")
    assert (state.slots[0].state, state.slots[0].step) == (SlotState.RUNNING, Step.APPLY)
    assert agent.post("/tasks/t.1/approve", APPROVAL)["step"] == "apply"

    worker.register()
    apply = worker.take()
    worker.start(apply)
    restart_keeping_everything(agent, "t.1")
    worker.register()
    worker.end(apply)
    restart_keeping_everything(agent, "t.1")
    assert agent.state().ended == ("t.1",)
    assert refusal(lambda: agent.post("/drain", {"drain_id": "d"})) == "busy"
    agent.post("/tasks/t.1/ack")
    restart_keeping_everything(agent)

    agent.post("/drain", {"drain_id": "d"})
    state = restart_keeping_everything(agent)
    assert (state.phase, state.drain_id) == (Phase.DRAINED, "d")
    assert refusal(lambda: agent.acquire("t.2")) == "drained"


def test_holders_keep_their_holds_and_fences(agent: AgentProcess) -> None:
    """T3: sidecar holds too; the call before the kill is still answered the same after it."""
    hold = agent.acquire("h")
    path = f"/slots/{hold['slot']}"
    body = {"task_id": "h", "fence": hold["fence"]}
    reserved = agent.post(f"{path}/reserve", body)
    state = restart_keeping_everything(agent)
    assert state.slots[hold["slot"]].state is SlotState.RESERVED
    assert agent.post(f"{path}/reserve", body) == reserved
    assert agent.acquire("h") == hold
    released = agent.post(f"{path}/release", {"task_id": "h", "fence": reserved["fence"]})
    restart_keeping_everything(agent)
    assert agent.post(f"{path}/release", {"task_id": "h", "fence": reserved["fence"]}) == released
    assert refusal(lambda: agent.post(f"{path}/reserve", body)) == "fenced"


def test_a_reservation_expires_over_a_restart(agent: AgentProcess) -> None:
    """T9: the limit is a time of day, not a timer of the process."""
    worker = FakeWorker(agent, 0)
    worker.register()
    agent.acquire("t.1", "plan_and_apply", two_steps(ttl_seconds=1))
    worker.run()
    agent.kill()
    agent.start()
    wait_for(lambda: agent.state().ended == ("t.1",), "it expires")
    assert agent.task("t.1").outcome is Outcome.EXPIRED


def test_lost_messages_are_made_good_when_the_worker_registers(agent: AgentProcess) -> None:
    """T21: the report of a start and of an end never arrived; the next registration brings them."""
    worker = FakeWorker(agent, 0)
    worker.register()
    agent.acquire("t.1", "plan_and_apply", two_steps())
    assignment = worker.take()
    worker.start(assignment, report=False)
    worker.end(assignment, report=False)
    agent.restart()
    worker.register()
    assert agent.state().slots[0].state is SlotState.RESERVED
    agent.post("/tasks/t.1/approve", APPROVAL)
    apply = worker.take()
    worker.start(apply, report=False)
    worker.end(apply, Outcome.FAILED, report=False)
    worker.successor().register()
    assert agent.task("t.1").outcome is Outcome.FAILED


def test_a_waiting_step_is_offered_to_the_next_worker(agent: AgentProcess) -> None:
    worker = FakeWorker(agent, 0)
    worker.register()
    agent.acquire("t.1", "plan_and_apply", two_steps())
    first = worker.take()
    agent.restart()
    second = worker.successor(forget=True)
    second.register()
    assert second.take() == first


def test_a_reservation_without_its_directory_is_lost(agent: AgentProcess) -> None:
    worker = FakeWorker(agent, 0)
    worker.register()
    agent.acquire("t.1", "plan_and_apply", two_steps())
    worker.run()
    agent.restart()
    worker.successor().register()
    assert agent.state().slots[0].state is SlotState.RESERVED, "with its directory it is not"
    worker.successor(forget=True).register()
    assert agent.task("t.1").outcome is Outcome.LOST


def test_acknowledged_directories_go_however_late(agent: AgentProcess) -> None:
    worker = FakeWorker(agent, 0)
    worker.register()
    agent.acquire("t.1", "plan_and_apply", one_step())
    worker.run()
    agent.post("/tasks/t.1/ack")
    agent.restart()
    assert worker.register().forget == ("t.1",)


LOSSES: dict[str, Callable[[Path], object]] = {
    "deleted": lambda journal: journal.unlink(),
    "emptied": lambda journal: journal.write_bytes(b""),
    "overwritten": lambda journal: journal.write_bytes(b"nonsense" * 100),
    "one bit flipped": lambda journal: journal.write_bytes(flip(journal.read_bytes(), journal.stat().st_size // 2)),
    "of another Pod": lambda journal: journal.write_bytes(journal.read_bytes().replace(b"pod-uid-1", b"pod-uid-2")),
}


def flip(data: bytes, index: int) -> bytes:
    return data[:index] + bytes([data[index] ^ 4]) + data[index + 1 :]


def all_say_which_are_recovering(agent: AgentProcess, slots: set[int]) -> bool:
    """JSON, watch, table and metrics: what is not known is idle in none of them."""
    state = agent.state()
    connection = agent.connection()
    connection.request("GET", "/slots?watch=true")
    watched = json.loads(connection.getresponse().readline())["state"]
    connection.close()
    rows = agent.call("GET", "/slots", headers={"Accept": "text/plain"})[1].decode().splitlines()
    table = {int(row.split()[0]) for row in rows if row[:1].isdigit() and row.split()[1] == "recovering"}
    figures = agent.metrics()
    assert {slot.id for slot in state.slots if slot.recovering} == slots
    assert {slot["id"] for slot in watched["slots"] if slot["recovering"]} == slots
    assert table == slots
    assert state.recovering == watched["recovering"] == bool(slots)
    assert figures['podslots_slots{state="recovering"}'] == figures["podslots_agent_recovering_slots"] == len(slots)
    known = [slot.state for slot in state.slots if not slot.recovering]
    for name in SlotState:
        assert figures[f'podslots_slots{{state="{name}"}}'] == known.count(name)
    return True


@pytest.mark.parametrize("loss", LOSSES)
def test_a_lost_journal_is_rebuilt_from_what_the_workers_keep(agent: AgentProcess, loss: str) -> None:
    """T3: running, reserved, approved and ended tasks are adopted; until every worker spoke, no drain, no new work."""
    workers = [FakeWorker(agent, slot) for slot in range(3)]
    for worker in workers:
        worker.register()
    agent.acquire("reserved.1", "plan_and_apply", two_steps())
    workers[0].run()
    agent.acquire("ended.1", "plan", one_step())
    workers[1].run(Outcome.FAILED)
    agent.acquire("running.1", "plan", one_step())
    running = workers[1].take()
    workers[1].start(running)
    fences = max(slot.fence for slot in agent.state().slots)
    agent.kill()
    LOSSES[loss](agent.state_dir / "journal")
    agent.start()

    state = agent.state()
    assert (state.phase, state.recovering) == (Phase.DRAINED, True)
    assert state.warnings
    assert state.drain_id is not None
    if loss != "deleted":
        assert (agent.state_dir / "journal.aside-1").exists()
    assert all_say_which_are_recovering(agent, {0, 1, 2})
    assert refusal(lambda: agent.post("/drain", {"drain_id": "d"})) == "busy"
    agent.open()
    assert refusal(lambda: agent.acquire("running.1")) == "not_ready", "it may be in a slot not heard of yet"
    for worker in workers[:2]:
        worker.successor().register()
    assert all_say_which_are_recovering(agent, {2})
    agent.restart()
    assert agent.state().recovering
    assert all_say_which_are_recovering(agent, {2})
    assert refusal(lambda: agent.post("/drain", {"drain_id": "d"})) == "busy"
    last = [worker.successor() for worker in workers]
    for worker in last:
        worker.register()

    state = agent.state()
    assert not state.recovering
    assert all_say_which_are_recovering(agent, set())
    assert [slot.task_id for slot in state.slots] == ["reserved.1", "running.1", None]
    assert [slot.state for slot in state.slots] == ["reserved", "running", "idle"]
    assert all(slot.fence > fences for slot in state.slots if slot.task_id)
    assert state.ended == ("ended.1",)
    assert agent.acquire("running.1")["slot"] == 1
    assert agent.task("ended.1").outcome is Outcome.FAILED
    agent.post("/tasks/reserved.1/approve", APPROVAL)
    apply = last[0].take()
    assert (apply.step, apply.plan_digest) == (Step.APPLY, DIGEST)
    last[1].end(running)
    assert agent.task("running.1").state is TaskState.ENDED
    agent.acquire("new.1")


def test_a_torn_tail_is_cut_off_and_said(agent: AgentProcess) -> None:
    agent.acquire("t.1")
    agent.kill()
    journal = agent.state_dir / "journal"
    whole = journal.read_bytes()
    journal.write_bytes(whole + whole[-40:-20][:8])
    agent.start()
    state = agent.state()
    assert state.slots[1].task_id == "t.1"
    assert "cut off" in state.warnings[0]
    assert journal.read_bytes() == whole


def test_slot_transitions_are_logged_as_json(agent: AgentProcess) -> None:
    hold = agent.acquire("t.1")
    agent.post(f"/slots/{hold['slot']}/release", {"task_id": "t.1", "fence": hold["fence"]})

    def transitions() -> list[dict[str, object]]:
        return [line for line in agent.log_lines() if line["message"] == "slot"]

    wait_for(lambda: len(transitions()) == 2, "both lines are there")
    line = transitions()[1]
    names = ("slot", "task", "from", "to", "cause", "fence")
    assert [line[name] for name in names] == [1, "t.1", "running", "idle", "release", 2]
    assert "token" not in json.dumps(agent.log_lines())


def test_a_second_agent_on_one_state_folder_ends_and_touches_nothing(agent: AgentProcess) -> None:
    agent.acquire("t.1")
    other = {**agent.environ, "PODSLOTS_POD_UID": "another", "PODSLOTS_PORT": "0"}
    done = slot_agent("serve", environ=other)
    assert done.returncode == 1
    assert "another agent" in done.stderr
    assert not list(agent.state_dir.glob("journal.aside-*"))
    agent.kill()
    agent.start()
    assert "t.1" in [slot.task_id for slot in agent.state().slots]
