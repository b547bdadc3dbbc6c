"""What the agent answers to what it is asked, right or wrong."""

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.wire import AgentState, Phase, SlotState, WatchLine, WatchType, decode
from tests.support.agent_process import POOL_TOKEN, AgentProcess, Refused, running_agent, wait_for
from tests.support.fake_worker import DIGEST, FakeWorker, one_step, two_steps


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    with running_agent(tmp_path) as agent:
        yield agent


@pytest.fixture
def opened(agent: AgentProcess) -> AgentProcess:
    agent.open()
    return agent


def test_born_drained_and_opened_by_exactly_its_own_drain(agent: AgentProcess) -> None:
    """T6: nothing is acquired before the agent was opened; the open can be repeated."""
    state = agent.state()
    assert state.phase is Phase.DRAINED
    with pytest.raises(Refused) as refused:
        agent.acquire("t.1")
    assert (refused.value.status, refused.value.code) == (409, "drained")
    with pytest.raises(Refused) as refused:
        agent.post("/open", {"drain_id": "another"})
    assert refused.value.code == "drain_mismatch"
    for _ in range(2):
        assert agent.post("/open", {"drain_id": state.drain_id})["phase"] == "open"
    assert agent.acquire("t.1") == {"slot": 1, "fence": 1}


def test_get_slots_has_the_promised_fields(opened: AgentProcess) -> None:
    opened.acquire("t.1")
    data = opened.get("/slots")
    assert {"version", "pod", "pod_uid", "pool", "incarnation", "phase", "drain_id", "revision", "tokens", "slots"} <= (
        data.keys()
    )
    slot = data["slots"][1]
    names = "id accepts state task_id task_type step origin fence since expires_at worker"
    assert set(names.split()) <= slot.keys()
    assert slot["since"].endswith("Z"), "T32: times are UTC"
    assert data["tokens"] == ["token-1"]


def test_table_for_people(opened: AgentProcess) -> None:
    opened.acquire("t.1")
    text = opened.call("GET", "/slots", headers={"Accept": "text/plain"})[1].decode()
    assert "running" in text
    assert "t.1" in text
    for accept in ("application/json", "*/*", "text/html, */*;q=0.8", "text/plain;q=0.5, application/json"):
        json.loads(opened.call("GET", "/slots", headers={"Accept": accept})[1])


