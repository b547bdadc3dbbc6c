"""From raw objects and agents' reports to the frozen `PoolView` that decisions are made on. Pure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from agent.wire import AgentState, parse_time
from controller import names
from controller.decide.death import death_proof, ended_unopened
from controller.decide.start_problem import start_problem
from controller.decide.view import PodOperation, PodState, PodView
from controller.objects.times import time_or_none

Object = dict[str, Any]
"""A parsed Kubernetes object."""
Proof = Callable[[Object], str | None]
"""Judges a Pod's death, with the nodes that the controller knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is known of one agent: its last state, and whether it is heard of now, or was until a moment ago."""

    state: AgentState | None = None
    connected: bool = False
    contacting: bool = False


def observe_pod(
    pod: Object,
    node: Object | None,
    report: Report,
    *,
    in_flight: PodOperation | None,
    pool_uid: str | None = None,
    asked_to_go: bool = False,
) -> PodView:
    """One Pod as decisions see it, with the UID of the pool it is for, if that is known.

    `asked_to_go`: an Eviction asks for it, which is a drain request as a person's is.

    A state label that is missing or unknown counts as active: the safest reading.
    """
    metadata, status = pod["metadata"], pod.get("status") or {}
    annotations, state = metadata.get("annotations") or {}, _state(metadata.get("labels") or {})
    return PodView(
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        state=state,
        created=parse_time(metadata["creationTimestamp"]),
        running=status.get("phase") == "Running",
        ready=condition_is_true(status, "Ready"),
        deleting="deletionTimestamp" in metadata,
        gone_by=time_or_none(metadata.get("deletionTimestamp")),
        dead=(death_proof(pod, node) or ended_unopened(pod)) is not None,
        agent=report.state,
        connected=report.connected,
        contacting=report.contacting,
        in_flight=in_flight,
        opened=time_or_none(annotations.get(names.OPENED)),
        drain_requested=asked_to_go or names.DRAIN_REQUESTED in annotations,
        node_cordoned=bool(node and (node.get("spec") or {}).get("unschedulable")),
        disowned=pool_uid is not None and (annotations.get(names.POOL_UID) or _owner(metadata)) not in {None, pool_uid},
        template_hash=annotations.get(names.TEMPLATE_HASH, ""),
        start_problem=start_problem(pod) if state is PodState.STARTING else None,
        token_secret=_secret_owner(metadata),
        deployment=(metadata.get("labels") or {}).get(names.DEPLOYMENT_LABEL, ""),
        replica_set=_replica_set(metadata),
        ended=status.get("phase") in {"Failed", "Succeeded"},
        tracked=names.POD_FINALIZER in (metadata.get("finalizers") or ()),
    )


def _owner(metadata: Object) -> str | None:
    """The UID of the pool that a Pod was made by. None: somebody has taken that away, and no collector minds it."""
    owners = metadata.get("ownerReferences") or ()
    return next((owner["uid"] for owner in owners if owner.get("controller")), None)


def _replica_set(metadata: Object) -> str:
    owners = metadata.get("ownerReferences") or ()
    return next((owner["uid"] for owner in owners if owner.get("controller") and owner["kind"] == "ReplicaSet"), "")


def _secret_owner(metadata: Object) -> str | None:
    owners = metadata.get("ownerReferences") or ()
    return next((owner["uid"] for owner in owners if owner.get("kind") == "Secret"), None)


def _state(labels: dict[str, str]) -> PodState:
    try:
        return PodState(labels.get(names.STATE_LABEL, PodState.ACTIVE))
    except ValueError:
        return PodState.ACTIVE


def condition_is_true(status: Object, kind: str) -> bool:
    """Whether a status has the condition `kind` with status True."""
    conditions: Iterable[Object] = status.get("conditions") or ()
    return any(entry.get("type") == kind and entry.get("status") == "True" for entry in conditions)


def agent_address(pod: Object, node: Object | None) -> str | None:
    """The address of a Pod's agent, once the Pod has one, and until it is provably dead.

    A terminal phase alone does not end it: the agent may still run, and have results.
    """
    address: str | None = (pod.get("status") or {}).get("podIP")
    return address if address and death_proof(pod, node) is None else None
