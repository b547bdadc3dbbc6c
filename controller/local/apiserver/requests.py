"""Parses a request's path and query into what it asks for, as k8s.io/apiserver's RequestInfo does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controller.local.apiserver.errors import ApiError, bad_request

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "GET": "get", "HEAD": "get", "DELETE": "delete"}
_NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """What a request is about. `plural` is empty for anything that is no resource: discovery, health, version."""

    verb: str
    path: str
    group: str = ""
    version: str = ""
    plural: str = ""
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def is_resource(self) -> bool:
        """True if the path names a resource."""
        return bool(self.plural)

    @property
    def resource_and_subresource(self) -> str:
        """`pods`, `pods/status`."""
        return f"{self.plural}/{self.subresource}" if self.subresource else self.plural


def parse(method: str, path: str, query: Mapping[str, str]) -> RequestInfo:
    """The request's meaning by its path alone; whether it is served is another question."""
    verb = _VERBS.get(method, method.lower())
    parts = [part for part in path.split("/") if part]
    # /api/VERSION/… and /apis/GROUP/VERSION/…; anything shorter is discovery.
    if parts[:1] == ["api"] and len(parts) > 2:  # noqa: PLR2004 - the lengths of those prefixes
        group, version, rest = "", parts[1], parts[2:]
    elif parts[:1] == ["apis"] and len(parts) > 3:  # noqa: PLR2004
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return RequestInfo(method.lower(), path)
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]
        if len(rest) > 2 and rest[2] not in _NAMESPACE_SUBRESOURCES:  # noqa: PLR2004
            rest = rest[2:]
        elif group == "":
            # The namespace itself; it is both the object and, for the audit log, its own namespace.
            return RequestInfo(verb, path, group, version, "namespaces", "", namespace, "/".join(rest[2:]))
    plural, name, subresource = rest[0], rest[1] if len(rest) > 1 else "", "/".join(rest[2:])
    if not name:
        verb = {"get": "list", "delete": "deletecollection"}.get(verb, verb)
        if verb == "list" and is_true(query.get("watch", "")):
            verb = "watch"
    elif verb == "get" and not subresource and is_true(query.get("watch", "")):
        verb = "watch"
    return RequestInfo(verb, path, group, version, plural, namespace, name, subresource)


def is_true(text: str) -> bool:
    """A boolean query parameter as Go parses it; the bare name counts as true."""
    return text.lower() in ("true", "1", "t")


def integer(query: Mapping[str, str], name: str) -> int | None:
    """An integer query parameter."""
    text = query.get(name, "")
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def resource_version(text: str, *, code: int = 400) -> int:
    """A resourceVersion parameter; the real server answers a watch with 500 and a list with 400."""
    if text.isascii() and text.isdigit():
        return int(text)
    message = f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
    raise ApiError(code, "Invalid" if code != 500 else "", message)  # noqa: PLR2004 - the status itself
