"""T31: every figure of an agent follows what it measures, up and, if it is a gauge, down again. By a real agent.

Which families there are is asked of the registry: one that is added without a test of its own fails here.
"""

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from agent import __version__
from agent.counters import OTHER, WATCH, Counters
from agent.http.calls import CALLS, COUNTED
from agent.rules.state import RECORD_TYPES
from agent.wire import Outcome, TaskState
from tests.support.agent_process import POOL_TOKEN, AgentProcess, running_agent, wait_for
from tests.support.fake_worker import DIGEST, FakeWorker, one_step, two_steps
from tests.support.mounted import mount

Test = Callable[[AgentProcess], None]
TESTS: dict[str, Test] = {}


def families() -> list[str]:
    """As they are registered, without the process's own, which are the library's."""
    registry = CollectorRegistry()
    Counters(registry, COUNTED)
    return sorted(family.name for family in registry.collect())


def moves(family: str) -> Callable[[Test], Test]:
    def add(test: Test) -> Test:
        assert family not in TESTS
        TESTS[family] = test
        return test

    return add


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    with running_agent(tmp_path, layout=[["plan_and_apply", "plan"], ["plan"]]) as agent:
        agent.open()
        yield agent


@pytest.mark.parametrize("family", families())
def test_the_figure_moves(family: str, agent: AgentProcess) -> None:
    assert family in TESTS, f"{family} has no test that it moves"
    TESTS[family](agent)


def test_no_test_is_left_of_a_family_that_is_gone() -> None:
    assert sorted(TESTS) == families()


def by(agent: AgentProcess, family: str) -> dict[str, float]:
    """The series of a family with one label, by its value."""
    prefix = f"{family}{{"
    return {name.split('"')[1]: value for name, value in agent.metrics().items() if name.startswith(prefix)}


def worker_of(agent: AgentProcess, slot: int) -> FakeWorker:
    worker = FakeWorker(agent, slot)
    worker.register()
    return worker


@moves("podslots_agent_build_info")
def what_runs(agent: AgentProcess) -> None:
    """The one figure that stands still: an update is another process."""
    (shown,) = [name for name in agent.metrics() if name.startswith("podslots_agent_build_info")]
    assert f'version="{__version__}"' in shown
    assert agent.metrics()[shown] == 1


# --- what there is ----------------------------------------------------------------------------------------------------


@moves("podslots_slots")
def slots_by_state(agent: AgentProcess) -> None:
    def expect(idle: int, running: int, reserved: int, recovering: int) -> None:
        expected = {"idle": idle, "running": running, "reserved": reserved, "recovering": recovering}
        assert by(agent, "podslots_slots") == expected

    expect(2, 0, 0, 0)
    agent.acquire("t.1", "plan_and_apply")
    expect(1, 1, 0, 0)
    agent.post("/slots/0/reserve", {"task_id": "t.1", "fence": 1})
    expect(1, 0, 1, 0)
    agent.post("/slots/0/resume", {"task_id": "t.1", "fence": 2})
    expect(1, 1, 0, 0)
    agent.post("/slots/0/release", {"task_id": "t.1", "fence": 3})
    expect(2, 0, 0, 0)
    lose_the_journal(agent)
    expect(0, 0, 0, 2)
    worker_of(agent, 1)
    expect(1, 0, 0, 1)


@moves("podslots_slot_state")
def the_state_of_each_slot(agent: AgentProcess) -> None:
    """Each slot is in one state, and has a series for each that it can be in: 64 for 16 slots, whatever happens."""

    def expect(*states: str) -> None:
        name = "podslots_slot_state"
        shown = {series: value for series, value in agent.metrics().items() if series.startswith(f"{name}{{")}
        assert len(shown) == 2 * 4
        ones = {series for series, value in shown.items() if value == 1}
        assert ones == {f'{name}{{slot="{slot}",state="{state}"}}' for slot, state in enumerate(states)}
        assert sum(shown.values()) == 2

    expect("idle", "idle")
    agent.acquire("t.1", "plan_and_apply")
    expect("running", "idle")
    agent.post("/slots/0/reserve", {"task_id": "t.1", "fence": 1})
    expect("reserved", "idle")
    agent.post("/slots/0/resume", {"task_id": "t.1", "fence": 2})
    agent.acquire("t.2", "plan")
    expect("running", "running")
    agent.post("/slots/0/release", {"task_id": "t.1", "fence": 3})
    expect("idle", "running")
    lose_the_journal(agent)
    expect("recovering", "recovering")
    worker_of(agent, 1)
    expect("recovering", "idle")


