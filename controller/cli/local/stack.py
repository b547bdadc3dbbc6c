"""The embedded cluster and a controller for it, as child processes on one state folder.

DIR/cluster/         the embedded cluster's own state; its kubeconfig and audit log are in there
DIR/cluster.log, controller.log   what the two print
DIR/logs/            containers' logs, if they are to outlive their Pods
DIR/processes.json   who they are: pid and start time, which together are never used again
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from controller import crds
from controller.cli.local.processes import KUBECONFIG, READY, Running, StackError, recorded, start_ticks, write_records

AGENT_IMAGE = "podslots/agent:local"
START_SECONDS = 30.0
STOP_GRACE_SECONDS = 10.0
"""What containers get to end when the cluster stops."""
STOP_SECONDS = 20.0
"""What the processes themselves get: more than the grace of the containers that the cluster waits for."""
LEASE_SECONDS = 4
"""A controller that makes a new Lease waits this long before it acts. There is only one here, on one clock."""
POLL_SECONDS = 0.05
LOG_TAIL_LINES = 15


class Stack:
    """Starts, finds and stops the two processes of one state folder."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.folder = folder.absolute()
        self._environ = environ
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self.ready: dict[str, Any] = {}
        self.status_page = ""

    @property
    def kubeconfig(self) -> Path:
        """For people: the administrator's."""
        return self.folder / KUBECONFIG

    @property
    def audit_log(self) -> Path:
        """What was asked of the API server, a line each."""
        return self.folder / "cluster" / "audit.jsonl"

    def kubeconfig_of(self, user: str) -> Path:
        """The kubeconfig of one user: admin, podslots-controller or demo."""
        return self.folder / "cluster" / f"kubeconfig-{user}"

    @property
    def started(self) -> list[str]:
        """The names of the processes that this object has started."""
        return list(self._children)

    def api_server(self) -> str:
        """The URL of the API server that was started last; empty if there was none."""
        try:
            return str(json.loads((self.folder / READY).read_text())["url"])
        except (OSError, ValueError, KeyError):
            return ""

    def page(self) -> str:
        """The URL of the status page, as the controller has said it last; empty if it has not."""
        log = self.folder / "controller.log"
        if log.is_file():
            self._serves(log, 0)
        return self.status_page

    def running(self) -> list[Running]:
        """The folder's processes that are alive."""
        return [process for process in self._recorded() if self._alive(process)]

    @property
    def cluster_was_killed(self) -> bool:
        """Whether the cluster ended without stopping its Pods, which run on without it."""
        return any(process.name == "cluster" and not self._alive(process) for process in self._recorded())

    def _page_port(self) -> int:
        """The port that the status page had last, so that an open page goes on; 0, which is any, if it is taken."""
        port = urlsplit(self.page()).port or 0
        self.status_page = ""
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            return 0
        return port

    def refuse_a_second(self) -> None:
        """Raise StackError if both run already."""
        if len(self.running()) > 1:
            raise StackError(f"cluster and controller of {self.folder} run already")

    def _recorded(self) -> list[Running]:
        return recorded(self.folder)

    async def start(
        self,
        *,
        keep_pods: bool = False,
        keep_logs: bool = False,
        http_port: int = 0,
        stop_grace_seconds: float = STOP_GRACE_SECONDS,
    ) -> None:
        """Start both; returns when the API server serves and the controller runs. Raises StackError.

        If one of them was killed, it is replaced. A cluster that lives is left alone, with all that runs in it.
        A start that fails, or is cancelled, stops what it has started, and leaves the folder's records as they were.
        """
        recorded_before = self._recorded()
        self.refuse_a_second()
        found = {process.name: process for process in self.running()}
        self._make_folder()
        ready = self.folder / READY
        try:
            if "controller" in found:
                await self._end(found["controller"])
            if "cluster" not in found:
                ready.unlink(missing_ok=True)
                self._spawn(
                    "cluster",
                    self._cluster_command(ready, stop_grace_seconds, keep_pods=keep_pods, keep_logs=keep_logs),
                    {},
                )
                await self._until(ready.exists)
            self.ready = json.loads(ready.read_text())
            log = self.folder / "controller.log"
            before = log.stat().st_size if log.exists() else 0
            environ = self._controller_environ(http_port or self._page_port())
            self._spawn("controller", [sys.executable, "-m", "controller"], environ)
            await self._until(lambda: self._serves(log, before))
        except BaseException:
            # Not by the records: they lack a process if they could not be written.
            for name, child in reversed(self._children.items()):
                await self._end(Running(name=name, pid=child.pid, start_ticks=start_ticks(child.pid) or 0))
            write_records(self.folder, recorded_before)
            raise

    def _make_folder(self) -> None:
        """Make the state folder, if it is not there. Raises StackError."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            above = next(path for path in self.folder.parents if path.exists())
            why = "that is a file" if not above.is_dir() else error.strerror
            raise StackError(f"the state folder {self.folder} can't be made in {above}: {why}") from error
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise StackError(f"the state folder {self.folder} can't be written to")

    def check(self) -> None:
        """Raise StackError if a process that this object started has ended."""
        for name, child in self._children.items():
            if child.poll() is not None:
                raise StackError(f"the {name} ended with status {child.returncode}:\n{self.log_tail(name)}")

    async def stop(self) -> None:
        """Stop the controller, then the cluster with all its Pods. A process that takes too long is killed."""
        for process in sorted(self.running(), key=lambda process: process.name, reverse=True):
            await self._end(process)
        write_records(self.folder, ())

    async def _end(self, process: Running) -> None:
        loop = asyncio.get_running_loop()
        process.send(signal.SIGTERM)
        deadline = loop.time() + STOP_SECONDS
        while self._alive(process):
            if loop.time() > deadline:
                process.send(signal.SIGKILL)
            await asyncio.sleep(POLL_SECONDS)

    def log_tail(self, name: str) -> str:
        """The last lines that a process printed."""
        try:
            lines = (self.folder / f"{name}.log").read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-LOG_TAIL_LINES:])

    def _cluster_command(
        self, ready: Path, stop_grace_seconds: float, *, keep_pods: bool, keep_logs: bool
    ) -> list[str]:
        return [
            *(sys.executable, "-m", "controller.local"),
            *("--state-dir", str(self.folder / "cluster"), "--crds", str(crds.folder()), "--ready-file", str(ready)),
            *("--policies", str(crds.policies_folder()), "--roles", str(crds.roles_file())),
            *("--image", f"{AGENT_IMAGE}=slot-agent"),
            *("--stop-grace-seconds", f"{stop_grace_seconds:g}"),
            *(["--keep-pods"] if keep_pods else []),
            *(["--keep-logs", str(self.folder / "logs")] if keep_logs else []),
        ]

    def _controller_environ(self, http_port: int) -> dict[str, str]:
        return {
            "PODSLOTS_KUBECONFIG": str(self.kubeconfig_of("podslots-controller")),
            "PODSLOTS_NAMESPACE": "default",
            "PODSLOTS_AGENT_IMAGE": AGENT_IMAGE,
            "PODSLOTS_LEASE_SECONDS": str(LEASE_SECONDS),
            "PODSLOTS_HTTP_HOST": "127.0.0.1",
            "PODSLOTS_HTTP_PORT": str(http_port),
        }

    def _serves(self, log: Path, before: int) -> bool:
        """Whether the controller has said since `before` where its status page is."""
        with log.open("rb") as file:
            file.seek(before)
            for line in file.read().splitlines():
                with contextlib.suppress(ValueError):  # a traceback, or half a line
                    entry = json.loads(line)
                    if entry.get("message") == "serving":
                        self.status_page = f"http://127.0.0.1:{entry['port']}/"
        return bool(self.status_page)

    def _spawn(self, name: str, command: Sequence[str], environ: Mapping[str, str]) -> None:
        """In a session of its own: a Ctrl-C in the terminal is for us, who stop them in order. Raises StackError."""
        path = self.folder / f"{name}.log"
        try:
            with path.open("ab") as log:
                child = subprocess.Popen(  # noqa: S603 - our own programs
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**self._environ, **environ},
                    start_new_session=True,
                )
        except OSError as error:
            raise StackError(f"the {name} can't be started: {error.filename or path}: {error.strerror}") from error
        self._children[name] = child
        started = Running(name=name, pid=child.pid, start_ticks=start_ticks(child.pid) or 0)
        write_records(self.folder, [*(process for process in self.running() if process.name != name), started])

    def _alive(self, process: Running) -> bool:
        for child in self._children.values():
            if child.pid == process.pid:
                return child.poll() is None  # reaps it, too
        return process.alive

    async def _until(self, condition: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(START_SECONDS):
                while not condition():
                    self.check()
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise StackError(f"not ready after {START_SECONDS:g} s:\n{self.log_tail('cluster')}") from None
