"""TLS at the agent, by mounted files: who gets in, and what a change of them does to those who are in."""

import json
import os
import re
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from http.client import HTTPException
from pathlib import Path
from shutil import which

import pytest

from agent import commands
from agent.wire import Outcome, Steps, StepSpec, TaskState, Work
from tests.integration.agent.test_commands import slot_agent
from tests.support.agent_process import POOL_TOKEN, AgentProcess, Refused, wait_for
from tests.support.mounted import Authority, Signed, mount
from tests.support.repository import ROOT
from tests.support.worker_process import WorkerProcess, shell

AUTHORITY = Authority("the agents' CA")
CLIENTS = Authority("the clients' CA")


def files(signed: Signed, client_ca: bytes | None = None) -> dict[str, bytes]:
    given = {"tls.crt": signed.certificate, "tls.key": signed.key}
    return given if client_ca is None else {**given, "ca.crt": client_ca}


class TlsAgent(AgentProcess):
    """An agent with TLS files, and a client that knows their CA."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, layout=[["plan"]], environ={"PODSLOTS_TLS_DIR": str(folder / "tls")})
        self.tls_dir = folder / "tls"
        self.client_context = self.client()
        mount(self.tls_dir, files(self.sign()))

    def sign(self, lasts: timedelta = timedelta(days=1)) -> Signed:
        return AUTHORITY.sign("agent", self.address, lasts=lasts)

    def client(self, certificate: Signed | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=AUTHORITY.certificate.decode())
        if certificate is not None:
            both = self.folder / "client.pem"
            both.write_bytes(certificate.certificate + certificate.key)
            context.load_cert_chain(both)
        return context

    def served(self) -> str:
        """The certificate that a new connection sees."""
        return ssl.get_server_certificate((self.address, self.port), timeout=60)

    def until_served(self, signed: Signed) -> None:
        wait_for(lambda: self.served().encode() == signed.certificate, "the new certificate is served")

    def until_said(self, message: str, times: int) -> None:
        wait_for(lambda: sum(line["message"] == message for line in self.log_lines()) == times, f"{message}, {times}")


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[TlsAgent]:
    agent = TlsAgent(tmp_path)
    try:
        agent.start().open()
        yield agent
    finally:
        agent.stop()


def test_everything_is_served_by_tls_and_nothing_beside_it(agent: TlsAgent) -> None:
    agent.acquire("t.1")
    assert agent.state().slots[0].task_id == "t.1"
    agent.client_context = None
    with pytest.raises((OSError, HTTPException)):
        agent.get("/slots")


def test_new_files_are_taken_without_a_connection_lost(agent: TlsAgent) -> None:
    """Connections that are open go on; new ones see the new certificate; five changes leave nothing behind."""
    kept = agent.connection()
    kept.request("GET", "/slots")
    assert kept.getresponse().read()
    watching = agent.connection()
    watching.request("GET", "/slots?watch=true")
    lines = watching.getresponse()
    assert json.loads(lines.readline())["type"] == "STATE"
    assert agent.process
    descriptors = Path(f"/proc/{agent.process.pid}/fd")
    before = len([*descriptors.iterdir()])
    for number in range(5):
        signed = agent.sign()
        mount(agent.tls_dir, files(signed))
        agent.until_served(signed)
        agent.acquire(f"t.{number}")
        line = json.loads(lines.readline())
        while line["type"] == "HEARTBEAT":
            line = json.loads(lines.readline())
        assert line["state"]["slots"][0]["task_id"] == f"t.{number}"
        kept.request(
            "POST",
            "/slots/0/release",
            json.dumps({"task_id": f"t.{number}", "fence": 2 * number + 1}),
            {"Authorization": f"Bearer {POOL_TOKEN}"},
        )
        answer = kept.getresponse()
        assert (answer.status, json.loads(answer.read())["state"]) == (200, "idle")
        assert json.loads(lines.readline())["type"] == "CHANGE"
    wait_for(lambda: len([*descriptors.iterdir()]) <= before, "and no descriptor is left over")
    kept.close()
    watching.close()


def test_files_that_do_not_fit_together_are_said_and_not_taken(agent: TlsAgent) -> None:
    """Half of a change, junk, nothing at all: what was good before goes on."""
    before = agent.served()
    good, other = agent.sign(), agent.sign()
    for number, broken in enumerate(
        (
            {"tls.crt": good.certificate, "tls.key": other.key},
            {"tls.crt": b"junk", "tls.key": good.key},
            {"tls.crt": good.certificate},
        ),
        start=1,
    ):
        mount(agent.tls_dir, broken)
        agent.until_said("TLS files not taken", number)
        assert agent.served() == before
    mount(agent.tls_dir, files(good))
    agent.until_served(good)
    text = (agent.folder / "agent.log").read_text()
    assert good.key.decode().splitlines()[1] not in text


@pytest.mark.parametrize(
    "junk",
    [b"", *(pytest.param(junk, marks=pytest.mark.long) for junk in (b"junk", "ä".encode(), CLIENTS.certificate[:300]))],
)
def test_a_useless_client_ca_ends_no_agent_and_lets_nobody_in(agent: TlsAgent, junk: bytes) -> None:
    """Neither while it serves nor when it starts; the CA in use goes on, and a new certificate is taken beside it."""
    known = CLIENTS.sign("a controller")
    mount(agent.tls_dir, files(agent.sign(), CLIENTS.certificate))
    agent.until_said("TLS files changed", 1)
    for start_again in (False, True):
        other = agent.sign()
        mount(agent.tls_dir, files(other, junk))
        if start_again:
            agent.kill()
            agent.start()
        agent.until_served(other)
        agent.client_context = agent.client()
        with pytest.raises(Refused):
            agent.state()
        agent.client_context = agent.client(known)
        assert agent.state().pod == "pod-1"
    (agent.state_dir / "client-ca.crt").unlink()
    agent.kill()
    agent.start()
    with pytest.raises((Refused, OSError)):
        agent.state()
    mount(agent.tls_dir, files(agent.sign(), CLIENTS.certificate))
    wait_for((agent.state_dir / "client-ca.crt").exists, "the mended CA is taken")
    wait_for(lambda: agent.call("GET", "/slots")[0] == 200, "and lets its clients in")


def test_close_knows_the_agent_by_the_certificate_in_force(agent: TlsAgent) -> None:
    mount(agent.tls_dir, {"tls.crt": agent.sign().certificate, "tls.key": agent.sign().key})
    agent.until_said("TLS files not taken", 1)
    done = slot_agent("close", environ=agent.environ)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", [commands.close, commands.show_slots, commands.health])
def test_a_certificate_that_is_not_the_agents_is_no_mistake_of_the_settings(
    agent: TlsAgent,
    command: Callable[[Mapping[str, str]], int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An agent that starts again with a new one hands it on a moment later: `close` tries on."""
    (agent.state_dir / "agent.crt").write_bytes(agent.sign().certificate)
    tries: list[float] = []
    monkeypatch.setattr(commands, "START_SECONDS", 0.5)
    monkeypatch.setattr("agent.commands.time.sleep", tries.append)
    assert command(agent.environ) == 1
    assert "can't reach the agent: " in capsys.readouterr().err
    assert bool(tries) is (command is commands.close)


