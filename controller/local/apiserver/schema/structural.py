"""Structural schemas of custom resources, compiled once: pruning, defaulting, and their validation's entry.

After k8s.io/apiextensions-apiserver/pkg/apiserver/schema. Pruning and defaulting give the very object back where
nothing changes, so that unchanged parts stay shared between versions.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from controller.local.apiserver.schema.cel import compile_rule

Json = dict[str, Any]

_ABSENT: Any = object()
_TYPED_META = frozenset({"apiVersion", "kind", "metadata"})


@dataclass(frozen=True, slots=True)
class ValidationRule:
    """One of `x-kubernetes-validations`."""

    rule: str
    message: str = ""
    message_expression: str = ""
    reason: str = "FieldValueInvalid"
    field_path: str = ""
    optional_old: bool = False

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> ValidationRule:
        """From the schema."""
        return cls(
            rule=document["rule"],
            message=document.get("message", ""),
            message_expression=document.get("messageExpression", ""),
            reason=document.get("reason") or "FieldValueInvalid",
            field_path=document.get("fieldPath", ""),
            optional_old=bool(document.get("optionalOldSelf")),
        )

    @property
    def is_transition(self) -> bool:
        """True for a rule that compares with the old value."""
        return compile_rule(self.rule).uses_old


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One level of a schema."""

    type: str = ""
    properties: Mapping[str, Node] = field(default_factory=dict)
    additional: Node | None = None
    items: Node | None = None
    required: tuple[str, ...] = ()
    enum: tuple[Any, ...] = ()
    default: Any = _ABSENT
    pattern: re.Pattern[str] | None = None
    format: str = ""
    bounds: Mapping[str, Any] = field(default_factory=dict)
    nullable: bool = False
    preserve: bool = False
    int_or_string: bool = False
    embedded: bool = False
    list_type: str = "atomic"
    map_keys: tuple[str, ...] = ()
    rules: tuple[ValidationRule, ...] = ()
    all_of: tuple[Node, ...] = ()
    any_of: tuple[Node, ...] = ()
    one_of: tuple[Node, ...] = ()
    negated: Node | None = None
    # What there is to do somewhere below, so that a walk can turn back.
    rules_below: bool = False
    transitions_below: bool = False

    @property
    def has_default(self) -> bool:
        """True if the schema gives this field a value."""
        return self.default is not _ABSENT

    def children(self) -> Iterator[Node]:
        """The schemas of the values below."""
        yield from self.properties.values()
        if self.additional is not None:
            yield self.additional
        if self.items is not None:
            yield self.items


_BOUNDS = (
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength",
    "minItems", "maxItems", "minProperties", "maxProperties", "uniqueItems",
)  # fmt: skip


def compile_node(document: Mapping[str, Any]) -> Node:
    """A schema from its JSON form. Raises CelSyntaxError and re.error."""
    properties = {name: compile_node(part) for name, part in (document.get("properties") or {}).items()}
    additional_part = document.get("additionalProperties")
    additional = None
    if isinstance(additional_part, Mapping):
        additional = compile_node(additional_part)
    elif additional_part is True:
        additional = Node(preserve=True)
    items = compile_node(document["items"]) if isinstance(document.get("items"), Mapping) else None
    rules = tuple(ValidationRule.parse(rule) for rule in document.get("x-kubernetes-validations") or ())
    for rule in rules:
        compile_rule(rule.rule)
        if rule.message_expression:
            compile_rule(rule.message_expression)
    below = [node for node in (*properties.values(), additional, items) if node is not None]
    negated = document.get("not")
    return Node(
        type=document.get("type", ""),
        properties=properties,
        additional=additional,
        items=items,
        required=tuple(document.get("required") or ()),
        enum=tuple(document.get("enum") or ()),
        default=document.get("default", _ABSENT),
        pattern=_pattern(document["pattern"]) if document.get("pattern") else None,
        format=document.get("format", ""),
        bounds={name: document[name] for name in _BOUNDS if document.get(name) is not None},
        nullable=bool(document.get("nullable")),
        preserve=bool(document.get("x-kubernetes-preserve-unknown-fields")),
        int_or_string=bool(document.get("x-kubernetes-int-or-string")),
        embedded=bool(document.get("x-kubernetes-embedded-resource")),
        list_type=document.get("x-kubernetes-list-type") or "atomic",
        map_keys=tuple(document.get("x-kubernetes-list-map-keys") or ()),
        rules=rules,
        all_of=tuple(compile_node(part) for part in document.get("allOf") or ()),
        any_of=tuple(compile_node(part) for part in document.get("anyOf") or ()),
        one_of=tuple(compile_node(part) for part in document.get("oneOf") or ()),
        negated=compile_node(negated) if isinstance(negated, Mapping) else None,
        rules_below=any(node.rules or node.rules_below for node in below),
        transitions_below=any(
            node.transitions_below or any(rule.is_transition for rule in node.rules) for node in below
        ),
    )


