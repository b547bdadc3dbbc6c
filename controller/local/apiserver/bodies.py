"""Reads request bodies: JSON, YAML, the protobuf of kubectl's typed clients, and patches."""

from __future__ import annotations

import json
from typing import Any

import orjson
import yaml

from controller.local.apiserver.errors import bad_request, unsupported_media_type
from controller.local.apiserver.schema import protobuf
from controller.local.apiserver.store import patches

Json = dict[str, Any]

_YAML = ("application/yaml", "text/yaml")
_JSON = ("", "application/json", "application/octet-stream")


def parse_body(raw: bytes, content_type: str, kind: str, *, custom: bool = False) -> Any:
    """A request's document. Raises BadRequest and UnsupportedMediaType."""
    if content_type == protobuf.MEDIA_TYPE and not custom:
        try:
            return protobuf.decode(raw)
        except protobuf.ProtobufError as error:
            raise bad_request(f"the object provided is unrecognized (must be of type {kind}): {error}") from error
    if content_type in _YAML:
        try:
            return yaml.safe_load(raw)
        except yaml.YAMLError as error:
            raise bad_request(f"error converting YAML to JSON: {error}") from error
    if content_type not in _JSON:
        raise unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: "
            "application/json, application/yaml, application/vnd.kubernetes.protobuf"
        )
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        shown = raw.decode(errors="replace")
        raise bad_request(
            f"the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; "
            f"json parse error: {error} ({shown})"
        ) from error


def parse_patch(raw: bytes, content_type: str) -> Any:
    """The document of a PATCH; None for formats that are refused by the store, which knows the resource."""
    if content_type not in (patches.JSON, patches.MERGE, patches.STRATEGIC):
        return None
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"error decoding patch: {error}") from error


class _Object(dict[str, Any]):
    """A JSON object that remembers which keys stood twice in it and below."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated: list[str] = []
        seen: set[str] = set()
        for key, value in pairs:
            if key in seen:
                self.repeated.append(key)
            seen.add(key)
            self.repeated += [f"{key}{where}" for where in _repeated_below(value)]


def _repeated_below(value: Any) -> list[str]:
    if isinstance(value, _Object):
        return [f".{path}" for path in value.repeated]
    if isinstance(value, list):
        return [f"[{index}]{path}" for index, item in enumerate(value) for path in _repeated_below(item)]
    return []


def repeated_fields(raw: bytes, content_type: str) -> tuple[str, ...]:
    """The paths of JSON fields that stand twice, of which the last one counts."""
    if content_type not in _JSON:
        return ()
    document = json.loads(raw, object_pairs_hook=_Object)
    return tuple(document.repeated) if isinstance(document, _Object) else ()
