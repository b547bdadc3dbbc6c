"""What ends a command that runs until it is interrupted: Ctrl-C, SIGTERM, and the end of its terminal."""

import asyncio
import signal
from collections.abc import Callable


def call_on_interrupt(call: Callable[[], None]) -> None:
    """Have the running loop call this at each of them.

    SIGHUP says that the terminal is closed. Under `nohup` it is ignored, and stays so.
    """
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, call)
