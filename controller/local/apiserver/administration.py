"""Administration: faults and compaction on request, for tests and drills. Admins only."""

from __future__ import annotations

from typing import Any

import orjson

from controller.local.apiserver.errors import ApiError, bad_request
from controller.local.apiserver.faults import Faults
from controller.local.apiserver.store.store import Store
from controller.local.apiserver.watch_hub import WatchHub

Json = dict[str, Any]

PREFIX = "/_podslots/"


class Administration:
    """The calls below `/_podslots/`."""

    def __init__(self, store: Store, hub: WatchHub, faults: Faults) -> None:
        self._store = store
        self._hub = hub
        self._faults = faults

    def handle(self, method: str, path: str, raw: bytes) -> Json:
        """Carries out one call. Raises ApiError."""
        match method, path.removeprefix(PREFIX):
            case "GET", "faults":
                pass
            case "PUT", "faults":
                self._faults.replace(_rules(raw))
            case "DELETE", "faults":
                self._faults.clear()
            case "POST", "faults/drop-watches":
                return {"dropped": self._hub.drop_watches()}
            case "POST", "compact":
                self._store.versions.compact()
                return {"version": self._store.versions.current}
            case _:
                raise ApiError(404, "NotFound", "no such administration call", {})
        return {"rules": [rule.document() for rule in self._faults.rules]}


def _rules(raw: bytes) -> list[Any]:
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise bad_request(str(error)) from error
    rules = document.get("rules") if isinstance(document, dict) else document
    if not isinstance(rules, list):
        raise bad_request('a list of rules, or {"rules": [...]}')
    return rules
