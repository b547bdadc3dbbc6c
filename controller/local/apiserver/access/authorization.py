"""Whether a request may go on: the little that strangers may see, and RBAC for those it is asked for."""

from __future__ import annotations

from controller.local.apiserver.access.authentication import ANONYMOUS
from controller.local.apiserver.access.rbac import Attributes, Decision, Rbac
from controller.local.apiserver.errors import ApiError, Target, forbidden
from controller.local.apiserver.requests import RequestInfo
from controller.local.apiserver.store.users import User

# As the `system:public-info-viewer` role of every cluster.
_OPEN_PATHS = ("/healthz", "/livez", "/readyz", "/version")


class Authorizer:
    """Decides what users may do.

    Whoever has a token may do everything, unless RBAC is to be enforced: this is one person's machine. Users that
    somebody stands in for may do what RBAC grants them.
    """

    def __init__(self, rbac: Rbac, token_users: frozenset[str], *, enforce: bool) -> None:
        self.rbac = rbac
        self._token_users = frozenset() if enforce else token_users

    def decide(self, user: User, wanted: Attributes) -> Decision:
        """Whether the user may."""
        if user.name in self._token_users:
            return Decision(allowed=True)
        return self.rbac.decide(user, wanted)

    def check(self, user: User, info: RequestInfo) -> None:
        """Raises Forbidden for a request that the user may not make."""
        if info.path.startswith(_OPEN_PATHS):
            return
        wanted = attributes(info)
        if user != ANONYMOUS and self.decide(user, wanted).allowed:
            return
        if not info.is_resource:
            raise ApiError(403, "Forbidden", f'forbidden: User "{user.name}" cannot {info.verb} path "{info.path}"', {})
        where = f' in the namespace "{info.namespace}"' if info.namespace else " at the cluster scope"
        text = (
            f'User "{user.name}" cannot {info.verb} resource "{info.resource_and_subresource}" '
            f'in API group "{info.group}"{where}'
        )
        raise forbidden(Target(info.group, info.plural, "", info.name), text)


def attributes(info: RequestInfo) -> Attributes:
    """What a request is going to do."""
    if not info.is_resource:
        return Attributes(info.verb, path=info.path)
    return Attributes(info.verb, info.group, info.plural, info.subresource, info.namespace, info.name)