def test_an_agent_starts_although_its_certificate_can_not_be_handed_on(agent: TlsAgent) -> None:
    """A full or broken credentials volume: what holds a slot goes on, and nothing piles up there."""
    place = agent.credentials_dir / "local"
    (place / "agent.crt").unlink()
    (place / "agent.crt").mkdir()
    mount(agent.tls_dir, files(agent.sign()))
    agent.kill()
    agent.start()
    wait_for(lambda: "TLS files not taken" in (agent.folder / "agent.log").read_text(), "it is said")
    # It is tried every second: a file of one try may be there at any moment, but not for long.
    wait_for(
        lambda: sorted(path.name for path in place.iterdir()) == ["agent.crt", "token"], "nothing is left of a try"
    )
    (place / "agent.crt").rmdir()
    wait_for((place / "agent.crt").is_file, "it is handed on once that is possible")


def test_an_agent_without_usable_files_does_not_start(tmp_path: Path) -> None:
    """Never plain instead."""
    agent = TlsAgent(tmp_path)
    mount(agent.tls_dir, {"tls.crt": b"junk", "tls.key": b"junk"})
    done = slot_agent("serve", environ=agent.environ)
    assert done.returncode == 2
    assert "PODSLOTS_TLS_DIR" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_pods_own_programs_know_the_agent_by_its_certificate(agent: TlsAgent, tmp_path: Path) -> None:
    """`slots`, `close` and a worker, through a change of the certificate, and after its end."""
    worker = WorkerProcess(agent.url, agent.credentials_dir / "0", tmp_path / "work", command=("-m", "agent", "work"))
    worker.start()
    try:
        run(agent, "t.1")
        expired = agent.sign(lasts=timedelta(days=-1))
        mount(agent.tls_dir, files(expired))
        agent.until_served(expired)
        worker.kill()
        worker.start()
        mount(agent.tls_dir, files(agent.sign()))
        wait_for(lambda: agent.served().encode() != expired.certificate, "the next one is served")
        run(agent, "t.2")
        done = slot_agent("slots", environ=agent.environ)
        assert (done.returncode, done.stderr) == (0, "")
        assert "plan" in done.stdout
        local = {"PODSLOTS_URL": agent.url, "PODSLOTS_CREDENTIAL_DIR": str(agent.credentials_dir / "local")}
        assert slot_agent("slots", environ=local).returncode == 0
        done = slot_agent("close", environ=agent.environ)
        assert (done.returncode, done.stderr) == (0, "")
        assert agent.state().closing
    finally:
        worker.kill()


