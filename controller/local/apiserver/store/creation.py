"""Creation: naming, admission into a namespace, what the server sets, validation."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

from controller.local.apiserver.errors import (
    ApiError,
    Cause,
    already_exists,
    bad_request,
    forbidden,
    invalid,
    invalid_value,
    not_found,
    required,
)
from controller.local.apiserver.store.admission_request import CREATE, AdmissionRequest
from controller.local.apiserver.store.core import Core
from controller.local.apiserver.store.outcomes import DEFAULT_OPTIONS, Outcome, WriteOptions, stamp
from controller.local.apiserver.store.registry import Resource
from controller.local.apiserver.store.strategy import Decoded, Strategy, validate_metadata
from controller.local.apiserver.store.versions import Record

Json = dict[str, Any]

# apiserver/pkg/storage/names: no vowels, so that no words come out.
_SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH = 5
# metadata.name is at most 63 with a generated suffix.
_GENERATED_PREFIX_LENGTH = 58
# The real server tries a generated name again a few times before it gives AlreadyExists.
_NAME_ATTEMPTS = 8
_EVICTIONS = "evictions.lifecycle.k8s.io"


def create(
    core: Core,
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
    strategy = core.strategy(resource)
    decoded = strategy.decode_request(document)
    warnings = field_warnings(decoded, options, strategy.undecodable)
    body = strategy.prepare_create(decoded.body, now)
    if resource.key == "pods" and not core.registry.serves(_EVICTIONS):
        (body.get("spec") or {}).pop("evictionResponders", None)  # as fields are dropped whose feature is off
    metadata = body["metadata"] = dict(body["metadata"])
    if name and metadata.setdefault("name", name) != name:
        raise name_mismatch(metadata["name"], name)
    check_namespace(resource, namespace, metadata)
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
    _check_creatable(core, resource, namespace, metadata.get("name") or metadata.get("generateName", ""))
    _name(core, resource, metadata, namespace, rng)
    causes = _causes(strategy, body)
    if causes:
        raise invalid(resource.target(metadata["name"]), causes)
    asked = AdmissionRequest(
        CREATE, resource, namespace, metadata["name"], body, None, options.user, dry_run=options.dry_run
    )
    warnings += core.admit(asked)
    if core.versions.get(resource.key, (namespace, metadata["name"])) is not None:
        raise already_exists(resource.target(metadata["name"]))
    if options.dry_run:
        return Outcome(201, Record(resource.key, 0, body), (), warnings)
    change = core.put(resource, body)
    return Outcome(201, change.record, (change,), warnings)


def _causes(strategy: Strategy, body: Json) -> list[Cause]:
    metadata = body["metadata"]
    causes: list[Cause] = []
    if not metadata.get("name"):
        causes.append(required("metadata.name", "name or generateName is required"))
    else:
        why = strategy.validate_name(metadata["name"])
        if why:
            causes.append(invalid_value("metadata.name", f'"{metadata["name"]}"', why))
    return [*causes, *validate_metadata(metadata), *strategy.validate(body)]


def _name(core: Core, resource: Resource, metadata: Json, namespace: str, rng: random.Random) -> None:
    prefix = metadata.get("generateName")
    if metadata.get("name") or not prefix:
        metadata.setdefault("name", "")
        return
    for _ in range(_NAME_ATTEMPTS):
        suffix = "".join(rng.choices(_SUFFIX_ALPHABET, k=_SUFFIX_LENGTH))
        metadata["name"] = prefix[:_GENERATED_PREFIX_LENGTH] + suffix
        if core.versions.get(resource.key, (namespace, metadata["name"])) is None:
            return


def check_namespace(resource: Resource, namespace: str, metadata: Json) -> None:
    """Sets the namespace, refusing a document of another one."""
    if not resource.namespaced:
        metadata.pop("namespace", None)
        return
    given = metadata.get("namespace") or namespace
    if given != namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    metadata["namespace"] = namespace


def _check_creatable(core: Core, resource: Resource, namespace: str, name: str) -> None:
    if not resource.namespaced:
        return
    home = core.versions.get("namespaces", ("", namespace))
    if home is None:
        raise not_found(core.registry.by_key("namespaces").target(namespace))
    if "deletionTimestamp" in home.body["metadata"]:
        cause = Cause("NamespaceTerminating", f"namespace {namespace} is being terminated", "metadata.namespace")
        raise forbidden(
            resource.target(name),
            f"unable to create new content in namespace {namespace} because it is being terminated",
            [cause],
        )


def field_warnings(decoded: Decoded, options: WriteOptions, refusal: Callable[[str], ApiError]) -> tuple[str, ...]:
    """Tells of unknown fields, or refuses them, as the request wants it."""
    if not decoded.unknown or options.field_validation == "Ignore":
        return ()
    texts = [f'unknown field "{path}"' for path in decoded.unknown]
    if options.field_validation == "Strict":
        raise refusal(f"strict decoding error: {', '.join(texts)}")
    return tuple(texts)


def name_mismatch(given: str, path: str) -> ApiError:
    """400: the document speaks of another object than the path."""
    return bad_request(f"the name of the object ({given}) does not match the name on the URL ({path})")
