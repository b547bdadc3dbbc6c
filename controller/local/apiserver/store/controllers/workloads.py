"""Deployments and ReplicaSets, looked at where something about them or their Pods has changed."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

from controller.local.apiserver.errors import ApiError
from controller.local.apiserver.store.controllers.deployments import Deployments
from controller.local.apiserver.store.controllers.replicasets import ReplicaSets
from controller.local.apiserver.store.core import Core
from controller.local.apiserver.store.suspects import DEPLOYMENTS, REPLICASETS
from controller.local.apiserver.store.versions import Change, Record

_FIRST_PAUSE = timedelta(milliseconds=500)
_LONGEST_PAUSE = timedelta(seconds=20)


class Workloads:
    """Runs both controllers, and tries again what was refused, after a pause that grows."""

    def __init__(self, core: Core, rng: random.Random) -> None:
        self._core = core
        self._deployments = Deployments(core, rng)
        self._replica_sets = ReplicaSets(core, rng)
        self._refused: dict[str, tuple[datetime, timedelta]] = {}
        """By UID: when it is tried again, and after what pause."""

    def next_try(self) -> datetime | None:
        """When something that was refused is due again."""
        return min((due for due, _ in self._refused.values()), default=None)

    def sync(self, now: datetime) -> tuple[Change, ...]:
        """The next step of all that something changed for, or whose pause is over. Empty: nothing is left to do."""
        namespaces = list(self._core.garbage.workloads)
        self._core.garbage.workloads.clear()
        changes: list[Change] = []
        for namespace in namespaces:
            for deployment in self._all(DEPLOYMENTS, namespace):
                changes += self._one(deployment, now)
            for replica_set in self._all(REPLICASETS, namespace):
                changes += self._one(replica_set, now)
        for uid, (due, _) in list(self._refused.items()):
            record = self._core.versions.by_uid(uid)
            if record is None:
                del self._refused[uid]
            elif due <= now:
                changes += self._one(record, now)
        return tuple(changes)

    def _all(self, kind: str, namespace: str) -> list[Record]:
        return list(self._core.versions.collection(kind).current(namespace))

    def _one(self, record: Record, now: datetime) -> list[Change]:
        current = self._core.versions.by_uid(record.uid)
        if current is None:
            return []
        try:
            if record.resource == DEPLOYMENTS:
                changes, refused = self._deployments.sync(current, now), False
            else:
                changes, refused = self._replica_sets.sync(current, now)
        except ApiError:
            changes, refused = [], True
        due, pause = self._refused.get(record.uid, (now, timedelta()))
        if not refused:
            self._refused.pop(record.uid, None)
        elif due <= now:
            pause = min(_LONGEST_PAUSE, max(_FIRST_PAUSE, 2 * pause))
            self._refused[record.uid] = (now + pause, pause)
        return changes
