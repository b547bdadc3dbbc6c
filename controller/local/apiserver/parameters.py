"""The options of writes, from query parameters and the body of a DELETE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from controller.local.apiserver import requests
from controller.local.apiserver.errors import Target, bad_request, forbidden_field, invalid, unsupported_value
from controller.local.apiserver.store import deletion
from controller.local.apiserver.store.outcomes import WriteOptions
from controller.local.apiserver.store.users import User

Json = dict[str, Any]

_PROPAGATION = ("Background", "Foreground", "Orphan")
_VALIDATIONS = ("", "Ignore", "Strict", "Warn")
_OPTIONS = {"create": "CreateOptions", "update": "UpdateOptions", "patch": "PatchOptions"}


def _target(kind: str) -> Target:
    return Target("meta.k8s.io", "", kind)


def write_options(verb: str, query: Mapping[str, str], user: User, *, applies: bool = False) -> WriteOptions:
    """The options of a create, update or patch. Raises Invalid."""
    target = _target(_OPTIONS[verb])
    validation = query.get("fieldValidation", "")
    if validation not in _VALIDATIONS:
        shown = [f'"{choice}"' for choice in _VALIDATIONS]
        raise invalid(target, [unsupported_value("fieldValidation", f'"{validation}"', shown)])
    if verb == "patch" and query.get("force") is not None and not applies:
        raise invalid(target, [forbidden_field("force", "may not be specified for non-apply patch")])
    asked = query.getall("dryRun", []) if hasattr(query, "getall") else query.get("dryRun")
    return WriteOptions(_dry_run(target, asked), validation or "Warn", user)


def _dry_run(target: Target, value: Any) -> bool:
    given = [value] if isinstance(value, str) else list(value or ())
    given = [part for part in given if part]
    if any(part != "All" for part in given):
        raise invalid(target, [unsupported_value("dryRun", orjson.dumps(given).decode(), ('"All"',))])
    return bool(given)


def delete_options(document: Any, query: Mapping[str, str], user: User) -> deletion.DeleteOptions:
    """The options of a DELETE, the body's first. Raises BadRequest and Invalid."""
    body = document if document is not None else {}
    if not isinstance(body, dict):
        raise bad_request("couldn't get version/kind; json parse error: not an object")
    target = _target("DeleteOptions")
    preconditions = body.get("preconditions") or {}
    grace = body.get("gracePeriodSeconds")
    if grace is None:
        grace = requests.integer(query, "gracePeriodSeconds")
    propagation = body.get("propagationPolicy") or query.get("propagationPolicy", "")
    orphan = body.get("orphanDependents")
    if orphan is None and query.get("orphanDependents"):
        orphan = requests.is_true(query["orphanDependents"])
    if not propagation and orphan is not None:
        propagation = "Orphan" if orphan else "Background"
    if propagation and propagation not in _PROPAGATION:
        cause = unsupported_value("propagationPolicy", f'"{propagation}"', [f'"{policy}"' for policy in _PROPAGATION])
        raise invalid(target, [cause])
    if grace is not None and (not isinstance(grace, int) or isinstance(grace, bool)):
        raise bad_request("json: cannot unmarshal into Go struct field DeleteOptions.gracePeriodSeconds of type int64")
    return deletion.DeleteOptions(
        uid=preconditions.get("uid"),
        resource_version=preconditions.get("resourceVersion"),
        grace_seconds=grace,
        propagation=propagation,
        dry_run=_dry_run(target, body.get("dryRun") or query.get("dryRun")),
        user=user,
    )
