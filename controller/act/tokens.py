"""The pool's token Secret: one key a token, named by its id; an annotation says which one the controller uses.

It has no ownerReference and a finalizer: the garbage collector and the deletion of a namespace would take it before
the Pods, whose agents the controller could then no longer drain. It goes once the pool and all its Pods are gone.

Agents accept every token in the Secret, so adding one is always safe. A Secret without any usable token gets a new one,
even where the old one is still remembered: somebody may have removed it for good reason. Agents follow as their mounts
do; until then they refuse writes, and nothing is lost but minutes.
"""

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agent.wire import READERS_PREFIX, format_time
from controller.errors import AlreadyExists, Conflict, NotFound
from controller.kube.api import SECRETS, Api, Object
from controller.kube.cache import Cache
from controller.names import CURRENT_TOKEN, POOL_LABEL, PREFIX, TOKENS_FINALIZER, token_secret
from controller.objects.template import TokenSecret

TOKEN_SINCE = f"{PREFIX}current-token-since"
"""When the current token came into use. A rotation goes by this, never by the Secret's own age."""
TOKEN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
"""Keys that agents take for tokens: file names of the mounted Secret, without dots in front."""
TOKEN_BYTES = 32
MIN_TOKEN_LENGTH = 16
"""Anything shorter in a Secret that was made by hand is no token that could be meant."""
TRIES = 4

Data = dict[str, str]
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Token:
    """A token and the id that agents list it by."""

    id: str
    value: str = field(repr=False)


