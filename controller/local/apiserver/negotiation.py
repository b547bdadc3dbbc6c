"""What form of an answer a client takes, by its Accept header: the object, a table, or metadata alone.

JSON is the only encoding: a client that would rather have protobuf, as kubectl's typed clients, names JSON after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from controller.local.apiserver.errors import ApiError

_JSON = frozenset({"application/json", "application/*", "*/*"})
_VERSIONS = ("v1", "v1beta1")
_META_GROUP = "meta.k8s.io"


class Shape(Enum):
    """What an object is turned into."""

    OBJECT = "object"
    TABLE = "table"
    METADATA = "metadata"


@dataclass(frozen=True, slots=True)
class Form:
    """The form of an answer."""

    shape: Shape
    api_version: str = ""


AS_IT_IS = Form(Shape.OBJECT)
_SHAPES = {
    "Table": Shape.TABLE,
    "PartialObjectMetadata": Shape.METADATA,
    "PartialObjectMetadataList": Shape.METADATA,
}


def negotiate(accept: str, *, custom: bool = False) -> Form:
    """The first form in the header that can be given. Raises NotAcceptable."""
    if not accept.strip():
        return AS_IT_IS
    for media_range in accept.split(","):
        kind, *parameters = (part.strip() for part in media_range.split(";"))
        if kind not in _JSON:
            continue
        given = dict(parameter.partition("=")[::2] for parameter in parameters)
        wanted = given.get("as", "")
        if not wanted:
            return AS_IT_IS
        if wanted in _SHAPES and given.get("g") == _META_GROUP and given.get("v") in _VERSIONS:
            return Form(_SHAPES[wanted], f"{_META_GROUP}/{given['v']}")
    text = "only the following media types are accepted: application/json"
    raise ApiError(406, "NotAcceptable", text, None if custom else {})
