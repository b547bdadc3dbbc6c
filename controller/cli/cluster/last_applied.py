"""The note on an object of what was asked for, as `kubectl apply` and `kubectl create --save-config` leave it.

With it `kubectl apply` takes over what `podslots submit` made without a warning, and takes away what is asked no more.
"""

import json
from collections.abc import Mapping
from typing import Any

Object = Mapping[str, Any]

ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"
_ESCAPED = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
"""As Go writes JSON: `kubectl apply` of the same file then finds its own note, and changes nothing."""
MOST_BYTES = 128 * 1024
"""All annotations of an object together have at most 256 KiB. A task that is larger than this goes without the note."""


def with_note(obj: Object, namespace: str) -> dict[str, Any]:
    """An object to be created, with the note. One whose name is made up by the server can't be applied: it has none."""
    if not obj["metadata"].get("name"):
        return dict(obj)
    return _noted(obj, _asked(obj, namespace))


def with_new_note(changes: Object, obj: Object, before: Object, namespace: str) -> dict[str, Any]:
    """The merge patch `changes` towards `obj`, with the note brought up to date if `before`, the object there, has one.

    Merging takes nothing away, so what was asked for before and is not named now is still asked for.
    """
    text = (before["metadata"].get("annotations") or {}).get(ANNOTATION)
    try:
        noted = json.loads(text) if text else None
    except ValueError:
        noted = None
    if not isinstance(noted, dict):
        return dict(changes)
    asked = _merged(noted, _asked(obj, namespace))
    return dict(changes) if asked == noted else _noted(changes, asked)


def _asked(obj: Object, namespace: str) -> dict[str, Any]:
    """The object as kubectl notes it: without a status, and without the note itself."""
    metadata = obj["metadata"]
    annotations = {key: value for key, value in (metadata.get("annotations") or {}).items() if key != ANNOTATION}
    named = {**metadata, "annotations": annotations, "namespace": namespace}
    return {**{key: value for key, value in obj.items() if key != "status"}, "metadata": named}


def _noted(obj: Object, asked: Object) -> dict[str, Any]:
    text = json.dumps(asked, sort_keys=True, separators=(",", ":"), ensure_ascii=False).translate(_ESCAPED) + "\n"
    if len(text.encode()) > MOST_BYTES:
        return dict(obj)
    annotations = {**(obj["metadata"].get("annotations") or {}), ANNOTATION: text}
    return {**obj, "metadata": {**obj["metadata"], "annotations": annotations}}


def _merged(old: Any, new: Any) -> Any:
    """As a merge patch merges."""
    if not isinstance(new, dict):
        return new
    merged = dict(old) if isinstance(old, dict) else {}
    for key, value in new.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged
