"""The pool's token Secret: made, mended, made again if somebody deleted it, its tokens rotated, and removed in the end.

It has no ownerReference and a finalizer: the garbage collector and the deletion of a namespace would take it before
the Pods, whose agents the controller could then no longer drain. It goes once the pool and all its Pods are gone.

Agents accept every token in the Secret, so adding one is always safe. A Secret without any usable token gets a new one,
even where the old one is still remembered: somebody may have removed it for good reason. Agents follow as their mounts
do; until then they refuse writes, and nothing is lost but minutes. A Secret that was deleted is made again with the
same tokens. Mounts keep their content meanwhile, so agents do not notice.
"""

import base64
from collections.abc import Callable
from datetime import datetime
from typing import Any

from agent.wire import format_time
from controller import names
from controller.act.pod_owners import PodOwners
from controller.decide.pools.rotation import AddNext, DropPrevious, RecordTimes, RotationStep, UseNext
from controller.errors import AlreadyExists, Conflict, NotFound
from controller.kube.api import SECRETS, Api, Object
from controller.kube.cache import Cache
from controller.names import POOL_LABEL, TOKENS_FINALIZER, token_secret
from controller.objects.template import TokenSecret
from controller.objects.token_secret import Token, TokenState, current_token, generation, token_state, tokens_of

TOKEN_BYTES = 32
TRIES = 4

Key = tuple[str, str]


