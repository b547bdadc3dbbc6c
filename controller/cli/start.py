"""The program `podslots`. Ctrl-C ends it with 130 and without a traceback, while it is loaded too."""

import io
import os
import signal
import sys

INTERRUPTED = 130


def _end_at_once(_number: int, _frame: object) -> None:
    """For as long as there is nothing to be tidied up: modules are being loaded, or the last line is out."""
    os._exit(INTERRUPTED)


def _have_output_wait() -> None:
    """Nothing written is lost while the reader is slow, whatever others do to a stdout that they share with us.

    node makes its own non-blocking. With PYTHONUNBUFFERED Python drops what such a stdout, or a full disk, does not
    take at once.
    """
    for stream in (sys.stdout, sys.stderr):
        # None: it was closed before we began.
        if stream is not None:
            os.set_blocking(stream.fileno(), True)
    if sys.stdout is not None and isinstance(sys.stdout.buffer, io.RawIOBase):
        whole = open(sys.stdout.fileno(), "wb", closefd=False)  # noqa: SIM115 - for as long as we run
        sys.stdout = io.TextIOWrapper(whole, sys.stdout.encoding, sys.stdout.errors, write_through=True)


def main() -> None:
    """Run the command line. Ends the process."""
    signal.signal(signal.SIGINT, _end_at_once)
    _have_output_wait()
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
