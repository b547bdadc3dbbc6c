"""How fast agent and worker start, and what a worker weighs, beside bare Python processes."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from agent.wire import Steps, StepSpec, Work
from tests.bench.effort import Effort
from tests.bench.load import request
from tests.bench.machine import Cores, cpu_seconds, rss_bytes, running_on
from tests.bench.measure import Measure, Row, Sample, interleave
from tests.support.agent_process import AgentProcess, own_address, running_agent, wait_for
from tests.support.binary import built, installed

IMPORT_AIOHTTP = (sys.executable, "-c", "import aiohttp.web")
PASS = (sys.executable, "-c", "pass")
WAITING = (sys.executable, "-c", "print(flush=True); input()")
"""As `pass`, but there to be weighed."""
INSTALL: tuple[str, ...] = (sys.executable, "-m", "agent", "install")
TIMEOUT_SECONDS = 30.0
MIB = 2**20


async def measure(effort: Effort, cores: Cores) -> AsyncIterator[Row]:
    """What `slot-agent install` puts into a worker's container, from the sources and from the binary."""
    with tempfile.TemporaryDirectory(prefix="podslots-bench-") as name, running_on(cores.server):
        source, binary = Path(name, "source"), Path(name, "binary")
        subprocess.run([*INSTALL, source], check=True)  # noqa: ASYNC221 - nothing else is to run meanwhile
        async for row in _figures("", source, effort):
            yield row
        yield Row(subject="starts", figure="binary: its size", unit="MiB", value=built().stat().st_size / MIB)
        installed(binary)
        async for row in _figures("binary: ", binary, effort):
            yield row


async def _figures(kind: str, folder: Path, effort: Effort) -> AsyncIterator[Row]:
    """Of FOLDER/slot-agent."""
    program = str(folder / "slot-agent")
    started = await interleave(_agent_start(folder, program), to_its_end(IMPORT_AIOHTTP), effort.starts)
    yield started.row(
        "starts",
        f"{kind}agent, from its start to the first GET /slots",
        "ms",
        reference_name='python -c "import aiohttp.web", to its end',
        bar=1.5,
        note="as `slot-agent install` starts it",
    )
    started = await interleave(_worker_start(folder, program), to_its_end(PASS), effort.starts)
    yield started.row(
        "starts",
        f"{kind}worker, from its start to its registration",
        "ms",
        reference_name="python -c pass, to its end",
        bar=3.0,
        note="as `slot-agent install` starts it",
    )
    serving = max(_weigh_agent(folder, program) for _ in range(effort.launches))
    yield Row(subject="starts", figure=f"{kind}agent RSS, serving", unit="MiB", value=serving / MIB)
    waiting, after_step = zip(*(_weigh_worker(folder, program) for _ in range(effort.launches)), strict=True)
    bare = min(_weigh_bare() for _ in range(effort.launches))
    for figure, weights in (("waiting for work", waiting), ("after a step", after_step)):
        yield Row(
            subject="starts",
            figure=f"{kind}worker RSS, {figure}",
            unit="MiB",
            value=max(weights) / MIB,
            reference=bare / MIB,
            reference_name="python -c pass",
            ratio=max(weights) / bare,
            bar=1.6,
        )


def to_its_end(command: tuple[str, ...], environ: Mapping[str, str] | None = None) -> Measure:
    """A process from its start to its end."""

    async def sample() -> Sample:
        return _run(command, environ)

    return sample


def _run(command: tuple[str, ...], environ: Mapping[str, str] | None) -> Sample:
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise AssertionError(f"{command} ended with status {process.returncode}")
    return Sample(value=1e3 * (time.perf_counter() - began), cpu=used.ru_utime + used.ru_stime)


def _agent_start(folder: Path, program: str) -> Measure:
    async def sample() -> Sample:
        with tempfile.TemporaryDirectory(dir=folder) as own:
            agent = AgentProcess(Path(own))
            with running([program, "serve"], agent.environ) as (began, process):
                _until(lambda: answers(agent.address, agent.port), process)
                return Sample(value=1e3 * (time.perf_counter() - began), cpu=cpu_seconds(process.pid))

    return sample


