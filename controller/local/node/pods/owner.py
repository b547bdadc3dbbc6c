"""The Pod that a container belongs to, as the container sees it."""

from pathlib import Path
from typing import Protocol

from controller.local.node.pods.pod_spec import Json, PodSpec


class Owner(Protocol):
    """The Pod a container belongs to."""

    spec: PodSpec
    pod: Json
    folder: Path
    ip: str

    @property
    def ending(self) -> bool:
        """Whether the Pod is to end: nothing starts any more."""
        ...

    def wake(self) -> None:
        """Look at everything again."""
        ...

    def mount(self) -> dict[str, Path]:
        """Make all volumes; their host folders. VolumeError if one can't be made."""
        ...

    def host_folders(self) -> dict[str, Path]:
        """The volumes' host folders, made or not."""
        ...
