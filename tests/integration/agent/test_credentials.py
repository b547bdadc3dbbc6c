"""Credentials: files that the right containers can read, tokens that change under way, reads that are locked."""

import json
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.auth import Kind, own_credentials
from agent.config import from_environ
from agent.http.access import Who
from agent.http.calls import CALLS
from tests.integration.agent.test_commands import slot_agent
from tests.support.agent_process import POOL_TOKEN, AgentProcess, Refused, running_agent, wait_for
from tests.support.mounted import mount

READ_TOKEN = "good-for-reading-alone"

AGENT_UID, WORKER_UID, GROUP, OTHER_GROUP = 65532, 1000, 2000, 3000

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can take other users' places")


@contextmanager
def user(uid: int, *groups: int) -> Iterator[None]:
    """This process as another user, whose first group is its own."""
    before = os.getgroups()
    os.setgroups(list(groups))
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(before)


@pytest.fixture
def volume() -> Iterator[Path]:
    """An emptyDir as a kubelet makes it for a Pod with fsGroup: of the group, setgid, open to it."""
    # Not in tmp_path, into which only its owner can go.
    with tempfile.TemporaryDirectory() as outer:
        Path(outer).chmod(0o755)
        folder = Path(outer) / "volume"
        folder.mkdir()
        os.chown(folder, 0, GROUP)
        folder.chmod(0o2777)
        yield folder


@as_root
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000])
def test_credentials_are_read_by_the_pods_containers_and_nobody_else(volume: Path, umask: int) -> None:
    """The agent, and a worker with another uid that shares the fsGroup; whatever the image's umask is."""
    state = volume.parent / "state"
    state.mkdir()
    state.chmod(0o777)
    settings = from_environ(
        {
            "PODSLOTS_POD_UID": "u",
            "PODSLOTS_STATE_DIR": str(state),
            "PODSLOTS_TOKENS_DIR": str(volume),
            "PODSLOTS_CREDENTIALS_DIR": str(volume),
        }
    )
    before = os.umask(umask)
    try:
        with user(AGENT_UID, GROUP):
            made = own_credentials(settings)
            assert own_credentials(settings) == made, "and a restart reads them again"
    finally:
        os.umask(before)
    for name in ("0", "1", "2", "local"):
        token = volume / name / "token"
        mode = token.stat()
        assert (stat.S_IMODE(mode.st_mode), mode.st_uid, mode.st_gid) == (0o440, AGENT_UID, GROUP)
        with user(WORKER_UID, GROUP):
            assert token.read_text() in made.values()
            with pytest.raises(PermissionError):
                token.write_text("mine")
            with pytest.raises(PermissionError):
                token.with_name("other").write_text("mine")
        with user(WORKER_UID, OTHER_GROUP), pytest.raises(PermissionError):
            token.read_text()
    with user(WORKER_UID, GROUP), pytest.raises(PermissionError):
        settings.close_token_file.read_text()


def test_tokens_that_a_kubelet_swaps_are_taken_within_seconds_and_named_by_id(tmp_path: Path) -> None:
    """T16, T17: a mounted Secret changes by one swap of a link. No restart, and no moment without a valid token."""
    with running_agent(tmp_path) as agent:
        (agent.tokens_dir / "token-1").unlink()
        incarnation = agent.state().incarnation
        mount(agent.tokens_dir, {"2026-01": b"token-of-january"})
        until_named(agent, "2026-01")
        for secrets in (
            {"2026-01": b"token-of-january", "2026-02": b"token-of-february"},
            {"2026-02": b"token-of-february"},
            {"2026-02": b"token-of-february", "2026-03": b"token-of-march"},
        ):
            mount(agent.tokens_dir, secrets)
            until_named(agent, *secrets)
            for token in secrets.values():
                assert agent.call("POST", "/drain", {"drain_id": "d"}, token=token.decode())[0] == 200
        wait_for(lambda: refused(agent, "token-of-january"), "the old token is good no more")
        assert agent.state().incarnation == incarnation


def until_named(agent: AgentProcess, *ids: str) -> None:
    wait_for(lambda: agent.state().tokens == tuple(sorted(ids)), f"the tokens {ids} are reported")


def refused(agent: AgentProcess, token: str) -> bool:
    return agent.call("POST", "/drain", {"drain_id": "d"}, token=token)[0] == 401


