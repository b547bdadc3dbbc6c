"""Which resources the API server serves: the built-in ones as a table, those of CustomResourceDefinitions added."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from controller.local.apiserver.errors import Target

if TYPE_CHECKING:
    from controller.local.apiserver.schema.structural import CustomSchema

BUILTIN_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
CUSTOM_VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")


@dataclass(frozen=True, eq=False)
class Resource:
    """A served resource in one version; `key` names its storage, the same for every version."""

    group: str
    version: str
    plural: str
    singular: str
    kind: str
    namespaced: bool = True
    verbs: tuple[str, ...] = BUILTIN_VERBS
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: frozenset[str] = frozenset()
    list_kind: str = ""
    custom: CustomSchema | None = field(default=None, repr=False)
    # A DELETE answers with the object itself, not with a Status.
    returns_deleted: bool = False
    # A PUT may leave out metadata.resourceVersion.
    unconditional_update: bool = True
    # A PUT to a free name creates.
    create_on_update: bool = False
    # metadata.generation is kept, and raised by a change of anything but metadata and status.
    has_generation: bool = False

    @cached_property
    def key(self) -> str:
        """The name of the storage: `pods`, `slotpools.podslots.dev`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @cached_property
    def api_version(self) -> str:
        """`v1` or `group/version`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @cached_property
    def prefix(self) -> bytes:
        """What an object's JSON begins with, before its own fields."""
        return f'{{"kind":"{self.kind}","apiVersion":"{self.api_version}",'.encode()

    @cached_property
    def storage_version_hash(self) -> str:
        """The hash that discovery shows, computed as k8s.io/apiserver does."""
        digest = hashlib.sha256(f"{self.group}/{self.version}/{self.kind}".encode())
        return base64.b64encode(digest.digest()[:8]).decode()

    def target(self, name: str = "") -> Target:
        """The subject of an error about this resource."""
        return Target(self.group, self.plural, self.kind, name)


STATUS = frozenset({"status"})
SCALED = frozenset({"status", "scale"})

RBAC = "rbac.authorization.k8s.io"
ADMISSION = "admissionregistration.k8s.io"

BUILTINS = (
    Resource(
        "", "v1", "namespaces", "namespace", "Namespace",
        namespaced=False, short_names=("ns",), subresources=frozenset({"status", "finalize"}),
        verbs=tuple(verb for verb in BUILTIN_VERBS if verb != "deletecollection"), returns_deleted=True,
    ),
    Resource("", "v1", "nodes", "node", "Node", namespaced=False, short_names=("no",), subresources=STATUS),
    Resource(
        "", "v1", "pods", "pod", "Pod",
        short_names=("po",), categories=("all",), returns_deleted=True, has_generation=True,
        subresources=frozenset({"status", "log", "binding", "eviction"}),
    ),
    Resource("", "v1", "secrets", "secret", "Secret"),
    Resource("", "v1", "serviceaccounts", "serviceaccount", "ServiceAccount", short_names=("sa",)),
    Resource("", "v1", "configmaps", "configmap", "ConfigMap", short_names=("cm",)),
    # There is none, and none can be made; clients that ask for them, as `kubectl cluster-info`, find an empty list.
    Resource(
        "", "v1", "services", "service", "Service",
        short_names=("svc",), categories=("all",), verbs=("get", "list", "watch"),
    ),
    Resource("", "v1", "events", "event", "Event", short_names=("ev",), create_on_update=True),
    Resource(
        "coordination.k8s.io", "v1", "leases", "lease", "Lease",
        unconditional_update=False, create_on_update=True,
    ),
    Resource("apps", "v1", "controllerrevisions", "controllerrevision", "ControllerRevision"),
    Resource(
        "apps", "v1", "deployments", "deployment", "Deployment",
        short_names=("deploy",), categories=("all",), subresources=SCALED, has_generation=True,
    ),
    Resource(
        "apps", "v1", "replicasets", "replicaset", "ReplicaSet",
        short_names=("rs",), categories=("all",), subresources=SCALED, has_generation=True,
    ),
    Resource(
        "policy", "v1", "poddisruptionbudgets", "poddisruptionbudget", "PodDisruptionBudget",
        short_names=("pdb",), subresources=STATUS, has_generation=True,
    ),
    Resource(RBAC, "v1", "roles", "role", "Role"),
    Resource(RBAC, "v1", "rolebindings", "rolebinding", "RoleBinding"),
    Resource(RBAC, "v1", "clusterroles", "clusterrole", "ClusterRole", namespaced=False),
    Resource(RBAC, "v1", "clusterrolebindings", "clusterrolebinding", "ClusterRoleBinding", namespaced=False),
    Resource(
        ADMISSION, "v1", "validatingadmissionpolicies", "validatingadmissionpolicy", "ValidatingAdmissionPolicy",
        namespaced=False, subresources=STATUS, categories=("api-extensions",), unconditional_update=False,
        has_generation=True,
    ),
    Resource(
        ADMISSION, "v1", "validatingadmissionpolicybindings", "validatingadmissionpolicybinding",
        "ValidatingAdmissionPolicyBinding", namespaced=False, categories=("api-extensions",),
        unconditional_update=False, has_generation=True,
    ),
    Resource(
        "apiextensions.k8s.io", "v1", "customresourcedefinitions", "customresourcedefinition",
        "CustomResourceDefinition", namespaced=False, short_names=("crd", "crds"), subresources=STATUS,
        categories=("api-extensions",), unconditional_update=False, has_generation=True,
    ),
)  # fmt: skip


class Registry:
    """Looks up resources by path and by storage key."""

    def __init__(self) -> None:
        # Rises with each change of what is served.
        self.revision = 0
        self._by_path: dict[tuple[str, str, str], Resource] = {}
        self._by_key: dict[str, tuple[Resource, ...]] = {}
        for resource in BUILTINS:
            self._add(resource)

    def _add(self, resource: Resource) -> None:
        self._by_path[resource.group, resource.version, resource.plural] = resource
        self._by_key[resource.key] = (*self._by_key.get(resource.key, ()), resource)

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        """The resource a path names."""
        return self._by_path.get((group, version, plural))

    def by_key(self, key: str) -> Resource:
        """The storage version of a stored resource. KeyError for one that isn't served."""
        return self._by_key[key][0]

    def by_kind(self, api_version: str, kind: str) -> Resource | None:
        """The resource an owner reference names."""
        for resource in self._by_path.values():
            if resource.kind == kind and resource.api_version == api_version:
                return resource
        return None

    def replace_custom(self, key: str, versions: tuple[Resource, ...]) -> None:
        """Serves these versions of a custom resource, the storage version first; none withdraws it."""
        self.revision += 1
        for old in self._by_key.pop(key, ()):
            del self._by_path[old.group, old.version, old.plural]
        for resource in versions:
            self._add(resource)

    def group_versions(self) -> dict[str, list[str]]:
        """The versions of each group, `""` being the core group."""
        groups: dict[str, list[str]] = {}
        for group, version, _ in self._by_path:
            versions = groups.setdefault(group, [])
            if version not in versions:
                versions.append(version)
        return groups

    def resources(self, group: str, version: str) -> list[Resource]:
        """The resources of one group and version."""
        return [r for r in self._by_path.values() if (r.group, r.version) == (group, version)]

    def serves(self, key: str) -> bool:
        """True if the storage key belongs to a served resource."""
        return key in self._by_key
