"""What must hold of tokens: agents and controller always have one in common, and none is replaced before its time."""

import base64
from collections.abc import Callable
from dataclasses import dataclass, field

from controller import names
from controller.decide.pools.rotation import PATIENCE
from controller.kube.api import SLOTPOOLS, Object
from controller.local.apiserver.store.versions import Change
from controller.objects.token_secret import tokens_of
from tests.support.store_api import Cluster

_PATIENCE_SECONDS = PATIENCE.total_seconds()
_SLACK_SECONDS = 1.0


@dataclass
class _Kept:
    """What was seen of one token Secret. Times are seconds from the start."""

    uid: str
    tokens: dict[str, float] = field(default_factory=dict)
    """When each token, by its text, was added."""
    added_at: float = 0.0
    request: str | None = None
    """The request that the last rotation answered."""


class TokenRules:
    """Watches Secrets, and calls that agents refuse for their token."""

    def __init__(self, cluster: Cluster, elapsed: Callable[[], float], breach: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._elapsed = elapsed
        self._breach = breach
        self._secrets: dict[str, _Kept] = {}

    def object_changed(self, change: Change) -> None:
        """A Secret may have got a token, or lost one."""
        metadata = change.record.body["metadata"]
        pool = (metadata.get("labels") or {}).get(names.POOL_LABEL)
        if change.record.resource != "secrets" or not pool:
            return
        now, found = self._elapsed(), set(tokens_of(change.record.body).values())
        kept = self._secrets.get(pool)
        if kept is None or kept.uid != metadata["uid"]:
            older = kept.tokens if kept is not None else {}
            times = {text: older.get(text, now) for text in found}
            added_at = kept.added_at if kept is not None and set(older) >= found else now
            self._secrets[pool] = _Kept(metadata["uid"], times, added_at, _answered(change.record.body))
            return
        for text in found - kept.tokens.keys():
            self._check_due(pool, kept, now, _answered(change.record.body))
            kept.tokens[text] = kept.added_at = now
            kept.request = _answered(change.record.body)
        for text in kept.tokens.keys() - found:
            del kept.tokens[text]

    def _check_due(self, pool: str, kept: _Kept, now: float, request: str | None) -> None:
        if request == kept.request and now - kept.added_at < self._period(pool) - _SLACK_SECONDS:
            self._breach(f"a token of {pool} was replaced after {now - kept.added_at:.0f} s, and not for a request")

    def _period(self, pool: str) -> float:
        found = (obj for obj in self._cluster.all(SLOTPOOLS) if obj["metadata"]["name"] == pool)
        auth = next((obj["spec"].get("auth") or {} for obj in found), {})
        return float(auth.get("rotationPeriodSeconds", 30 * 86400))

    def call_refused(self, headers: dict[str, str], pod: str) -> None:
        """An agent refused a controller's call for its token. Those that were silent for long may do so for a while."""
        text = base64.b64encode(headers.get("Authorization", "").removeprefix("Bearer ").encode()).decode()
        for pool, kept in self._secrets.items():
            added = kept.tokens.get(text)
            if added is not None and self._elapsed() - added < _PATIENCE_SECONDS and len(kept.tokens) > 1:
                self._breach(f"the agent of {pod} does not know the token that the controller of {pool} uses")


def _answered(secret: Object) -> str | None:
    answered: str | None = (secret["metadata"].get("annotations") or {}).get(names.ROTATION_REQUESTED)
    return answered
