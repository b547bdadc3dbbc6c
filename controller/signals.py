"""Signals while the process starts: kept, and delivered once somebody can take them.

The first process of a container gets no signal that it has no handler for, and loading the controller takes most of a
second: a SIGTERM meanwhile would be lost. What is blocked is kept by the kernel, even for that process.
"""

import signal

STOPPING = (signal.SIGTERM, signal.SIGINT)


def keep() -> None:
    """Block them, for as long as there is no handler."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)


def deliver() -> None:
    """The handlers stand: take what has come meanwhile, and what comes."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