def _pattern(text: str) -> re.Pattern[str]:
    """A pattern of Go's, where `$` is the end of the text; Python's matches before a last newline too."""
    return re.compile(f"{text[:-1]}\\Z" if text.endswith("$") and not text.endswith("\\$") else text)


# --- pruning ----------------------------------------------------------------------------------------------


def prune(node: Node, value: Any, path: str, unknown: list[str]) -> Any:
    """The value without what the schema doesn't know."""
    if isinstance(value, dict):
        result = None
        for key, part in value.items():
            where = f"{path}.{key}" if path else key
            child = node.properties.get(key, node.additional)
            if child is None:
                keep = node.preserve or (node.embedded and key in _TYPED_META)
                kept = part if keep else _ABSENT
                if not keep:
                    unknown.append(where)
            else:
                kept = prune(child, part, where, unknown)
            if kept is not part:
                if result is None:
                    result = dict(value)
                if kept is _ABSENT:
                    del result[key]
                else:
                    result[key] = kept
        return value if result is None else result
    if isinstance(value, list) and node.items is not None:
        items = [prune(node.items, item, f"{path}[{index}]", unknown) for index, item in enumerate(value)]
        return value if all(new is old for new, old in zip(items, value, strict=True)) else items
    return value


# --- defaulting -------------------------------------------------------------------------------------------


def apply_defaults(node: Node, value: Any) -> Any:
    """The value with defaults filled in; a null where none is allowed counts as absent."""
    if isinstance(value, dict):
        return _default_object(node, value)
    if isinstance(value, list) and node.items is not None:
        items = [apply_defaults(node.items, item) for item in value]
        return value if all(new is old for new, old in zip(items, value, strict=True)) else items
    return value


def _default_object(node: Node, value: Json) -> Json:
    result = value
    for key, child in node.properties.items():
        part = _defaulted(child, value.get(key, _ABSENT))
        if part is not value.get(key, _ABSENT):
            result = dict(value) if result is value else result
            _set_or_drop(result, key, part)
    if node.additional is None:
        return result
    for key, given in value.items():
        if key not in node.properties:
            part = _defaulted(node.additional, given)
            if part is not given:
                result = dict(value) if result is value else result
                _set_or_drop(result, key, part)
    return result


def _defaulted(node: Node, part: Any) -> Any:
    """A member with its defaults; a null where none is allowed counts as absent."""
    if part is None and not node.nullable and node.type:
        part = _ABSENT
    if part is _ABSENT and node.has_default:
        part = copy.deepcopy(node.default)
    return part if part is _ABSENT else apply_defaults(node, part)


def _set_or_drop(result: Json, key: str, part: Any) -> None:
    if part is _ABSENT:
        result.pop(key, None)
    else:
        result[key] = part


# --- a version of a definition ----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class CustomSchema:
    """What one version of a CustomResourceDefinition says of its objects."""

    root: Node
    selectable_fields: tuple[str, ...] = ()
    scale: Mapping[str, str] | None = None
    printer_columns: tuple[Json, ...] = ()
    # The schema as it was written, for OpenAPI.
    document: Json = field(default_factory=dict, repr=False)

    @classmethod
    def compile(cls, version: Mapping[str, Any]) -> CustomSchema:
        """From `spec.versions[…]`. Raises CelSyntaxError and re.error."""
        document = (version.get("schema") or {}).get("openAPIV3Schema") or {}
        selectable = tuple(entry["jsonPath"].removeprefix(".") for entry in version.get("selectableFields") or ())
        scale = (version.get("subresources") or {}).get("scale")
        columns = tuple(version.get("additionalPrinterColumns") or ())
        # Rules may read metadata whatever the schema says of it.
        return cls(replace(compile_node(document), embedded=True), selectable, scale, columns, document)

    def prune(self, body: Json) -> tuple[Json, list[str]]:
        """The object's own fields (metadata aside), and the paths that were dropped."""
        unknown: list[str] = []
        pruned: Json = prune(self.root, body, "", unknown)
        return pruned, unknown

    def default(self, body: Json) -> Json:
        """The object's own fields with defaults."""
        defaulted: Json = apply_defaults(self.root, body)
        return defaulted
