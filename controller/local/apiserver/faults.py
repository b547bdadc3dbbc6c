"""Faults on request: delays, refusals and cut connections, by rules that tests and operators' drills set.

A rule picks requests by verb, resource, namespace and name; the first one that matches and is in luck acts.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from controller.local.apiserver.errors import ApiError, bad_request
from controller.local.apiserver.requests import RequestInfo

Json = dict[str, Any]

_REASONS = {
    400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 410: "Expired",
    429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout",
}  # fmt: skip
_MESSAGES = {
    403: "exceeded quota: podslots, requested: pods=1, used: pods=10, limited: pods=10",
    429: "the server has received too many requests and has asked us to try again later",
    500: "Internal error occurred: injected fault",
    503: "the server is currently unable to handle the request",
    504: "the server was unable to return a response in the time allotted, but may still be processing the request",
}
_DEFAULT_RETRY_AFTER_SECONDS = 1


@dataclass(slots=True)
class FaultRule:
    """One fault. `*` and None match anything; `resource` is `pods` or `pods/status`."""

    verb: str = "*"
    resource: str = "*"
    namespace: str | None = None
    name: str | None = None
    user: str | None = None
    delay_seconds: float = 0.0
    # Answered instead of carrying the request out.
    status: int | None = None
    message: str = ""
    retry_after_seconds: int | None = None
    # The connection is closed before the request is carried out, or after it without an answer.
    drop: Literal["before", "after"] | None = None
    probability: float = 1.0
    # How often it acts; None is always.
    count: int | None = None
    fired: int = field(default=0, compare=False)

    def matches(self, info: RequestInfo, user: str) -> bool:
        """True if the rule is about this request."""
        return (
            (self.count is None or self.fired < self.count)
            and self.verb in ("*", info.verb)
            and self.resource in ("*", info.resource_and_subresource)
            and self.namespace in (None, info.namespace)
            and self.name in (None, info.name)
            and self.user in (None, user)
        )

    def error(self, info: RequestInfo) -> ApiError:
        """The error that the request is answered with."""
        code = self.status or 500
        message = self.message or _MESSAGES.get(code, "injected fault")
        details: Json = {}
        headers = {}
        if code == 403:  # noqa: PLR2004 - the status itself
            message = f'{info.plural} "{info.name}" is forbidden: {message}'
            details = {"name": info.name, "kind": info.plural} if info.name else {"kind": info.plural}
        retry_after = self.retry_after_seconds
        if retry_after is None and code in (429, 503):
            retry_after = _DEFAULT_RETRY_AFTER_SECONDS
        if retry_after is not None:
            details["retryAfterSeconds"] = retry_after
            headers["Retry-After"] = str(retry_after)
        return ApiError(code, _REASONS.get(code, "InternalError"), message, details, headers=headers)

    def document(self) -> Json:
        """As the admin endpoint shows it."""
        return {part.name: getattr(self, part.name) for part in fields(self)}


class Faults:
    """The rules in force."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.rules: list[FaultRule] = []

    def add(self, rule: FaultRule) -> FaultRule:
        """Adds a rule behind the others."""
        self.rules.append(rule)
        return rule

    def clear(self) -> None:
        """No faults any more."""
        self.rules.clear()

    def replace(self, documents: Iterable[Any]) -> None:
        """Sets the rules from JSON. Raises BadRequest and keeps the old ones if one makes no sense."""
        self.rules = [_parse(document) for document in documents]

    def strike(self, info: RequestInfo, user: str) -> FaultRule | None:
        """The rule that acts on this request, counted as fired."""
        for rule in self.rules:
            if rule.matches(info, user) and (rule.probability >= 1 or self._rng.random() < rule.probability):
                rule.fired += 1
                return rule
        return None


def _parse(document: Any) -> FaultRule:
    if not isinstance(document, Mapping):
        raise bad_request("a fault rule is a JSON object")
    known = {part.name for part in fields(FaultRule)} - {"fired"}
    unknown = set(document) - known - {"fired"}
    if unknown:
        raise bad_request(
            f"unknown fields in a fault rule: {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}"
        )
    rule = FaultRule(**{key: value for key, value in document.items() if key in known})
    if rule.drop not in (None, "before", "after"):
        raise bad_request('drop is "before" or "after"')
    if not isinstance(rule.probability, (int, float)) or not isinstance(rule.delay_seconds, (int, float)):
        raise bad_request("probability and delay_seconds are numbers")
    return rule