BAD_REQUESTS: list[tuple[str, str, Any, int, str]] = [
    ("POST", "/slots/acquire", b"{", 400, "bad_request"),
    ("POST", "/slots/acquire", b"", 400, "bad_request"),
    ("POST", "/slots/acquire", b"[]", 400, "bad_request"),
    ("POST", "/slots/acquire", b'{"task_id": NaN}', 400, "bad_request"),
    ("POST", "/slots/acquire", b"\xff\xfe", 400, "bad_request"),
    ("POST", "/slots/acquire", {"task_id": "t"}, 400, "bad_request"),
    ("POST", "/slots/acquire", {"task_id": 1, "task_type": "plan"}, 400, "bad_request"),
    ("POST", "/slots/acquire", {"task_id": "t", "task_type": "plan", "wrok": {}}, 400, "bad_request"),
    ("POST", "/slots/acquire", {"task_id": "../x", "task_type": "plan"}, 400, "bad_request"),
    ("POST", "/slots/acquire", {"task_id": "t" * 129, "task_type": "plan"}, 400, "bad_request"),
    ("POST", "/slots/acquire", {"task_id": "t", "task_type": ""}, 400, "bad_request"),
    ("POST", "/slots/acquire", {"task_id": "t", "task_type": "x" * 64}, 400, "bad_request"),
    ("POST", "/slots/acquire", {"task_id": "t", "task_type": "nope"}, 422, "unknown_task_type"),
    (
        "POST",
        "/slots/acquire",
        {"task_id": "t", "task_type": "plan", "work": {"name": "a/b", "attempt": 1, "steps": {}}},
        422,
        "invalid",
    ),
    (
        "POST",
        "/slots/acquire",
        {
            "task_id": "t",
            "task_type": "plan",
            "work": {
                "name": "a/b",
                "attempt": 1,
                "steps": {"plan": {"command": ["x"]}},
                "files": {"../../etc/passwd": ""},
            },
        },
        422,
        "invalid",
    ),
    ("POST", "/slots/9/release", {"task_id": "t", "fence": 1}, 404, "not_found"),
    ("POST", "/slots/x/release", {"task_id": "t", "fence": 1}, 404, "not_found"),
    ("POST", "/slots/0/release", {"task_id": "t", "fence": "1"}, 400, "bad_request"),
    ("POST", "/slots/0/release", {"task_id": "t", "fence": True}, 400, "bad_request"),
    ("POST", "/slots/0/release", {"task_id": "t", "fence": 7}, 409, "fenced"),
    ("POST", "/slots/0/reserve", {"task_id": "t", "fence": 1, "ttl_seconds": 0}, 400, "bad_request"),
    ("POST", "/drain", {}, 400, "bad_request"),
    ("POST", "/drain", {"drain_id": ""}, 400, "bad_request"),
    ("POST", "/drain", {"drain_id": "d", "stamp": {"term": 1}}, 400, "bad_request"),
    ("POST", "/tasks/nope/approve", {"plan_digest": DIGEST, "attempt": 1}, 404, "not_found"),
    ("POST", "/tasks/nope/cancel", None, 404, "not_found"),
    ("POST", "/tasks/..%2Fx/cancel", None, 404, "not_found"),
    ("GET", "/tasks/nope", None, 404, "not_found"),
    ("GET", "/tasks/nope/log", None, 404, "not_found"),
    ("GET", "/nope", None, 404, "not_found"),
    ("GET", "/slots?watch=perhaps", None, 400, "bad_request"),
    ("GET", "/slots?watch=true&revision=x", None, 400, "bad_request"),
    ("DELETE", "/slots", None, 405, "method_not_allowed"),
    ("GET", "/drain", None, 405, "method_not_allowed"),
    ("PUT", "/slots/acquire", {}, 405, "method_not_allowed"),
]


def test_bad_input_is_refused_by_name_and_changes_nothing(opened: AgentProcess) -> None:
    before = opened.get("/slots")
    for method, path, body, status, code in BAD_REQUESTS:
        got, answer = opened.call(method, path, body, token=POOL_TOKEN)
        assert (got, json.loads(answer)["error"]) == (status, code), (method, path, body, answer)
        assert json.loads(answer).keys() == {"error", "message"}
    assert opened.get("/slots") == before


def test_bad_request_names_the_field(opened: AgentProcess) -> None:
    with pytest.raises(Refused) as refused:
        opened.post("/slots/acquire", {"task_id": "t", "task_type": "plan", "work": {"name": 3}})
    assert "work" in refused.value.body["message"]


def test_body_over_a_mebibyte_is_too_large(opened: AgentProcess) -> None:
    for size in (1 << 20, 2 << 20):
        with pytest.raises(Refused) as refused:
            opened.post("/slots/acquire", b'{"task_id": "%s"}' % (b"x" * size))
        assert (refused.value.status, refused.value.code) == (413, "too_large")
    assert opened.acquire("t.1")["slot"] == 1


WRITES = [
    "/slots/acquire",
    "/slots/0/release",
    "/open",
    "/drain",
    "/tasks/t/approve",
    "/tasks/t/cancel",
    "/tasks/t/ack",
]
WORK_CALLS = [("GET", "/work"), ("POST", "/work/register"), ("POST", "/work/started"), ("POST", "/work/exit")]


