"""What must stay between those it is meant for: tokens, a task's environment, the files it brings.

Each is planted once, wherever it may be, and looked for in everything that the agent and its worker say.
"""

import asyncio
import json
import socket
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.errors import Refusal
from agent.http.routes import HttpApi
from agent.wire import EnvVar, ErrorCode, Outcome, Steps, StepSpec, TaskState, Work, encode
from tests.integration.agent.test_commands import slot_agent
from tests.support.agent_process import POOL_TOKEN, AgentProcess, Refused, wait_for
from tests.support.mounted import Authority, mount
from tests.support.no_log import NoLog
from tests.support.worker_process import WorkerProcess, shell

POOL = "planted-pool-token-5b1c"
NEXT = "planted-next-token-9f02"
ENV = "planted-environment-77e1"
FILE = "planted-file-content-c4d8"
SENT = "planted-in-a-header-1d3a"

WORK = Work(
    name="team/task",
    attempt=1,
    steps=Steps(
        plan=StepSpec(command=shell('test -n "$PASSWORD"; cp secrets.tfvars tfplan; echo planned')),
        apply=StepSpec(command=shell("echo applied; exit 3")),
    ),
    files={"secrets.tfvars": f"password = {FILE}\n"},
    env=(EnvVar(name="PASSWORD", value=ENV),),
)


class Heard:
    """All that an agent said to anybody, besides its log."""

    def __init__(self, agent: AgentProcess) -> None:
        self.agent = agent
        self.said: list[bytes] = []

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> int:
        status, answer = self.agent.call(method, path, body, **options)
        self.said.append(answer)
        return status

    def read_everything(self) -> None:
        for path in ("/slots", "/metrics", "/openapi.json", "/tasks/t.1", "/tasks/t.1/log", "/healthz", "/nowhere"):
            self.call("GET", path, token=POOL)
            self.call("GET", path, headers={"Accept": "text/plain"}, token=POOL)
        self.call("GET", "/metrics", headers={"Accept": "application/openmetrics-text"})
        connection = self.agent.connection()
        connection.request("GET", "/slots?watch=true")
        self.said.append(connection.getresponse().readline())
        connection.close()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    agent = AgentProcess(tmp_path / "agent", layout=[["plan_and_apply"]] * 2)
    (agent.tokens_dir / "token-1").unlink()
    mount(agent.tokens_dir, {"one": POOL.encode()})
    try:
        yield agent.start()
    finally:
        agent.stop()


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[AgentProcess]:
    """One that speaks TLS, and locks its reads."""
    environ = {"PODSLOTS_TLS_DIR": str(tmp_path / "tls"), "PODSLOTS_LOCK_READS": "1"}
    agent = AgentProcess(tmp_path / "agent", layout=[["plan_and_apply"]], environ=environ)
    authority = Authority("the agents' CA")
    agent.client_context = ssl.create_default_context(cadata=authority.certificate.decode())
    signed, other = authority.sign("agent", agent.address), authority.sign("agent", agent.address)
    mount(tmp_path / "tls", {"tls.crt": signed.certificate, "tls.key": signed.key})
    (tmp_path / "other.key").write_bytes(other.key)
    try:
        yield agent.start()
    finally:
        agent.stop()


@pytest.fixture
def worker(agent: AgentProcess, tmp_path: Path) -> Iterator[WorkerProcess]:
    environ = {"PODSLOTS_GRACE_SECONDS": "30"}
    folder = agent.credentials_dir / "0"
    worker = WorkerProcess(agent.url, folder, tmp_path / "work", environ=environ, command=("-m", "agent", "work"))
    yield worker.start()
    if not worker.dead:
        worker.kill()


def bad_requests() -> Iterator[tuple[str, str, Any]]:
    """Slips of the pen beside what is secret."""
    good = {"task_id": "t.2", "task_type": "plan_and_apply", "work": encode(WORK)}
    for change in (
        {"env": [{"name": "A", "valeu": ENV}]},
        {"env": [{"name": "A", "value": [ENV]}]},
        {"env": [{"name": "A=B", "value": ENV}]},
        {"env": [{"name": "A", "value": ENV + "\0"}]},
        {"env": [{"name": "A", "value": ENV, "secret": {"name": "s", "key": "k"}}]},
        {"env": ENV},
        {"files": {"main.tf": [FILE]}},
        {"files": {"../main.tf": FILE}},
        {"files": FILE},
        {"files": [FILE]},
        {"steps": {"plan": {"command": [ENV, "\0"]}}},
        {"attempt": ENV},
        {"attempt": 0},
    ):
        yield "POST", "/slots/acquire", {**good, "work": {**good["work"], **change}}
    text = json.dumps(good)
    yield "POST", "/slots/acquire", text[:-3].encode()
    yield "POST", "/slots/acquire", text.replace(FILE, FILE + "\x01").encode()
    yield "POST", "/slots/acquire", (text.replace(FILE, FILE * 60_000)).encode()
    yield "POST", "/slots/acquire", {**good, "task_type": "unknown"}
    yield "POST", "/slots/acquire", {**good, "pod_uid": "another"}
    yield "POST", "/drain", {"drain_id": "d", "token": POOL}
    yield "DELETE", "/slots/acquire", good


