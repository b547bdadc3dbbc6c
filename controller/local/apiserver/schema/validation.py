"""Validates custom objects against their structural schema, in the order and the words of the real server.

On an update, what is as it was is not held against the change (validation ratcheting, Kubernetes 1.30 and later); it
also makes a status update of a large object cheap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from controller.local.apiserver.errors import (
    Cause,
    duplicate,
    invalid_value,
    required,
    too_long,
    too_many,
    unsupported_value,
    wrong_type,
)
from controller.local.apiserver.schema import typed
from controller.local.apiserver.schema.cel_validation import rule_causes
from controller.local.apiserver.schema.structural import CustomSchema, Node

Json = dict[str, Any]

ABSENT: Any = object()

# Errors after which the CEL rules would only stumble.
_BLOCKING = frozenset(
    {"FieldValueNotSupported", "FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid"}
)
_NOT_CHECKED = (
    "some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation"
)


def validate(schema: CustomSchema, body: Json, old: Json | None) -> list[Cause]:
    """Everything that is wrong with an object, or with its change from `old`."""
    before = ABSENT if old is None else old
    causes = list(_value_causes(schema.root, body, before, ""))
    causes += _scale_causes(schema, body)
    causes += _list_causes(schema.root, body, "")
    if any(cause.reason in _BLOCKING for cause in causes):
        return [*causes, invalid_value("<nil>", "null", _NOT_CHECKED)]
    return [*causes, *rule_causes(schema.root, body, before, "", absent=ABSENT)]


def _shown(value: Any) -> str:
    return orjson.dumps(value).decode()


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"


def child_path(path: str, key: str) -> str:
    """The path of a property."""
    return f"{path}.{key}" if path else key


def old_item(node: Node, items: Any, index: int, item: Any, absent: Any) -> Any:
    """The old value of a list item, where the list says how items are told apart."""
    del index
    if not isinstance(items, list) or node.list_type != "map" or not isinstance(item, dict):
        return absent
    keys = [item.get(key) for key in node.map_keys]
    for candidate in items:
        if isinstance(candidate, dict) and [candidate.get(key) for key in node.map_keys] == keys:
            return candidate
    return absent


# --- schema -----------------------------------------------------------------------------------------------


def _value_causes(node: Node, value: Any, old: Any, path: str) -> Iterator[Cause]:
    if old is not ABSENT and (value is old or value == old):
        return
    if value is None and node.nullable:
        return
    yield from _type_causes(node, value, path)
    yield from _combined_causes(node, value, path)
    if node.enum and value not in node.enum:
        yield unsupported_value(path, _shown(value), [_shown(choice) for choice in node.enum])
    if isinstance(value, str):
        yield from _string_causes(node, value, path)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield from _number_causes(node, value, path)
    elif isinstance(value, list):
        yield from _array_causes(node, value, old, path)
    elif isinstance(value, dict):
        yield from _object_causes(node, value, old, path)


def _type_causes(node: Node, value: Any, path: str) -> Iterator[Cause]:
    found = _kind(value)
    if node.int_or_string:
        if found not in ("integer", "string"):
            yield wrong_type(path, f'"{found}"', f'{path} in body must be of type integer,string: "{found}"')
        return
    fits = (
        not node.type
        or found == node.type
        or (node.type == "number" and found == "integer")
        or (node.type == "integer" and isinstance(value, float) and value.is_integer())
    )
    if not fits:
        yield wrong_type(path, f'"{found}"', f'{path} in body must be of type {node.type}: "{found}"')


def _combined_causes(node: Node, value: Any, path: str) -> Iterator[Cause]:
    for part in node.all_of:
        yield from _value_causes(part, value, ABSENT, path)
    if node.any_of and not any(_fits(part, value) for part in node.any_of):
        yield invalid_value(path, f'"{_kind(value)}"', f'"{path}" must validate at least one schema (anyOf)')
    if node.one_of:
        count = sum(_fits(part, value) for part in node.one_of)
        if count != 1:
            found = "Found none valid" if count == 0 else f"Found {count} valid alternatives"
            yield invalid_value(
                path, f'"{_kind(value)}"', f'"{path}" must validate one and only one schema (oneOf). {found}'
            )
    if node.negated is not None and _fits(node.negated, value):
        yield invalid_value(path, f'"{_kind(value)}"', f'"{path}" must not validate the schema (not)')


def _fits(node: Node, value: Any) -> bool:
    return next(_value_causes(node, value, ABSENT, ""), None) is None


_FORMATS = {"date-time": typed.is_date_time}


def _string_causes(node: Node, value: str, path: str) -> Iterator[Cause]:
    limit = node.bounds.get("maxLength")
    if limit is not None and len(value) > limit:
        yield too_long(path, limit)
    least = node.bounds.get("minLength")
    if least is not None and len(value) < least:
        yield invalid_value(path, _shown(value), f"{path} in body should be at least {least} chars long")
    if node.pattern is not None and not node.pattern.search(value):
        yield invalid_value(path, _shown(value), f"{path} in body should match '{node.pattern.pattern}'")
    check = _FORMATS.get(node.format)
    if check is not None and not check(value):
        yield wrong_type(path, _shown(value), f"{path} in body must be of type {node.format}: {_shown(value)}")


def _number_causes(node: Node, value: float, path: str) -> Iterator[Cause]:
    bounds = node.bounds
    least, most = bounds.get("minimum"), bounds.get("maximum")
    if least is not None and (value <= least if bounds.get("exclusiveMinimum") else value < least):
        word = "greater than" if bounds.get("exclusiveMinimum") else "greater than or equal to"
        yield invalid_value(path, _shown(value), f"{path} in body should be {word} {least:g}")
    if most is not None and (value >= most if bounds.get("exclusiveMaximum") else value > most):
        word = "less than" if bounds.get("exclusiveMaximum") else "less than or equal to"
        yield invalid_value(path, _shown(value), f"{path} in body should be {word} {most:g}")
    step = bounds.get("multipleOf")
    if step and value % step:
        yield invalid_value(path, _shown(value), f"{path} in body should be a multiple of {step:g}")


def _array_causes(node: Node, value: list[Any], old: Any, path: str) -> Iterator[Cause]:
    most, least = node.bounds.get("maxItems"), node.bounds.get("minItems")
    if most is not None and len(value) > most:
        yield too_many(path, len(value), most)
    if least is not None and len(value) < least:
        yield invalid_value(path, str(len(value)), f"{path} in body should have at least {least} items")
    if node.items is None:
        return
    for index, item in enumerate(value):
        before = old_item(node, old, index, item, ABSENT)
        yield from _value_causes(node.items, item, before, f"{path}[{index}]")


def _object_causes(node: Node, value: Json, old: Any, path: str) -> Iterator[Cause]:
    most, least = node.bounds.get("maxProperties"), node.bounds.get("minProperties")
    if most is not None and len(value) > most:
        yield too_many(path, len(value), most)
    if least is not None and len(value) < least:
        yield invalid_value(path, str(len(value)), f"{path} in body should have at least {least} properties")
    for name in node.required:
        if name not in value:
            yield required(child_path(path, name))
    before = old if isinstance(old, Mapping) else {}
    for key, part in value.items():
        child = node.properties.get(key, node.additional)
        if child is not None:
            yield from _value_causes(child, part, before.get(key, ABSENT), child_path(path, key))


# --- scale ------------------------------------------------------------------------------------------------


def _scale_causes(schema: CustomSchema, body: Json) -> Iterator[Cause]:
    """The paths of the scale subresource must lead to whole numbers."""
    if schema.scale is None:
        return
    for name in ("specReplicasPath", "statusReplicasPath"):
        path = schema.scale[name]
        value: Any = body
        for step in path.split(".")[1:]:
            value = value.get(step) if isinstance(value, dict) else None
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            text = f"{path} accessor error: {value} is of the type {_kind(value)}, expected int64"
            yield invalid_value(path, "0", text)
        elif value is not None and value < 0:
            yield invalid_value(path, str(value), "should be a non-negative integer")


# --- lists that are sets or maps --------------------------------------------------------------------------


def _list_causes(node: Node, value: Any, path: str) -> Iterator[Cause]:
    if isinstance(value, list):
        if node.list_type in ("set", "map"):
            yield from _duplicates(node, value, path)
        if node.items is not None:
            for index, item in enumerate(value):
                yield from _list_causes(node.items, item, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, part in value.items():
            child = node.properties.get(key, node.additional)
            if child is not None:
                yield from _list_causes(child, part, child_path(path, key))


def _duplicates(node: Node, items: list[Any], path: str) -> Iterator[Cause]:
    seen: list[Any] = []
    for index, item in enumerate(items):
        where = f"{path}[{index}]"
        identity = item
        if node.list_type == "map":
            if not isinstance(item, dict):
                continue
            identity = {key: item.get(key, _key_default(node, key)) for key in node.map_keys}
            missing = [key for key, value in identity.items() if value is ABSENT]
            yield from (required(f"{where}.{key}", _KEY_REQUIRED) for key in missing)
            if missing:
                continue
        if identity in seen:
            yield duplicate(where, _shown(identity))
        seen.append(identity)


_KEY_REQUIRED = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"


def _key_default(node: Node, key: str) -> Any:
    declared = node.items.properties.get(key) if node.items is not None else None
    return declared.default if declared is not None and declared.has_default else ABSENT
