"""API errors as a real API server words them: each one becomes a `Status` object with a reason and its causes.

The texts and reasons follow k8s.io/apimachinery/pkg/api/errors; clients decide by `code`, `reason` and
`details.causes`, people read `message`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cause:
    """One field that is wrong, and why."""

    reason: str
    message: str
    field: str

    def document(self) -> Json:
        """The entry of `details.causes`."""
        return {"reason": self.reason, "message": self.message, "field": self.field}


@dataclass(frozen=True, slots=True)
class Target:
    """What an error speaks of: `pods "a"`, `widgets.example.dev "b"`."""

    group: str
    plural: str
    kind: str
    name: str = ""

    @property
    def resource(self) -> str:
        """The resource as the API server prints it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def qualified_kind(self) -> str:
        """The kind as the API server prints it."""
        return f"{self.kind}.{self.group}" if self.group else self.kind

    def details(self, kind: str) -> Json:
        """The `details` object, empty parts left out."""
        parts = {"name": self.name, "group": self.group, "kind": kind}
        return {key: value for key, value in parts.items() if value}


class ApiError(Exception):
    """A refused request. `reason` is the machine-readable word, empty where the real server gives none."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.headers = dict(headers or {})
        self.metadata = dict(metadata or {})
        # What was changed all the same, and must be durable before the refusal is told.
        self.changes: tuple[Any, ...] = ()

    def status(self) -> Json:
        """The answer's body."""
        body: Json = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": self.metadata,
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            body["reason"] = self.reason
        if self.details is not None:
            body["details"] = dict(self.details)
        body["code"] = self.code
        return body


def bad_request(message: str) -> ApiError:
    """400: the request can't be understood."""
    return ApiError(400, "BadRequest", message)


def internal_error(message: str) -> ApiError:
    """A 500."""
    return ApiError(500, "InternalError", f"Internal error occurred: {message}", {"causes": [{"message": message}]})


def unauthorized() -> ApiError:
    """401: the token is not known."""
    return ApiError(401, "Unauthorized", "Unauthorized")


def forbidden(target: Target, message: str, causes: Iterable[Cause] = ()) -> ApiError:
    """403: understood, and not allowed."""
    subject = f'{target.resource} "{target.name}"' if target.name else target.resource
    details = target.details(target.plural)
    listed = [cause.document() for cause in causes]
    if listed:
        details["causes"] = listed
    return ApiError(403, "Forbidden", f"{subject} is forbidden: {message}", details)


def not_found(target: Target) -> ApiError:
    """404: the resource is served, the object isn't there."""
    return ApiError(404, "NotFound", f'{target.resource} "{target.name}" not found', target.details(target.plural))


def no_such_resource() -> ApiError:
    """404: the path names no resource of a served group."""
    return ApiError(404, "NotFound", "the server could not find the requested resource", {})


def method_not_allowed(target: Target, verb: str) -> ApiError:
    """405: the resource doesn't know this verb."""
    return ApiError(
        405,
        "MethodNotAllowed",
        f"{verb} is not supported on resources of kind {target.resource!r}".replace("'", '"'),
        target.details(target.plural),
    )


def already_exists(target: Target) -> ApiError:
    """409: the name is taken."""
    return ApiError(
        409, "AlreadyExists", f'{target.resource} "{target.name}" already exists', target.details(target.plural)
    )


def conflict(target: Target, why: str = "", *, subject: str = "", kind: str = "") -> ApiError:
    """409: somebody else was first; read again and retry."""
    text = why or "the object has been modified; please apply your changes to the latest version and try again"
    return ApiError(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {subject or target.resource} "{target.name}": {text}',
        target.details(kind or target.plural),
    )


def expired(message: str, metadata: Mapping[str, Any] | None = None) -> ApiError:
    """410: the version asked for is no longer kept."""
    return ApiError(410, "Expired", message, metadata=metadata)


def unsupported_media_type(message: str, details: Mapping[str, Any] | None = None) -> ApiError:
    """415: not a content type this resource takes."""
    return ApiError(415, "UnsupportedMediaType", message, details)


def invalid(target: Target, causes: Sequence[Cause], *, kind: str = "") -> ApiError:
    """422: well formed, and refused by validation. Repeated causes stay in the details, as in the real server."""
    texts = list(dict.fromkeys(f"{cause.field}: {cause.message}" for cause in causes))
    joined = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    details = target.details(kind or target.kind)
    details["causes"] = [cause.document() for cause in causes]
    subject = target.qualified_kind if not kind else target.resource
    return ApiError(422, "Invalid", f'{subject} "{target.name}" is invalid: {joined}', details)


def undecodable_patch(document: Any, why: str) -> ApiError:
    """422: the patched object does not decode into its kind. All of it is shown, as the real server does."""
    shown = orjson.dumps(orjson.dumps(document).decode()).decode()
    cause = Cause("FieldValueInvalid", f"Invalid value: {shown}: {why}", "patch")
    return ApiError(422, "Invalid", f' "" is invalid: patch: {cause.message}', {"causes": [cause.document()]})


def version_too_large(asked: int, current: int) -> ApiError:
    """504: a version this server has not reached."""
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return ApiError(
        504,
        "Timeout",
        f"Timeout: Too large resource version: {asked}, current: {current}",
        {"causes": [cause], "retryAfterSeconds": 1},
        headers={"Retry-After": "1"},
    )


# --- causes -----------------------------------------------------------------------------------------------


def required(field: str, message: str = "") -> Cause:
    """A field that must be there."""
    return Cause("FieldValueRequired", f"Required value: {message}" if message else "Required value", field)


def invalid_value(field: str, shown: str, message: str) -> Cause:
    """A value of the right type that is not allowed; `shown` is it as JSON."""
    return Cause("FieldValueInvalid", f"Invalid value: {shown}: {message}", field)


def wrong_type(field: str, shown: str, message: str) -> Cause:
    """A value of the wrong type."""
    return Cause("FieldValueTypeInvalid", f"Invalid value: {shown}: {message}", field)


def unsupported_value(field: str, shown: str, supported: Iterable[str]) -> Cause:
    """A value outside its enumeration."""
    return Cause(
        "FieldValueNotSupported", f"Unsupported value: {shown}: supported values: {', '.join(supported)}", field
    )


def duplicate(field: str, shown: str) -> Cause:
    """A value that must be unique."""
    return Cause("FieldValueDuplicate", f"Duplicate value: {shown}", field)


def forbidden_field(field: str, message: str) -> Cause:
    """A field that may not be set, or not be changed."""
    return Cause("FieldValueForbidden", f"Forbidden: {message}", field)


def too_long(field: str, limit: int) -> Cause:
    """A string over its length."""
    return Cause("FieldValueTooLong", f"Too long: may not be more than {limit} bytes", field)


def too_many(field: str, count: int, limit: int) -> Cause:
    """A list or map over its length."""
    return Cause("FieldValueTooMany", f"Too many: {count}: must have at most {limit} items", field)