def test_each_credential_is_good_for_its_own_calls_only(opened: AgentProcess) -> None:
    slot, local, close = opened.credential("0"), opened.credential("local"), opened.close_token
    wrong = [POOL_TOKEN[:-1], POOL_TOKEN + "x", "", secrets.token_hex(16)]
    calls = [("POST", path) for path in WRITES] + WORK_CALLS + [("POST", "/close")]
    for method, path in calls:
        for token in (None, *wrong):
            status, body = opened.call(method, path, {} if method == "POST" else None, token=token)
            assert (status, json.loads(body)["error"]) == (401, "unauthorized"), (path, token)
    forbidden = [(("POST", path), token) for path in WRITES for token in (slot, close)]
    forbidden += [(("POST", path), local) for path in WRITES if not path.startswith("/slots/")]
    forbidden += [(call, token) for call in WORK_CALLS for token in (POOL_TOKEN, local, close)]
    forbidden += [(("POST", "/close"), token) for token in (POOL_TOKEN, local, slot)]
    for (method, path), token in forbidden:
        status, body = opened.call(method, path, {} if method == "POST" else None, token=token)
        assert (status, json.loads(body)["error"]) == (403, "forbidden"), (path, token)
    assert opened.state().phase is Phase.OPEN


def test_a_slots_credential_reaches_its_own_slot_only(opened: AgentProcess) -> None:
    opened.acquire("t.1", "plan_and_apply", two_steps())
    neighbour, owner = FakeWorker(opened, 1), FakeWorker(opened, 0)
    neighbour.register()
    owner.register()
    assignment = owner.take()
    for attempt in (
        lambda: neighbour.start(assignment),
        lambda: neighbour.end(assignment),
        lambda: neighbour.output(assignment, 0, b"x"),
    ):
        with pytest.raises(Refused) as refused:
            attempt()
        assert refused.value.code == "not_found"
    assert opened.task("t.1").state == "waiting"


def test_local_holders_own_what_they_hold_and_nothing_else(opened: AgentProcess) -> None:
    """The local credential can hold slots; neither side can end the other's holds."""
    local = opened.credential("local")
    with pytest.raises(Refused) as refused:
        opened.acquire("mine", "plan", one_step(), token=local)
    assert refused.value.status == 403
    mine = opened.acquire("mine", "plan", token=local)
    theirs = opened.acquire("theirs", "plan")
    assert opened.state().slots[mine["slot"]].origin == "local"
    for hold, task_id, token in ((mine, "mine", POOL_TOKEN), (theirs, "theirs", local)):
        with pytest.raises(Refused) as refused:
            opened.post(f"/slots/{hold['slot']}/release", {"task_id": task_id, "fence": hold["fence"]}, token=token)
        assert refused.value.status == 403
    reserved = opened.post(f"/slots/{mine['slot']}/reserve", {"task_id": "mine", "fence": mine["fence"]}, token=local)
    assert reserved["state"] == "reserved"
    assert reserved["fence"] > mine["fence"]
    assert reserved["expires_at"].endswith("Z")


def test_new_pool_tokens_are_good_at_once_and_old_ones_until_they_go(opened: AgentProcess) -> None:
    """T16, T17: tokens change without a restart; empty files and the kubelet's own entries let nobody in."""
    (opened.tokens_dir / "token-2").write_text("the-next-token\n")
    (opened.tokens_dir / "empty").write_text("\n")
    (opened.tokens_dir / "..data").write_text("not-a-token")
    wait_for(lambda: opened.state().tokens == ("token-1", "token-2"), "the new token is reported")
    opened.acquire("a", token="the-next-token")
    opened.acquire("b")
    for token in ("", "not-a-token"):
        with pytest.raises(Refused):
            opened.acquire("c", token=token)
    (opened.tokens_dir / "token-1").unlink()
    wait_for(lambda: opened.state().tokens == ("token-2",), "the old token is gone")
    with pytest.raises(Refused) as refused:
        opened.acquire("c")
    assert refused.value.code == "unauthorized"


