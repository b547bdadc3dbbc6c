"""What podslots weighs: all of a Pod that is not the user's work, and a controller with thousands of Pods."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

from tests.bench import controller_memory
from tests.bench.effort import Effort
from tests.bench.machine import Cores, pss_bytes, running_on
from tests.bench.measure import Row
from tests.bench.starts import answers, echo, running, worker_environ
from tests.support.agent_process import LAYOUT, AgentProcess, wait_for
from tests.support.binary import installed

BAR_MIB = 56.0
MIB = 2**20


async def measure(effort: Effort, cores: Cores) -> AsyncIterator[Row]:
    with tempfile.TemporaryDirectory(prefix="podslots-bench-") as name, running_on(cores.server):
        folder = Path(name)
        program = str(installed(folder))
        weights = [_weigh_pod(folder, program) for _ in range(effort.launches)]
    agent, workers = max(weights, key=sum)
    yield Row(
        subject="footprint",
        figure=f"overhead of a whole Pod, PSS: agent and {len(LAYOUT)} workers",
        unit="MiB",
        value=(agent + workers) / MIB,
        bar=BAR_MIB,
        note=f"the binary, after a step in each slot; {agent / MIB:.1f} MiB of it are the agent's",
    )
    async for row in controller_memory.measure(effort, cores):
        yield row


def _weigh_pod(folder: Path, program: str) -> tuple[int, int]:
    """What an agent weighs, and its workers. The file that they run is no other process', so they alone share it."""
    with tempfile.TemporaryDirectory(dir=folder) as own, ExitStack() as stack:
        agent = AgentProcess(Path(own))
        _, serving = stack.enter_context(running([program, "serve"], agent.environ))
        wait_for(lambda: answers(agent.address, agent.port), "the agent serves")
        workers = []
        for slot in range(len(LAYOUT)):
            (place := Path(own, f"worker-{slot}")).mkdir()
            environ = {
                **worker_environ(place, (agent.address, agent.port)),
                "PODSLOTS_CREDENTIAL_DIR": str(agent.credentials_dir / str(slot)),
                "PODSLOTS_SLOT": str(slot),
            }
            workers.append(stack.enter_context(running([program, "work"], environ))[1])
        wait_for(lambda: all(slot.worker and slot.worker.connected for slot in agent.state().slots), "workers connect")
        agent.open()
        for slot in range(len(LAYOUT)):
            agent.acquire(f"task-{slot}.1", "plan", echo())
        wait_for(lambda: len(agent.state().ended) == len(LAYOUT), "the steps have ended")
        return pss_bytes(serving.pid), sum(pss_bytes(worker.pid) for worker in workers)