@moves("podslots_agent_recovering_slots")
def recovering_slots(agent: AgentProcess) -> None:
    name = "podslots_agent_recovering_slots"
    assert agent.metrics()[name] == 0
    lose_the_journal(agent)
    for slot in range(2):
        assert agent.metrics()[name] == 2 - slot
        worker_of(agent, slot)
    assert agent.metrics()[name] == 0


def lose_the_journal(agent: AgentProcess) -> None:
    agent.kill()
    (agent.state_dir / "journal").unlink()
    agent.start()


@moves("podslots_agent_open")
def whether_it_is_open(agent: AgentProcess) -> None:
    name = "podslots_agent_open"
    assert agent.metrics()[name] == 1
    agent.post("/drain", {"drain_id": "d"})
    assert agent.metrics()[name] == 0
    agent.post("/open", {"drain_id": "d"})
    assert agent.metrics()[name] == 1
    agent.post("/close", token=agent.close_token)
    assert agent.metrics()[name] == 0, "what is closing takes no new work either"


@moves("podslots_agent_workers_connected")
def workers_that_are_heard_of(agent: AgentProcess) -> None:
    name = "podslots_agent_workers_connected"
    assert agent.metrics()[name] == 0
    for slot in range(2):
        worker_of(agent, slot)
        assert agent.metrics()[name] == slot + 1
    agent.restart()
    assert agent.metrics()[name] == 0
    worker_of(agent, 0)
    assert agent.metrics()[name] == 1


@moves("podslots_agent_unacknowledged_tasks")
def ended_tasks_that_wait(agent: AgentProcess) -> None:
    name = "podslots_agent_unacknowledged_tasks"
    worker = worker_of(agent, 1)
    for number in range(2):
        agent.acquire(f"t.{number}", "plan", one_step())
        assert agent.metrics()[name] == number
        worker.run()
        assert agent.metrics()[name] == number + 1
    for number in range(2):
        agent.post(f"/tasks/t.{number}/ack")
        assert agent.metrics()[name] == 1 - number


@moves("podslots_agent_watchers")
def open_streams(agent: AgentProcess) -> None:
    name = "podslots_agent_watchers"
    streams = []
    for number in range(3):
        assert agent.metrics()[name] == number
        stream = agent.connection()
        stream.request("GET", "/slots?watch=true")
        answer = stream.getresponse()
        assert json.loads(answer.readline())["type"] == "STATE"
        streams.append((stream, answer))
    for left in (2, 1, 0):
        for part in streams.pop():
            part.close()

        def gone(left: int = left) -> bool:
            toggle(agent)
            return agent.metrics()[name] == left

        wait_for(gone, f"{left} are left: one that went away is noticed at the next change, and counted no more")


_rounds = itertools.count()


def toggle(agent: AgentProcess) -> None:
    """A change, and the one back."""
    task_id = f"toggled.{next(_rounds)}"
    slot = agent.acquire(task_id, "plan")
    agent.post(f"/slots/{slot['slot']}/release", {"task_id": task_id, "fence": slot["fence"]})


@moves("podslots_agent_pool_tokens")
def valid_tokens(agent: AgentProcess) -> None:
    name = "podslots_agent_pool_tokens"
    assert agent.metrics()[name] == 1
    mount(agent.tokens_dir, {"token-1": POOL_TOKEN.encode(), "token-2": b"another", "read-a": b"for reading"})
    wait_for(lambda: agent.metrics()[name] == 2, "two are valid")
    mount(agent.tokens_dir, {"token-2": b"another"})
    wait_for(lambda: agent.metrics()[name] == 1, "one is valid")


@moves("podslots_agent_journal_bytes")
def size_of_the_journal(agent: AgentProcess) -> None:
    file = agent.state_dir / "journal"
    sizes = set()
    for number in range(2):
        size = agent.metrics()["podslots_agent_journal_bytes"]
        assert size == file.stat().st_size
        sizes.add(size)
        agent.acquire(f"t.{number}", "plan")
    assert len(sizes) == 2


