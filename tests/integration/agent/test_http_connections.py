"""Connections as clients really use them: kept, closed, pipelined, old, and left unread."""

import json
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.wire import AgentState, decode
from tests.support.agent_process import POOL_TOKEN, AgentProcess, running_agent

GET = b"GET /slots HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    with running_agent(tmp_path) as agent:
        agent.open()
        yield agent


def talk(agent: AgentProcess, data: bytes, *, until_closed: bool) -> bytes:
    """Send bytes; read until the agent closes, or until a whole answer is there."""
    with socket.create_connection((agent.address, agent.port), timeout=60) as connection:
        connection.sendall(data)
        received = b""
        while chunk := connection.recv(1 << 16):
            received += chunk
            if not until_closed and b"\r\n\r\n" in received:
                head, _, body = received.partition(b"\r\n\r\n")
                if len(body) >= length_of(head):
                    break
        return received


def length_of(head: bytes) -> int:
    lines = [line.lower() for line in head.split(b"\r\n")]
    return int(next(line for line in lines if line.startswith(b"content-length:")).split(b":")[1])


def bodies(received: bytes) -> list[bytes]:
    found = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        assert head.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")), head
        assert b"\r\ndate:" in head.lower()
        assert b"\r\ncontent-type: application/json" in head.lower()
        found.append(rest[: length_of(head)])
        received = rest[length_of(head) :]
    return found


def test_a_kept_connection_answers_again_and_again(agent: AgentProcess) -> None:
    with socket.create_connection((agent.address, agent.port), timeout=60) as connection:
        for _ in range(3):
            connection.sendall(GET + b"\r\n")
            received = connection.recv(1 << 16)
            assert len(bodies(received)) == 1


def test_old_and_closing_clients_are_answered_and_closed(agent: AgentProcess) -> None:
    for request in (b"GET /slots HTTP/1.0\r\n\r\n", GET + b"Connection: close\r\n\r\n"):
        (body,) = bodies(talk(agent, request, until_closed=True))
        assert decode(AgentState, json.loads(body)).pod == "pod-1"


def test_pipelined_requests_are_answered_in_their_order(agent: AgentProcess) -> None:
    names = [f"task-{number}" for number in range(3)]
    requests = b""
    for name in names:
        body = json.dumps({"task_id": name, "task_type": "plan"}).encode()
        head = b"POST /slots/acquire HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\nContent-Length: %d\r\n\r\n"
        requests += head % (POOL_TOKEN.encode(), len(body)) + body
    requests += GET + b"Connection: close\r\n\r\n"
    answers = [json.loads(body) for body in bodies(talk(agent, requests, until_closed=True))]
    assert [answer["fence"] for answer in answers[:3]] == [1, 2, 3]
    state = decode(AgentState, answers[3])
    assert {state.slots[answer["slot"]].task_id for answer in answers[:3]} == set(names)


def test_a_client_that_never_reads_does_not_fill_the_agents_memory(agent: AgentProcess) -> None:
    def resident_bytes() -> float:
        return agent.metrics()["process_resident_memory_bytes"]

    before = resident_bytes()
    with socket.create_connection((agent.address, agent.port), timeout=2) as connection:
        with pytest.raises(TimeoutError):
            connection.sendall((GET + b"\r\n") * ((64 << 20) // len(GET)))
        assert resident_bytes() - before < 32 << 20
        agent.acquire("others-are-served")


def test_more_connections_than_the_usual_limit_of_descriptors_keep_nobody_out(tmp_path: Path) -> None:
    """Silent ones: a task in the Pod can open as many as it may have descriptors itself."""
    usual, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        agent = AgentProcess(tmp_path).start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (usual, hard))
    with ExitStack() as stack:
        stack.callback(agent.kill)
        for _ in range(200):
            stack.enter_context(socket.create_connection((agent.address, agent.port)))
        assert agent.state().slots


def test_nonsense_on_a_connection_hurts_nobody_else(agent: AgentProcess) -> None:
    for nonsense in (
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET\r\n\r\n",
        b"POST /drain HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    ):
        received = talk(agent, nonsense + b"\r\n\r\n", until_closed=True)
        assert b" 400 " in received.split(b"\r\n")[0]
    assert agent.state().pod == "pod-1"
