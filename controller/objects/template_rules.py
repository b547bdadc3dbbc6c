"""What a pool's Pod template may not say, each with the reason. Mostly: what would kill a Pod that has work.

Kubernetes kills or evicts a Pod for these without asking anybody, the disruption budget included.
"""

from typing import Any

from agent.wire import PORT
from controller import names
from controller.errors import InvalidObject
from controller.objects.fields import Fields

ROOT = "spec.template"
OVERRIDES: dict[str, tuple[str, ...]] = {
    names.AGENT_CONTAINER: ("name", "image", "imagePullPolicy", "resources"),
    names.INSTALL_CONTAINER: ("name", "resources"),
}
"""Init containers of podslots, and what an entry of the user's may set of each."""

_SPEC_PROBLEMS: dict[str, str] = {
    "activeDeadlineSeconds": "kills the Pod when it is over, whatever runs in it; give steps a timeoutSeconds instead",
    "shareProcessNamespace": "lets a task see and kill the processes of other slots and of the agent",
    "hostPID": "lets a task see and kill the processes of other slots and of the agent",
    "hostNetwork": "makes agents on one node share an address and a port",
}
_WORKER_PROBLEMS: dict[str, str] = {
    "command": "is set by podslots: a worker runs the commands of tasks",
    "args": "is set by podslots: a worker runs the commands of tasks",
    "livenessProbe": "kills the running step when it fails; give steps a timeoutSeconds instead",
    "startupProbe": "kills the running step when it fails; give steps a timeoutSeconds instead",
    "restartPolicy": "is that of the Pod: a worker that ends comes back",
    "restartPolicyRules": "is that of the Pod: a worker that ends comes back",
}


def check_template(template: dict[str, Any]) -> None:
    """Raise InvalidObject for the first thing in the template that can't be used."""
    root = Fields(template, ROOT)
    metadata = root.optional_child("metadata")
    if metadata is not None:
        _check_metadata(metadata)
    spec = root.child("spec")
    _check_pod(spec)
    seen: set[str] = set()
    for container in spec.children("containers"):
        _check_container(container, seen)
        if container.data["name"] in OVERRIDES:
            raise container.fail("name", "is an init container of podslots")
        if container.data["name"] == names.WORKER_CONTAINER:
            _check_worker(container)
    for container in spec.children("initContainers"):
        _check_container(container, seen)
        if container.data["name"] in OVERRIDES:
            _check_override(container)
        if container.data["name"] == names.WORKER_CONTAINER:
            raise container.fail("name", "belongs among `containers`")


def _check_pod(spec: Fields) -> None:
    for name, problem in _SPEC_PROBLEMS.items():
        if spec.data.get(name):
            raise spec.fail(name, problem)
    for name in ("serviceAccountName", "serviceAccount"):
        if spec.text(name, "") == names.CONTROLLER_ACCOUNT:
            raise spec.fail(name, "is the controller's own: a task could have Pods deleted that have work")
    if spec.text("restartPolicy", "Always") != "Always":
        raise spec.fail("restartPolicy", "must be Always: a worker that ends has to come back to its slot")
    spec.integer("terminationGracePeriodSeconds", 0)
    for volume in spec.children("volumes"):
        _check_volume(volume)
    if not spec.children("containers"):
        raise spec.fail("containers", "must have a container, named `worker` if podslots is to run tasks in it")


def _check_metadata(metadata: Fields) -> None:
    for kind in ("labels", "annotations"):
        for name in metadata.text_map(kind):
            if name.startswith(names.PREFIX):
                raise InvalidObject(f"{metadata.at(kind)}[{name}]", "has a prefix that is podslots' own")
    for name in ("finalizers", "ownerReferences"):
        if metadata.data.get(name):
            raise metadata.fail(name, "is set by podslots")


def _check_volume(volume: Fields) -> None:
    if volume.text("name").startswith(names.VOLUME_PREFIX):
        raise volume.fail("name", f"must not start with {names.VOLUME_PREFIX}")
    empty_dir = volume.optional_child("emptyDir")
    if empty_dir is not None and empty_dir.has("sizeLimit"):
        raise empty_dir.fail("sizeLimit", "evicts the Pod when it is exceeded, whatever runs in it")


def _check_container(container: Fields, seen: set[str]) -> None:
    name = container.text("name")
    if name in seen:
        raise container.fail("name", f"{name!r} is there twice")
    seen.add(name)
    if name.startswith(f"{names.WORKER_CONTAINER}-"):
        raise container.fail("name", f"{name!r} is a name that podslots gives")
    for port in container.children("ports"):
        if port.data.get("hostPort"):
            raise port.fail("hostPort", "lets only one Pod run on a node")
        if port.data.get("containerPort") == PORT:
            raise port.fail("containerPort", f"{PORT} is the agent's")
    for mount in container.children("volumeMounts"):
        _check_mount(mount)
    for variable in container.children("env"):
        if variable.text("name").startswith("PODSLOTS_"):
            raise variable.fail("name", "must not start with PODSLOTS_")
    _check_restart_rules(container)
    if (limits := _storage_limits(container)) is not None:
        raise limits.fail("ephemeral-storage", "evicts the Pod when it is exceeded, whatever runs in it")


def _check_restart_rules(container: Fields) -> None:
    for rule in container.children("restartPolicyRules"):
        if rule.data.get("action") == "RestartAllContainers":
            raise rule.fail("action", "restarts every container of the Pod, whatever runs in it")


def _storage_limits(container: Fields) -> Fields | None:
    """The limits of a container, if they have one of ephemeral storage."""
    resources = container.optional_child("resources")
    limits = resources.optional_child("limits") if resources else None
    return limits if limits is not None and limits.has("ephemeral-storage") else None


def _check_mount(mount: Fields) -> None:
    if mount.text("name").startswith(names.VOLUME_PREFIX):
        raise mount.fail("name", f"must not start with {names.VOLUME_PREFIX}")
    path = mount.text("mountPath").rstrip("/")
    if path == names.MOUNT_ROOT or path.startswith(f"{names.MOUNT_ROOT}/"):
        raise mount.fail("mountPath", f"must not be in {names.MOUNT_ROOT}")


def hazards(pod: dict[str, Any]) -> list[str]:
    """What of this a Pod has as the API server made it: a LimitRange or an admission webhook may have put it there."""
    spec = Fields(pod["spec"], "spec")
    found = [spec.at(name) for name in ("activeDeadlineSeconds",) if spec.has(name)]
    for volume in spec.children("volumes"):
        empty_dir = volume.optional_child("emptyDir")
        if empty_dir is not None and empty_dir.has("sizeLimit"):
            found.append(f"sizeLimit of volume {volume.data['name']}")
    containers = (*spec.children("initContainers"), *spec.children("containers"))
    limited = (container.data["name"] for container in containers if _storage_limits(container) is not None)
    return [*found, *(f"limit of ephemeral-storage of container {name}" for name in limited)]


def _check_worker(worker: Fields) -> None:
    for name, problem in _WORKER_PROBLEMS.items():
        if worker.data.get(name):
            raise worker.fail(name, problem)


def _check_override(container: Fields) -> None:
    taken = OVERRIDES[container.data["name"]]
    for name, value in container.data.items():
        if name not in taken and value:
            raise container.fail(name, f"can't be set: of this container only {', '.join(taken[1:])} can")