@moves("podslots_agent_journal_failing")
def a_disk_that_fails_now(agent: AgentProcess) -> None:
    name = "podslots_agent_journal_failing"
    assert agent.metrics()[name] == 0
    agent.limit_file_size((agent.state_dir / "journal").stat().st_size)
    assert agent.call("POST", "/slots/acquire", ASKED, token=POOL_TOKEN)[0] == 503
    assert agent.metrics()[name] == 1
    agent.limit_file_size(None)
    wait_for(lambda: agent.metrics()[name] == 0, "it is tried again by itself")


# --- what happens -----------------------------------------------------------------------------------------------------

ASKED = {"task_id": "t.1", "task_type": "plan"}


@moves("podslots_agent_journal_failures")
def commits_that_the_disk_refused(agent: AgentProcess) -> None:
    name = "podslots_agent_journal_failures_total"
    assert agent.metrics()[name] == 0
    agent.limit_file_size((agent.state_dir / "journal").stat().st_size)
    for number in range(1, 3):
        assert agent.call("POST", "/slots/acquire", ASKED, token=POOL_TOKEN)[0] == 503
        assert agent.metrics()[name] == number


@moves("podslots_agent_journal_commit_duration_seconds")
def time_of_commits(agent: AgentProcess) -> None:
    name = "podslots_agent_journal_commit_duration_seconds"
    before = agent.metrics()
    agent.acquire("t.1", "plan")
    after = agent.metrics()
    assert after[f"{name}_count"] == before[f"{name}_count"] + 1
    assert after[f'{name}_bucket{{le="+Inf"}}'] == after[f"{name}_count"]
    assert 0 <= after[f"{name}_sum"] - before[f"{name}_sum"] < 10
    agent.get("/slots")
    assert agent.metrics()[f"{name}_count"] == after[f"{name}_count"], "a read writes nothing"


@moves("podslots_agent_journal_records")
def records_by_kind(agent: AgentProcess) -> None:
    name = "podslots_agent_journal_records_total"
    seen = by(agent, name)
    assert seen.keys() == RECORD_TYPES.keys()
    worker = worker_of(agent, 1)
    agent.acquire("t.1", "plan", one_step())
    worker.run()
    agent.post("/tasks/t.1/ack")
    agent.post("/drain", {"drain_id": "d"})
    moved = {kind for kind, value in by(agent, name).items() if value > seen[kind]}
    lose_the_journal(agent)
    worker_of(agent, 0)
    moved |= {kind for kind, value in by(agent, name).items() if value}
    # A snapshot is written when the journal is compacted, not for what happens.
    assert moved >= {"slot", "task", "phase"}
    assert len(moved) >= len(RECORD_TYPES) - 1, seen.keys() - moved


@moves("podslots_slot_transitions")
def transitions_by_cause(agent: AgentProcess) -> None:
    """One of each pair here; test_agent_log has all that the table allows."""
    name = "podslots_slot_transitions_total"
    assert not any(by(agent, name).values())
    agent.acquire("t.1", "plan")
    agent.post("/slots/1/release", {"task_id": "t.1", "fence": 1})
    worker = worker_of(agent, 0)
    agent.acquire("t.2", "plan_and_apply", two_steps())
    worker.run()
    agent.post("/tasks/t.2/approve", {"plan_digest": DIGEST, "attempt": 1})
    worker.run()
    moved = {cause: value for cause, value in by(agent, name).items() if value}
    assert moved == {"acquire": 2, "release": 1, "planned": 1, "approve": 1, "finish": 1}


@moves("podslots_agent_tasks_ended")
def tasks_by_outcome(agent: AgentProcess) -> None:
    name = "podslots_agent_tasks_ended_total"
    worker = worker_of(agent, 1)
    assert by(agent, name).keys() == set(Outcome)
    # A worker can't say of a step that it expired: that is said of a reservation whose time is over.
    for number, outcome in enumerate(set(Outcome) - {Outcome.EXPIRED}):
        before = by(agent, name)
        agent.acquire(f"t.{number}", "plan", one_step())
        assert by(agent, name) == before
        worker.run(outcome)
        assert agent.task(f"t.{number}").state is TaskState.ENDED
        assert by(agent, name) == {**before, outcome.value: before[outcome.value] + 1}
        agent.post(f"/tasks/t.{number}/ack")
    planner = worker_of(agent, 0)
    agent.acquire("t.expires", "plan_and_apply", two_steps(ttl_seconds=1))
    planner.run()
    wait_for(lambda: by(agent, name)["expired"] == 1, "nobody approved it in time")


