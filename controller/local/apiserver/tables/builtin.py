"""The columns of the other built-in kinds. After k8s.io/kubernetes/pkg/printers/internalversion."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from controller.local.apiserver.store.selectors import selector_text
from controller.local.apiserver.tables.ages import age
from controller.local.apiserver.tables.columns import (
    AGE,
    CREATED_TEXT,
    NAME,
    NAME_TEXT,
    NONE,
    Column,
    Layout,
    created,
    joined,
)
from controller.local.apiserver.tables.pods import PODS

Json = dict[str, Any]


def _name(body: Json) -> str:
    return str(body["metadata"]["name"])


# --- nodes and namespaces ---------------------------------------------------------------------------------

_ROLE_PREFIX = "node-role.kubernetes.io/"
_NODE_COLUMNS = (
    NAME,
    Column("Status", "The status of the node"),
    Column("Roles", "The roles of the node"),
    AGE,
    Column("Version", "Kubelet Version reported by the node."),
    Column("Internal-IP", priority=1),
    Column("External-IP", priority=1),
    Column("OS-Image", "OS Image reported by the node from /etc/os-release.", priority=1),
    Column("Kernel-Version", "Kernel Version reported by the node from 'uname -r'.", priority=1),
    Column("Container-Runtime", "ContainerRuntime Version reported by the node.", priority=1),
)


def _node(body: Json, now: datetime) -> list[Any]:
    status = body.get("status") or {}
    ready = next((c for c in status.get("conditions") or () if c["type"] == "Ready"), None)
    state = "Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"
    if (body.get("spec") or {}).get("unschedulable"):
        state += ",SchedulingDisabled"
    labels = body["metadata"].get("labels") or {}
    roles = sorted(key.removeprefix(_ROLE_PREFIX) for key in labels if key.startswith(_ROLE_PREFIX))
    info = status.get("nodeInfo") or {}
    addresses = {address["type"]: address["address"] for address in reversed(status.get("addresses") or ())}
    return [
        _name(body),
        state,
        joined(roles),
        created(body, now),
        info.get("kubeletVersion", ""),
        addresses.get("InternalIP", NONE),
        addresses.get("ExternalIP", NONE),
        info.get("osImage") or "<unknown>",
        info.get("kernelVersion") or "<unknown>",
        info.get("containerRuntimeVersion") or "<unknown>",
    ]


# --- events -----------------------------------------------------------------------------------------------

_EVENT_COLUMNS = (
    Column("Last Seen", "The time at which the most recent occurrence of this event was recorded."),
    Column("Type", "Type of this event (Normal, Warning), new types could be added in the future"),
    Column("Reason", "This should be a short, machine understandable string that gives the reason for the transition."),
    Column("Object", "The object that this event is about."),
    Column("Subobject", "The part of the object that this event is about.", priority=1),
    Column("Source", "The component reporting this event.", priority=1),
    Column("Message", "A human-readable description of the status of this operation."),
    Column("First Seen", "The time at which the event was first recorded.", priority=1),
    Column("Count", "The number of times this event has occurred.", priority=1),
    Column("Name", NAME_TEXT, priority=1),
)


def _event(body: Json, now: datetime) -> list[Any]:
    about, source, series = (body.get(part) or {} for part in ("involvedObject", "source", "series"))
    first = body.get("firstTimestamp") or body.get("eventTime")
    last = series.get("lastObservedTime") or body.get("lastTimestamp") or first
    where = [source.get("component") or body.get("reportingComponent", ""), source.get("host", "")]
    return [
        age(last, now),
        body.get("type", ""),
        body.get("reason", ""),
        f"{about.get('kind', '').lower()}/{about.get('name', '')}",
        about.get("fieldPath", ""),
        ", ".join(part for part in where if part),
        str(body.get("message", "")).strip(),
        age(first, now),
        str(series.get("count") or body.get("count") or 1),
        _name(body),
    ]


# --- the rest ---------------------------------------------------------------------------------------------


def _disruption_budget(body: Json, now: datetime) -> list[Any]:
    spec = body.get("spec") or {}
    allowed = (body.get("status") or {}).get("disruptionsAllowed", 0)
    least, most = (str(spec.get(part, "N/A")) for part in ("minAvailable", "maxUnavailable"))
    return [_name(body), least, most, allowed, created(body, now)]


def _binding(body: Json, now: datetime) -> list[Any]:
    role = body.get("roleRef") or {}
    subjects: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for subject in body.get("subjects") or ():
        name = subject["name"] if subject["kind"] != "ServiceAccount" else f"{subject['namespace']}/{subject['name']}"
        subjects.get(subject["kind"], []).append(name)
    shown = (", ".join(names) for names in subjects.values())
    return [_name(body), f"{role.get('kind', '')}/{role.get('name', '')}", created(body, now), *shown]


def _policy(body: Json, now: datetime) -> list[Any]:
    spec = body.get("spec") or {}
    kind = spec.get("paramKind")
    shown = f"{kind['apiVersion']}/{kind['kind']}" if kind else "<unset>"
    return [_name(body), len(spec.get("validations") or ()), shown, created(body, now)]


def _policy_binding(body: Json, now: datetime) -> list[Any]:
    spec = body.get("spec") or {}
    reference = spec.get("paramRef")
    shown = "<unset>"
    if reference:
        shown = f"{reference.get('namespace', '*')}/{reference.get('name', '*')}"
    return [_name(body), spec.get("policyName", ""), shown, created(body, now)]


def _revision(body: Json, now: datetime) -> list[Any]:
    owners = body["metadata"].get("ownerReferences") or ()
    owner = next((entry for entry in owners if entry.get("controller")), None)
    shown = NONE
    if owner is not None:
        group = owner["apiVersion"].rpartition("/")[0]
        shown = f"{owner['kind'].lower()}{'.' if group else ''}{group}/{owner['name']}"
    return [_name(body), shown, body.get("revision", 0), created(body, now)]


def _deployment(body: Json, now: datetime) -> list[Any]:
    spec, status = body["spec"], body.get("status") or {}
    containers = spec["template"]["spec"]["containers"]
    return [
        _name(body),
        f"{status.get('readyReplicas', 0)}/{spec['replicas']}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        created(body, now),
        ",".join(container["name"] for container in containers),
        ",".join(container.get("image", "") for container in containers),
        selector_text(spec["selector"]),
    ]


def _replica_set(body: Json, now: datetime) -> list[Any]:
    spec, status = body["spec"], body.get("status") or {}
    counts = [spec["replicas"], status.get("replicas", 0), status.get("readyReplicas", 0)]
    containers = spec["template"]["spec"]["containers"]
    return [
        _name(body),
        *counts,
        created(body, now),
        ",".join(container["name"] for container in containers),
        ",".join(container.get("image", "") for container in containers),
        selector_text(spec["selector"]),
    ]


_OF_TEMPLATES = (
    Column("Containers", "Names of each container in the template.", priority=1),
    Column("Images", "Images referenced by each container in the template.", priority=1),
    Column(
        "Selector",
        "Label selector for pods. Existing ReplicaSets whose pods are selected by this will be the ones affected by "
        "this deployment. It must match the pod template's labels.",
        priority=1,
    ),
)

_DATA_TEXT = (
    "Data contains the configuration data. Each key must consist of alphanumeric characters, '-', '_' or '.'. Values "
    "with non-UTF-8 byte sequences must use the BinaryData field. The keys stored in Data must not overlap with the "
    "keys in the BinaryData field, this is enforced during validation process."
)
_HOLDER_TEXT = (
    "holderIdentity contains the identity of the holder of a current lease. If Coordinated Leader Election is used, "
    "the holder identity must be equal to the elected LeaseCandidate.metadata.name field."
)
_BINDING = Layout(
    (
        NAME,
        Column("Role", "RoleRef references the role that is granted."),
        AGE,
        Column("Users", "Users in the binding", priority=1),
        Column("Groups", "Groups in the binding", priority=1),
        Column("ServiceAccounts", "Service accounts in the binding", priority=1),
    ),
    _binding,
)

_LAYOUTS: Mapping[str, Layout] = {
    "pods": PODS,
    "nodes": Layout(_NODE_COLUMNS, _node),
    "namespaces": Layout(
        (NAME, Column("Status", "The status of the namespace"), AGE),
        lambda body, now: [_name(body), (body.get("status") or {}).get("phase", ""), created(body, now)],
    ),
    "events": Layout(_EVENT_COLUMNS, _event),
    "secrets": Layout(
        (
            NAME,
            Column("Type", "Used to facilitate programmatic handling of secret data."),
            Column("Data", "Data contains the secret data."),
            AGE,
        ),
        lambda body, now: [_name(body), body.get("type", ""), len(body.get("data") or ()), created(body, now)],
    ),
    "configmaps": Layout(
        (NAME, Column("Data", _DATA_TEXT), AGE),
        lambda body, now: [
            _name(body),
            len(body.get("data") or ()) + len(body.get("binaryData") or ()),
            created(body, now),
        ],
    ),
    "leases.coordination.k8s.io": Layout(
        (NAME, Column("Holder", _HOLDER_TEXT), AGE),
        lambda body, now: [_name(body), (body.get("spec") or {}).get("holderIdentity", ""), created(body, now)],
    ),
    "controllerrevisions.apps": Layout(
        (
            NAME,
            Column("Controller", "Controller of the object"),
            Column(
                "Revision",
                "Revision indicates the revision of the state represented by Data.",
                type="integer",
            ),
            AGE,
        ),
        _revision,
    ),
    "deployments.apps": Layout(
        (
            NAME,
            Column("Ready", "Number of the pod with ready state"),
            Column(
                "Up-to-date",
                "Total number of non-terminating pods targeted by this deployment that have the desired template spec.",
            ),
            Column(
                "Available",
                "Total number of available non-terminating pods (ready for at least minReadySeconds) targeted by this "
                "deployment.",
            ),
            AGE,
            *_OF_TEMPLATES,
        ),
        _deployment,
    ),
    "replicasets.apps": Layout(
        (
            NAME,
            Column("Desired", "Replicas is the number of desired pods.", type="integer"),
            Column("Current", "Replicas is the most recently observed number of non-terminating pods.", type="integer"),
            Column(
                "Ready",
                "The number of non-terminating pods targeted by this ReplicaSet with a Ready Condition.",
                type="integer",
            ),
            AGE,
            *_OF_TEMPLATES,
        ),
        _replica_set,
    ),
    "poddisruptionbudgets.policy": Layout(
        (
            NAME,
            Column("Min Available", "The minimum number of pods that must be available."),
            Column("Max Unavailable", "The maximum number of pods that may be unavailable."),
            Column(
                "Allowed Disruptions",
                "Calculated number of pods that may be disrupted at this time.",
                type="integer",
            ),
            AGE,
        ),
        _disruption_budget,
    ),
    "rolebindings.rbac.authorization.k8s.io": _BINDING,
    "clusterrolebindings.rbac.authorization.k8s.io": _BINDING,
    "validatingadmissionpolicies.admissionregistration.k8s.io": Layout(
        (
            NAME,
            Column("Validations", "Validations indicates the number of validation rules defined", type="integer"),
            Column("ParamKind", "ParamKind specifies the kind of resources used to parameterize this policy"),
            AGE,
        ),
        _policy,
    ),
    "validatingadmissionpolicybindings.admissionregistration.k8s.io": Layout(
        (
            NAME,
            Column("PolicyName", "PolicyName indicates the policy definition which the policy binding binded to"),
            Column("ParamRef", "ParamRef indicates the param resource which sets the configration param"),
            AGE,
        ),
        _policy_binding,
    ),
}

# The scale subresource, of whatever kind.
SCALE = Layout(
    (
        NAME,
        Column("Desired", "Number of desired replicas", type="integer"),
        Column("Available", "Number of actual replicas", type="integer"),
        Column("Age", CREATED_TEXT, type="date"),
    ),
    lambda body, now: [
        _name(body),
        body["spec"].get("replicas", 0),
        body["status"].get("replicas", 0),
        created(body, now),
    ],
)

# What kinds without columns of their own have.
_PLAIN = Layout(
    (NAME, Column("Created At", CREATED_TEXT, type="date")),
    lambda body, _: [_name(body), body["metadata"].get("creationTimestamp")],
)


def layout(key: str) -> Layout:
    """The columns of a built-in kind, by the key of its storage."""
    return _LAYOUTS.get(key, _PLAIN)
