"""Reads the protobuf bodies that kubectl's typed clients send: `create`, `auth can-i`, `drain`, `delete`.

They never fall back to JSON, whatever a server answers. Only the messages they send are here, in Kubernetes' own
numbering (generated.proto); types and names come from the table that JSON is decoded by. Answers are JSON, which the
same clients accept.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from controller.local.apiserver.schema.typed import struct_types

Json = dict[str, Any]

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\0"

# Message → field number → field.
_FIELDS: Mapping[str, Mapping[int, str]] = {
    "ObjectMeta": {
        1: "name", 2: "generateName", 3: "namespace", 5: "uid", 6: "resourceVersion", 8: "creationTimestamp",
        9: "deletionTimestamp", 11: "labels", 12: "annotations", 13: "ownerReferences", 14: "finalizers",
    },
    "OwnerReference": {
        1: "kind", 3: "name", 4: "uid", 5: "apiVersion", 6: "controller", 7: "blockOwnerDeletion",
    },
    "DeleteOptions": {
        1: "gracePeriodSeconds", 2: "preconditions", 3: "orphanDependents", 4: "propagationPolicy", 5: "dryRun",
    },
    "Preconditions": {1: "uid", 2: "resourceVersion"},
    "ConfigMap": {1: "metadata", 2: "data", 3: "binaryData", 4: "immutable"},
    "Secret": {1: "metadata", 2: "data", 3: "type", 4: "stringData", 5: "immutable"},
    "Namespace": {1: "metadata", 2: "spec", 3: "status"},
    "NamespaceSpec": {1: "finalizers"},
    "NamespaceStatus": {1: "phase"},
    "ServiceAccount": {1: "metadata", 4: "automountServiceAccountToken"},
    "Eviction": {1: "metadata", 2: "deleteOptions"},
    "PodDisruptionBudget": {1: "metadata", 2: "spec"},
    "PodDisruptionBudgetSpec": {
        1: "minAvailable", 2: "selector", 3: "maxUnavailable", 4: "unhealthyPodEvictionPolicy",
    },
    "LabelSelector": {1: "matchLabels", 2: "matchExpressions"},
    "LabelSelectorRequirement": {1: "key", 2: "operator", 3: "values"},
    "Role": {1: "metadata", 2: "rules"},
    "ClusterRole": {1: "metadata", 2: "rules", 3: "aggregationRule"},
    "AggregationRule": {1: "clusterRoleSelectors"},
    "PolicyRule": {1: "verbs", 2: "apiGroups", 3: "resources", 4: "resourceNames", 5: "nonResourceURLs"},
    "RoleBinding": {1: "metadata", 2: "subjects", 3: "roleRef"},
    "ClusterRoleBinding": {1: "metadata", 2: "subjects", 3: "roleRef"},
    "Subject": {1: "kind", 2: "apiGroup", 3: "name", 4: "namespace"},
    "RoleRef": {1: "apiGroup", 2: "kind", 3: "name"},
    "SelfSubjectReview": {1: "metadata"},
    "SelfSubjectAccessReview": {1: "metadata", 2: "spec"},
    "SelfSubjectAccessReviewSpec": {1: "resourceAttributes", 2: "nonResourceAttributes"},
    "ResourceAttributes": {
        1: "namespace", 2: "verb", 3: "group", 4: "version", 5: "resource", 6: "subresource", 7: "name",
    },
    "NonResourceAttributes": {1: "path", 2: "verb"},
    "SelfSubjectRulesReview": {1: "metadata", 2: "spec"},
    "SelfSubjectRulesReviewSpec": {1: "namespace"},
}  # fmt: skip

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BITS = 64
_INT_OR_STRING_IS_STRING = 1


class ProtobufError(ValueError):
    """A body that is no such message."""


def decode(raw: bytes) -> Json:
    """The document in a body, as it would stand in JSON. Raises ProtobufError."""
    if not raw.startswith(_MAGIC):
        raise ProtobufError("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    envelope = dict(_fields(raw[len(_MAGIC) :]))
    try:
        about = dict(_fields(envelope[1]))
        api_version, kind = (about[number].decode() for number in (1, 2))
        document = _message(kind, envelope.get(2, b""))
    except (AttributeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ProtobufError(f"proto: cannot decode the message: {error!r}") from error
    return {"apiVersion": api_version, "kind": kind, **document}


def _fields(raw: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a message: number, and the bytes or the number it holds."""
    place = 0
    while place < len(raw):
        tag, place = _varint(raw, place)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == _VARINT:
            value, place = _varint(raw, place)
            yield number, value
            continue
        if wire_type == _BYTES:
            size, place = _varint(raw, place)
        elif wire_type in (_FIXED64, _FIXED32):
            size = 8 if wire_type == _FIXED64 else 4
        else:
            raise ProtobufError(f"proto: illegal wireType {wire_type}")
        if place + size > len(raw):
            raise ProtobufError("unexpected EOF")
        yield number, raw[place : place + size]
        place += size


def _varint(raw: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, _MAX_VARINT_BITS, 7):
        if place >= len(raw):
            raise ProtobufError("unexpected EOF")
        byte = raw[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the last byte has its high bit clear
            return value, place
    raise ProtobufError("proto: integer overflow")


def _message(kind: str, raw: bytes) -> Json:
    names, types = _FIELDS.get(kind), struct_types().get(kind, {})
    if names is None:
        raise ProtobufError(f"{kind} is not read from protobuf here: send JSON")
    result: Json = {}
    for number, value in _fields(raw):
        name = names.get(number)
        if name is None:
            continue  # a status, or what no client sends
        container, _, item = types[name].partition(":")
        if container == "list":
            result.setdefault(name, []).append(_value(item, value))
        elif container == "map":
            entry = dict(_fields(value))
            result.setdefault(name, {})[entry.get(1, b"").decode()] = _value(item, entry.get(2, b""))
        else:
            decoded = _value(types[name], value)
            # Go writes what is empty and not a pointer, and leaves it out in JSON.
            if decoded not in ("", None):
                result[name] = decoded
    return result


def _value(kind: str, value: Any) -> Any:
    match kind:
        case "string":
            return value.decode()
        case "bytes":
            return base64.b64encode(value).decode()
        case "integer":
            return _signed(value)
        case "boolean":
            return bool(value)
        case "time":
            moment = dict(_fields(value))
            if not moment:
                return None
            return datetime.fromtimestamp(_signed(moment.get(1, 0)), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        case "intorstring":
            parts = dict(_fields(value))
            is_string = parts.get(1, 0) == _INT_OR_STRING_IS_STRING
            return parts.get(3, b"").decode() if is_string else _signed(parts.get(2, 0))
        case _:
            return _message(kind, value)


def _signed(value: int) -> int:
    return value - (1 << _MAX_VARINT_BITS) if value >> (_MAX_VARINT_BITS - 1) else value
