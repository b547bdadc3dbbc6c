"""Who asks for a write: policies look at it, whoever it is."""

from __future__ import annotations

from dataclasses import dataclass

AUTHENTICATED = "system:authenticated"
MASTERS = "system:masters"


@dataclass(frozen=True, slots=True)
class User:
    """A user or a service account, with its groups."""

    name: str
    groups: tuple[str, ...] = ()


def _controller(name: str) -> User:
    return User(
        f"system:serviceaccount:kube-system:{name}",
        ("system:serviceaccounts", "system:serviceaccounts:kube-system", AUTHENTICATED),
    )


# The server itself, and the controllers of a cluster that are part of it here.
SYSTEM = User("system:apiserver", (MASTERS, AUTHENTICATED))
GARBAGE_COLLECTOR = _controller("generic-garbage-collector")
NAMESPACE_CONTROLLER = _controller("namespace-controller")
POD_COLLECTOR = _controller("pod-garbage-collector")
DEPLOYMENT_CONTROLLER = _controller("deployment-controller")
REPLICASET_CONTROLLER = _controller("replicaset-controller")
