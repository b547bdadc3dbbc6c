"""Answering Evictions: our entry of `status.responders`, and nothing else of the object."""

from collections.abc import Callable

from controller import names
from controller.decide.pods.eviction import Answer, Eviction, format_seconds
from controller.errors import Conflict, NotFound
from controller.kube.api import EVICTIONS, Api, Object

_TRIES = 5


class EvictionAnswers:
    """Writes answers into the status of Evictions."""

    def __init__(self, api: Api, note: Callable[[Object], None]) -> None:
        """`note` is told of each Eviction as a write or a live read found it."""
        self._api = api
        self._note = note

    async def write(self, eviction: Eviction, answer: Answer) -> None:
        """Say it, unless the Eviction is meanwhile gone, or no longer ours to answer.

        A merge patch writes a list as a whole, and other responders have entries in it: so it carries the version that
        the list was read at, and starts over where that has changed.
        """
        known: Eviction | None = eviction
        for _ in range(_TRIES):
            if known is None or known.uid != eviction.uid or not known.asks:
                return
            try:
                self._note(await self._patch(known, answer))
            except NotFound:
                return
            except Conflict:
                known = await self._read(known)
            else:
                return
        raise Conflict(409, "Conflict", f"Eviction {eviction.name} changed {_TRIES} times while it was to be answered")

    async def _patch(self, eviction: Eviction, answer: Answer) -> Object:
        metadata = {"uid": eviction.uid, "resourceVersion": eviction.object["metadata"]["resourceVersion"]}
        before = (eviction.object.get("status") or {}).get("responders") or []
        body = {"metadata": metadata, "status": {"responders": _with_answer(before, answer)}}
        return await self._api.patch(EVICTIONS, eviction.namespace, eviction.name, body, subresource="status")

    async def _read(self, eviction: Eviction) -> Eviction | None:
        try:
            live = await self._api.get(EVICTIONS, eviction.namespace, eviction.name)
        except NotFound:
            return None
        self._note(live)
        return Eviction.parse(live)


def _with_answer(responders: list[Object], answer: Answer) -> list[Object]:
    """The same entries in the same order, ours with the answer. Kubernetes begins each entry; if not, ours is added."""
    if all(entry["name"] != names.EVICTION_RESPONDER for entry in responders):
        responders = [*responders, {"name": names.EVICTION_RESPONDER}]
    return [_said(entry, answer) if entry["name"] == names.EVICTION_RESPONDER else entry for entry in responders]


def _said(entry: Object, answer: Answer) -> Object:
    times = {
        "heartbeatTime": answer.heartbeat,
        "expectedCompletionTime": answer.expected,
        "completionTime": answer.completed,
    }
    kept = {key: value for key, value in entry.items() if key not in times}
    given = {key: format_seconds(time) for key, time in times.items() if time is not None}
    return {**kept, **given, "message": answer.message}