@pytest.mark.usefixtures("worker")
def test_nothing_planted_is_said_by_anybody(agent: AgentProcess, tmp_path: Path) -> None:
    """Through a whole life: work, bad requests, wrong tokens, a full disk, a corrupt journal, a token's rotation."""
    heard = Heard(agent)
    heard.call("POST", "/open", {"drain_id": agent.state().drain_id}, token=POOL)
    for method, path, body in bad_requests():
        assert heard.call(method, path, body, token=POOL) >= 400, body
    for token in (SENT, f"{POOL}x", POOL[:-1], f" {POOL} {POOL}"):
        heard.call("POST", "/drain", {"drain_id": "d"}, token=token)
    heard.call("GET", "/slots", headers={"Authorization": f"Basic {SENT}", "Cookie": SENT, SENT: SENT})

    agent.limit_file_size((agent.state_dir / "journal").stat().st_size)
    assert (
        heard.call(
            "POST",
            "/slots/acquire",
            {"task_id": "t.1", "task_type": "plan_and_apply", "work": encode(WORK)},
            token=POOL,
        )
        == 503
    )
    heard.read_everything()
    agent.limit_file_size(None)

    agent.acquire("t.1", "plan_and_apply", WORK, token=POOL)
    wait_for(lambda: agent.task("t.1").state is TaskState.RESERVED, "the plan waits for its approval")
    heard.read_everything()
    agent.kill()
    agent.start()
    mount(agent.tokens_dir, {"one": POOL.encode(), "two": NEXT.encode()})
    wait_for(lambda: agent.state().tokens == ("one", "two"), "the next token is good")
    task = agent.task("t.1")
    agent.post("/tasks/t.1/approve", {"plan_digest": task.plan_digest, "attempt": 1}, token=NEXT)
    wait_for(lambda: agent.task("t.1").state is TaskState.ENDED, "the apply ends")
    assert agent.task("t.1").outcome is Outcome.FAILED
    heard.read_everything()

    agent.kill()
    journal = agent.state_dir / "journal"
    assert FILE.encode() in journal.read_bytes(), "the planted things are where they belong"
    assert stat.S_IMODE(journal.stat().st_mode) == 0o600
    journal.write_bytes(journal.read_bytes().replace(b"t.1", b"t.2"))
    agent.start()
    heard.read_everything()
    agent.terminate()
    assert agent.process
    agent.process.wait(20)

    own = [agent.credential(name) for name in ("0", "1", "local")] + [agent.close_token]
    planted = {POOL, NEXT, ENV, FILE, SENT, *own}
    outputs = {"answers": b"\n".join(heard.said), "log": (agent.folder / "agent.log").read_bytes()}
    outputs |= {path.name: path.read_bytes() for path in tmp_path.glob("work.std*")}
    assert set(outputs) == {"answers", "log", "work.stdout", "work.stderr"}
    assert b"planned" in outputs["work.stdout"], "and a task's own output is said"
    for place, output in outputs.items():
        found = [secret for secret in planted if secret.encode() in output]
        assert not found, (place, found)


