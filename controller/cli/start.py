"""The program `podslots`. Ctrl-C ends it with 130 and without a traceback, while it is loaded too."""

import os
import signal
import sys

from controller.cli.show import streams

INTERRUPTED = 130


def _end_at_once(_number: int, _frame: object) -> None:
    """For as long as there is nothing to be tidied up: modules are being loaded, or the last line is out."""
    os._exit(INTERRUPTED)


def main() -> None:
    """Run the command line. Ends the process."""
    signal.signal(signal.SIGINT, _end_at_once)
    streams.prepare()
    from controller.cli.main import run  # noqa: PLC0415 - Ctrl-C while it is loaded is ours

    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = run()
    except KeyboardInterrupt:
        code = INTERRUPTED
    signal.signal(signal.SIGINT, _end_at_once)
    sys.exit(code)


if __name__ == "__main__":
    main()
