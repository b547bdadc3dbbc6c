"""What the caller may do, asked of the API server before a person is asked anything."""

from dataclasses import dataclass

import click

from controller import names
from controller.cli.cluster.session import Connection
from controller.errors import ApiError
from controller.kube.api import Object, Resource

SELF_ACCESS_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", namespaced=False
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """One verb on one resource, and the shipped role that grants it. The core group's name is empty."""

    verb: str
    resource: str
    role: str
    group: str = names.GROUP

    @property
    def words(self) -> str:
        """As people and RBAC rules say it."""
        return f"{self.verb} {self.resource}" + (f" in {self.group}" if self.group else "")

    @property
    def question(self) -> tuple[str, ...]:
        """How to ask kubectl for it: a subresource is asked for by an option."""
        resource, _, subresource = self.resource.partition("/")
        named = f"{resource}.{self.group}" if self.group else resource
        return ("auth", "can-i", self.verb, named, *((f"--subresource={subresource}",) if subresource else ()))


_APPROVE, _OPERATE = "podslots-approve", "podslots-operate"
_PATCH_PODS = Right(verb="patch", resource="pods", role=_OPERATE, group="")

APPROVE = (
    Right(verb="patch", resource="slottasks", role=_APPROVE),
    Right(verb="update", resource="slottasks/approval", role=_APPROVE),
)
DRAIN = (_PATCH_PODS, Right(verb="update", resource="pods/drain", role=_OPERATE))
FORGET = (_PATCH_PODS, Right(verb="update", resource="pods/forget", role=_OPERATE))
BREAK_GLASS = (_PATCH_PODS, Right(verb="update", resource="pods/break-glass", role=_OPERATE))
UNLOCK = (
    Right(verb="delete", resource="leases", role=_OPERATE, group="coordination.k8s.io"),
    Right(verb="update", resource="leases/unlock", role=_OPERATE),
)


def allowed(connection: Connection, right: Right, *, namespace: str, name: str = "") -> bool:
    """Whether the caller has a right on one object, or on all of them. Raises ApiError if the server does not say."""
    resource, _, subresource = right.resource.partition("/")
    wanted = {
        "verb": right.verb,
        "group": right.group,
        "resource": resource,
        "subresource": subresource,
        "namespace": namespace,
        "name": name,
    }
    body: Object = {
        "apiVersion": SELF_ACCESS_REVIEWS.api_version,
        "kind": SELF_ACCESS_REVIEWS.kind,
        "spec": {"resourceAttributes": {key: value for key, value in wanted.items() if value}},
    }
    review = connection.api.create(SELF_ACCESS_REVIEWS, None, body)
    return bool((review.get("status") or {}).get("allowed"))


def demand(connection: Connection, rights: tuple[Right, ...], *, name: str = "", namespace: str | None = None) -> None:
    """Fail with what is missing, and the role that has it. A server that does not say is left to refuse by itself."""
    home = namespace or connection.namespace
    try:
        missing = [right for right in rights if not allowed(connection, right, namespace=home, name=name)]
    except ApiError:
        return
    if missing:
        lacking = " and ".join(right.words for right in missing)
        raise click.ClickException(
            f"you may not do this in namespace {home}: you lack {lacking}; ClusterRole {missing[0].role} has it\n"
            f"(to ask: {connection.cluster.kubectl(*missing[0].question, namespace=home)})"
        )
