"""How the worker deals with a step that an earlier worker started and did not end.

Its processes should be gone: the kernel killed the command with the worker, the container's end the rest. Outside a
container neither happens, so they are killed here. Three kinds of processes are found: the group's leader, if the
process with the recorded id is still the one that was started; every process with the run's id in its environment; and
every process that has the step's lock open, as all descendants of the command have. The step counts as lost only once
its lock is free and none of its processes is left. Silence proves nothing.
"""

import signal

from agent.worker.process import processes
from agent.worker.process.environment import RUN_ID


def kill_remains(run_id: str | None, pid: int | None, started_ticks: int | None, lock_path: str) -> bool:
    """Kill what is left of a run. True if nothing was."""
    remains = processes.with_open_file(lock_path)
    if run_id:
        remains += processes.with_environment(RUN_ID, run_id)
    if pid is not None and started_ticks is not None and processes.start_ticks(pid) == started_ticks:
        processes.send_group(pid, signal.SIGKILL)
    for other in remains:
        processes.send(other, signal.SIGKILL)
    return not remains
