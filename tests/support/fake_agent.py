"""An agent's /work side for tests of the worker: real HTTP on loopback, with faults to switch on.

It keeps to the protocol where a worker can tell: a poll is held until there is something to say, a report is answered
the same each time, an instance that did not register is refused. What it saw is kept for assertions on the state of
the world.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from agent.wire import (
    Assignment,
    ErrorCode,
    ExitReport,
    OutputAnswer,
    RegisterRequest,
    StartedReport,
    Step,
    WorkAnswer,
    decode,
    encode,
)

TOKEN = "slot-credential"


class FakeAgent:
    """One slot's agent. Use `running()`; then `offer` steps and look at what came back."""

    def __init__(self, credential_dir: Path) -> None:
        credential_dir.mkdir(parents=True, exist_ok=True)
        (credential_dir / "token").write_text(TOKEN)
        self.credential_dir = credential_dir
        self.hold_seconds = 5.0
        self.offer_running_too = False
        """Offer a step again although its start was reported: what a worker has to stand."""
        self.registrations: list[RegisterRequest] = []
        self.started: list[StartedReport] = []
        self.exits: list[ExitReport] = []
        self.output: dict[tuple[str, str], bytearray] = {}
        self.requests: Counter[str] = Counter()
        self.drop: Counter[str] = Counter()
        """How many requests of a path are taken, with their answer lost."""
        self.lose: Counter[str] = Counter()
        """How many requests of a path never arrive."""
        self.refuse: Counter[str] = Counter()
        """How many requests of a path get a 503."""
        self.delay_seconds: dict[str, float] = {}
        self.final: dict[str, tuple[int, str]] = {}
        """Paths that are always refused, with status and code."""
        self.away = False
        """Nothing is answered at all."""
        self._registered: str | None = None
        self._superseded: set[str] = set()
        self._offers: dict[str, Assignment] = {}
        self._cancel: set[str] = set()
        self._forget: list[str] = []
        self._changed = threading.Condition()
        self.port = 0

    @contextmanager
    def running(self, port: int = 0) -> Iterator["FakeAgent"]:
        server = _Server(("127.0.0.1", port), _handler(self))
        self.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.away = True
            with self._changed:
                self._changed.notify_all()
            server.shutdown()
            server.server_close()
            thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def offer(self, assignment: Assignment) -> None:
        """Offer a step until its start or end is reported."""
        with self._changed:
            self._offers[assignment.task_id] = assignment
            self._changed.notify_all()

    def cancel(self, task_id: str) -> None:
        with self._changed:
            self._cancel.add(task_id)
            self._changed.notify_all()

    def forget(self, task_id: str) -> None:
        with self._changed:
            self._forget.append(task_id)
            self._offers.pop(task_id, None)
            self._changed.notify_all()

    def restart(self) -> None:
        """As if started anew from its journal: who is registered is not in it."""
        with self._changed:
            self._registered = None
            self._changed.notify_all()

    def supersede(self) -> None:
        """As if another worker had registered."""
        with self._changed:
            if self._registered:
                self._superseded.add(self._registered)
            self._registered = "another"
            self._changed.notify_all()

    def wait(self, condition: Callable[[], Any], seconds: float = 60.0) -> Any:
        """Until the condition holds, looked at whenever a request came in, and often besides."""
        until = time.monotonic() + seconds
        with self._changed:
            while not (result := condition()):
                if time.monotonic() > until:
                    raise AssertionError(f"did not come true in {seconds} s; requests: {dict(self.requests)}")
                self._changed.wait(0.02)
        return result

    def exit_of(self, task_id: str, step: Step, seconds: float = 60.0) -> ExitReport:
        """The first report of the step's end, once it is there."""

        def found() -> ExitReport | None:
            return next((report for report in self.exits if (report.task_id, report.step) == (task_id, step)), None)

        report: ExitReport = self.wait(found, seconds)
        return report

    def log(self, task_id: str, step: Step = Step.PLAN) -> bytes:
        return bytes(self.output.get((task_id, step.value), b""))

    # --- requests ---------------------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, params: dict[str, str], body: bytes) -> tuple[int, Any]:
        """Status and JSON of the answer."""
        with self._changed:
            self.requests[path] += 1
            self._changed.notify_all()
            if path in self.final:
                status, code = self.final[path]
                return status, {"error": code, "message": "refused by a test"}
            if self.refuse[path] > 0:
                self.refuse[path] -= 1
                return 503, {"error": ErrorCode.STORAGE, "message": "the disk is full"}
            if (method, path) == ("POST", "/work/register"):
                return self._register(decode(RegisterRequest, json.loads(body), strict=True))
            instance = params.get("instance") or json.loads(body)["instance"]
            if instance in self._superseded:
                return 409, {"error": ErrorCode.SUPERSEDED, "message": ""}
            if instance != self._registered:
                return 409, {"error": ErrorCode.UNREGISTERED, "message": ""}
            return self._work(method, path, params, body)

    def _register(self, request: RegisterRequest) -> tuple[int, Any]:
        self.registrations.append(request)
        self._registered = request.instance
        return 200, encode(self._now("") or WorkAnswer())

    def _work(self, method: str, path: str, params: dict[str, str], body: bytes) -> tuple[int, Any]:
        if (method, path) == ("GET", "/work"):
            return self._poll(params)
        if path == "/work/output":
            log = self.output.setdefault((params["task_id"], params["step"]), bytearray())
            if int(params["offset"]) == len(log):
                log += body
            return 200, encode(OutputAnswer(offset=len(log)))
        if path == "/work/started":
            self.started.append(decode(StartedReport, json.loads(body), strict=True))
        else:
            report = decode(ExitReport, json.loads(body), strict=True)
            self.exits.append(report)
            offered = self._offers.get(report.task_id)
            if offered and offered.step is report.step:
                del self._offers[report.task_id]
        return 200, {}

    def _poll(self, params: dict[str, str]) -> tuple[int, Any]:
        until = time.monotonic() + self.hold_seconds
        while not (answer := self._now(params.get("task_id", ""))):
            if self._registered != params["instance"] or self.away:
                return 409, {"error": ErrorCode.UNREGISTERED, "message": ""}
            if time.monotonic() > until:
                return 204, None
            self._changed.wait(max(0.0, until - time.monotonic()))
        return 200, encode(answer)

    def _now(self, named: str) -> WorkAnswer | None:
        """What there is to say to a poll that names this task, or none."""
        forget, self._forget = tuple(self._forget), []
        reports: list[StartedReport | ExitReport] = [*self.started, *self.exits]
        begun = {report.task_id + report.step for report in reports}
        for offer in self._offers.values():
            if offer.task_id + offer.step not in begun or self.offer_running_too:
                return WorkAnswer(run=offer, cancel=offer.task_id in self._cancel, forget=forget)
        if named in self._cancel or forget:
            return WorkAnswer(cancel=named in self._cancel, forget=forget)
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: Any) -> None:
        """A worker that was killed resets its connections; what matters shows in the test."""


def _handler(agent: FakeAgent) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            url = urlsplit(self.path)
            if agent.away or agent.lose[url.path] > 0:
                agent.lose[url.path] -= 1
                self.close_connection = True
                return
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._reply(401, {"error": ErrorCode.UNAUTHORIZED, "message": ""})
                return
            params = {name: values[0] for name, values in parse_qs(url.query).items()}
            status, answer = agent.answer(self.command, url.path, params, body)
            time.sleep(agent.delay_seconds.get(url.path, 0.0))
            if agent.away or agent.drop[url.path] > 0:
                agent.drop[url.path] -= 1
                self.close_connection = True
                return
            self._reply(status, answer)

        do_GET = do_POST = _serve  # noqa: N815 - http.server's names

        def _reply(self, status: int, answer: Any) -> None:
            content = b"" if answer is None else json.dumps(answer).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                if answer is not None:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
