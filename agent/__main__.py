"""`slot-agent`: one program for the agent, its workers, and the calls that containers make.

Each sub-command imports what it needs and no more: a worker must start in a fraction of what the server takes.
"""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from types import FrameType

from agent import signals


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run a sub-command; returns its exit status."""
    signals.keep()
    words = list(sys.argv[1:] if arguments is None else arguments)
    environment = os.environ if environ is None else environ
    if words == ["work"]:
        # Before argparse, which takes as long to import as the worker's own parts.
        from agent.worker.__main__ import main as work  # noqa: PLC0415

        return work(environment)
    if words == ["serve"]:
        from agent.app import main as serve  # noqa: PLC0415

        return serve(environment)
    signal.signal(signal.SIGTERM, _end)
    signals.deliver()
    from agent.commands import main as command  # noqa: PLC0415

    return command(words, environment)


def _end(number: int, frame: FrameType | None) -> None:
    """Without a handler the first process of a container, as the one that installs is, would not be ended."""
    del frame
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
