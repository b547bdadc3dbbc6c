"""The worker: runs one slot's commands and asks the agent for them. Standard library only: it starts fast and small.

`rules` decides, pure. `step` runs commands, on `disk` and `process`; `http` speaks with the agent. `loop` waits on all
of them in one thread, so that a fork is safe and the kernel's parent-death signal follows the process and not a thread;
`__main__` puts it together. asyncio, http.client, subprocess and logging cost more than a start may take.
"""
