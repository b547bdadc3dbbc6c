"""How fast agent and worker start, and what a worker weighs, beside bare Python processes."""

import http.client
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from tests.bench.figures import Bar, Figure
from tests.support.agent_process import AgentProcess, wait_for
from tests.support.worker_process import WorkerProcess

ROUNDS = 5
IMPORT_AIOHTTP = (sys.executable, "-c", "import aiohttp.web")
PASS = (sys.executable, "-c", "pass")
INSTALLED = (str(Path(sys.executable).parent / "slot-agent"), "install")


def measure() -> Iterator[Figure]:
    """All figures of this module."""
    agent = median(_agent_start() for _ in range(ROUNDS))
    yield Figure(
        name="agent start to first GET /slots",
        unit="s",
        measured=agent,
        reference=median(_run(IMPORT_AIOHTTP) for _ in range(ROUNDS)),
        of='python -c "import aiohttp.web"',
        bar=Bar.AT_MOST_TIMES,
        limit=3,
    )
    starts, weights = zip(*(_worker() for _ in range(ROUNDS)), strict=True)
    yield Figure(
        name="worker start to its registration",
        unit="s",
        measured=median(starts),
        reference=median(_run(PASS) for _ in range(ROUNDS)),
        of="python -c pass",
        bar=Bar.AT_MOST_TIMES,
        limit=4,
    )
    yield Figure(
        name="worker RSS",
        unit="MiB",
        measured=median(weights),
        reference=median(_bare_rss() for _ in range(ROUNDS)),
        of="python -c pass",
        bar=Bar.AT_MOST_TIMES,
        limit=2,
    )


def _run(command: tuple[str, ...]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - began


def _agent_start() -> float:
    with tempfile.TemporaryDirectory() as folder:
        agent = AgentProcess(Path(folder))
        began = time.perf_counter()
        agent.start()
        try:
            _until(lambda: _answers(agent))
            return time.perf_counter() - began
        finally:
            agent.kill()


def _answers(agent: AgentProcess) -> bool:
    connection = http.client.HTTPConnection(agent.address, agent.port, timeout=5)
    try:
        connection.request("GET", "/slots")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def _worker() -> tuple[float, float]:
    """Seconds to the registration, and MiB after it, of a worker as `slot-agent install` starts it."""
    with tempfile.TemporaryDirectory() as folder:
        agent = AgentProcess(Path(folder) / "agent")
        subprocess.run([*INSTALLED, folder], check=True)
        agent.start()
        try:
            wait_for(lambda: _answers(agent), "the agent serves")
            work = Path(folder) / "work"
            worker = WorkerProcess(
                f"http://{agent.address}:{agent.port}", agent.credentials_dir / "0", work, command=()
            )
            return _timed_worker(worker, agent, Path(folder) / "slot-agent")
        finally:
            agent.kill()


def _timed_worker(worker: WorkerProcess, agent: AgentProcess, program: Path) -> tuple[float, float]:
    worker.work_dir.mkdir()
    began = time.perf_counter()
    process = subprocess.Popen(
        [str(program), "work"], env=worker.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _until(lambda: agent.state().slots[0].worker is not None)
        return time.perf_counter() - began, _rss_mib(process.pid)
    finally:
        process.kill()
        process.wait()


def _bare_rss() -> float:
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        if process.stdout is not None:
            process.stdout.readline()
        weight = _rss_mib(process.pid)
        process.kill()
    return weight


def _rss_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _until(condition: Callable[[], bool]) -> None:
    """Poll fast: what is measured takes tens of milliseconds."""
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("not ready after 30 s")
        time.sleep(0.001)
