"""`agent.log.Log` for nobody."""

from typing import Any


class NoLog:
    """Keeps nothing."""

    def event(self, message: str, /, **fields: Any) -> None:
        pass
