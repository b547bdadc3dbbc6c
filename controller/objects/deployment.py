"""The Deployment that makes a pool's Pods in Deployment mode: one for each template, with a selector of its own.

Its Pods are those that the controller would make itself, less what only an object can have: the second owner and the
finalizer come before a Pod is opened. No other Pod carries the label that it selects by, and its name is never used
again: a ReplicaSet adopts every Pod that matches and has no controller.
"""

from typing import Any

from controller import names

Json = dict[str, Any]

API_VERSION = "apps/v1"
KIND = "Deployment"
REVISION = "deployment.kubernetes.io/revision"
"""Written by Kubernetes once the Deployment has its ReplicaSet."""


def deployment_of(pool: Json, pod: Json) -> Json:
    """A Deployment without replicas for Pods like `pod`, which was made of the pool and whose name it takes.

    A paused Deployment makes no ReplicaSet: it is paused, and gets its size, once it has one. The bounds of its
    strategy are those that take no Pod away, should somebody have it go on.
    """
    owner, metadata = pool["metadata"], pod["metadata"]
    name = metadata["name"]
    ours = {names.DEPLOYMENT_LABEL: name}
    controlling = {
        "apiVersion": names.API_VERSION,
        "kind": "SlotPool",
        "name": owner["name"],
        "uid": owner["uid"],
        "controller": True,
        "blockOwnerDeletion": False,
    }
    template = {
        "metadata": {
            "labels": {**metadata["labels"], **ours},
            "annotations": {**metadata["annotations"], names.POOL_UID: owner["uid"]},
        },
        "spec": pod["spec"],
    }
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": name,
            "namespace": owner["namespace"],
            "labels": {names.POOL_LABEL: owner["name"]},
            "annotations": {names.TEMPLATE_HASH: metadata["annotations"][names.TEMPLATE_HASH]},
            "ownerReferences": [controlling],
        },
        "spec": {
            "replicas": 0,
            "revisionHistoryLimit": 1,
            "selector": {"matchLabels": ours},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": template,
        },
    }


def is_made_by_us(obj: Json) -> bool:
    """Whether a Deployment is one that podslots made, by the selector that only these have and nobody can change."""
    selector = (obj.get("spec") or {}).get("selector") or {}
    return bool(selector == {"matchLabels": {names.DEPLOYMENT_LABEL: obj["metadata"]["name"]}})