def test_a_folder_that_can_not_be_read_takes_no_token_away(tmp_path: Path) -> None:
    """Losing the mount is no reason to lock the controller out."""
    with running_agent(tmp_path) as agent:
        agent.tokens_dir.rename(tmp_path / "gone")
        began = time.monotonic()
        # A token that nobody has makes the agent read the folder again.
        wait_for(lambda: refused(agent, "nobody's") and seconds_since(began) > 1.5, "the folder was read")
        assert agent.call("POST", "/drain", {"drain_id": "d"}, token=POOL_TOKEN)[0] == 200
        assert agent.state().tokens == ("token-1",)


def seconds_since(moment: float) -> float:
    return time.monotonic() - moment


def test_every_write_without_a_credential_is_refused_and_says_how(tmp_path: Path) -> None:
    """401 with WWW-Authenticate, of each call that the document lists; nothing is changed."""
    with running_agent(tmp_path) as agent:
        agent.open()
        before = agent.get("/slots")
        for call in CALLS:
            path = call.path.replace("{id}", "0")
            if call.who in {Who.ANYBODY, Who.READERS}:
                continue
            for token in (None, "nobody's"):
                connection = agent.connection()
                headers = {"Authorization": f"Bearer {token}"} if token else {}
                connection.request(call.method, path, b"{}", headers)
                response = connection.getresponse()
                assert json.loads(response.read())["error"] == "unauthorized", path
                assert response.status == 401
                assert response.headers["WWW-Authenticate"].startswith("Bearer")
                connection.close()
        assert agent.get("/slots") == before


def test_locked_reads_need_a_credential_of_the_pools_or_the_pods(tmp_path: Path) -> None:
    """Everything but the probes. A worker's credential is good for /work and reads nothing."""
    with running_agent(tmp_path, environ={"PODSLOTS_LOCK_READS": "1"}) as agent:
        reads = [call.path for call in CALLS if call.who in {Who.ANYBODY, Who.READERS}]
        mount(agent.tokens_dir, {"token-1": POOL_TOKEN.encode(), "read-prometheus": READ_TOKEN.encode()})
        wait_for(lambda: agent.call("GET", "/slots", token=READ_TOKEN)[0] == 200, "the new token is good")
        tokens = {
            Kind.POOL: POOL_TOKEN,
            Kind.READER: READ_TOKEN,
            Kind.LOCAL: agent.credential("local"),
            Kind.CLOSE: agent.close_token,
        }
        for path in (*(read.replace("{id}", "t") for read in reads), "/slots?watch=true"):
            probe = path in {"/healthz", "/readyz"}
            expected = {200} if probe else {401}
            assert agent.call("GET", path)[0] in expected, path
            assert agent.call("GET", path, token="nobody's")[0] in expected, path
            assert agent.call("GET", path, headers={"Accept": "text/plain"})[0] in expected, path
            assert agent.call("GET", path, token=agent.credential("0"))[0] in ({200} if probe else {403}), path
            if "watch" not in path:
                for token in tokens.values():
                    assert agent.call("GET", path, token=token)[0] in {200, 404}, path
        connection = agent.connection()
        connection.request("GET", "/slots?watch=true", headers={"Authorization": f"Bearer {POOL_TOKEN}"})
        assert json.loads(connection.getresponse().readline())["type"] == "STATE"
        connection.close()
        assert agent.get("/slots", token=READ_TOKEN)["tokens"] == ["token-1"]
        for call in CALLS:
            if call.who not in {Who.ANYBODY, Who.READERS}:
                status, _ = agent.call(call.method, call.path.replace("{id}", "0"), b"{}", token=READ_TOKEN)
                assert status == 403, f"{call.path} is no read"
        assert slot_agent("slots", environ=agent.environ).returncode == 0, "in the agent's own container"
        local = {"PODSLOTS_URL": agent.url, "PODSLOTS_CREDENTIAL_DIR": str(agent.credentials_dir / "local")}
        assert slot_agent("slots", environ=local).returncode == 0, "and in a workload's"
        assert slot_agent("slots", environ={"PODSLOTS_URL": agent.url}).returncode == 1
        with pytest.raises(Refused) as said:
            agent.get("/slots")
        assert said.value.code == "unauthorized"
