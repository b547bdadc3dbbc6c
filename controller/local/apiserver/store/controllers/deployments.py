"""What the Deployment controller does: one ReplicaSet for each template, and the step from one to the next.

After k8s.io/kubernetes/pkg/controller/deployment. Left out: Events, `progressDeadlineSeconds`, and the proportions in
which a rollout that is under way is scaled: the newest ReplicaSet that has replicas gets all of the difference.
"""

from __future__ import annotations

import hashlib
import random
from datetime import datetime
from typing import Any

import orjson

from controller.local.apiserver.store import creation
from controller.local.apiserver.store.controllers.replicasets import claim, owner_reference, tell, write
from controller.local.apiserver.store.core import Core
from controller.local.apiserver.store.deletion import DeleteOptions, delete
from controller.local.apiserver.store.outcomes import WriteOptions, stamp
from controller.local.apiserver.store.suspects import REPLICASETS
from controller.local.apiserver.store.users import DEPLOYMENT_CONTROLLER
from controller.local.apiserver.store.versions import Change, Record

Json = dict[str, Any]

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
_DESIRED = "deployment.kubernetes.io/desired-replicas"
_MOST = "deployment.kubernetes.io/max-replicas"
_BY = WriteOptions(user=DEPLOYMENT_CONTROLLER)
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


