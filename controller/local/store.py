"""The API server's state and every decision about it, free of I/O, clocks and randomness.

An operation takes the request, the time and a source of randomness, and gives an `Outcome`: the answer, and the
changes it made. Whoever calls it makes the changes durable before anybody hears of them. A simulation calls the store
directly; `apiserver` puts HTTP before it and a journal behind it.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from controller.local import deletion, patches
from controller.local.builtins import builtin_strategy
from controller.local.custom import CustomStrategy, served_versions
from controller.local.errors import (
    ApiError,
    Cause,
    already_exists,
    bad_request,
    conflict,
    forbidden,
    forbidden_field,
    invalid,
    invalid_value,
    not_found,
    required,
    unsupported_media_type,
)
from controller.local.registry import Registry, Resource
from controller.local.selectors import EVERYTHING, Selector
from controller.local.strategy import (
    Decoded,
    Strategy,
    validate_metadata,
    validate_metadata_update,
)
from controller.local.versions import Change, Key, Record, Versions

Json = dict[str, Any]

# apiserver/pkg/storage/names: no vowels, so that no words come out.
_SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH = 5
# metadata.name is at most 63 with a generated suffix.
_GENERATED_PREFIX_LENGTH = 58
# The real server tries a generated name again a few times before it gives AlreadyExists.
_NAME_ATTEMPTS = 8
SYSTEM_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
CRDS = "customresourcedefinitions.apiextensions.k8s.io"
# Kubernetes keeps Events for an hour (--event-ttl).
EVENT_TTL = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """The query parameters of a write."""

    dry_run: bool = False
    field_validation: str = "Warn"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a write came to. `record` is the object as answered, or None where `status` is the answer."""

    code: int
    record: Record | None
    changes: tuple[Change, ...] = ()
    warnings: tuple[str, ...] = ()
    status: Json | None = None


DEFAULT_OPTIONS = WriteOptions()


