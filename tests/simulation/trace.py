"""What happened, in order: the last events for people, and a hash over all of them for comparing two runs."""

import hashlib
from collections import deque

KEPT = 500
"""How many of the last events are shown with a failure."""


class Trace:
    """Events of one run. `steps` counts them; `whole` keeps every one of them."""

    def __init__(self, *, whole: bool = False) -> None:
        self.steps = 0
        self.events: deque[str] = deque(maxlen=None if whole else KEPT)
        self._hash = hashlib.blake2b(digest_size=12)

    def note(self, seconds: float, text: str) -> None:
        """One event, at so many simulated seconds."""
        line = f"{seconds:9.3f} {text}"
        self.steps += 1
        self.events.append(line)
        self._hash.update(line.encode())

    @property
    def digest(self) -> str:
        """Equal for two runs in which the same happened at the same times."""
        return self._hash.hexdigest()
