"""The worker: runs one slot's commands and asks the agent for them. Standard library only: it starts fast and small.

Pure: `core` (what to do on each answer, event and moment), `kept_step`, `marks`, `masking`, `pacing`, `digest`,
`environment`, `config`. On the disk: `directories`, `preparation`, `files`, `recovery`, `kept_log`. Processes: `step`,
`processes`, `output`. The network: `client`, `connection`, `tls`. `loop` waits on all of them in one thread, so that a
fork is safe and the kernel's parent-death signal follows the process and not a thread; `__main__` puts it together.
asyncio, http.client, subprocess and logging cost more than a start may take.
"""
