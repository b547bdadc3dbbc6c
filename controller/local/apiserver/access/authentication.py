"""Who asks: bearer tokens, and whoever they stand in for by impersonation headers."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from multidict import MultiMapping

from controller.local.apiserver.errors import bad_request, unauthorized
from controller.local.apiserver.store.users import AUTHENTICATED, MASTERS, User

ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))
_SERVICE_ACCOUNT = "system:serviceaccount:"
_NODE = "system:node:"


def authenticate(users: Mapping[str, str], admins: frozenset[str], authorization: str | None) -> User:
    """The user behind an Authorization header; anonymous without one. Raises Unauthorized for a bad one."""
    if not authorization:
        return ANONYMOUS
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        return ANONYMOUS
    given = token.strip().encode()
    found = None
    for known, user in users.items():
        # Compared in constant time, and all of them, so that timing tells nothing.
        if hmac.compare_digest(given, known.encode()):
            found = user
    if found is None:
        raise unauthorized()
    return User(found, (*([MASTERS] if found in admins else []), *_implied_groups(found), AUTHENTICATED))


def impersonate(user: User, headers: MultiMapping[str]) -> User:
    """Whom a request is made for: `Impersonate-User` and `Impersonate-Group`, else the user himself."""
    name = headers.get("Impersonate-User", "")
    groups = headers.getall("Impersonate-Group", [])
    if not name:
        if groups:
            raise bad_request("requested groups without impersonating a user")
        return user
    given = groups or list(_implied_groups(name))
    return User(name, tuple(dict.fromkeys([*given, AUTHENTICATED])))


def _implied_groups(name: str) -> tuple[str, ...]:
    if name.startswith(_SERVICE_ACCOUNT):
        namespace = name.removeprefix(_SERVICE_ACCOUNT).partition(":")[0]
        return ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
    return ("system:nodes",) if name.startswith(_NODE) else ()