class PoolTokens:
    """Makes, mends and removes token Secrets.

    `random_bytes` must be fit for secrets, as `secrets.token_bytes` is.
    """

    def __init__(
        self,
        api: Api,
        cache: Cache,
        *,
        now: Callable[[], datetime],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._api = api
        self._cache = cache
        self._now = now
        self._random_bytes = random_bytes
        self._remembered: dict[Key, Token] = {}

    def current(self, namespace: str, pool: str) -> Token | None:
        """The token to use now, from the cache; the last one known while the Secret is missing or damaged."""
        secret = self._cache.get(namespace, token_secret(pool))
        token = current_token(secret) if secret is not None else None
        if token is not None:
            self._remembered[namespace, pool] = token
        return self._remembered.get((namespace, pool))

    def value(self, namespace: str, pool: str) -> str | None:
        """The current token's text, for `Fleet`."""
        token = self.current(namespace, pool)
        return token.value if token else None

    def secret(self, namespace: str, pool: str) -> TokenSecret:
        """The Secret as Pods name it. Raises NotFound if the cache knows none; where `needs_work` is false it does."""
        secret = self._cache.get(namespace, token_secret(pool))
        if secret is None:
            raise NotFound(404, "NotFound", f"Secret {namespace}/{token_secret(pool)} is not known")
        return TokenSecret(name=token_secret(pool), uid=secret["metadata"]["uid"])

    def exists(self, namespace: str, pool: str) -> bool:
        """Whether the Secret is there, as last seen."""
        return self._cache.get(namespace, token_secret(pool)) is not None

    def needs_work(self, namespace: str, pool: str) -> bool:
        """Whether the Secret, as the cache knows it, is not as `ensure` leaves it."""
        secret = self._cache.get(namespace, token_secret(pool))
        return secret is None or self._repair(secret, pool) is not None

    async def ensure(self, namespace: str, pool: str, *, in_use: bool = True) -> Token:
        """Have a Secret with a usable current token: made, adopted or mended. Returns that token.

        One that somebody deletes stays, by its finalizer, while Pods use it; with `in_use` False, which says that there
        are none, it is let go and made anew.
        """
        name = token_secret(pool)
        for _ in range(TRIES):
            try:
                secret = await self._api.get(SECRETS, namespace, name)
            except NotFound:
                try:
                    secret = await self._api.create(SECRETS, namespace, self._new(namespace, pool))
                except AlreadyExists:
                    continue
            if secret["metadata"].get("deletionTimestamp") and not in_use:
                await self._let_go(secret)
                continue
            patch = self._repair(secret, pool)
            if patch is not None:
                patch["metadata"]["resourceVersion"] = secret["metadata"]["resourceVersion"]
                try:
                    secret = await self._api.patch(SECRETS, namespace, name, patch)
                except (Conflict, NotFound):
                    continue
            self._cache.note(secret)
            token = current_token(secret)
            if token is not None:
                self._remembered[namespace, pool] = token
                return token
        raise Conflict(409, "Conflict", f"Secret {namespace}/{name} changed {TRIES} times while it was to be mended")

    async def remove(self, namespace: str, pool: str) -> None:
        """Delete the Secret and let it go. Only when the pool is gone and, read live, no Pod of it is left."""
        name = token_secret(pool)
        try:
            secret = await self._api.get(SECRETS, namespace, name)
            metadata = secret["metadata"]
            if not metadata.get("deletionTimestamp"):
                # First this: a Secret whose finalizer is gone and which is not being deleted would be nobody's.
                answer = await self._api.delete(SECRETS, namespace, name, uid=metadata["uid"])
                self._cache.note_deleted(namespace, name, answer)
                secret = await self._api.get(SECRETS, namespace, name)
            if secret["metadata"]["uid"] == metadata["uid"]:
                await self._let_go(secret)
        except NotFound:
            pass
        self._remembered.pop((namespace, pool), None)

    async def _let_go(self, secret: Object) -> None:
        metadata = secret["metadata"]
        finalizers = [entry for entry in metadata.get("finalizers") or () if entry != TOKENS_FINALIZER]
        if len(finalizers) == len(metadata.get("finalizers") or ()):
            return
        patch = {"metadata": {"resourceVersion": metadata["resourceVersion"], "finalizers": finalizers}}
        await self._api.patch(SECRETS, metadata["namespace"], metadata["name"], patch)

    def _new(self, namespace: str, pool: str) -> Object:
        token, data = self._new_token()
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": token_secret(pool),
                "namespace": namespace,
                "labels": {POOL_LABEL: pool},
                "annotations": {CURRENT_TOKEN: token.id, TOKEN_SINCE: format_time(self._now())},
                "finalizers": [TOKENS_FINALIZER],
            },
            "type": "Opaque",
            "data": data,
        }

    def _repair(self, secret: Object, pool: str) -> dict[str, Any] | None:
        """The merge patch that makes `secret` usable; None if it is."""
        metadata = secret["metadata"]
        changes: dict[str, Any] = {}
        patch: dict[str, Any] = {}
        if (metadata.get("labels") or {}).get(POOL_LABEL) != pool:
            changes["labels"] = {POOL_LABEL: pool}
        finalizers = metadata.get("finalizers") or []
        # The API server takes no new finalizer for an object that is being deleted.
        if TOKENS_FINALIZER not in finalizers and not metadata.get("deletionTimestamp"):
            changes["finalizers"] = [*finalizers, TOKENS_FINALIZER]
        if current_token(secret) is None:
            token_id, data = self._replacement(secret)
            changes["annotations"] = {CURRENT_TOKEN: token_id, TOKEN_SINCE: format_time(self._now())}
            if data:
                patch["data"] = data
        if not changes and not patch:
            return None
        return {"metadata": changes, **patch}

    def _replacement(self, secret: Object) -> tuple[str, Data]:
        """The id to use in a Secret that has no current token, and what to add: nothing, if it has another one.

        That is in the agents' hands already.
        """
        kept = tokens_of(secret)
        if kept:
            return max(kept, key=_generation), {}
        token, data = self._new_token()
        return token.id, data

    def _new_token(self) -> tuple[Token, Data]:
        value = base64.urlsafe_b64encode(self._random_bytes(TOKEN_BYTES)).rstrip(b"=").decode()
        token = Token(f"t1-{self._random_bytes(3).hex()}", value)
        return token, {token.id: base64.b64encode(value.encode()).decode()}


def tokens_of(secret: Object) -> Data:
    """The entries of a Secret's data that are tokens good for all, still encoded."""
    data: Data = secret.get("data") or {}
    return {
        key: value
        for key, value in data.items()
        if TOKEN_ID.fullmatch(key) and not key.startswith(READERS_PREFIX) and _decode(value)
    }


def _generation(token_id: str) -> tuple[int, str]:
    """Orders ids: made here they begin with `t` and a number."""
    number = re.match(r"t(\d{1,9})-", token_id)
    return (int(number[1]) if number else 0, token_id)


def current_token(secret: Object) -> Token | None:
    """The token that the annotation names, if it is there."""
    current = (secret["metadata"].get("annotations") or {}).get(CURRENT_TOKEN)
    value = _decode(tokens_of(secret).get(current, "")) if current else None
    return Token(current, value) if current and value else None


def _decode(value: str) -> str | None:
    """A token's text, as agents read it: without white space around it."""
    try:
        text = base64.b64decode(value, validate=True).decode("ascii").strip()
    except (binascii.Error, UnicodeDecodeError):
        return None
    return text if len(text) >= MIN_TOKEN_LENGTH and text.isprintable() else None
