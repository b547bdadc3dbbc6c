"""Who may read: a caller with a bearer token that the API server accepts, and with the right to `get` the path.

As metrics of controllers built with controller-runtime are protected: a TokenReview tells the user of the token, and a
SubjectAccessReview of the path (`nonResourceURLs` in RBAC) whether the user may read it. An answer holds for a few
seconds.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from controller.kube.api import ACCESS_REVIEWS, TOKEN_REVIEWS, Api, Object

_API = "/api/"
_OUR_API = "/podslots/api/"


def right_to(path: str) -> str:
    """The nonResourceURL that a path takes `get` on: itself, or under `/podslots` if it is the API's.

    For Kubernetes grants `/api/*` to everybody whom it knows (ClusterRole `system:discovery`): each Pod that mounts a
    token would have this API too.
    """
    return _OUR_API + path.removeprefix(_API) if path.startswith(_API) else path


LASTS_SECONDS = 10.0
"""How long an answer holds, either way: as long as the API server itself caches the check of a token."""

MOST_REMEMBERED = 1000
MOST_AT_ONCE = 8
"""Reviews under way: a flood of made-up tokens takes this much of the API server, and no more."""

ASKING_SECONDS = 10.0
MAX_TOKEN = 16384
"""Bytes. Tokens of identity providers have a few thousand."""


class Verdict(Enum):
    """What becomes of a request."""

    ALLOWED = "allowed"
    UNKNOWN = "unknown"  # nobody's token
    FORBIDDEN = "forbidden"  # somebody's, who may not


@dataclass(frozen=True, slots=True)
class _Remembered:
    verdict: Verdict
    until: float


class Reviewer:
    """Asks the API server, and remembers for a moment what it said."""

    def __init__(self, api: Api, *, clock: Callable[[], float] | None = None) -> None:
        self._api = api
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._remembered: OrderedDict[tuple[bytes, str], _Remembered] = OrderedDict()
        self._gate = asyncio.Semaphore(MOST_AT_ONCE)

    async def judge(self, token: str, path: str) -> Verdict:
        """Whether the holder of a token may read a path.

        Raises ApiError or ApiUnavailable where that can't be learned, and TimeoutError.
        """
        if not token or len(token) > MAX_TOKEN:
            return Verdict.UNKNOWN
        key = (hashlib.sha256(token.encode(errors="surrogateescape")).digest(), path)
        if (known := self._recall(key)) is not None:
            return known
        async with asyncio.timeout(ASKING_SECONDS), self._gate:
            if (known := self._recall(key)) is not None:
                return known  # somebody with the same token asked meanwhile
            verdict = await self._ask(token, path)
        self._remembered[key] = _Remembered(verdict, self._clock() + LASTS_SECONDS)
        if len(self._remembered) > MOST_REMEMBERED:
            self._remembered.popitem(last=False)
        return verdict

    def _recall(self, key: tuple[bytes, str]) -> Verdict | None:
        known = self._remembered.get(key)
        if known is None:
            return None
        if known.until <= self._clock():
            del self._remembered[key]
            return None
        return known.verdict

    async def _ask(self, token: str, path: str) -> Verdict:
        review = await self._review(TOKEN_REVIEWS, {"token": token})
        user = review.get("user") or {}
        if review.get("authenticated") is not True or not user.get("username"):
            return Verdict.UNKNOWN
        subject = {name: user[name] for name in ("uid", "groups", "extra") if user.get(name)}
        wanted = {"path": right_to(path), "verb": "get"}
        answer = await self._review(
            ACCESS_REVIEWS, {"user": user["username"], **subject, "nonResourceAttributes": wanted}
        )
        return Verdict.ALLOWED if answer.get("allowed") is True else Verdict.FORBIDDEN

    async def _review(self, resource: Any, spec: Object) -> Object:
        body = {"apiVersion": resource.api_version, "kind": resource.kind, "spec": spec}
        answer = await self._api.create(resource, None, body)
        status: Object = answer.get("status") or {}
        return status
