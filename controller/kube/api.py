"""What the controller needs of the Kubernetes API: resources, and one protocol over raw JSON documents.

`client.py` speaks it over HTTP; a simulation speaks it straight to a store. Objects are parsed JSON (`dict`), never
typed models. Every call raises `controller.errors.ApiError` (the server said no) or `ApiUnavailable` (outcome unknown).
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

Object = dict[str, Any]
"""A parsed Kubernetes object, list or watch event."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind as the API paths name it."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """`group/version`, or `version` for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version


PODS = Resource("", "v1", "pods", "Pod")
SECRETS = Resource("", "v1", "secrets", "Secret")
EVENTS = Resource("", "v1", "events", "Event")
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
BUDGETS = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
EVICTIONS = Resource("lifecycle.k8s.io", "v1alpha1", "evictions", "Eviction")
"""Of Kubernetes 1.37, alpha. Not the `policy/v1` Eviction that is posted to a Pod."""
ADMISSION_POLICIES = Resource(
    "admissionregistration.k8s.io", "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", namespaced=False
)
ADMISSION_BINDINGS = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "validatingadmissionpolicybindings",
    "ValidatingAdmissionPolicyBinding",
    namespaced=False,
)
TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False)
ACCESS_REVIEWS = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False)
CONTROLLERREVISIONS = Resource("apps", "v1", "controllerrevisions", "ControllerRevision")
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
REPLICASETS = Resource("apps", "v1", "replicasets", "ReplicaSet")
SLOTPOOLS = Resource("podslots.dev", "v1alpha1", "slotpools", "SlotPool")
SLOTTASKS = Resource("podslots.dev", "v1alpha1", "slottasks", "SlotTask")
SLOTTASKOUTPUTS = Resource("podslots.dev", "v1alpha1", "slottaskoutputs", "SlotTaskOutput")


class Api(Protocol):
    """The Kubernetes API. `namespace` None means all namespaces, or a cluster-scoped resource."""

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """The object, read live (never from a server's cache)."""
        ...

    async def list_page(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        label_selector: str = "",
        limit: int = 500,
        continue_token: str = "",
    ) -> Object:
        """One page of a consistent list: `{"metadata": {"resourceVersion", "continue"?}, "items": […]}`."""
        ...

    def watch(
        self, resource: Resource, namespace: str | None, *, resource_version: str, label_selector: str = ""
    ) -> AsyncIterator[Object]:
        """Watch events (`{"type", "object"}`) from `resource_version`, bookmarks among them.

        Ends when the server ends the stream; raises Gone for 410, also when it comes as an ERROR event, and
        ApiUnavailable when nothing at all came for the idle timeout.
        """
        ...

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        """POST."""
        ...

    async def replace(
        self, resource: Resource, namespace: str | None, name: str, body: Object, *, subresource: str = ""
    ) -> Object:
        """PUT; a `metadata.resourceVersion` in the body is a precondition."""
        ...

    async def patch(
        self, resource: Resource, namespace: str | None, name: str, body: Object, *, subresource: str = ""
    ) -> Object:
        """PATCH with a JSON merge patch; a `metadata.resourceVersion` in it is a precondition."""
        ...

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        grace_period_seconds: int | None = None,
    ) -> Object:
        """DELETE with preconditions. The answer is the object (perhaps with a deletionTimestamp) or a Status."""
        ...
