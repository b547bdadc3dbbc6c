"""Who asks: bearer tokens, and the little that strangers may see."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from controller.local.apiserver.errors import ApiError, Target, forbidden, unauthorized
from controller.local.apiserver.requests import RequestInfo

ANONYMOUS = "system:anonymous"
# As the `system:public-info-viewer` role of every cluster.
_OPEN_PATHS = ("/healthz", "/livez", "/readyz", "/version")


def authenticate(users: Mapping[str, str], authorization: str | None) -> str:
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
    return found


def authorize(user: str, info: RequestInfo, target: Target) -> None:
    """Raises Forbidden for strangers; whoever has a token may do everything."""
    if user != ANONYMOUS or info.path.startswith(_OPEN_PATHS):
        return
    if not info.is_resource:
        message = f'forbidden: User "{user}" cannot {info.verb} path "{info.path}"'
        raise ApiError(403, "Forbidden", message, {})
    where = f' in the namespace "{info.namespace}"' if info.namespace else " at the cluster scope"
    text = (
        f'User "{user}" cannot {info.verb} resource "{info.resource_and_subresource}" '
        f'in API group "{info.group}"{where}'
    )
    raise forbidden(target, text)