def test_slots_with_work_are_the_agents_own(opened: AgentProcess) -> None:
    held = opened.acquire("t.1", "plan", one_step())
    for call in ("reserve", "resume", "release"):
        with pytest.raises(Refused) as refused:
            opened.post(f"/slots/{held['slot']}/{call}", {"task_id": "t.1", "fence": held["fence"]})
        assert refused.value.code == "managed"


def test_drain_says_what_is_in_its_way(opened: AgentProcess) -> None:
    opened.acquire("t.1")
    worker = FakeWorker(opened, 0)
    worker.register()
    opened.acquire("t.2", "plan_and_apply", one_step())
    worker.run()
    before = opened.get("/slots")
    with pytest.raises(Refused) as refused:
        opened.post("/drain", {"drain_id": "d"})
    assert (refused.value.code, refused.value.body["slots"]) == ("busy", [1])
    assert refused.value.body["tasks"] == ["t.1", "t.2"]
    assert opened.get("/slots") == before


def test_drain_is_repeated_replaced_and_taken_back(opened: AgentProcess) -> None:
    """O1: a drain can be taken back, by its own name only."""
    for drain_id in ("a", "a", "b"):
        assert opened.post("/drain", {"drain_id": drain_id})["phase"] == "drained"
        assert opened.state().drain_id == drain_id
    with pytest.raises(Refused) as refused:
        opened.post("/open", {"drain_id": "a"})
    assert refused.value.code == "drain_mismatch"
    opened.post("/open", {"drain_id": "b"})
    opened.acquire("t.1")


def read_lines(agent: AgentProcess, count: int, query: str = "") -> Iterator[WatchLine]:
    import http.client  # noqa: PLC0415 - for this one test

    connection = http.client.HTTPConnection(agent.address, agent.port, timeout=20)
    try:
        connection.request("GET", f"/slots?watch=true{query}")
        response = connection.getresponse()
        for _ in range(count):
            yield decode(WatchLine, json.loads(response.readline()), strict=True)
    finally:
        connection.close()


@pytest.mark.long
def test_watch_gives_the_state_then_each_change_then_heartbeats(opened: AgentProcess) -> None:
    lines = read_lines(opened, 3)
    first = next(lines)
    assert first.type is WatchType.STATE
    assert first.state == opened.state()
    opened.acquire("t.1")
    second = next(lines)
    assert second.type is WatchType.CHANGE
    assert second.state == opened.state()
    assert second.state is not None
    assert second.state.slots[1].state is SlotState.RUNNING
    assert second.revision > first.revision
    third = next(lines)
    assert third.type is WatchType.HEARTBEAT
    assert third.revision == second.revision
    known = next(read_lines(opened, 1, f"&revision={third.revision}"))
    assert known.type is WatchType.HEARTBEAT
    assert next(read_lines(opened, 1, "&revision=5")).type is WatchType.STATE


def test_a_watcher_of_an_earlier_incarnation_starts_over(opened: AgentProcess) -> None:
    """T25: a revision means nothing to the next incarnation, even where the numbers are few."""
    revision = opened.state().revision
    for _ in range(3):
        opened.restart()
        assert next(read_lines(opened, 1, f"&revision={revision}")).type is WatchType.STATE


def test_openapi_names_every_path(agent: AgentProcess) -> None:
    document = agent.get("/openapi.json")
    assert {"/slots", "/slots/acquire", "/slots/{id}/reserve", "/open", "/drain", "/tasks/{id}/log", "/work"} <= (
        document["paths"].keys()
    )
    state = document["components"]["schemas"]["AgentState"]
    assert set(AgentState.__dataclass_fields__) == state["properties"].keys()
    text = json.dumps(document)
    for name in document["components"]["schemas"]:
        assert f"#/components/schemas/{name}" in text


def test_health(agent: AgentProcess) -> None:
    assert agent.call("GET", "/healthz") == (200, b"ok\n")
    assert agent.call("GET", "/readyz") == (200, b"ok\n")
