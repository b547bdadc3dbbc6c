"""The Pod of a pool: the user's template with the agent, a worker for each slot, and what they need between them.

Nothing here depends on a mount namespace: programs learn every folder from their environment or command line, each a
mount path of the container or below one, so that a kubelet without namespaces can put another path in its place.

| volume | agent | worker of slot N | other containers |
| --- | --- | --- | --- |
| podslots-tokens (Secret) | reads | - | - |
| podslots-tls (Secrets), with TLS | reads | - | - |
| podslots-state | writes | - | - |
| podslots-credentials | writes | reads folder N | sidecar mode: reads folder `local` |
| podslots-work-N | - | writes | - |
| podslots-bin | install writes | reads | - |
"""

import copy
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from agent.wire import PORT
from controller import names
from controller.objects import agent_address, disruption
from controller.objects.pool import Mode, PoolSpec, Tls
from controller.objects.template_rules import OVERRIDES, check_template

Json = dict[str, Any]

USER_ID = 65532
"""`nonroot` of the common base images. All containers share the group, through which a worker reads its credential."""

_ROOT_DIR = names.MOUNT_ROOT
_BIN_DIR = f"{_ROOT_DIR}/bin"
_STATE_DIR = f"{_ROOT_DIR}/state"
_TOKENS_DIR = f"{_ROOT_DIR}/tokens"
_TLS_DIR = f"{_ROOT_DIR}/tls"
_CREDENTIALS_DIR = f"{_ROOT_DIR}/credentials"
_CREDENTIAL_DIR = f"{_ROOT_DIR}/credential"
_WORK_DIR = f"{_ROOT_DIR}/work"
_SECRET_COPIES = "PODSLOTS_CREDENTIAL_FROM_SECRET_"  # noqa: S105 - the beginning of a variable's name
_SCRATCH_DIR = f"{_ROOT_DIR}/scratch"

_BIN, _STATE, _TOKENS, _CREDENTIALS, _WORK, _SCRATCH = (
    f"{names.VOLUME_PREFIX}{name}" for name in ("bin", "state", "tokens", "credentials", "work", "scratch")
)

_SILENT_NODE_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")

_AGENT_RESOURCES: Json = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}}
"""The agent holds slots, the ends of logs and one watch each for a few readers: some 40 MiB. One of its threads
computes, so one core is enough. Both limits are there because a namespace with a quota on limits.cpu and limits.memory
admits only Pods whose every container has them."""


_INSTALL_RESOURCES: Json = {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}}
"""It copies one file, and its pages in the cache count as its memory. A quota on limits wants one of everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSecret:
    """The pool's token Secret, which Pods mount and have as their second owner."""

    name: str
    uid: str


def build_pod(pool: Json, spec: PoolSpec, *, name: str, token_secret: TokenSecret, agent_image: str) -> Json:
    """The document of a new Pod of `pool`. Raises InvalidObject if its template can't be used."""
    check_template(spec.template)
    template = copy.deepcopy(spec.template)
    pod_spec = _pod_spec(template["spec"], spec, pool["metadata"]["name"], token_secret.name, agent_image)
    given = template.get("metadata") or {}
    owner = pool["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": owner["namespace"],
            "labels": {
                **(given.get("labels") or {}),
                names.POOL_LABEL: owner["name"],
                names.STATE_LABEL: "starting",
            },
            "annotations": {
                **(given.get("annotations") or {}),
                **{key: value for key, value in disruption.notes("starting").items() if value is not None},
                names.TEMPLATE_HASH: _hash(pod_spec, given, spec.mode),
            },
            "ownerReferences": _owners(owner, token_secret),
        },
        "spec": pod_spec,
    }


def _owners(pool: Json, token_secret: TokenSecret) -> list[Json]:
    """The pool, and its token Secret, which has no owner itself and stays until no Pod is left.

    When a pool is deleted the garbage collector follows this reference whatever finalizers the pool has, and would
    delete Pods whose slots are held. An object with another owner that stays is left alone: it only loses the
    reference to the one that goes. The pool is the controlling owner, because `kubectl drain` refuses Pods that have
    none. Neither blocks its owner's deletion: the finalizers of both do that.
    """
    controlling = {
        "apiVersion": names.API_VERSION,
        "kind": "SlotPool",
        "name": pool["name"],
        "uid": pool["uid"],
        "controller": True,
        "blockOwnerDeletion": False,
    }
    return [controlling, secret_owner(token_secret)]


