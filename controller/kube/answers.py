"""What is said to the Kubernetes API and what it answers, whichever way it travels: paths, documents, errors."""

from urllib.parse import quote, urlencode

import orjson

from controller.errors import ApiError, ApiUnavailable, Gone
from controller.kube.api import Object, Resource

METHODS = {"get": "GET", "list": "GET", "create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE"}
"""Verb, as RBAC has them → HTTP method."""
JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
USER_AGENT = "podslots"
OK, UNAUTHORIZED, SERVER_ERROR = 200, 401, 500
MAX_RETRY_AFTER_SECONDS = 300.0
"""No longer is waited because somebody says so: an API server says seconds, a broken proxy may say a year."""
STRICT = {"fieldValidation": "Strict"}
"""The query of a write that is refused for fields that the server does not know, where it would prune them."""


def path_of(resource: Resource, namespace: str | None, name: str = "", subresource: str = "") -> str:
    """The path of a collection, an object or a subresource."""
    parts = ["apis", resource.group] if resource.group else ["api"]
    parts.append(resource.version)
    if resource.namespaced and namespace:
        parts += ["namespaces", namespace]
    parts.append(resource.plural)
    parts += [part for part in (name, subresource) if part]
    return "/" + "/".join(quote(part, safe="") for part in parts)


def with_query(path: str, query: dict[str, str] | None) -> str:
    """The path with those of the parameters that have a value."""
    given = {key: value for key, value in (query or {}).items() if value}
    return f"{path}?{urlencode(given)}" if given else path


def delete_options(uid: str | None, resource_version: str | None, grace_period_seconds: int | None) -> Object:
    """The body of a DELETE."""
    preconditions = {"uid": uid, "resourceVersion": resource_version}
    body: Object = {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "preconditions": {key: value for key, value in preconditions.items() if value is not None},
    }
    if grace_period_seconds is not None:
        body["gracePeriodSeconds"] = grace_period_seconds
    return body


def dump(document: Object) -> bytes:
    """A document as JSON."""
    return orjson.dumps(document)


def parse(content: bytes) -> Object:
    """A document. Raises ApiUnavailable for anything else: something in between has answered."""
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise ApiUnavailable("the answer is not JSON") from error
    if not isinstance(document, dict):
        raise ApiUnavailable("the answer is not an object")
    return document


def parse_status(content: bytes) -> Object:
    """The Status document of an error. A proxy in between may have answered with anything else."""
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError:
        return {"message": content[:200].decode(errors="replace")}
    return document if isinstance(document, dict) else {}


def parse_event(line: bytes) -> Object:
    """A watch event. Raises the error of an ERROR event, and ApiUnavailable for what is none."""
    event = parse(line)
    kind, obj = event.get("type"), event.get("object")
    if kind == "ERROR":
        status = obj if isinstance(obj, dict) else {}
        code = status.get("code")
        raise error_of(code if isinstance(code, int) else SERVER_ERROR, status, None)
    if not isinstance(kind, str) or not isinstance(obj, dict) or not isinstance(obj.get("metadata"), dict):
        raise ApiUnavailable("the answer is no watch event")
    return event


def error_of(status: int, document: Object, retry_after: str | None) -> ApiError | ApiUnavailable:
    """The error for an answer."""
    reason, message = str(document.get("reason") or ""), str(document.get("message") or "")
    if status >= SERVER_ERROR:
        return ApiUnavailable(f"{status} {reason}: {message}", code=status)
    if reason == "Expired":
        return Gone(status, reason, message)
    return ApiError.of(status, reason, message, _seconds(document.get("details"), retry_after))


def _seconds(details: object, retry_after: str | None) -> float | None:
    """How long to wait: as the document says, else as Retry-After does; the API server never sends its date form."""
    said = details.get("retryAfterSeconds") if isinstance(details, dict) else None
    if not isinstance(said, int | float) or said <= 0:
        said = float(retry_after) if retry_after and retry_after.isdecimal() else None
    return min(float(said), MAX_RETRY_AFTER_SECONDS) if said else None
