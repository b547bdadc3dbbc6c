"""Strategic merge patches of built-in kinds. After k8s.io/apimachinery/pkg/util/strategicpatch.

Objects merge. Lists are replaced, unless their type says by which key their items belong together; the directives
`$patch`, `$setElementOrder/…`, `$deleteFromPrimitiveList/…` and `$retainKeys` say more. Nothing changes its target.
"""

from __future__ import annotations

from typing import Any

from controller.local.apiserver.errors import ApiError
from controller.local.apiserver.schema.merge_keys import MERGE_KEYS, MergeRule
from controller.local.apiserver.schema.typed import struct_types

Json = dict[str, Any]

_ORDER = "$setElementOrder/"
_DELETE = "$deleteFromPrimitiveList/"
_REPLACE = MergeRule("", "replace")


def merge(target: Any, patch: Any, kind: str) -> Any:
    """The patched object of a kind. Raises ApiError for a patch that can't be applied."""
    if not isinstance(patch, dict):
        return patch
    match patch.get("$patch"):
        case "replace":
            return {key: value for key, value in patch.items() if key != "$patch"}
        case "delete":
            return {}
        case None | "merge":
            pass
        case directive:
            raise _failed(f"unknown patch type: {directive}")
    result = _retained(target if isinstance(target, dict) else {}, patch)
    types = struct_types().get(kind, {})
    orders = {key.removeprefix(_ORDER): value for key, value in patch.items() if key.startswith(_ORDER)}
    for key, value in patch.items():
        if key.startswith(_DELETE):
            name = key.removeprefix(_DELETE)
            result[name] = [item for item in result.get(name) or () if item not in value]
        elif not key.startswith("$"):
            _member(result, key, value, (kind, types.get(key, "")), order=orders.pop(key, None))
    for key, order in orders.items():  # nothing but their order was asked for
        if result.get(key):
            _member(result, key, [], (kind, types.get(key, "")), order=order)
    return result


def _retained(target: Json, patch: Json) -> Json:
    """The target less what `$retainKeys` does not name."""
    keys = patch.get("$retainKeys")
    if keys is None:
        return dict(target)
    unknown = [key for key in patch if not key.startswith("$") and key not in keys]
    if unknown:
        raise _failed(f"the keys {unknown} are not in $retainKeys")
    return {key: value for key, value in target.items() if key in keys}


def _member(result: Json, key: str, value: Any, place: tuple[str, str], *, order: list[Any] | None) -> None:
    if value is None:
        result.pop(key, None)
        return
    owner, field_type = place
    container, _, item_type = field_type.partition(":")
    rule = MERGE_KEYS.get(owner, {}).get(key)
    if isinstance(value, list):
        result[key] = _merge_list(result.get(key) or [], value, item_type, rule=rule or _REPLACE, order=order)
        return
    if isinstance(value, dict) and (rule is None or rule.strategy != _REPLACE.strategy):
        if container == "map":
            field_type = item_type
        result[key] = merge(result.get(key), value, field_type)
        return
    result[key] = value


def _merge_list(
    target: list[Any], patch: list[Any], item_type: str, *, rule: MergeRule, order: list[Any] | None
) -> list[Any]:
    if not rule.strategy.startswith("merge"):
        return patch
    if not rule.key:
        merged = list(dict.fromkeys([*target, *patch]))
        return _ordered(merged, order if order is not None else patch, target)
    if any(isinstance(item, dict) and item.get("$patch") == "replace" for item in patch):
        return [item for item in patch if item.get("$patch") != "replace"]
    key = rule.key
    result = list(target)
    for item in patch:
        if not isinstance(item, dict) or key not in item:
            raise _failed(f"map: {item} does not contain declared merge key: {key}")
        index = next((i for i, found in enumerate(result) if _key(found, key) == item[key]), None)
        if item.get("$patch") == "delete":
            if index is not None:
                del result[index]
        elif index is None:
            result.append(merge({}, item, item_type))
        else:
            result[index] = merge(result[index], item, item_type)
    wanted = [_key(item, key) for item in (order if order is not None else patch)]
    by_key = {_key(item, key): item for item in result}
    return [by_key[found] for found in _ordered(list(by_key), wanted, [_key(item, key) for item in target])]


def _key(item: Any, key: str) -> Any:
    return item.get(key) if isinstance(item, dict) else item


def _ordered(merged: list[Any], wanted: list[Any], live: list[Any]) -> list[Any]:
    """The items in the wanted order; those not named are put in by the order they had (`mergeSortedSlice`)."""
    named = [item for item in wanted if item in merged]
    others = sorted((item for item in merged if item not in named), key=_place_in(live))
    result: list[Any] = []
    while others and named:
        before, after = live.index(others[0]) if others[0] in live else -1, named[0]
        first = before >= 0 and after in live and before < live.index(after)
        result.append((others if first else named).pop(0))
    return [*result, *named, *others]


def _place_in(live: list[Any]) -> Any:
    return lambda item: live.index(item) if item in live else len(live)


def _failed(why: str) -> ApiError:
    """500, as the real server: it takes a bad patch for its own fault."""
    return ApiError(500, "", why)
