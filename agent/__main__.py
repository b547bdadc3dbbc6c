"""`slot-agent`: one program for the agent, its workers, and the calls that containers make.

Each sub-command imports what it needs and no more: a worker must start in a fraction of what the server takes.

The first process of a container gets no signal that it has no handler for: a SIGTERM while it starts would be lost. So
agent and worker hold back the signals that ask to stop, the launcher from its first line on, and let them through once
their handlers stand. The other commands end by them, as programs do.
"""

import os
import signal
import sys
from collections.abc import Mapping, Sequence

USAGE_STATUS = 2
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run a sub-command; returns its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    environment = os.environ if environ is None else environ
    lasting = words in (["work"], ["serve"])
    signal.pthread_sigmask(signal.SIG_BLOCK if lasting else signal.SIG_UNBLOCK, STOP_SIGNALS)
    if words == ["work"]:
        # Before argparse, which takes as long to import as the worker's own parts.
        from agent.worker.__main__ import main as work  # noqa: PLC0415

        return work(environment)
    if words == ["serve"]:
        from agent.app import main as serve  # noqa: PLC0415

        return serve(environment)
    from agent.commands import main as command  # noqa: PLC0415

    return command(words, environment)


if __name__ == "__main__":
    sys.exit(main())