@moves("podslots_agent_step_duration_seconds")
def time_of_steps(agent: AgentProcess) -> None:
    """As the worker measured it."""
    name = "podslots_agent_step_duration_seconds"
    worker = worker_of(agent, 0)
    agent.acquire("t.1", "plan_and_apply", two_steps())
    for step, seconds in (("plan", 42.0), ("apply", 4000.0)):
        assignment = worker.take()
        worker.start(assignment)
        assert agent.metrics()[f'{name}_count{{step="{step}"}}'] == 0
        report = worker.exit_report(assignment, Outcome.SUCCEEDED)
        assert report.start_time
        worker.send_exit(replace(report, end_time=report.start_time + timedelta(seconds=seconds)))
        figures = agent.metrics()
        assert figures[f'{name}_count{{step="{step}"}}'] == 1
        assert figures[f'{name}_sum{{step="{step}"}}'] == seconds
        if step == "plan":
            agent.post("/tasks/t.1/approve", {"plan_digest": DIGEST, "attempt": 1})


@moves("podslots_agent_output_bytes")
def output_that_came_in(agent: AgentProcess) -> None:
    name = "podslots_agent_output_bytes_total"
    worker = worker_of(agent, 1)
    agent.acquire("t.1", "plan", one_step())
    assignment = worker.take()
    worker.start(assignment)
    assert agent.metrics()[name] == 0
    worker.output(assignment, 0, b"12345")
    assert agent.metrics()[name] == 5
    worker.output(assignment, 0, b"12345")
    assert agent.metrics()[name] == 5, "what is repeated is not new"
    worker.output(assignment, 5, b"678")
    assert agent.metrics()[name] == 8


REQUESTS: dict[str, tuple[str, str]] = {
    **{call.counted: (call.method, call.path.replace("{id}", "0")) for call in CALLS},
    WATCH: ("GET", "/slots?watch=true"),
    OTHER: ("GET", "/nowhere"),
}


@moves("podslots_agent_requests")
def requests_by_call(agent: AgentProcess) -> None:
    """Refused ones too: somebody asked."""
    name = "podslots_agent_requests_total"
    assert by(agent, name).keys() == REQUESTS.keys()
    for counted, (method, path) in REQUESTS.items():
        before = by(agent, name)
        connection = agent.connection()
        connection.request(method, path, b"{}" if method == "POST" else None)
        connection.getresponse()
        connection.close()
        after = by(agent, name)
        # Reading the figures is a request, and a watch is one of the slots' as well.
        moved = {call for call in after if after[call] - before[call] == (2 if call == counted == "metrics" else 1)}
        assert moved - {"metrics"} == {counted, *(["slots"] if counted == WATCH else [])} - {"metrics"}
        assert counted in moved


@moves("podslots_agent_refusals")
def refusals_by_error(agent: AgentProcess) -> None:
    name = "podslots_agent_refusals_total"
    for error, method, path, body, token in (
        ("unauthorized", "POST", "/slots/acquire", ASKED, "nobody's"),
        ("forbidden", "POST", "/drain", {"drain_id": "d"}, agent.credential("local")),
        ("not_found", "GET", "/nowhere", None, None),
        ("method_not_allowed", "DELETE", "/slots", None, None),
        ("bad_request", "POST", "/slots/acquire", {}, POOL_TOKEN),
        ("unknown_task_type", "POST", "/slots/acquire", {**ASKED, "task_type": "other"}, POOL_TOKEN),
        ("drain_mismatch", "POST", "/open", {"drain_id": "other"}, POOL_TOKEN),
        ("wrong_pod", "POST", "/drain", {"drain_id": "d", "pod_uid": "other"}, POOL_TOKEN),
        ("restarted", "POST", "/drain", {"drain_id": "d", "incarnation": "other"}, POOL_TOKEN),
    ):
        before = by(agent, name)
        assert agent.call(method, path, body, token=token)[0] >= 400
        assert by(agent, name) == {**before, error: before[error] + 1}
    agent.acquire("t.1", "plan")
    before = by(agent, name)
    agent.acquire("t.1", "plan")
    assert by(agent, name) == before, "what is granted is no refusal"