class PoolTokens:
    """Makes, mends and removes token Secrets.

    `random_bytes` must be fit for secrets, as `secrets.token_bytes` is.
    """

    def __init__(
        self,
        api: Api,
        cache: Cache,
        *,
        owners: PodOwners,
        now: Callable[[], datetime],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._api = api
        self._cache = cache
        self._owners = owners
        self._now = now
        self._random_bytes = random_bytes
        self._remembered: dict[Key, Object] = {}
        """The last version of each Secret that had a current token, for as long as its pool is there."""
        cache.subscribe(lambda _, secret: self._remember(secret))

    def current(self, namespace: str, pool: str) -> Token | None:
        """The token to use now; the last one known while the Secret is missing or damaged."""
        for secret in (self._seen(namespace, pool), self._remembered.get((namespace, pool))):
            if secret is not None and (token := current_token(secret)) is not None:
                return token
        return None

    def _seen(self, namespace: str, pool: str) -> Object | None:
        """The Secret as the cache has it."""
        return self._cache.get(namespace, token_secret(pool))

    def _remember(self, secret: Object | None) -> None:
        if secret is None or current_token(secret) is None:
            return
        metadata = secret["metadata"]
        pool = (metadata.get("labels") or {}).get(POOL_LABEL)
        if pool and metadata["name"] == token_secret(pool):
            self._remembered[metadata["namespace"], pool] = secret

    def value(self, namespace: str, pool: str) -> str | None:
        """The current token's text, for `Fleet`."""
        token = self.current(namespace, pool)
        return token.value if token else None

    def secret(self, namespace: str, pool: str) -> TokenSecret:
        """The Secret as Pods name it. Raises NotFound if the cache knows none; where it is `usable` it does."""
        uid = self.uid(namespace, pool)
        if uid is None:
            raise NotFound(404, "NotFound", f"Secret {namespace}/{token_secret(pool)} is not known")
        return TokenSecret(name=token_secret(pool), uid=uid)

    def uid(self, namespace: str, pool: str) -> str | None:
        """The Secret's UID, as last seen: what every Pod of the pool is to have as its second owner."""
        secret = self._seen(namespace, pool)
        return str(secret["metadata"]["uid"]) if secret is not None else None

    def has_holder(self, namespace: str, pool: str) -> bool:
        """Whether a holder replaces the Secret as the Pods' owner, as last seen."""
        return self._cache.get(namespace, names.holder_secret(pool)) is not None

    def can_remove(self, namespace: str, pool: str) -> bool:
        """Whether `remove` has anything to do, as last seen. What waits for somebody else's finalizer alone is his."""
        secret, holder = self._seen(namespace, pool), self._cache.get(namespace, names.holder_secret(pool))
        if secret is not None and TOKENS_FINALIZER in (secret["metadata"].get("finalizers") or ()):
            return True
        return any("deletionTimestamp" not in known["metadata"] for known in (secret, holder) if known is not None)

    def state(self, namespace: str, pool: str) -> TokenState:
        """How far a rotation of the pool's tokens has come, as last seen."""
        secret = self._seen(namespace, pool)
        return token_state(secret) if secret is not None else TokenState()

    def usable(self, namespace: str, pool: str) -> bool:
        """Whether the Secret, as last seen, has all that it needs. One that somebody deleted may, and stays for now."""
        secret = self._seen(namespace, pool)
        return secret is not None and self._repair(secret, pool) is None

    def stays(self, namespace: str, pool: str) -> bool:
        """Whether the Secret is there, as last seen, and nobody has deleted it."""
        secret = self._seen(namespace, pool)
        return secret is not None and not secret["metadata"].get("deletionTimestamp")

    def goes(self, namespace: str, pool: str) -> bool:
        """Whether the Secret was let go of, as last seen, and is not gone yet: others have finalizers on it."""
        secret = self._seen(namespace, pool)
        return (
            secret is not None
            and not self.stays(namespace, pool)
            and TOKENS_FINALIZER not in (secret["metadata"].get("finalizers") or ())
        )

    async def ensure(self, namespace: str, pool: str, *, requested: str | None = None) -> Token:
        """Have a Secret with a usable current token: made, adopted, mended or made again. Returns that token.

        A request to rotate that is there before the first token is answered by that one.

        One that somebody deleted is kept by its finalizer, and let go of once every Pod has another owner that stays:
        never in a namespace that is being deleted itself, where none can be made.
        """
        name = token_secret(pool)
        for _ in range(TRIES):
            try:
                secret = await self._api.get(SECRETS, namespace, name)
            except NotFound:
                try:
                    secret = await self._api.create(SECRETS, namespace, self._new(namespace, pool, requested))
                except AlreadyExists:
                    continue
            if secret["metadata"].get("deletionTimestamp"):
                self._cache.note(secret)
                if TOKENS_FINALIZER not in (secret["metadata"].get("finalizers") or ()):
                    raise Conflict(409, "Conflict", f"Secret {namespace}/{name} is on its way out, and not gone yet")
                await self._owners.hold(namespace, pool)
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
            self._remember(secret)
            token = current_token(secret)
            if token is not None:
                return token
        raise Conflict(409, "Conflict", f"Secret {namespace}/{name} changed {TRIES} times while it was to be mended")

    async def rotate(self, namespace: str, pool: str, step: RotationStep, *, requested: str | None) -> str | None:
        """Make the one write that `step` is, if the Secret, read live, still stands where that was decided on.

        `requested` is the request that a rotation that begins now answers. Returns a message about what was done.
        """
        try:
            secret = await self._api.get(SECRETS, namespace, token_secret(pool))
        except NotFound:
            return None
        before = token_state(secret)
        patch = None if secret["metadata"].get("deletionTimestamp") else self._rotated(before, step, requested)
        if patch is None:
            self._cache.note(secret)
            return None
        patch["metadata"]["resourceVersion"] = secret["metadata"]["resourceVersion"]
        written = await self._api.patch(SECRETS, namespace, token_secret(pool), patch)
        self._cache.note(written)
        return _words(token_state(written), step)

    def _rotated(self, state: TokenState, step: RotationStep, requested: str | None) -> dict[str, Any] | None:
        """The merge patch; None if `step` was decided on another state than this."""
        now = format_time(self._now())
        match step:
            case RecordTimes() if state.current:
                times = ((names.TOKEN_SINCE, state.since), (names.NEXT_TOKEN_SINCE, state.next_since))
                return _annotated({name: now for name, at in times if at is None or at > self._now()})
            case AddNext(current=current) if state.current == current and state.next is None:
                token, data = self._new_token(after=current)
                notes = {names.NEXT_TOKEN: token.id, names.NEXT_TOKEN_SINCE: now, names.ROTATION_REQUESTED: requested}
                return _annotated(notes, data)
            case UseNext(next=following) if state.next == following:
                notes = {
                    names.CURRENT_TOKEN: following,
                    names.TOKEN_SINCE: now,
                    names.NEXT_TOKEN: None,
                    names.NEXT_TOKEN_SINCE: None,
                    names.PREVIOUS_TOKEN: state.current,
                }
                return _annotated(notes)
            case DropPrevious(previous=previous) if state.previous == previous != state.current:
                return _annotated({names.PREVIOUS_TOKEN: None}, {previous: None})
        return None

    async def remove(self, namespace: str, pool: str) -> None:
        """Delete the Secret and let it go. Only when the pool is gone and, read live, no Pod of it is left."""
        name = token_secret(pool)
        try:
            secret = await self._api.get(SECRETS, namespace, name)
            metadata = secret["metadata"]
            if not metadata.get("deletionTimestamp"):
                # The finalizer comes first: without it, nothing would keep the Secret while there are Pods.
                answer = await self._api.delete(SECRETS, namespace, name, uid=metadata["uid"])
                self._cache.note_deleted(namespace, name, answer)
                secret = await self._api.get(SECRETS, namespace, name)
            if secret["metadata"]["uid"] == metadata["uid"]:
                await self._let_go(secret)
        except NotFound:
            pass
        await self._owners.drop_holder(namespace, pool)
        self._remembered.pop((namespace, pool), None)

    async def _let_go(self, secret: Object) -> None:
        metadata = secret["metadata"]
        finalizers = [entry for entry in metadata.get("finalizers") or () if entry != TOKENS_FINALIZER]
        if len(finalizers) == len(metadata.get("finalizers") or ()):
            return
        patch = {"metadata": {"resourceVersion": metadata["resourceVersion"], "finalizers": finalizers}}
        await self._api.patch(SECRETS, metadata["namespace"], metadata["name"], patch)

    def _new(self, namespace: str, pool: str, requested: str | None) -> Object:
        """A new Secret: with the tokens of the one before, if somebody deleted that, else with a token of its own."""
        before = self._remembered.get((namespace, pool))
        if before is not None:
            data, given = before["data"], before["metadata"].get("annotations") or {}
            notes = {key: value for key, value in given.items() if key.startswith(names.PREFIX)}
        else:
            token, data = self._new_token()
            notes = {names.CURRENT_TOKEN: token.id, names.TOKEN_SINCE: format_time(self._now())}
            if requested:
                notes[names.ROTATION_REQUESTED] = requested
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": token_secret(pool),
                "namespace": namespace,
                "labels": {POOL_LABEL: pool},
                "annotations": notes,
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
            changes["annotations"] = {names.CURRENT_TOKEN: token_id, names.TOKEN_SINCE: format_time(self._now())}
            if data:
                patch["data"] = data
        if not changes and not patch:
            return None
        return {"metadata": changes, **patch}

    def _replacement(self, secret: Object) -> tuple[str, dict[str, str]]:
        """The id to use in a Secret that has no current token, and what to add: nothing, if it has another one.

        That is in the agents' hands already.
        """
        kept = tokens_of(secret)
        if kept:
            return max(kept, key=generation), {}
        token, data = self._new_token()
        return token.id, data

    def _new_token(self, *, after: str = "") -> tuple[Token, dict[str, str]]:
        value = base64.urlsafe_b64encode(self._random_bytes(TOKEN_BYTES)).rstrip(b"=").decode()
        token = Token(f"t{generation(after)[0] + 1}-{self._random_bytes(3).hex()}", value)
        return token, {token.id: base64.b64encode(value.encode()).decode()}


def _words(state: TokenState, step: RotationStep) -> str:
    match step:
        case AddNext():
            return f"token {state.next} was added, to follow {state.current}"
        case UseNext():
            return f"token {state.current} is used, and {state.previous} still accepted"
        case DropPrevious(previous=previous):
            return f"token {previous} was taken out"
        case RecordTimes():
            return f"the age of token {state.current} was not known, and counts from now on"


def _annotated(notes: dict[str, str | None], data: dict[str, Any] | None = None) -> dict[str, Any]:
    patch: dict[str, Any] = {"metadata": {"annotations": notes}}
    if data:
        patch["data"] = data
    return patch
