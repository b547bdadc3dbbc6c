"""The patch formats: JSON merge patch (RFC 7386), JSON patch (RFC 6902), strategic merge patch for built-in kinds.

None changes its target: parts that stay are shared between the old and the new document, which is what keeps many
versions of a large Pod cheap.
"""

from __future__ import annotations

from typing import Any

import jsonpatch
import jsonpointer

from controller.local.apiserver.errors import ApiError, bad_request

Json = dict[str, Any]

MERGE = "application/merge-patch+json"
JSON = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"

# The field that tells list items apart, as the `patchMergeKey` of the API types; lists not named are replaced whole.
_MERGE_KEYS = {
    "containers": "name", "initContainers": "name", "ephemeralContainers": "name", "volumes": "name", "env": "name",
    "ports": "containerPort", "volumeMounts": "mountPath", "volumeDevices": "devicePath", "imagePullSecrets": "name",
    "conditions": "type", "addresses": "type", "taints": "key", "ownerReferences": "uid", "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey", "podIPs": "ip", "resourceClaims": "name", "schedulingGates": "name",
}  # fmt: skip
_MERGED_SETS = frozenset({"finalizers", "podCIDRs"})


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def json_patch(target: Json, operations: Any) -> Any:
    """RFC 6902. Raises BadRequest for a malformed patch and Invalid for one that doesn't apply."""
    if not isinstance(operations, list):
        raise bad_request("json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    try:
        return jsonpatch.JsonPatch(operations).apply(target)
    except jsonpatch.InvalidJsonPatch as error:
        raise bad_request(str(error)) from error
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, TypeError) as error:
        message = "the server rejected our request due to an error in our request"
        raise ApiError(422, "Invalid", message, {}) from error


def strategic(target: Any, patch: Any) -> Any:
    """A strategic merge patch: objects merge, lists with a merge key merge by it, other lists are replaced."""
    if not isinstance(patch, dict):
        return patch
    directive = patch.get("$patch")
    if directive == "delete":
        return None
    if directive == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    result = dict(target) if isinstance(target, dict) else {}
    retained = patch.get("$retainKeys")
    if retained is not None:
        result = {key: value for key, value in result.items() if key in retained}
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            name = key.partition("/")[2]
            result[name] = [item for item in result.get(name, []) if item not in value]
        elif not key.startswith("$"):
            _set_or_drop(result, key, _strategic_member(key, result.get(key), value))
    return result


def _strategic_member(name: str, target: Any, patch: Any) -> Any:
    if patch is None:
        return None
    return _strategic_list(name, target or [], patch) if isinstance(patch, list) else strategic(target, patch)


def _set_or_drop(result: Json, key: str, value: Any) -> None:
    if value is None:
        result.pop(key, None)
    else:
        result[key] = value


def _strategic_list(name: str, target: list[Any], patch: list[Any]) -> list[Any]:
    if name in _MERGED_SETS:
        return [*target, *(item for item in patch if item not in target)]
    key = _MERGE_KEYS.get(name)
    if key is None or not all(isinstance(item, dict) for item in (*target, *patch)):
        return patch
    if any(item.get("$patch") == "replace" for item in patch):
        return [item for item in patch if item.get("$patch") != "replace"]
    result: list[Any] = list(target)
    for item in patch:
        if key not in item:
            raise bad_request(f"map: {item} does not contain declared merge key: {key}")
        index = next((i for i, found in enumerate(result) if found.get(key) == item[key]), None)
        merged = strategic(result[index] if index is not None else None, item)
        if index is None:
            if merged is not None:
                result.append(merged)
        elif merged is None:
            del result[index]
        else:
            result[index] = merged
    return result
