"""How long a command of the CLI takes, beside a Python that imports what any such command needs."""

import os
import sys
from collections.abc import AsyncIterator

from tests.bench.effort import Effort
from tests.bench.machine import Cores, running_on
from tests.bench.measure import Row, interleave
from tests.bench.plane import NAMESPACE, TASKS, api_server
from tests.bench.starts import to_its_end
from tests.support.api_client import TOKEN
from tests.support.repository import ROOT

BAR = 4.0
TASKS_LISTED = 20
IMPORTS = (sys.executable, "-c", "import ssl, json, asyncio")
MAIN = "from controller.cli.start import main; main()"
"""As the script that pip makes of the entry point."""

GET_TASKS = (sys.executable, "-c", MAIN, "-n", NAMESPACE, "get", "tasks")


async def measure(effort: Effort, cores: Cores) -> AsyncIterator[Row]:
    async with api_server(cores) as (api, _, folder):
        for number in range(TASKS_LISTED):
            spec = {"pool": "bench", "type": "plan", "steps": {"plan": {"command": ["terraform", "plan"]}}}
            task = {"apiVersion": "podslots.dev/v1alpha1", "kind": "SlotTask", "spec": spec}
            await api.send("POST", TASKS, {**task, "metadata": {"name": f"task-{number}"}})
        environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
            "PODSLOTS_SERVER": api.url,
            "PODSLOTS_TOKEN": TOKEN,
        }
        with running_on(cores.client):
            run = await interleave(to_its_end(GET_TASKS, environ), to_its_end(IMPORTS), effort.starts)
    yield run.row(
        "commands",
        "podslots get tasks",
        "ms",
        reference_name=f'python -c "{IMPORTS[-1]}"',
        bar=BAR,
        note=f"{TASKS_LISTED} tasks, from the source, API server on the other core",
    )