class Deployments:
    """The controller. It keeps nothing but its randomness."""

    def __init__(self, core: Core, rng: random.Random) -> None:
        self._core = core
        self._rng = rng

    def sync(self, deployment: Record, now: datetime) -> list[Change]:
        """One step of one Deployment."""
        core = self._core
        found = list(core.versions.collection(REPLICASETS).current(deployment.namespace))
        owned, changes = claim(core, deployment, "Deployment", found, _BY)
        if "deletionTimestamp" not in deployment.body["metadata"]:
            changes += self._roll(deployment, owned, now)
        made = [c.record.uid for c in changes if c.record.resource == REPLICASETS and c.previous is None]
        uids = [*(record.uid for record in owned), *made]
        current = core.versions.by_uid(deployment.uid)
        if current is not None:
            sets = [record for uid in uids if (record := core.versions.by_uid(uid)) is not None]
            changes += self._tell(current, sets, now)
        return changes

    def _roll(self, deployment: Record, owned: list[Record], now: datetime) -> list[Change]:
        spec = deployment.body["spec"]
        changes: list[Change] = []
        new = _newest(deployment, owned)
        old = [record for record in owned if new is None or record.uid != new.uid]
        if spec.get("paused") or self._resized(spec, owned):
            if new is not None:
                changes += self._count(deployment, new)
            return changes + self._resize(deployment, new, owned)
        recreate = spec["strategy"]["type"] == "Recreate"
        if recreate and any(_size(record) or (record.body["status"].get("replicas") or 0) for record in old):
            for record in old:
                changes += self._scale(deployment, record, 0)
            return changes
        if new is None:
            change = self._create(deployment, owned, now)
            changes.append(change)
            new = change.record
        changes += self._count(deployment, new)
        new = self._core.versions.by_uid(new.uid) or new
        if recreate:
            return changes + self._scale(deployment, new, spec["replicas"])
        grown = self._scale(deployment, new, _grown(spec, new, owned))
        if grown:
            return changes + grown
        changes += self._shrink(deployment, new, old)
        if not any(_size(record) for record in old):
            changes += self._clean_up(deployment, old, now)
        return changes

    @staticmethod
    def _resized(spec: Json, owned: list[Record]) -> bool:
        noted = [(record.body["metadata"].get("annotations") or {}).get(_DESIRED) for record in owned if _size(record)]
        return any(text is not None and text != str(spec["replicas"]) for text in noted)

    def _resize(self, deployment: Record, new: Record | None, owned: list[Record]) -> list[Change]:
        """The Deployment's own size has changed, or it is paused and goes no further."""
        active = [record for record in owned if _size(record)]
        if len(active) <= 1:
            target = active[0] if active else new or max(owned, key=_age, default=None)
            return self._scale(deployment, target, deployment.body["spec"]["replicas"]) if target is not None else []
        surge, _ = _bounds(deployment.body["spec"])
        missing = deployment.body["spec"]["replicas"] + surge - sum(map(_size, active))
        changes: list[Change] = []
        for record in sorted(active, key=_age, reverse=True):
            size = max(0, _size(record) + missing)
            missing -= size - _size(record)
            changes += self._scale(deployment, record, size)
        return changes

    def _shrink(self, deployment: Record, new: Record, old: list[Record]) -> list[Change]:
        """Take old replicas away: first those that are not available, then as many as there may be fewer."""
        spec = deployment.body["spec"]
        _, unavailable = _bounds(spec)
        least = spec["replicas"] - unavailable
        room = sum(_size(r) for r in [new, *old]) - least - (_size(new) - _available(new))
        if room <= 0:
            return []
        changes: list[Change] = []
        sizes = {record.uid: _size(record) for record in old}
        for record in sorted(old, key=_age):
            unhealthy = min(room, sizes[record.uid] - _available(record))
            if unhealthy > 0:
                sizes[record.uid] -= unhealthy
                room -= unhealthy
        spare = sum(_available(record) for record in [new, *old]) - least
        for record in sorted(old, key=_age):
            healthy = max(0, min(spare, sizes[record.uid]))
            sizes[record.uid] -= healthy
            spare -= healthy
            changes += self._scale(deployment, record, sizes[record.uid])
        return changes

    def _clean_up(self, deployment: Record, old: list[Record], now: datetime) -> list[Change]:
        limit = deployment.body["spec"]["revisionHistoryLimit"]
        empty = [r for r in sorted(old, key=_revision) if not r.body["status"].get("replicas")]
        changes: list[Change] = []
        for record in empty[: max(0, len(old) - limit)]:
            changes += delete(self._core, record, DeleteOptions(user=DEPLOYMENT_CONTROLLER), now).changes
        return changes

    def _create(self, deployment: Record, owned: list[Record], now: datetime) -> Change:
        spec = deployment.body["spec"]
        template, digest = spec["template"], _hash(deployment)
        labels = {**(template["metadata"].get("labels") or {}), HASH_LABEL: digest}
        selector = spec["selector"]
        match = {**(selector.get("matchLabels") or {}), HASH_LABEL: digest}
        surge, _ = _bounds(spec)
        most = spec["replicas"] + (surge if spec["strategy"]["type"] == "RollingUpdate" else 0)
        replicas = max(0, min(spec["replicas"], most - sum(map(_size, owned))))
        annotations = {
            REVISION: str(max((_revision(record) for record in owned), default=0) + 1),
            _DESIRED: str(spec["replicas"]),
            _MOST: str(most),
        }
        document = {
            "metadata": {
                "name": f"{deployment.name}-{digest}",
                "labels": labels,
                "annotations": annotations,
                "ownerReferences": [owner_reference("Deployment", deployment)],
            },
            "spec": {
                "replicas": replicas,
                "selector": {**selector, "matchLabels": match},
                "template": {**template, "metadata": {**template["metadata"], "labels": labels}},
            },
        }
        core = self._core
        resource = core.registry.by_key(REPLICASETS)
        outcome = creation.create(core, resource, deployment.namespace, document, now=now, rng=self._rng, options=_BY)
        return outcome.changes[0]

    def _scale(self, deployment: Record, record: Record, size: int) -> list[Change]:
        spec = deployment.body["spec"]
        surge, _ = _bounds(spec)
        notes = {_DESIRED: str(spec["replicas"]), _MOST: str(spec["replicas"] + surge)}
        known = record.body["metadata"].get("annotations") or {}
        if _size(record) == size and (not size or known.items() >= notes.items()):
            return []
        return write(self._core, record, {"metadata": {"annotations": notes}, "spec": {"replicas": size}}, _BY)

    def _count(self, deployment: Record, new: Record) -> list[Change]:
        """The Deployment says which revision it is at."""
        revision = (new.body["metadata"].get("annotations") or {}).get(REVISION, "1")
        current = self._core.versions.by_uid(deployment.uid) or deployment
        if (current.body["metadata"].get("annotations") or {}).get(REVISION) == revision:
            return []
        return write(self._core, current, {"metadata": {"annotations": {REVISION: revision}}}, _BY)

    def _tell(self, deployment: Record, owned: list[Record], now: datetime) -> list[Change]:
        spec, new = deployment.body["spec"], _newest(deployment, owned)
        total = sum(record.body["status"].get("replicas") or 0 for record in owned)
        available = sum(map(_available, owned))
        counts = {
            "replicas": total,
            "updatedReplicas": (new.body["status"].get("replicas") or 0) if new is not None else 0,
            "readyReplicas": sum(record.body["status"].get("readyReplicas") or 0 for record in owned),
            "availableReplicas": available,
            "unavailableReplicas": max(0, sum(map(_size, owned)) - available),
        }
        status: Json = {"observedGeneration": deployment.body["metadata"]["generation"]}
        status["terminatingReplicas"] = sum(record.body["status"].get("terminatingReplicas") or 0 for record in owned)
        status |= {name: count for name, count in counts.items() if count}
        _, unavailable = _bounds(spec)
        enough = available >= spec["replicas"] - unavailable
        done = new is not None and counts["updatedReplicas"] == spec["replicas"] == total == available
        said: list[tuple[str, str, str, str]] = [
            ("Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
            if enough
            else ("Available", "False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
        ]
        if spec.get("paused"):
            said.insert(0, ("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused"))
        elif new is not None:
            text = "has successfully progressed." if done else "is progressing."
            reason = "NewReplicaSetAvailable" if done else "ReplicaSetUpdated"
            said.append(("Progressing", "True", reason, f'ReplicaSet "{new.name}" {text}'))
        for record in owned:
            for condition in record.body["status"].get("conditions") or ():
                if condition["type"] == "ReplicaFailure" and all(kind != "ReplicaFailure" for kind, *_ in said):
                    said.append(("ReplicaFailure", "True", condition["reason"], condition["message"]))
        old = deployment.body.get("status") or {}
        known = {condition["type"]: condition for condition in old.get("conditions") or ()}
        status["conditions"] = [_condition(known.get(words[0]), words, now) for words in said]
        return tell(self._core, deployment, status, _BY)


def _condition(known: Json | None, words: tuple[str, str, str, str], now: datetime) -> Json:
    kind, status, reason, message = words
    if known is not None and (known["status"], known["reason"], known["message"]) == (status, reason, message):
        return known
    since = known["lastTransitionTime"] if known is not None and known["status"] == status else stamp(now)
    said = {"type": kind, "status": status, "reason": reason, "message": message}
    return {**said, "lastUpdateTime": stamp(now), "lastTransitionTime": since}


def _newest(deployment: Record, owned: list[Record]) -> Record | None:
    """The ReplicaSet of the present template."""
    wanted = _plain(deployment.body["spec"]["template"])
    same = [record for record in owned if _plain(record.body["spec"]["template"]) == wanted]
    return min(same, key=_age, default=None)


def _plain(template: Json) -> Json:
    metadata = template["metadata"]
    labels = {key: value for key, value in (metadata.get("labels") or {}).items() if key != HASH_LABEL}
    return {**template, "metadata": {**metadata, "labels": labels}}


def _hash(deployment: Record) -> str:
    number = int.from_bytes(
        hashlib.sha256(orjson.dumps(_plain(deployment.body["spec"]["template"]), option=orjson.OPT_SORT_KEYS)).digest()[
            :8
        ]
    )
    digits = []
    for _ in range(10):
        number, place = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[place])
    return "".join(digits)


def _grown(spec: Json, new: Record, owned: list[Record]) -> int:
    """The size of the newest ReplicaSet: as much as maxSurge leaves room for, or less than before where it is over."""
    surge, _ = _bounds(spec)
    size = _size(new)
    if size >= spec["replicas"]:
        return int(spec["replicas"])
    total = sum(_size(record) for record in owned if record.uid != new.uid) + size
    return size + max(0, min(int(spec["replicas"]) + surge - total, int(spec["replicas"]) - size))


def _bounds(spec: Json) -> tuple[int, int]:
    """The bounds maxSurge and maxUnavailable as numbers: a share is rounded up and down; both 0 were a standstill."""
    rolling = (spec.get("strategy") or {}).get("rollingUpdate")
    if rolling is None:
        return 0, 0
    size = spec["replicas"]
    surge, unavailable = rolling["maxSurge"], rolling["maxUnavailable"]
    most = surge if isinstance(surge, int) else -(-size * int(surge.rstrip("%")) // 100)
    fewer = unavailable if isinstance(unavailable, int) else size * int(unavailable.rstrip("%")) // 100
    if not most and not fewer:
        fewer = 1
    return most, min(fewer, size)


def _size(record: Record) -> int:
    size: int = record.body["spec"]["replicas"]
    return size


def _available(record: Record) -> int:
    return int(record.body["status"].get("availableReplicas") or 0)


def _age(record: Record) -> tuple[str, str]:
    return record.body["metadata"]["creationTimestamp"], record.name


def _revision(record: Record) -> int:
    text = (record.body["metadata"].get("annotations") or {}).get(REVISION, "0")
    return int(text) if text.isdecimal() else 0