def secret_owner(token_secret: TokenSecret) -> Json:
    """The reference by which a Pod names its pool's token Secret as its owner."""
    return {"apiVersion": "v1", "kind": "Secret", "name": token_secret.name, "uid": token_secret.uid}


def _hash(pod_spec: Json, metadata: Json, mode: Mode) -> str:
    """Of all that a Pod is made from, and by whom: Pods of the other mode are replaced as those of another template."""
    given = {kind: metadata.get(kind) or {} for kind in ("labels", "annotations")}
    made_from = [pod_spec, given, *([mode.value] if mode is not Mode.PODS else [])]
    text = json.dumps(made_from, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _pod_spec(given: Json, spec: PoolSpec, pool: str, token_secret: str, agent_image: str) -> Json:
    """The user's spec with ours around it; what the user says of the Pod as a whole stays."""
    grace_seconds = spec.grace_seconds
    volumes = [*(given.get("volumes") or []), *_volumes(spec, token_secret)]
    init_containers = given.get("initContainers") or []
    overrides: dict[str, Json] = {item["name"]: item for item in init_containers if item["name"] in OVERRIDES}
    own = [_agent(spec, pool, grace_seconds, agent_image, overrides.get(names.AGENT_CONTAINER, {}))]
    if spec.has_workers:
        own.append(_install(own[0], overrides.get(names.INSTALL_CONTAINER, {})))
    containers: list[Json] = []
    for container in given["containers"]:
        if container["name"] == names.WORKER_CONTAINER:
            containers.extend(
                _worker(container, slot, grace_seconds, volumes, spec.auth.tls) for slot in range(len(spec.layout))
            )
        else:
            containers.append(container if spec.has_workers else _sidecar_user(container, spec.auth.tls))
    return {
        **given,
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": grace_seconds,
        "automountServiceAccountToken": _default(given.get("automountServiceAccountToken"), False),
        "enableServiceLinks": _default(given.get("enableServiceLinks"), False),
        "securityContext": _pod_security(given.get("securityContext") or {}),
        "tolerations": _tolerations(given.get("tolerations") or []),
        "initContainers": [*own, *(item for item in init_containers if item["name"] not in OVERRIDES)],
        "containers": containers,
        "volumes": volumes,
    }


def _tolerations(given: list[Json]) -> list[Json]:
    """The user's, and ours without a time limit for nodes that are silent, unless the user says something of those.

    Kubernetes adds the same with 300 seconds to Pods that have none, and after these deletes every Pod of a node that
    can't be reached, though its slots may be held and its applies run. A toleration without a key is for all taints.
    """
    said = {item.get("key") or "" for item in given if item.get("effect") in (None, "", "NoExecute")}
    ours = [key for key in _SILENT_NODE_TAINTS if key not in said and "" not in said]
    return [*given, *({"key": key, "operator": "Exists", "effect": "NoExecute"} for key in ours)]


def _volumes(spec: PoolSpec, token_secret: str) -> list[Json]:
    """Ours. The state outlives the agent's container, the work outlives the worker's; both go with the Pod."""
    empty = [_STATE, _CREDENTIALS, _SCRATCH]
    if spec.has_workers:
        empty += [_BIN, *(f"{_WORK}-{slot}" for slot in range(len(spec.layout)))]
    tokens: Json = {"name": _TOKENS, "secret": {"secretName": token_secret, "defaultMode": 0o440}}
    tls = [_tls_volume(spec.auth.tls)] if spec.auth.tls else []
    return [tokens, *tls, *({"name": name, "emptyDir": {}} for name in empty)]


def _tls_volume(tls: Tls) -> Json:
    """The agent's files. `ca.crt` there asks callers for certificates, so cert-manager's beside `tls.crt` stays out.

    The controller reads in a Pod's volume which Secrets it was made with (`agents.tls.pod_tls`).
    """
    served = {"name": tls.secret, "items": [{"key": key, "path": key} for key in ("tls.crt", "tls.key")]}
    clients = {"name": tls.client_secret, "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    sources = [{"secret": served}, *([{"secret": clients}] if tls.client_secret else [])]
    return {"name": names.TLS_VOLUME, "projected": {"sources": sources, "defaultMode": 0o440}}


def _agent(spec: PoolSpec, pool: str, grace_seconds: int, image: str, override: Json) -> Json:
    """The agent: a restartable init container, so that it starts before the workers and ends after them."""
    layout = json.dumps([list(accepts) for accepts in spec.layout], separators=(",", ":"))
    pull_policy = override.get("imagePullPolicy")
    tls = spec.auth.tls
    return {
        "name": names.AGENT_CONTAINER,
        "image": override.get("image") or image,
        **({"imagePullPolicy": pull_policy} if pull_policy else {}),
        "command": ["slot-agent", "serve"],
        "restartPolicy": "Always",
        "env": [
            _field("PODSLOTS_POD", "metadata.name"),
            _field("PODSLOTS_POD_UID", "metadata.uid"),
            _field("PODSLOTS_NAMESPACE", "metadata.namespace"),
            _field("PODSLOTS_POD_IP", "status.podIP"),
            _value("PODSLOTS_POOL", pool),
            _value("PODSLOTS_PORT", str(PORT)),
            _value("PODSLOTS_LAYOUT", layout),
            _value("PODSLOTS_WORKERS", "1" if spec.has_workers else "0"),
            _value("PODSLOTS_GRACE_SECONDS", str(grace_seconds)),
            _value("PODSLOTS_STATE_DIR", _STATE_DIR),
            _value("PODSLOTS_TOKENS_DIR", _TOKENS_DIR),
            _value("PODSLOTS_CREDENTIALS_DIR", _CREDENTIALS_DIR),
            *([_value("PODSLOTS_LOCK_READS", "1")] if spec.auth.lock_reads else []),
            *([_value("PODSLOTS_TLS_DIR", _TLS_DIR), *_server_name(tls)] if tls else []),
            _value("TMPDIR", _SCRATCH_DIR),
        ],
        "ports": [{"name": "slot-agent", "containerPort": PORT, "protocol": "TCP"}],
        "startupProbe": _probe("/readyz", tls, period_seconds=1, failures=120),
        "readinessProbe": _probe("/readyz", tls, period_seconds=5, failures=3),
        # A restart of the agent loses nothing, but 3 failures would come of one long pause of a node's disk.
        "livenessProbe": _probe("/healthz", tls, period_seconds=10, failures=6),
        "lifecycle": {"preStop": {"exec": {"command": ["slot-agent", "close"]}}},
        "resources": override.get("resources") or copy.deepcopy(_AGENT_RESOURCES),
        "securityContext": _own_security(),
        "volumeMounts": [
            _mount(_STATE, _STATE_DIR),
            _mount(_TOKENS, _TOKENS_DIR, read_only=True),
            *([_mount(names.TLS_VOLUME, _TLS_DIR, read_only=True)] if tls else []),
            _mount(_CREDENTIALS, _CREDENTIALS_DIR),
            _mount(_SCRATCH, _SCRATCH_DIR),
        ],
    }


def _install(agent: Json, override: Json) -> Json:
    """Puts the binary where the workers find it, whatever their images are. It has the agent's image."""
    return {
        "name": names.INSTALL_CONTAINER,
        "image": agent["image"],
        **({"imagePullPolicy": agent["imagePullPolicy"]} if "imagePullPolicy" in agent else {}),
        "command": ["slot-agent", "install", _BIN_DIR],
        "env": [_value("TMPDIR", _SCRATCH_DIR)],
        "resources": override.get("resources") or copy.deepcopy(_INSTALL_RESOURCES),
        "securityContext": _own_security(),
        "volumeMounts": [_mount(_BIN, _BIN_DIR), _mount(_SCRATCH, _SCRATCH_DIR)],
    }


def _worker(given: Json, slot: int, grace_seconds: int, volumes: list[Json], tls: Tls | None) -> Json:
    """The user's `worker` as the worker of one slot: its own image, variables, resources and mounts stay."""
    secrets, config_maps = _references(given, volumes)
    from_secrets = _secret_variables(given)
    return {
        **copy.deepcopy(given),
        "name": names.worker_container(slot),
        "command": [f"{_BIN_DIR}/slot-agent", "work"],
        "env": [
            *agent_address.variables(tls),
            _value("PODSLOTS_SLOT", str(slot)),
            _value("PODSLOTS_CREDENTIAL_DIR", _CREDENTIAL_DIR),
            _value("PODSLOTS_WORK_DIR", _WORK_DIR),
            _value("PODSLOTS_GRACE_SECONDS", str(grace_seconds)),
            *([_value("PODSLOTS_SECRETS", secrets)] if secrets else []),
            *([_value("PODSLOTS_CONFIG_MAPS", config_maps)] if config_maps else []),
            *([_value("PODSLOTS_SECRET_VARIABLES", from_secrets)] if from_secrets else []),
            *copy.deepcopy(given.get("env") or []),
        ],
        **({"envFrom": env_from} if (env_from := _env_from(given)) else {}),
        "securityContext": _container_security(given.get("securityContext") or {}),
        "volumeMounts": [
            _mount(_BIN, _BIN_DIR, read_only=True),
            {**_mount(_CREDENTIALS, _CREDENTIAL_DIR, read_only=True), "subPath": str(slot)},
            _mount(f"{_WORK}-{slot}", _WORK_DIR),
            *copy.deepcopy(given.get("volumeMounts") or []),
        ],
    }


def _sidecar_user(given: Json, tls: Tls | None) -> Json:
    """A container that manages slots itself, over localhost, with a credential that can't drain."""
    return {
        **given,
        "env": [
            *agent_address.variables(tls),
            *_server_name(tls),
            _value("PODSLOTS_CREDENTIAL_DIR", _CREDENTIAL_DIR),
            *(given.get("env") or []),
        ],
        "volumeMounts": [
            {**_mount(_CREDENTIALS, _CREDENTIAL_DIR, read_only=True), "subPath": "local"},
            *(given.get("volumeMounts") or []),
        ],
    }


def _secret_variables(worker: Json) -> str:
    """The worker's variables that come from Secrets, with commas between: their values are masked in output."""
    variables = worker.get("env") or []
    return ",".join(entry["name"] for entry in variables if "secretKeyRef" in (entry.get("valueFrom") or {}))


def _env_from(worker: Json) -> list[Json]:
    """What the worker has by `envFrom`, and all of it that comes from Secrets once more, under names of our own.

    So the worker learns what to mask. Which variables a Secret gives, the controller can't know: it does not read it.
    """
    given = copy.deepcopy(worker.get("envFrom") or [])
    copies = [
        {"prefix": f"{_SECRET_COPIES}{index}_", "secretRef": copy.deepcopy(entry["secretRef"])}
        for index, entry in enumerate(given)
        if entry.get("secretRef")
    ]
    return [*given, *copies]


def _references(worker: Json, volumes: list[Json]) -> tuple[str, str]:
    """Where the worker finds the Secrets and ConfigMaps it mounts, by name, as JSON; empty if there are none.

    Only mounts that show every key under its own name count: tasks name keys, not files.
    """
    sources = {volume["name"]: volume for volume in volumes}
    found: tuple[dict[str, str], dict[str, str]] = ({}, {})
    for mount in worker.get("volumeMounts") or []:
        volume = sources.get(mount["name"], {})
        for known, kind, field in zip(found, ("secret", "configMap"), ("secretName", "name"), strict=True):
            source = volume.get(kind)
            if source and source.get(field) and not source.get("items") and not mount.get("subPath"):
                known.setdefault(source[field], mount["mountPath"].rstrip("/"))
    secrets, config_maps = (json.dumps(paths, sort_keys=True) if paths else "" for paths in found)
    return secrets, config_maps


def _server_name(tls: Tls | None) -> list[Json]:
    """For the controller, which reads it off the Pod, and for clients that want a name. The agent needs none."""
    return [_value(names.TLS_SERVER_NAME, tls.server_name)] if tls else []


def _pod_security(given: Json) -> Json:
    """Defaults for what the user does not set. A template that asks for root gets it."""
    as_root = given.get("runAsUser") == 0
    return {
        "runAsUser": USER_ID,
        "runAsGroup": USER_ID,
        "fsGroup": USER_ID,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
        **({} if as_root else {"runAsNonRoot": True}),
        **given,
    }


def _container_security(given: Json) -> Json:
    """Defaults for a worker, which runs what tasks bring along."""
    least = {} if given.get("privileged") else {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return {**least, **({"runAsNonRoot": False} if given.get("runAsUser") == 0 else {}), **given}


def _own_security() -> Json:
    return {
        "runAsUser": USER_ID,
        "runAsGroup": USER_ID,
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _probe(path: str, tls: Tls | None, *, period_seconds: int, failures: int) -> Json:
    return {
        # Kubelets verify no certificates, and show none.
        "httpGet": {"path": path, "port": PORT, **({"scheme": "HTTPS"} if tls else {})},
        "periodSeconds": period_seconds,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _mount(volume: str, path: str, *, read_only: bool = False) -> Json:
    return {"name": volume, "mountPath": path, **({"readOnly": True} if read_only else {})}


def _value(name: str, value: str) -> Json:
    return {"name": name, "value": value}


def _field(name: str, path: str) -> Json:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _default(value: Any, default: bool) -> Any:
    return default if value is None else value
