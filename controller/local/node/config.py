"""Settings of the embedded cluster's kubelet and node."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from controller.local.node.backoff import BackoffPolicy


@dataclass(frozen=True)
class KubeletConfig:
    """How the node runs Pods.

    `path` is what containers get as PATH; `environment` is all else of the host's environment that they see. `images`
    maps image names, `*` allowed, to the command that stands for the image's entrypoint: images are not pulled.
    """

    node_name: str = "local"
    path: str = "/usr/local/bin:/usr/bin:/bin"
    environment: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, Sequence[str]] = field(default_factory=dict)
    backoff: BackoffPolicy = field(default_factory=BackoffPolicy)
    capacity: Mapping[str, str] = field(default_factory=lambda: {"cpu": "2", "memory": "4Gi", "pods": "250"})
    heartbeat_seconds: float = 10.0  # as a real kubelet renews its lease
    node_grace_seconds: float = 40.0  # a lease this old: the node is called NotReady
    start_retry_seconds: float = 5.0  # a container whose Secret is missing looks again, if no change woke it before
    keep_logs: Path | None = None  # logs go to POD-UID/CONTAINER/RUN.log in it, and stay; else they go with their Pod
    stop_grace_seconds: float = 10.0  # what containers get when the cluster is stopped for good

    def image_command(self, image: str) -> Sequence[str]:
        """The command configured for an image, empty if there is none."""
        for pattern, command in self.images.items():
            if fnmatchcase(image, pattern):
                return command
        return ()