def answers(host: str, port: int) -> bool:
    """Whether an agent answers there."""
    with socket.socket() as connection:
        connection.settimeout(TIMEOUT_SECONDS)
        try:
            connection.connect((host, port))
            connection.sendall(request("GET", "/slots"))
            return connection.recv(65536).startswith(b"HTTP/1.1 200")
        except OSError:
            return False


def _worker_start(folder: Path, program: str) -> Measure:
    """Until its registration has come in at a socket: what an agent takes to answer is not the worker's."""

    async def sample() -> Sample:
        with tempfile.TemporaryDirectory(dir=folder) as own, socket.create_server((own_address(), 0)) as listening:
            listening.settimeout(TIMEOUT_SECONDS)
            environ = worker_environ(Path(own), listening.getsockname())
            with running([program, "work"], environ) as (began, process):
                connection, _ = listening.accept()
                with connection:
                    if not connection.recv(65536).startswith(b"POST /work/register"):
                        raise AssertionError("the first request was not the registration")
                return Sample(value=1e3 * (time.perf_counter() - began), cpu=cpu_seconds(process.pid))

    return sample


def _weigh_agent(folder: Path, program: str) -> int:
    """Resident memory of an agent that has answered once."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        agent = AgentProcess(Path(own))
        with running([program, "serve"], agent.environ) as (_, process):
            _until(lambda: answers(agent.address, agent.port), process)
            return rss_bytes(process.pid)


def worker_environ(folder: Path, address: tuple[str, int]) -> dict[str, str]:
    """Of a worker of slot 0, on a new folder."""
    credential, work = folder / "credential", folder / "work"
    credential.mkdir()
    work.mkdir()
    (credential / "token").write_text("x" * 43)
    return {
        "PATH": os.environ["PATH"],
        "PODSLOTS_URL": f"http://{address[0]}:{address[1]}",
        "PODSLOTS_SLOT": "0",
        "PODSLOTS_CREDENTIAL_DIR": str(credential),
        "PODSLOTS_WORK_DIR": str(work),
    }


def _weigh_worker(folder: Path, program: str) -> tuple[int, int]:
    """Resident memory of a worker that is registered, and after it ran a command."""
    with tempfile.TemporaryDirectory(dir=folder) as own, running_agent(Path(own)) as agent:
        environ = {
            **worker_environ(Path(own), (agent.address, agent.port)),
            "PODSLOTS_CREDENTIAL_DIR": str(agent.credentials_dir / "1"),
            "PODSLOTS_SLOT": "1",
        }
        with running([program, "work"], environ) as (_, process):
            wait_for(lambda: (link := agent.state().slots[1].worker) and link.connected, "the worker is connected")
            waiting = rss_bytes(process.pid)
            agent.open()
            agent.acquire("task.1", "plan", echo())
            wait_for(lambda: agent.state().ended, "the step has ended")
            return waiting, rss_bytes(process.pid)


def echo() -> Work:
    """A short step."""
    return Work(name="default/task", attempt=1, steps=Steps(plan=StepSpec(command=("/bin/echo", "hello"))))


def _weigh_bare() -> int:
    with subprocess.Popen(WAITING, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        weight = rss_bytes(process.pid)
        process.communicate(b"\n")
    return weight


@contextmanager
def running(command: list[str], environ: Mapping[str, str]) -> Iterator[tuple[float, subprocess.Popen[bytes]]]:
    """A process for a while, and when it began."""
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield began, process
    finally:
        process.kill()
        process.wait()


def _until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Poll fast: what is measured takes tens of milliseconds."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        if process.poll() is not None:
            raise AssertionError(f"{process.args!r} ended with status {process.returncode}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {TIMEOUT_SECONDS} s")
        time.sleep(0.002)
