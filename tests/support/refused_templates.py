"""Pod templates that can't be used: each with the field that is wrong and part of the reason."""

from typing import Any

Json = dict[str, Any]


def _of(**spec: Any) -> Json:
    return {"spec": {"containers": [{"name": "worker", "image": "i"}], **spec}}


def _worker(**fields: Any) -> Json:
    return {"spec": {"containers": [{"name": "worker", "image": "i", **fields}]}}


def _init(**fields: Any) -> Json:
    return _of(initContainers=[fields])


_CONTAINER = "spec.template.spec.containers[0]"
_INIT = "spec.template.spec.initContainers[0]"
_PROBE = {"exec": {"command": ["true"]}}

REFUSED: dict[str, tuple[Json, str, str]] = {
    "no spec": ({}, "spec.template.spec", "is required"),
    "no containers": ({"spec": {"containers": []}}, "spec.template.spec.containers", "must have a container"),
    "a container without a name": ({"spec": {"containers": [{}]}}, f"{_CONTAINER}.name", "is required"),
    "a container twice": (
        {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}},
        "spec.template.spec.containers[1].name",
        "is there twice",
    ),
    "the controller's account": (
        _of(serviceAccountName="podslots-controller"),
        "spec.template.spec.serviceAccountName",
        "is the controller's own",
    ),
    "the controller's account by its older field": (
        _of(serviceAccount="podslots-controller"),
        "spec.template.spec.serviceAccount",
        "is the controller's own",
    ),
    "sizeLimit": (
        _of(volumes=[{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}]),
        "spec.template.spec.volumes[0].emptyDir.sizeLimit",
        "evicts the Pod",
    ),
    "a limit of ephemeral storage": (
        _worker(resources={"limits": {"ephemeral-storage": "1Gi"}}),
        f"{_CONTAINER}.resources.limits.ephemeral-storage",
        "evicts the Pod",
    ),
    "activeDeadlineSeconds": (
        _of(activeDeadlineSeconds=5),
        "spec.template.spec.activeDeadlineSeconds",
        "kills the Pod",
    ),
    "a liveness probe on the worker": (
        _worker(livenessProbe=_PROBE),
        f"{_CONTAINER}.livenessProbe",
        "kills the running step",
    ),
    "a startup probe on the worker": (_worker(startupProbe=_PROBE), f"{_CONTAINER}.startupProbe", "kills"),
    "a command for the worker": (_worker(command=["x"]), f"{_CONTAINER}.command", "is set by podslots"),
    "arguments for the worker": (_worker(args=["x"]), f"{_CONTAINER}.args", "is set by podslots"),
    "shareProcessNamespace": (
        _of(shareProcessNamespace=True),
        "spec.template.spec.shareProcessNamespace",
        "see and kill",
    ),
    "hostPID": (_of(hostPID=True), "spec.template.spec.hostPID", "see and kill"),
    "hostNetwork": (_of(hostNetwork=True), "spec.template.spec.hostNetwork", "share an address"),
    "restartPolicy Never": (_of(restartPolicy="Never"), "spec.template.spec.restartPolicy", "must be Always"),
    "restartPolicy OnFailure": (_of(restartPolicy="OnFailure"), "spec.template.spec.restartPolicy", "must be Always"),
    "a worker's restartPolicy": (_worker(restartPolicy="Never"), f"{_CONTAINER}.restartPolicy", "comes back"),
    "a container whose end restarts all": (
        {"spec": {"containers": [{"name": "a", "restartPolicyRules": [{"action": "RestartAllContainers"}]}]}},
        f"{_CONTAINER}.restartPolicyRules[0].action",
        "restarts every container",
    ),
    "an init container whose end restarts all": (
        _init(name="a", restartPolicyRules=[{"action": "Restart"}, {"action": "RestartAllContainers"}]),
        f"{_INIT}.restartPolicyRules[1].action",
        "restarts every container",
    ),
    "a hostPort": (
        _worker(ports=[{"containerPort": 80, "hostPort": 80}]),
        f"{_CONTAINER}.ports[0].hostPort",
        "only one Pod",
    ),
    "the agent's port": (_worker(ports=[{"containerPort": 8721}]), f"{_CONTAINER}.ports[0].containerPort", "agent's"),
    "a worker's name": ({"spec": {"containers": [{"name": "worker-0"}]}}, f"{_CONTAINER}.name", "podslots gives"),
    "install's name": (
        {"spec": {"containers": [{"name": "slot-agent-install"}]}},
        f"{_CONTAINER}.name",
        "an init container of podslots",
    ),
    "the agent's name": (
        {"spec": {"containers": [{"name": "slot-agent"}]}},
        f"{_CONTAINER}.name",
        "an init container of podslots",
    ),
    "another image to install from": (
        _init(name="slot-agent-install", image="x"),
        f"{_INIT}.image",
        "of this container only resources can",
    ),
    "a worker that starts first": (
        {"spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "worker"}]}},
        f"{_INIT}.name",
        "among `containers`",
    ),
    "another command for the agent": (
        _init(name="slot-agent", command=["x"]),
        f"{_INIT}.command",
        "only image, imagePullPolicy, resources can",
    ),
    "a volume of our name": (
        _of(volumes=[{"name": "podslots-x", "emptyDir": {}}]),
        "spec.template.spec.volumes[0].name",
        "must not start with podslots-",
    ),
    "the tokens in a container": (
        _worker(volumeMounts=[{"name": "podslots-tokens", "mountPath": "/x"}]),
        f"{_CONTAINER}.volumeMounts[0].name",
        "must not start with podslots-",
    ),
    "a mount over ours": (
        _worker(volumeMounts=[{"name": "v", "mountPath": "/podslots/bin/"}]),
        f"{_CONTAINER}.volumeMounts[0].mountPath",
        "must not be in /podslots",
    ),
    "a variable of ours": (
        _worker(env=[{"name": "PODSLOTS_URL", "value": "x"}]),
        f"{_CONTAINER}.env[0].name",
        "must not start with PODSLOTS_",
    ),
    "a label of ours": (
        {**_of(), "metadata": {"labels": {"podslots.dev/state": "active"}}},
        "spec.template.metadata.labels[podslots.dev/state]",
        "podslots' own",
    ),
    "an annotation of ours": (
        {**_of(), "metadata": {"annotations": {"podslots.dev/forget": "x"}}},
        "spec.template.metadata.annotations[podslots.dev/forget]",
        "podslots' own",
    ),
    "finalizers": ({**_of(), "metadata": {"finalizers": ["a/b"]}}, "spec.template.metadata.finalizers", "podslots"),
    "a grace that is none": (
        _of(terminationGracePeriodSeconds=-1),
        "spec.template.spec.terminationGracePeriodSeconds",
        "at least 0",
    ),
    "containers that are no list": ({"spec": {"containers": {}}}, "spec.template.spec.containers", "must be a list"),
}
