"""Switches for what can go wrong with a node, for tests and for trying things out."""

import asyncio
from collections.abc import Mapping
from fnmatch import fnmatchcase


class NodeFaults:
    """The faults in force. A frozen kubelet neither writes, starts nor kills; its containers run on."""

    def __init__(self) -> None:
        self.frozen = False
        self.lost = False
        self.start_delays: dict[str, float] = {}
        self.changed = asyncio.Event()  # the node controller looks at once
        self._passable = asyncio.Event()
        self._passable.set()

    def freeze(self) -> None:
        """Stop the kubelet where it stands. Its node becomes NotReady after its grace."""
        self.frozen = True
        self._update()

    def thaw(self) -> None:
        """Let it go on, and find its node again."""
        self.frozen = self.lost = False
        self._update()

    def lose_node(self) -> None:
        """Freeze, and have the node called NotReady at once instead of after its grace."""
        self.lost = True
        self._update()

    def delay_starts(self, delays: Mapping[str, float]) -> None:
        """Hold each container whose name matches a pattern back before it starts, in seconds."""
        self.start_delays = dict(delays)

    def start_delay_seconds(self, container: str) -> float:
        """How long this container is held back."""
        return max((s for pattern, s in self.start_delays.items() if fnmatchcase(container, pattern)), default=0.0)

    async def passable(self) -> None:
        """Return when the kubelet is not frozen."""
        await self._passable.wait()

    def _update(self) -> None:
        if self.frozen or self.lost:
            self._passable.clear()
        else:
            self._passable.set()
        self.changed.set()
