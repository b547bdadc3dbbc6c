"""From a container's spec to the process that stands for it: environment, command line, folders."""

import os
import pwd
from collections.abc import Mapping
from pathlib import Path

from controller.local.node.node_context import NodeContext
from controller.local.node.pods.containers import Attempt, Launch
from controller.local.node.pods.environment import PathRewriter, PodFacts, Sources, command_line, resolve
from controller.local.node.pods.pod_spec import ContainerSpec, Json
from controller.local.node.pods.volume_payload import config_map_data, secret_data
from controller.local.node.pods.volumes import rewriter


def prepare_launch(
    node: NodeContext,
    spec: ContainerSpec,
    attempt: Attempt,
    *,
    pod: Json,
    ip: str,
    folders: Mapping[str, Path],
) -> tuple[Launch, PathRewriter]:
    """What to run, with all references resolved and mount paths replaced by `folders`. Raises ConfigError."""
    metadata = pod["metadata"]
    namespace = metadata["namespace"]

    def secret(name: str) -> dict[str, str] | None:
        found = node.objects("Secret", namespace, name)
        return None if found is None else _texts(secret_data(found))

    def config_map(name: str) -> dict[str, str] | None:
        found = node.objects("ConfigMap", namespace, name)
        return None if found is None else _texts(config_map_data(found))

    base = {
        **node.config.environment,
        "PATH": node.config.path,
        "HOME": _home(),
        "TMPDIR": str(node.short_paths.link(attempt.temporary)),
        "HOSTNAME": metadata["name"],
    }
    resolved = resolve(spec, base, Sources(pod_facts(node, pod, ip), config_map, secret))
    paths = rewriter(spec, folders, resolved.variables)
    image = node.config.image_command(spec.image)
    argv = paths.argv(command_line(spec, image, resolved.variables))
    directory = Path(paths.text(spec.working_directory)) if spec.working_directory else None
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)  # as container runtimes do
    return Launch(argv, paths.environment(resolved), directory), paths


def pod_facts(node: NodeContext, pod: Json, ip: str) -> PodFacts:
    """What references to the Pod's own fields resolve to on this node."""
    return PodFacts(pod, ip, node.node_ip, node.config.node_name, node.config.capacity)


def _home() -> str:
    """As container runtimes do: the user's home by /etc/passwd, else "/".

    A folder of the container's own would look as if somebody had chosen it: workers keep such a HOME, and the tasks of
    a slot would find each other's files in it.
    """
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return "/"


def _texts(data: Mapping[str, bytes]) -> dict[str, str]:
    return {key: value.decode(errors="replace") for key, value in data.items()}
