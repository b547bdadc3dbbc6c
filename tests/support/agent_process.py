"""A real agent in a process of its own, on a loopback address of its own, for tests."""

import contextlib
import http.client
import itertools
import json
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from agent.wire import AgentState, Task, decode, encode
from tests.support.documented import check_answer
from tests.support.repository import ROOT

LAYOUT: tuple[tuple[str, ...], ...] = (("plan", "apply", "plan_and_apply"), ("plan",), ("plan",))
POOL_TOKEN = "pool-token-of-the-tests"

_numbers = itertools.count(1)


def own_address() -> str:
    """A loopback address that no other test process uses at the same time."""
    pid, number = os.getpid(), next(_numbers)
    return f"127.{64 + (pid >> 8) % 128}.{pid % 256}.{1 + number % 250}"


def free_port(address: str) -> int:
    """A port that is free on this address."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """Poll until `condition()` is true; returns what it returned."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.01)
    return result


class Refused(Exception):
    """The agent answered with an error."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(f"{status} {body}")
        self.status = status
        self.body = body

    @property
    def code(self) -> str:
        code: str = self.body["error"]
        return code


class AgentProcess:
    """`slot-agent serve` on a folder. `call` and its friends speak to it over new connections."""

    def __init__(
        self,
        folder: Path,
        *,
        layout: Sequence[Sequence[str]] = LAYOUT,
        pod_uid: str = "pod-uid-1",
        workers: bool = True,
        grace_seconds: int = 30,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.address = own_address()
        self.port = free_port(self.address)
        self.state_dir = folder / "state"
        self.tokens_dir = folder / "tokens"
        self.credentials_dir = folder / "credentials"
        for path in (self.state_dir, self.tokens_dir, self.credentials_dir):
            path.mkdir(parents=True, exist_ok=True)
        (self.tokens_dir / "token-1").write_text(POOL_TOKEN)
        self.environ = {
            "PATH": os.environ["PATH"],
            # On a disk made full by `limit_file_size`, Python would leave half a compiled module in the tree.
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(ROOT),
            "PODSLOTS_POD": "pod-1",
            "PODSLOTS_POD_UID": pod_uid,
            "PODSLOTS_POOL": "terraform",
            "PODSLOTS_POD_IP": self.address,
            "PODSLOTS_PORT": str(self.port),
            "PODSLOTS_LAYOUT": json.dumps([list(accepts) for accepts in layout]),
            "PODSLOTS_GRACE_SECONDS": str(grace_seconds),
            "PODSLOTS_STATE_DIR": str(self.state_dir),
            "PODSLOTS_TOKENS_DIR": str(self.tokens_dir),
            "PODSLOTS_CREDENTIALS_DIR": str(self.credentials_dir),
            "PODSLOTS_WORKERS": "1" if workers else "0",
            **(environ or {}),
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.client_context: ssl.SSLContext | None = None

    # --- the process ------------------------------------------------------------------------------------------------

    def start(self) -> "AgentProcess":
        """Start it and wait until it serves."""
        with (self.folder / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "agent", "serve"], env=self.environ, stdout=log, stderr=log
            )
        wait_for(self._serves, f"the agent serves; its log: {self.folder / 'agent.log'}")
        return self

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """SIGKILL, and a new process on the same folder and address."""
        self.kill()
        self.start()

    def terminate(self) -> None:
        """SIGTERM."""
        assert self.process
        self.process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """End it, however it is."""
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def limit_file_size(self, size_bytes: int | None) -> None:
        """Make its disk full: no file may grow past this size. None: empty again."""
        assert self.process
        limit = resource.RLIM_INFINITY if size_bytes is None else size_bytes
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    def memory_mib(self, field: str) -> float:
        """A line of its /proc/PID/status in MiB: VmRSS is what it has now, VmHWM the most that it had."""
        assert self.process
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))

    def log_lines(self) -> list[dict[str, Any]]:
        """What it logged."""
        return [json.loads(line) for line in (self.folder / "agent.log").read_bytes().splitlines()]

    def _serves(self) -> bool:
        assert self.process
        if self.process.poll() is not None:
            raise AssertionError((self.folder / "agent.log").read_text())
        with contextlib.suppress(OSError):
            return self.call("GET", "/readyz")[0] == 200
        return False

    # --- credentials ------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"http{'s' if 'PODSLOTS_TLS_DIR' in self.environ else ''}://{self.address}:{self.port}"

    def credential(self, name: str) -> str:
        """The token of a slot (`"0"` …) or of the local holders (`"local"`)."""
        return (self.credentials_dir / name / "token").read_text()

    @property
    def close_token(self) -> str:
        return (self.state_dir / "close-token").read_text()

    def connection(self) -> http.client.HTTPConnection:
        """A new connection; with TLS by `client_context`."""
        if self.client_context is None:
            return http.client.HTTPConnection(self.address, self.port, timeout=30)
        return http.client.HTTPSConnection(self.address, self.port, timeout=30, context=self.client_context)

    # --- calls ------------------------------------------------------------------------------------------------------

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """One request: `body` is bytes, or something for JSON. Returns status and body."""
        data = body if body is None or isinstance(body, bytes) else orjson.dumps(encode(body))
        connection = self.connection()
        try:
            sent = dict(headers or {})
            if token is not None:
                sent["Authorization"] = f"Bearer {token}"
            connection.request(method, path, body=data, headers=sent)
            response = connection.getresponse()
            answer = response.read()
            check_answer(method, path, response.status, dict(response.getheaders()), answer)
            return response.status, answer
        finally:
            connection.close()

    def get(self, path: str, *, token: str | None = None) -> Any:
        """The JSON at `path`. Raises Refused."""
        return _json(*self.call("GET", path, token=token))

    def post(self, path: str, body: Any = None, *, token: str | None = POOL_TOKEN) -> Any:
        """What a write answers. Raises Refused."""
        return _json(*self.call("POST", path, {} if body is None else body, token=token))

    def state(self) -> AgentState:
        return decode(AgentState, self.get("/slots"), strict=True)

    def task(self, task_id: str) -> Task:
        return decode(Task, self.get(f"/tasks/{task_id}"), strict=True)

    def open(self) -> None:
        """Take back the drain in force."""
        state = self.state()
        if state.drain_id is not None:
            self.post("/open", {"drain_id": state.drain_id})

    def acquire(self, task_id: str, task_type: str = "plan", work: Any = None, *, token: str = POOL_TOKEN) -> Any:
        body = {"task_id": task_id, "task_type": task_type}
        if work is not None:
            body["work"] = encode(work)
        return self.post("/slots/acquire", body, token=token)

    def metrics(self) -> dict[str, float]:
        """Every series of /metrics with its value."""
        text = self.call("GET", "/metrics")[1].decode()
        pairs = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs}


def _json(status: int, body: bytes) -> Any:
    data = orjson.loads(body)
    if status != 200:
        raise Refused(status, data)
    return data


@contextlib.contextmanager
def running_agent(folder: Path, **options: Any) -> Iterator[AgentProcess]:
    """An agent that serves, and is gone at the end."""
    agent = AgentProcess(folder, **options)
    try:
        yield agent.start()
    finally:
        agent.stop()
