"""What nobody expected, in something that has to go on all the same."""

import logging
from typing import Any


class Breaks:
    """Says what broke in something that goes on all the same: once, and again when it is something else."""

    def __init__(self, log: logging.Logger, message: str) -> None:
        self._log = log
        self._message = message
        self._said: str | None = None

    def say(self, error: Exception, **about: Any) -> None:
        """Tell of an exception that nobody expected, with its traceback."""
        kind = repr(error)
        if kind != self._said:
            self._said = kind
            self._log.error(self._message, exc_info=error, extra=about)
