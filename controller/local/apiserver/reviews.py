"""What people ask about themselves: who they are, and what they may do. Answered, never stored."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import orjson

from controller.local.apiserver.errors import ApiError, Cause, bad_request
from controller.local.apiserver.requests import RequestInfo

Json = dict[str, Any]

SELF = ("authentication.k8s.io", "v1", "selfsubjectreviews")
ACCESS = ("authorization.k8s.io", "v1", "selfsubjectaccessreviews")
_KINDS = {SELF: "SelfSubjectReview", ACCESS: "SelfSubjectAccessReview"}
_ATTRIBUTES = ("resourceAttributes", "nonResourceAttributes")


def is_review(info: RequestInfo) -> bool:
    """Whether a request asks for one."""
    return (info.group, info.version, info.plural) in _KINDS and info.verb == "create" and not info.namespace


def answer(info: RequestInfo, raw: bytes, *, user: str, admin: bool, now: datetime) -> Json:
    """The review with its status. Whoever has a token may do everything here. Raises ApiError."""
    key = info.group, info.version, info.plural
    body = _body(raw)
    head: Json = {"kind": _KINDS[key], "apiVersion": f"{info.group}/{info.version}"}
    if any(body.get(name, value) != value for name, value in head.items()):
        raise bad_request(f"a {head['kind']} of {head['apiVersion']} is expected")
    if key == SELF:
        groups = [*(["system:masters"] if admin else []), "system:authenticated"]
        created = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        status: Json = {"userInfo": {"username": user, "groups": groups}}
        return {**head, "metadata": {"creationTimestamp": created}, "status": status}
    return {**head, "metadata": {}, "spec": _attributes(body), "status": {"allowed": True}}


def _body(raw: bytes) -> Json:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise bad_request("the body is not an object")
    return body


def _attributes(body: Json) -> Json:
    spec = body.get("spec")
    given = {name: spec[name] for name in _ATTRIBUTES if isinstance(spec, dict) and isinstance(spec.get(name), dict)}
    if len(given) != 1:
        text = "Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified"
        cause = Cause("FieldValueInvalid", text, "spec.resourceAttributes")
        details = {"group": ACCESS[0], "causes": [cause.document()]}
        message = f'.{ACCESS[0]} "" is invalid: {cause.field}: {text}'
        raise ApiError(422, "Invalid", message, details)
    return {name: {key: value for key, value in fields.items() if value != ""} for name, fields in given.items()}
