"""What is asked about people: who they are, whose token it is, and what they may do. Answered, never stored."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from controller.local.apiserver.access.authorization import Authorizer
from controller.local.apiserver.access.rbac import Attributes
from controller.local.apiserver.bodies import parse_body
from controller.local.apiserver.errors import ApiError, Cause, bad_request, invalid_value
from controller.local.apiserver.requests import RequestInfo
from controller.local.apiserver.schema.typed import DecodeError, Decoder
from controller.local.apiserver.store.outcomes import stamp
from controller.local.apiserver.store.users import User

Json = dict[str, Any]

AUDIENCE = "https://kubernetes.default.svc"
AUTHENTICATION, AUTHORIZATION = "authentication.k8s.io", "authorization.k8s.io"
# (group, plural) → kind, and whether it stands in a namespace.
REVIEWS: dict[tuple[str, str], tuple[str, bool]] = {
    (AUTHENTICATION, "selfsubjectreviews"): ("SelfSubjectReview", False),
    (AUTHENTICATION, "tokenreviews"): ("TokenReview", False),
    (AUTHORIZATION, "selfsubjectaccessreviews"): ("SelfSubjectAccessReview", False),
    (AUTHORIZATION, "selfsubjectrulesreviews"): ("SelfSubjectRulesReview", False),
    (AUTHORIZATION, "subjectaccessreviews"): ("SubjectAccessReview", False),
    (AUTHORIZATION, "localsubjectaccessreviews"): ("LocalSubjectAccessReview", True),
}


def is_review(info: RequestInfo) -> bool:
    """Whether a request asks for one."""
    return info.verb == "create" and info.version == "v1" and (info.group, info.plural) in REVIEWS


class Reviews:
    """Answers SubjectAccessReviews, TokenReviews and their like."""

    def __init__(self, authorizer: Authorizer, known: Callable[[str], User]) -> None:
        """`known(authorization)`: the user behind an Authorization header; raises Unauthorized for a bad one."""
        self._authorizer = authorizer
        self._known = known

    def answer(self, info: RequestInfo, raw: bytes, content_type: str, user: User, *, now: datetime) -> Json:
        """The review with its status. Raises ApiError."""
        kind, _ = REVIEWS[info.group, info.plural]
        head: Json = {"kind": kind, "apiVersion": f"{info.group}/{info.version}"}
        spec = _spec(kind, head, parse_body(raw, content_type, kind))
        match kind:
            case "SelfSubjectReview":
                about = {"username": user.name, "groups": list(user.groups)}
                return {**head, "metadata": {"creationTimestamp": stamp(now)}, "status": {"userInfo": about}}
            case "TokenReview":
                return {**head, "metadata": {}, "spec": spec, "status": self._whose(spec)}
            case "SelfSubjectRulesReview":
                return {**head, "metadata": {}, "spec": {}, "status": self._rules(user, spec)}
            case "SelfSubjectAccessReview":
                asked = user
            case _:
                asked = _subject(spec)
        metadata = {"namespace": info.namespace} if info.namespace else {}
        decision = self._authorizer.decide(asked, _wanted(spec))
        status: Json = {"allowed": decision.allowed}
        if decision.reason:
            status["reason"] = decision.reason
        return {**head, "metadata": metadata, "spec": spec, "status": status}

    def _whose(self, spec: Json) -> Json:
        """Whose token it is. All tokens here are for the API server, and for no other audience."""
        if not spec.get("token"):
            raise bad_request("token is required for TokenReview in authentication")
        wanted = spec.get("audiences") or [AUDIENCE]
        try:
            user = self._known(f"Bearer {spec['token']}")
        except ApiError:
            return {"user": {}, "error": "invalid bearer token"}
        if AUDIENCE not in wanted:
            listed = " ".join(f'"{audience}"' for audience in wanted)
            why = f'token audiences ["{AUDIENCE}"] is invalid for the target audiences [{listed}]'
            return {"user": {}, "error": f"[invalid bearer token, {why}]"}
        about = {"username": user.name, "groups": list(user.groups)}
        return {"authenticated": True, "user": about, "audiences": [AUDIENCE]}

    def _rules(self, user: User, spec: Json) -> Json:
        namespace = spec.get("namespace", "")
        if not namespace:
            raise bad_request("no namespace on request")
        everything = [
            {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
            {"verbs": ["*"], "nonResourceURLs": ["*"]},
        ]
        unlimited = self._authorizer.decide(user, Attributes("*", "*", "*")).allowed
        rules = everything if unlimited else self._authorizer.rbac.rules(user, namespace)
        return {
            "resourceRules": [rule for rule in rules if "nonResourceURLs" not in rule],
            "nonResourceRules": [rule for rule in rules if "nonResourceURLs" in rule],
            "incomplete": False,
        }


def _spec(kind: str, head: Json, document: Any) -> Json:
    if not isinstance(document, dict) or any(document.get(name, value) != value for name, value in head.items()):
        raise bad_request(f"a {kind} of {head['apiVersion']} is expected")
    try:
        spec: Json = Decoder(kind).decode(document).get("spec") or {}
    except DecodeError as error:
        raise bad_request(f'{kind} in version "v1" cannot be handled as a {kind}: {error}') from error
    # Go leaves out what is empty.
    return {
        name: {key: value for key, value in part.items() if value not in ("", [])} if isinstance(part, dict) else part
        for name, part in spec.items()
    }


def _subject(spec: Json) -> User:
    if not spec.get("user") and not spec.get("groups"):
        raise _invalid(invalid_value("spec.user", '""', "at least one of user or group must be specified"))
    return User(spec.get("user", ""), tuple(spec.get("groups") or ()))


def _wanted(spec: Json) -> Attributes:
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if (resource is None) == (path is None):
        why = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        raise _invalid(invalid_value("spec.resourceAttributes", "null", why))
    if path is not None:
        return Attributes(path.get("verb", ""), path=path.get("path", ""))
    given = resource or {}
    names = ("verb", "group", "resource", "subresource", "namespace", "name")
    return Attributes(**{name: given.get(name, "") for name in names})


def _invalid(cause: Cause) -> ApiError:
    details = {"group": AUTHORIZATION, "causes": [cause.document()]}
    return ApiError(422, "Invalid", f'.{AUTHORIZATION} "" is invalid: {cause.field}: {cause.message}', details)
