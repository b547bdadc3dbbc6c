"""Switches for what can go wrong with a node, for tests and for trying things out."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why something is not done, as the API shows it: a word and a sentence."""

    reason: str
    message: str = ""

    def to_json(self) -> dict[str, str]:
        """As the switches are set and shown."""
        return {"reason": self.reason, "message": self.message}


class NodeFaults:
    """The faults in force. A frozen kubelet neither writes, starts nor kills; its containers run on."""

    def __init__(self) -> None:
        self.frozen = False
        self.lost = False
        self.start_delays: dict[str, float] = {}
        self.refused_pods: dict[str, Refusal] = {}
        self.failing_starts: dict[str, Refusal] = {}
        self.missing_images: tuple[str, ...] = ()
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

    def refuse_pods(self, refusals: Mapping[str, Refusal]) -> None:
        """Have the kubelet refuse new Pods whose name matches a pattern: they are Failed at once, and never start."""
        self.refused_pods = dict(refusals)

    def fail_starts(self, failures: Mapping[str, Refusal]) -> None:
        """Have each start fail of the containers whose name matches a pattern, such as with RunContainerError."""
        self.failing_starts = dict(failures)

    def miss_images(self, patterns: Sequence[str]) -> None:
        """Have the registry not know the images that match a pattern."""
        self.missing_images = tuple(patterns)

    def refusal(self, pod: str) -> Refusal | None:
        """Why the kubelet does not take this Pod."""
        return _first(self.refused_pods, pod)

    def start_failure(self, container: str, image: str, *, tried: bool) -> Refusal | None:
        """Why this container can't be started, in the words of a real kubelet.

        `tried`: its image was asked for before, and could not be had.
        """
        if any(fnmatchcase(image, pattern) for pattern in self.missing_images):
            if tried:
                return Refusal("ImagePullBackOff", f'Back-off pulling image "{image}"')
            message = f'failed to pull and unpack image "{image}": failed to resolve reference "{image}": not found'
            return Refusal("ErrImagePull", message)
        return _first(self.failing_starts, container)

    async def passable(self) -> None:
        """Return when the kubelet is not frozen."""
        await self._passable.wait()

    def _update(self) -> None:
        if self.frozen or self.lost:
            self._passable.clear()
        else:
            self._passable.set()
        self.changed.set()


def _first(refusals: Mapping[str, Refusal], name: str) -> Refusal | None:
    return next((refusal for pattern, refusal in refusals.items() if fnmatchcase(name, pattern)), None)