class Store:
    """All objects of a cluster, and what may become of them."""

    def __init__(self, *, history_limit: int = 8192) -> None:
        self.registry = Registry()
        self.versions = Versions(history_limit=history_limit)
        self.garbage = deletion.Suspects()
        self._strategies: dict[Resource, Strategy] = {}

    # --- beginning ----------------------------------------------------------------------------------------

    def restore(self, version: int, bodies: Iterable[tuple[str, int, Json]]) -> None:
        """Begins from what was stored: (resource key, version, body)."""
        rows = list(bodies)
        for key, _, body in rows:
            if key == CRDS:
                self._serve_crd(body)
        self.versions.restore(version, [row for row in rows if row[0] in self.registry.keys()])
        self.garbage.suspect_all(self.versions)

    def bootstrap(self, now: datetime, rng: random.Random) -> tuple[Change, ...]:
        """Makes the namespaces every cluster has."""
        namespaces = self.registry.by_key("namespaces")
        changes: list[Change] = []
        for name in SYSTEM_NAMESPACES:
            if self.versions.get("namespaces", ("", name)) is None:
                changes += self.create(namespaces, "", {"metadata": {"name": name}}, now=now, rng=rng).changes
        return tuple(changes)

    def apply_crd(self, document: Json, *, now: datetime, rng: random.Random) -> tuple[Change, ...]:
        """Creates a CustomResourceDefinition, or brings it up to date."""
        resource = self.registry.by_key(CRDS)
        name = document["metadata"]["name"]
        old = self.versions.get(CRDS, ("", name))
        if old is None:
            return self.create(resource, "", document, now=now, rng=rng).changes
        metadata = {**old.body["metadata"], **document["metadata"]}
        metadata["resourceVersion"] = old.body["metadata"]["resourceVersion"]
        return self.update(resource, "", name, {**document, "metadata": metadata}, now=now, rng=rng).changes

    def strategy(self, resource: Resource) -> Strategy:
        """The behaviour of a resource's kind."""
        found = self._strategies.get(resource)
        if found is None or (resource.custom is not None and found.resource is not resource):
            found = CustomStrategy(resource) if resource.custom is not None else builtin_strategy(resource)
            self._strategies[resource] = found
        return found

    # --- reading ------------------------------------------------------------------------------------------

    def get(self, resource: Resource, namespace: str, name: str) -> Record:
        """The object as it is now."""
        record = self.versions.get(resource.key, (namespace, name))
        if record is None:
            raise not_found(resource.target(name))
        return record

    def matching(self, resource: Resource, namespace: str, selector: Selector = EVERYTHING) -> list[Record]:
        """The objects a selector accepts, in order."""
        records = self.versions.collection(resource.key).current(namespace)
        return [record for record in records if selector.matches(record.body)] if selector else list(records)

    # --- create -------------------------------------------------------------------------------------------

    def create(
        self,
        resource: Resource,
        namespace: str,
        document: Any,
        *,
        now: datetime,
        rng: random.Random,
        name: str = "",
        options: WriteOptions = DEFAULT_OPTIONS,
    ) -> Outcome:
        """A POST to a collection, or a PUT to a free `name` where the kind allows it."""
        strategy = self.strategy(resource)
        decoded = strategy.decode_request(document)
        warnings = self._field_warnings(strategy, decoded, options)
        body = strategy.prepare_create(decoded.body, now)
        metadata = body["metadata"] = dict(body["metadata"])
        if name and metadata.setdefault("name", name) != name:
            raise _name_mismatch(metadata["name"], name)
        self._check_namespace(resource, namespace, metadata)
        for server_owned in (
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "selfLink",
            "managedFields",
            "generation",
        ):
            metadata.pop(server_owned, None)
        if metadata.pop("resourceVersion", ""):
            raise ApiError(500, "", "resourceVersion should not be set on objects to be created")
        metadata["uid"] = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        metadata["creationTimestamp"] = stamp(now)
        if resource.has_generation:
            metadata["generation"] = 1
        self._name(resource, metadata, namespace, rng)
        self._check_creatable(resource, namespace, metadata["name"])
        causes = self._create_causes(strategy, body)
        if causes:
            raise invalid(resource.target(metadata["name"]), causes)
        if self.versions.get(resource.key, (namespace, metadata["name"])) is not None:
            raise already_exists(resource.target(metadata["name"]))
        if options.dry_run:
            return Outcome(201, Record(resource.key, 0, body), (), warnings)
        change = self._put(resource, body)
        return Outcome(201, change.record, (change,), warnings)

    def _create_causes(self, strategy: Strategy, body: Json) -> list[Cause]:
        metadata = body["metadata"]
        causes: list[Cause] = []
        if not metadata.get("name"):
            causes.append(required("metadata.name", "name or generateName is required"))
        else:
            why = strategy.validate_name(metadata["name"])
            if why:
                causes.append(invalid_value("metadata.name", f'"{metadata["name"]}"', why))
        return [*causes, *validate_metadata(metadata), *strategy.validate(body)]

    def _name(self, resource: Resource, metadata: Json, namespace: str, rng: random.Random) -> None:
        prefix = metadata.get("generateName")
        if metadata.get("name") or not prefix:
            metadata.setdefault("name", "")
            return
        for _ in range(_NAME_ATTEMPTS):
            suffix = "".join(rng.choices(_SUFFIX_ALPHABET, k=_SUFFIX_LENGTH))
            metadata["name"] = prefix[:_GENERATED_PREFIX_LENGTH] + suffix
            if self.versions.get(resource.key, (namespace, metadata["name"])) is None:
                return

    def _check_namespace(self, resource: Resource, namespace: str, metadata: Json) -> None:
        if not resource.namespaced:
            metadata.pop("namespace", None)
            return
        given = metadata.get("namespace") or namespace
        if given != namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        metadata["namespace"] = namespace

    def _check_creatable(self, resource: Resource, namespace: str, name: str) -> None:
        if not resource.namespaced:
            return
        home = self.versions.get("namespaces", ("", namespace))
        if home is None:
            raise not_found(self.registry.by_key("namespaces").target(namespace))
        if "deletionTimestamp" in home.body["metadata"]:
            cause = Cause("NamespaceTerminating", f"namespace {namespace} is being terminated", "metadata.namespace")
            raise forbidden(
                resource.target(name),
                f"unable to create new content in namespace {namespace} because it is being terminated",
                [cause],
            )

    # --- update and patch ---------------------------------------------------------------------------------

    def update(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        document: Any,
        *,
        now: datetime,
        rng: random.Random,
        subresource: str = "",
        options: WriteOptions = DEFAULT_OPTIONS,
    ) -> Outcome:
        """A PUT."""
        strategy = self.strategy(resource)
        decoded = strategy.decode_request(document)
        if decoded.body["metadata"].get("name", name) != name:
            raise _name_mismatch(decoded.body["metadata"]["name"], name)
        if resource.namespaced:
            self._check_namespace(resource, namespace, decoded.body["metadata"])
        old = self.versions.get(resource.key, (namespace, name))
        if old is None:
            if not resource.create_on_update or subresource:
                raise not_found(resource.target(name))
            return self.create(resource, namespace, document, now=now, rng=rng, name=name, options=options)
        uid = decoded.body["metadata"].get("uid")
        if uid and uid != old.uid:
            text = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {old.uid}"
            raise conflict(resource.target(name), text)
        return self._change(resource, old, decoded, subresource, options, now)

    def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        content_type: str,
        patch: Any,
        *,
        now: datetime,
        subresource: str = "",
        options: WriteOptions = DEFAULT_OPTIONS,
    ) -> Outcome:
        """A PATCH in one of the JSON formats."""
        strategy = self.strategy(resource)
        apply = self._patch_function(resource, content_type)
        old = self.get(resource, namespace, name)
        document = {"kind": resource.kind, "apiVersion": resource.api_version, **old.body}
        if not isinstance(patch, dict) and content_type != patches.JSON:
            raise bad_request("json: cannot unmarshal array into Go value of type map[string]interface {}")
        decoded = strategy.decode_request(apply(document, patch), patched=True, original=old.body)
        if not decoded.body["metadata"].get("name"):
            raise invalid(resource.target(name), [invalid_value("metadata.name", '""', "field is immutable")])
        return self._change(resource, old, decoded, subresource, options, now)

    def _patch_function(self, resource: Resource, content_type: str) -> Callable[[Json, Any], Any]:
        formats: dict[str, Callable[[Json, Any], Any]] = {
            patches.JSON: patches.json_patch,
            patches.MERGE: patches.merge,
        }
        if resource.custom is None:
            formats[patches.STRATEGIC] = patches.strategic
        found = formats.get(content_type)
        if found is None:
            known = (*formats, patches.APPLY)
            if content_type in (patches.STRATEGIC, patches.APPLY):
                raise unsupported_media_type(
                    "the body of the request was in an unknown format - accepted media types include: "
                    + ", ".join(known)
                )
            raise unsupported_media_type("415: Unsupported Media Type", {})
        return found

    def _change(
        self,
        resource: Resource,
        old: Record,
        decoded: Decoded,
        subresource: str,
        options: WriteOptions,
        now: datetime,
    ) -> Outcome:
        strategy = self.strategy(resource)
        warnings = self._field_warnings(strategy, decoded, options)
        target = resource.target(old.name)
        asked = decoded.body["metadata"]
        version = asked.get("resourceVersion", "")
        if not version and not resource.unconditional_update:
            cause = invalid_value("metadata.resourceVersion", "0", "must be specified for an update")
            raise invalid(target, [cause], kind=resource.plural)
        if version and version != old.body["metadata"]["resourceVersion"]:
            raise conflict(target)
        new = strategy.prepare_update(decoded.body, old.body, subresource)
        old_metadata = old.body["metadata"]
        causes = validate_metadata_update(new["metadata"], old_metadata)
        # The real server checks metadata in the generic registry and again in the kind's strategy.
        causes += causes
        metadata = new["metadata"] = _kept_metadata(new["metadata"], old_metadata)
        if metadata != old_metadata:
            causes += validate_metadata(metadata)
        causes += strategy.validate_update(new, old.body, subresource)
        if causes:
            raise invalid(target, causes)
        if resource.has_generation and not subresource and strategy.spec_changed(new, old.body):
            metadata["generation"] = old_metadata.get("generation", 0) + 1
        if new == old.body:
            return Outcome(200, old, (), warnings)
        if deletion.is_complete(metadata):
            if options.dry_run:
                return Outcome(200, Record(resource.key, old.version, new), (), warnings)
            gone = self._remove(old, new)
            # Answered as it was asked for: with the version it had.
            return Outcome(200, Record(resource.key, old.version, new), (gone,), warnings)
        if options.dry_run:
            return Outcome(200, Record(resource.key, old.version, new), (), warnings)
        change = self._put(resource, new)
        return Outcome(200, change.record, (change,), warnings)

    def _field_warnings(self, strategy: Strategy, decoded: Decoded, options: WriteOptions) -> tuple[str, ...]:
        if not decoded.unknown or options.field_validation == "Ignore":
            return ()
        texts = [f'unknown field "{path}"' for path in decoded.unknown]
        if options.field_validation == "Strict":
            raise strategy.undecodable(f"strict decoding error: {', '.join(texts)}")
        return tuple(texts)

    def bind(self, namespace: str, name: str, node: str, *, now: datetime) -> Outcome:
        """Assigns a Pod to a node, as a scheduler does through `pods/binding`."""
        pods = self.registry.by_key("pods")
        old = self.get(pods, namespace, name)
        target = pods.target(name)
        if "deletionTimestamp" in old.body["metadata"]:
            raise conflict(target, f"pod {name} is being deleted, cannot be assigned to a host", subject="pods/binding")
        assigned = old.body["spec"].get("nodeName")
        if assigned:
            text = f'pod {name} is already assigned to node "{assigned}"'
            raise conflict(target, text, subject="pods/binding")
        if not node:
            raise invalid(target, [required("target.name")])
        status = dict(old.body["status"])
        scheduled = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": stamp(now)}
        others = [c for c in status.get("conditions", ()) if c.get("type") != "PodScheduled"]
        status["conditions"] = [*others, scheduled]
        change = self._put(
            pods,
            {
                "metadata": dict(old.body["metadata"]),
                "spec": {**old.body["spec"], "nodeName": node},
                "status": status,
            },
        )
        body: Json = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
        return Outcome(201, None, (change,), (), body)

    # --- delete -------------------------------------------------------------------------------------------

    def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        options: deletion.DeleteOptions = deletion.DEFAULT,
        *,
        now: datetime,
    ) -> Outcome:
        """A DELETE of one object."""
        return deletion.delete(self, self.get(resource, namespace, name), options, now)

    def delete_collection(
        self,
        resource: Resource,
        namespace: str,
        selector: Selector,
        options: deletion.DeleteOptions = deletion.DEFAULT,
        *,
        now: datetime,
    ) -> tuple[list[Record], tuple[Change, ...]]:
        """A DELETE of a collection: the objects as they were, and what changed."""
        records = self.matching(resource, namespace, selector)
        changes: list[Change] = []
        for record in records:
            changes += deletion.delete(self, record, options, now).changes
        return records, tuple(changes)

    def collect(self, now: datetime, *, limit: int = 1000) -> tuple[Change, ...]:
        """What the garbage collector and the namespace controller do next; empty once nothing is left to do."""
        return deletion.collect(self, now, limit)

    def expire_events(self, now: datetime) -> tuple[Change, ...]:
        """Removes Events past their time."""
        oldest = stamp(now - EVENT_TTL)
        events = self.matching(self.registry.by_key("events"), "")
        old = [e for e in events if self._event_time(e.body) < oldest]
        return tuple(self._remove(record) for record in old)

    @staticmethod
    def _event_time(body: Json) -> str:
        return max(str(body.get("lastTimestamp") or ""), str(body["metadata"]["creationTimestamp"]))

    # --- the only places that change state ----------------------------------------------------------------

    def _put(self, resource: Resource, body: Json) -> Change:
        change = self.versions.put(resource.key, body)
        self.garbage.noticed(change)
        if resource.key == CRDS:
            self._serve_crd(body)
        return change

    def _remove(self, record: Record, last_body: Json | None = None) -> Change:
        change = self.versions.remove(record, last_body)
        self.garbage.noticed(change)
        for dependent in self.versions.dependents(record.uid):
            self.garbage.add(dependent)
        for reference in record.body["metadata"].get("ownerReferences", ()):
            owner = self.versions.by_uid(reference["uid"])
            if owner is not None:
                self.garbage.add(owner)
        if record.resource == CRDS:
            self.registry.replace_custom(record.name, ())
        return change

    def put_unchecked(self, record: Record, body: Json) -> Change:
        """Stores a version that the deletion machinery made."""
        return self._put(self.registry.by_key(record.resource), body)

    def remove_unchecked(self, record: Record, last_body: Json | None = None) -> Change:
        """Removes an object whose deletion is complete."""
        return self._remove(record, last_body)

    def _serve_crd(self, body: Json) -> None:
        self.registry.replace_custom(body["metadata"]["name"], served_versions(body))

    def key_of(self, record: Record) -> Key:
        """The place of an object in its collection."""
        return record.key


def stamp(now: datetime) -> str:
    """A time as Kubernetes writes it: UTC, whole seconds."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _kept_metadata(new: Json, old: Json) -> Json:
    """The metadata of an update with what only the server sets taken from the old version."""
    metadata = {key: value for key, value in new.items() if key not in ("selfLink", "managedFields")}
    for name in (
        "name", "namespace", "uid", "creationTimestamp", "generation", "resourceVersion",
        "deletionTimestamp", "deletionGracePeriodSeconds",
    ):  # fmt: skip
        if name in old:
            metadata[name] = old[name]
        else:
            metadata.pop(name, None)
    return metadata


def _name_mismatch(given: str, path: str) -> ApiError:
    return bad_request(f"the name of the object ({given}) does not match the name on the URL ({path})")


__all__ = ["DEFAULT_OPTIONS", "Outcome", "Store", "WriteOptions", "forbidden_field", "stamp"]
