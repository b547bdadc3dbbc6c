"""Signals while a process starts: kept, and delivered once somebody can take them.

The first process of a container gets no signal that it has no handler for. Until the handlers stand, SIGTERM and SIGINT
are blocked: the kernel keeps what is blocked, even for that process. The binary's launcher blocks them first of all, so
that nothing is lost while Python starts. Standard library only.
"""

import signal

_STOPPING = (signal.SIGTERM, signal.SIGINT)


def keep() -> None:
    """Block them, for as long as there is no handler."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)


def deliver() -> None:
    """The handlers stand: take what has come meanwhile, and what comes."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