def test_nothing_of_a_key_or_a_token_is_said_where_tls_is_spoken(secured: AgentProcess, tmp_path: Path) -> None:
    """Through files that fit, that don't, and that are none; calls in plain text; tokens that are wrong; a worker's."""
    agent, heard, folder = secured, Heard(secured), tmp_path / "tls"
    good = {name: (folder / name).read_bytes() for name in ("tls.crt", "tls.key")}
    other = (tmp_path / "other.key").read_bytes()
    first = agent.get("/slots", token=POOL_TOKEN)
    heard.call("POST", "/open", {"drain_id": first["drain_id"]}, token=POOL_TOKEN)
    environ = {"PODSLOTS_GRACE_SECONDS": "30"}
    credentials = agent.credentials_dir / "0"
    worker = WorkerProcess(agent.url, credentials, tmp_path / "work", environ=environ, command=("-m", "agent", "work"))
    worker.start()
    try:
        body = {"task_id": "t.1", "task_type": "plan_and_apply", "work": encode(WORK)}
        heard.call("POST", "/slots/acquire", body, token=POOL_TOKEN)
        for number, files in enumerate(
            ({**good, "tls.key": other}, {**good, "tls.key": b"junk" + other}, {"tls.key": good["tls.key"]}), start=1
        ):
            mount(folder, files)
            until_said(agent, "TLS files not taken", number)
        mount(folder, {**good, "ca.crt": good["tls.crt"]})
        until_said(agent, "TLS files changed", 1)
        for path in ("/slots", "/metrics", "/tasks/t.1", "/tasks/t.1/log", "/openapi.json", "/nowhere"):
            for token in (None, SENT, POOL_TOKEN, agent.credential("0"), agent.credential("local"), agent.close_token):
                heard.call("GET", path, token=token)
        with socket.create_connection((agent.address, agent.port), timeout=60) as plain:
            plain.sendall(f"GET /slots HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {SENT}\r\n\r\n".encode())
            heard.said.append(plain.recv(65536))
        local = {"PODSLOTS_URL": agent.url, "PODSLOTS_CREDENTIAL_DIR": str(agent.credentials_dir / "local")}
        for command, given in (("slots", agent.environ), ("slots", local), ("health", local), ("close", agent.environ)):
            done = slot_agent(command, environ=given)
            heard.said.append((done.stdout + done.stderr).encode())
    finally:
        worker.kill()
    keys = [line for key in (good["tls.key"], other) for line in key.decode().splitlines() if "-----" not in line]
    own = [agent.credential(name) for name in ("0", "local")] + [agent.close_token]
    outputs = {"answers": b"\n".join(heard.said), "log": (agent.folder / "agent.log").read_bytes()}
    outputs |= {path.name: path.read_bytes() for path in tmp_path.glob("work.std*")}
    assert b"planned" in outputs["work.stdout"]
    for place, output in outputs.items():
        found = [secret for secret in (POOL_TOKEN, ENV, FILE, SENT, *own, *keys) if secret.encode() in output]
        assert not found, (place, found)


def until_said(agent: AgentProcess, message: str, times: int) -> None:
    wait_for(lambda: sum(line["message"] == message for line in agent.log_lines()) == times, f"{message}, {times}")


def test_a_mistake_of_ours_is_logged_without_the_request(tmp_path: Path) -> None:
    """An exception's text may quote what it choked on; the place in the code says as much."""
    del tmp_path
    lines: list[dict[str, Any]] = []

    class Api:
        _log = None

        async def _answer(self, request: Any) -> Any:
            raise KeyError(request.path)

        def _refuse(self, *refusals: Any) -> Refusal:
            refusal: Refusal = refusals[-1]
            return refusal

    class Lines(NoLog):
        def event(self, message: str, /, **fields: Any) -> None:
            lines.append({"message": message, **fields})

    class Request:
        raw_path = f"/tasks/{SENT}"
        path = raw_path
        method = "GET"
        headers: dict[str, str] = {}  # noqa: RUF012 - a stand-in for one request

    api: Any = Api()
    api._log = Lines()
    answer: Any = asyncio.run(HttpApi.handle(api, Request()))  # type: ignore[arg-type]
    assert answer.code is ErrorCode.INTERNAL
    assert SENT not in answer.message
    assert lines[0]["error"] == "KeyError"
    assert SENT not in repr(lines)
    assert any(place.startswith("routes.py:") for place in lines[0]["at"])


def test_a_plain_agents_worker_does_not_load_tls(agent: AgentProcess, worker: WorkerProcess) -> None:
    """It is as large as the worker itself."""
    agent.post("/open", {"drain_id": agent.state().drain_id}, token=POOL)
    wait_for(lambda: agent.state().slots[0].worker, "the worker is registered")
    assert "_ssl" not in Path(f"/proc/{worker.pid}/maps").read_text()


def test_settings_do_not_show_tokens_when_printed(agent: AgentProcess) -> None:
    from agent.auth import POOL as POOL_IDENTITY  # noqa: PLC0415 - the name is taken above
    from agent.auth import Keyring, _Credential  # noqa: PLC0415

    assert POOL not in repr(_Credential(POOL.encode(), POOL_IDENTITY))
    assert POOL not in repr(Keyring({}, {"one": POOL}))
    with pytest.raises(Refused) as refused:
        agent.post("/drain", {"drain_id": "d"}, token=SENT)
    assert SENT not in str(refused.value)
