"""`/openapi.json` and the agent say the same: of every call, body and error, whoever asks."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jsonschema_rs
import pytest

from agent.http.calls import CALLS
from agent.http.openapi import document
from agent.wire import ErrorCode
from tests.support import schemathesis_hooks
from tests.support.agent_process import POOL_TOKEN, AgentProcess, running_agent
from tests.support.documented import check_answer
from tests.support.fake_worker import FakeWorker, one_step, two_steps
from tests.support.repository import ROOT

SETTINGS = ROOT / "tests" / "support" / "schemathesis.toml"


@dataclass(frozen=True)
class Asking:
    """Who asks, and which calls are asked systematically: each field at and past each of its limits."""

    kind: str
    own: str
    examples: int = 2


ASKING = [
    Asking("pool", "^/(slots|open|drain|tasks|metrics|openapi|healthz|readyz)", examples=6),
    Asking("slot", "^/work", examples=4),
    Asking("local", "^/slots/[^/]*/release"),
    Asking("close", "^/close"),
    Asking("none", "^/healthz"),
]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent with something to say: tasks that run, wait for approval, and have ended."""
    with running_agent(tmp_path, layout=[["plan", "plan_and_apply"]] * 4) as agent:
        agent.open()
        for slot, work in ((0, two_steps()), (1, one_step()), (2, one_step())):
            worker = FakeWorker(agent, slot)
            worker.register()
            agent.acquire(f"t.{slot}", "plan_and_apply", work)
            if slot != 1:
                worker.run()
        yield agent


def token_of(agent: AgentProcess, kind: str) -> str | None:
    tokens = {"pool": POOL_TOKEN, "local": agent.credential("local"), "slot": agent.credential("0")}
    return {**tokens, "close": agent.close_token, "none": None}[kind]


@pytest.mark.long
@pytest.mark.parametrize("asking", ASKING, ids=lambda asking: asking.kind)
def test_no_server_error_and_nothing_undocumented(agent: AgentProcess, asking: Asking, tmp_path: Path) -> None:
    """Valid and invalid requests to every call, with each kind of credential. What the document allows is not refused
    as malformed, what it forbids is."""
    token = token_of(agent, asking.kind)
    header = ["-H", f"Authorization: Bearer {token}"] if token else []
    settings = tmp_path / "schemathesis.toml"
    settings.write_text(f"{SETTINGS.read_text()}{OTHERS.format(own=asking.own)}")
    ask(agent, settings, *header, "--max-examples", str(asking.examples))
    said = {line["message"] for line in agent.log_lines()}
    assert not said & {"request failed", "unhandled"}, "and nothing broke on the way"
    assert agent.call("GET", "/healthz")[0] == 200


OTHERS = """
[[operations]]
exclude-path-regex = "{own}"
phases.coverage.enabled = false
"""


def ask(agent: AgentProcess, settings: Path, *options: str) -> None:
    program = Path(sys.executable).with_name("schemathesis")
    done = subprocess.run(
        [
            *(program, "--config-file", settings, "run", f"{agent.url}/openapi.json"),
            *("--phases", "coverage,fuzzing", "--seed", "7", *options),
        ],
        cwd=settings.parent,
        env={**os.environ, "SCHEMATHESIS_HOOKS": schemathesis_hooks.__name__, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_error_code_is_an_answer_to_some_call() -> None:
    listed = {code for call in CALLS for code in call.all_codes}
    assert set(ErrorCode) - listed == {ErrorCode.METHOD_NOT_ALLOWED}, "which is of no call that is listed"


def test_requests_are_closed_and_answers_open() -> None:
    """A typing mistake is not taken for a default; a later agent may say more."""
    schemas = document()["components"]["schemas"]
    assert schemas["AcquireRequest"]["additionalProperties"] is False
    assert schemas["Work"]["additionalProperties"] is False
    for name in ("AgentState", "Slot", "Task", "WorkAnswer", "Work.answer", "ErrorBody"):
        assert "additionalProperties" not in schemas[name], name


def test_the_document_is_json_schema() -> None:
    for schema in document()["components"]["schemas"].values():
        jsonschema_rs.Draft202012Validator({**document(), **schema})


def test_the_check_on_all_answers_finds_what_is_not_documented() -> None:
    """The check that every HTTP test runs under can fail."""
    good = b'{"error":"drained","message":"no"}\n'
    headers = {"Content-Type": "application/json"}
    check_answer("POST", "/slots/acquire", 409, headers, good)
    for status, body, kind in (
        (409, good[:-1], "application/json"),
        (409, b'{"error":"busy","message":"no"}\n', "application/json"),
        (409, b'{"error":"drained","message":"no","more":1}\n', "application/json"),
        (418, good, "application/json"),
        (409, good, "text/plain"),
        (200, b'{"slot":"0","fence":1}\n', "application/json"),
        (401, b'{"error":"unauthorized","message":"no"}\n', "application/json"),
    ):
        with pytest.raises(AssertionError):
            check_answer("POST", "/slots/acquire", status, {"Content-Type": kind}, body)
    with pytest.raises(AssertionError):
        check_answer("GET", "/unheard-of", 200, headers, b"{}\n")


def test_what_is_no_http_is_answered_and_logged_without_being_quoted(agent: AgentProcess) -> None:
    """A slip beside a token must not put it into answers or logs."""
    import socket  # noqa: PLC0415 - for this one test

    secret = "planted-secret-1"
    for raw in (
        f"GET /slots HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {secret}\0\r\n\r\n",
        f"GET /slots HTTP/1.1\r\nHost: a\r\nBad Header {secret}: x\r\n\r\n",
        f"{secret}\r\n\r\n",
        f"GET /{secret} HTTP/9.9\r\n\r\n",
        f"POST /drain HTTP/1.1\r\nHost: a\r\nContent-Length: {secret}\r\n\r\n",
        f"POST /drain HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{secret}\r\n\r\n",
        f"GET /slots HTTP/1.1\r\nHost: a\r\nX: {'x' * 70000}{secret}\r\n\r\n",
    ):
        with socket.create_connection((agent.address, agent.port), timeout=60) as connection:
            connection.sendall(raw.encode())
            answer = b""
            while b"\r\n\r\n" not in answer or not answer.endswith(b"\n"):
                piece = connection.recv(65536)
                if not piece:
                    break
                answer += piece
        assert answer.startswith((b"HTTP/1.0 4", b"HTTP/1.1 4")), answer
        assert b'"error":"' in answer
        assert secret.encode() not in answer
    assert secret not in (agent.folder / "agent.log").read_text()
    assert all(line["time"] for line in agent.log_lines()), "and the log stays one object a line"
