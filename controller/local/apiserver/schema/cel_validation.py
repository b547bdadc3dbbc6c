"""Evaluates the CEL rules of a schema over an object, level by level as the real server does.

A rule with `oldSelf` is evaluated on updates only, and only where old and new value belong together: properties by
name, list items by their keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from controller.local.apiserver.errors import Cause
from controller.local.apiserver.schema.cel import (
    CelEvaluationError,
    MapWithoutSchema,
    compile_rule,
    is_true,
    list_to_cel,
    map_to_cel,
    scalar_to_cel,
    untyped_to_cel,
)
from controller.local.apiserver.schema.cel_optional import OptionalValue
from controller.local.apiserver.schema.structural import Node, ValidationRule

_PREFIXES = {
    "FieldValueInvalid": "Invalid value",
    "FieldValueForbidden": "Forbidden",
    "FieldValueRequired": "Required value",
    "FieldValueDuplicate": "Duplicate value",
}


def rule_causes(node: Node, value: Any, old: Any, path: str, *, absent: Any) -> Iterator[Cause]:
    """What the rules at this level and below refuse; `old` is `absent` at creation and where nothing corresponds."""
    unchanged = old is not absent and (value is old or value == old)
    if value is None:
        return
    if node.rules:
        yield from _own_causes(node, value, old, path, unchanged=unchanged, absent=absent)
    if not node.rules_below or (unchanged and not node.transitions_below):
        return
    if isinstance(value, dict):
        before = old if isinstance(old, Mapping) else {}
        for key, part in value.items():
            child = node.properties.get(key)
            where = f"{path}.{key}" if path else key
            if child is None and node.additional is not None:
                child, where = node.additional, f"{path}[{key}]"
            if child is not None and (child.rules or child.rules_below):
                yield from rule_causes(child, part, before.get(key, absent), where, absent=absent)
    elif isinstance(value, list) and node.items is not None:
        by_key = _items_by_key(node, old)
        for index, item in enumerate(value):
            earlier = by_key.get(_item_key(node, item), absent) if by_key else absent
            yield from rule_causes(node.items, item, earlier, f"{path}[{index}]", absent=absent)


def _items_by_key(node: Node, items: Any) -> dict[Any, Any]:
    if node.list_type != "map" or not isinstance(items, list):
        return {}
    return {_item_key(node, item): item for item in items}


def _item_key(node: Node, item: Any) -> Any:
    return tuple(str(item.get(key)) for key in node.map_keys) if isinstance(item, dict) else None


def _own_causes(node: Node, value: Any, old: Any, path: str, *, unchanged: bool, absent: Any) -> Iterator[Cause]:
    bindings: dict[str, Any] = {}
    for rule in node.rules:
        transition = rule.is_transition
        if transition and old is absent and not rule.optional_old:
            continue
        if unchanged and not transition:
            continue  # ratcheting: what was stored before the rule came stays allowed
        if not bindings:
            bindings["self"] = to_cel(node, value)
            if old is not absent:
                bindings["oldSelf"] = to_cel(node, old)
        variables = {"self": bindings["self"]}
        if transition:
            held = bindings.get("oldSelf")
            variables["oldSelf"] = OptionalValue(held) if rule.optional_old else held
        try:
            passed = is_true(compile_rule(rule.rule).evaluate(variables))
        except CelEvaluationError as error:
            yield Cause(
                "FieldValueInvalid", f"Invalid value: {_shown(value)}: rule: {rule.rule}: {error}", path or "<nil>"
            )
            continue
        if not passed:
            yield _refusal(rule, variables, value, path)


def _refusal(rule: ValidationRule, variables: Mapping[str, Any], value: Any, path: str) -> Cause:
    message = rule.message or f"failed rule: {rule.rule}"
    if rule.message_expression:
        try:
            computed = str(compile_rule(rule.message_expression).evaluate(variables))
        except CelEvaluationError:
            computed = ""
        if computed.strip() and "\n" not in computed:
            message = computed
    where = path + rule.field_path if path else rule.field_path.removeprefix(".")
    # A scalar is shown, a whole object is not.
    if rule.reason == "FieldValueInvalid" and not isinstance(value, (dict, list)):
        message = f"{_shown(value)}: {message}"
    if rule.reason == "FieldValueDuplicate":
        message = f"{_shown(value)}"
    return Cause(rule.reason, f"{_PREFIXES.get(rule.reason, 'Invalid value')}: {message}", where or "<nil>")


def _shown(value: Any) -> str:
    return '"object"' if isinstance(value, dict) else orjson.dumps(value).decode()


def to_cel(node: Node, value: Any) -> Any:
    """A value as CEL sees it through its schema."""
    if isinstance(value, dict):
        entries = {}
        for key, part in value.items():
            child = node.properties.get(key, node.additional)
            if child is not None and not (node.embedded and key == "metadata"):
                entries[key] = to_cel(child, part)
            elif node.embedded or node.preserve:
                entries[key] = untyped_to_cel(part)
        if node.preserve and not node.properties and node.additional is None:
            return MapWithoutSchema(map_to_cel(entries, declared=False))
        return map_to_cel(entries, declared=bool(node.properties))
    if isinstance(value, list):
        return list_to_cel([to_cel(node.items, item) if node.items else untyped_to_cel(item) for item in value])
    return scalar_to_cel(value, number=node.type == "number")