def run(agent: TlsAgent, task_id: str) -> None:
    work = Work(name="team/task", attempt=1, steps=Steps(plan=StepSpec(command=shell("echo through"))))
    agent.acquire(task_id, work=work)
    wait_for(lambda: agent.task(task_id).state is TaskState.ENDED, "the task ends")
    task = agent.task(task_id)
    assert task.plan
    assert (task.outcome, task.plan.log_tail) == (Outcome.SUCCEEDED, "through\n")
    agent.post(f"/tasks/{task_id}/ack")


def test_another_server_with_a_certificate_of_the_same_ca_is_not_the_agent(agent: TlsAgent, tmp_path: Path) -> None:
    """The agent is known by its very certificate: a neighbour's, signed by the same CA, is refused."""
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "agent.crt").write_bytes(agent.sign().certificate)
    (other / "token").write_text("x" * 43)
    done = slot_agent("slots", environ={"PODSLOTS_URL": agent.url, "PODSLOTS_CREDENTIAL_DIR": str(other)})
    assert done.returncode == 1
    assert "CERTIFICATE_VERIFY_FAILED" in done.stderr


@pytest.mark.skipif(which("curl") is None, reason="the documented call is curl's")
def test_the_call_of_a_sidecar_program_is_as_documented(agent: TlsAgent) -> None:
    """As docs/security.md has it, but for the port, which is another one here."""
    text = (ROOT / "docs" / "security.md").read_text()
    (script,) = re.findall(r"```sh\n(name=.*?)```", text, re.DOTALL)
    environ = {
        "PATH": os.environ["PATH"],
        "PODSLOTS_TLS_SERVER_NAME": "agent",
        "PODSLOTS_POD_IP": agent.address,
        "PODSLOTS_CREDENTIAL_DIR": str(agent.credentials_dir / "local"),
    }

    def run() -> subprocess.CompletedProcess[str]:
        command = ["sh", "-ec", script.replace("8721", str(agent.port))]
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)

    assert json.loads(run().stdout)["pod"] == "pod-1"
    environ["PODSLOTS_TLS_SERVER_NAME"] = "somebody-else"
    assert run().returncode == 60, "the certificate's name is looked at"


def test_with_a_client_ca_whoever_comes_from_outside_shows_a_certificate(agent: TlsAgent) -> None:
    """The pool's token is not good without one, nor is a read; probes, workers and `close` show none."""
    mount(agent.tls_dir, files(agent.sign(), CLIENTS.certificate))
    wait_for(lambda: agent.call("GET", "/slots")[0] == 401, "reads need a certificate")
    for path in ("/healthz", "/readyz"):
        assert agent.call("GET", path)[0] == 200
    assert agent.call("GET", "/slots?watch=true")[0] == 401
    assert agent.call("POST", "/drain", {"drain_id": "d"}, token=POOL_TOKEN)[0] == 403
    assert agent.call("GET", "/work?instance=x", token=agent.credential("0"))[0] == 409
    assert agent.call("GET", "/slots", token=agent.credential("local"))[0] == 200
    assert agent.call("GET", "/slots", token=POOL_TOKEN)[0] == 403
    assert slot_agent("slots", environ=agent.environ).returncode == 0
    agent.client_context = agent.client(CLIENTS.sign("controller"))
    assert agent.call("GET", "/slots")[0] == 200
    assert agent.call("POST", "/drain", {"drain_id": "d"})[0] == 401, "and is no token"
    assert agent.call("POST", "/drain", {"drain_id": "d"}, token=POOL_TOKEN)[0] == 200
    agent.client_context = agent.client(Authority("somebody").sign("controller"))
    with pytest.raises(OSError, match=r"(?i)unknown ca|unknown_ca|reset|broken|EOF|closed"):
        agent.call("GET", "/healthz")
    agent.client_context = agent.client()
    mount(agent.tls_dir, files(agent.sign()))
    wait_for(lambda: agent.call("GET", "/slots")[0] == 200, "without the CA, reads are open again")
