"""Label and field selectors: parsed once into predicates over a stored object."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from controller.local.apiserver.errors import bad_request
from controller.local.apiserver.store.registry import Resource

Json = Mapping[str, Any]
LabelTest = Callable[[Mapping[str, str]], bool]
ObjectTest = Callable[[Json], bool]

_TOKEN = re.compile(r"\s*(?:(==|!=|=|!|<|>|\(|\)|,)|([^\s=!<>(),]+))")
_OPERATORS = "in, notin, =, ==, !=, gt, lt"


@dataclass(frozen=True, slots=True)
class Selector:
    """Which objects of a resource a request asks for; an empty one matches all."""

    labels: tuple[LabelTest, ...] = ()
    fields: tuple[ObjectTest, ...] = ()
    # Set when the selector asks for one name, so that a list needs one look-up.
    name: str | None = None

    def __bool__(self) -> bool:
        return bool(self.labels or self.fields)

    def matches(self, body: Json) -> bool:
        """True for an object that every requirement accepts."""
        if self.labels:
            labels = body["metadata"].get("labels") or {}
            if not all(test(labels) for test in self.labels):
                return False
        return all(test(body) for test in self.fields)


EVERYTHING = Selector()

_COMMON_FIELDS = ("metadata.name", "metadata.namespace")
_INVOLVED = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "pods": (
        "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName",
        "spec.hostNetwork", "status.phase", "status.podIP", "status.nominatedNodeName",
    ),
    "nodes": ("spec.unschedulable",),
    "namespaces": ("status.phase",),
    "secrets": ("type",),
    "events": (
        *(f"involvedObject.{part}" for part in _INVOLVED),
        "reason", "reportingComponent", "source", "type",
    ),
}  # fmt: skip


def parse(resource: Resource, label_selector: str, field_selector: str) -> Selector:
    """The selector of a request. Raises BadRequest as the real parser would."""
    if not label_selector and not field_selector:
        return EVERYTHING
    labels = tuple(parse_labels(label_selector)) if label_selector else ()
    name, fields = _parse_fields(resource, field_selector) if field_selector else (None, ())
    return Selector(labels, fields, name)


# --- selectors as objects ---------------------------------------------------------------------------------


def label_selector(document: Json) -> LabelTest:
    """The test of a LabelSelector object; an empty one accepts everything."""
    wanted = dict(document.get("matchLabels") or {})
    tests = [_expression(entry) for entry in document.get("matchExpressions") or ()]
    return lambda labels: (
        all(labels.get(key) == value for key, value in wanted.items()) and all(test(labels) for test in tests)
    )


def selector_text(document: Json) -> str:
    """A LabelSelector object as the text of a query."""
    terms = [(key, f"{key}={value}") for key, value in (document.get("matchLabels") or {}).items()]
    for entry in document.get("matchExpressions") or ():
        key, operator, values = entry["key"], entry["operator"], ",".join(sorted(entry.get("values") or ()))
        forms = {
            "Exists": key,
            "DoesNotExist": f"!{key}",
            "In": f"{key} in ({values})",
            "NotIn": f"{key} notin ({values})",
        }
        terms.append((key, forms[operator]))
    return ",".join(text for _, text in sorted(terms))


def _expression(entry: Json) -> LabelTest:
    key, values = entry["key"], frozenset(entry.get("values") or ())
    match entry["operator"]:
        case "In":
            return lambda labels: labels.get(key) in values
        case "NotIn":
            return lambda labels: labels.get(key) not in values
        case "Exists":
            return lambda labels: key in labels
        case _:
            return lambda labels: key not in labels


# --- labels -----------------------------------------------------------------------------------------------


def parse_labels(text: str) -> list[LabelTest]:
    """The requirements of a label selector in its text form."""
    tokens = _tokens(text)
    tests: list[LabelTest] = []
    position = 0
    while position < len(tokens):
        test, position = _requirement(tokens, position)
        tests.append(test)
        if position < len(tokens):
            if tokens[position] != ",":
                raise bad_request(
                    f"unable to parse requirement: found '{tokens[position]}', expected: ',' or 'end of string'"
                )
            position += 1
            if position == len(tokens):
                raise bad_request("unable to parse requirement: found '', expected: identifier after ','")
    return tests


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    position = 0
    stripped = text.rstrip()
    while position < len(stripped):
        match = _TOKEN.match(stripped, position)
        if match is None:  # pragma: no cover - every character starts some token
            raise bad_request(f"unable to parse requirement: {text}")
        tokens.append(match[1] or match[2])
        position = match.end()
    return tokens


def _requirement(tokens: list[str], position: int) -> tuple[LabelTest, int]:
    if tokens[position] == "!":
        key, position = _identifier(tokens, position + 1), position + 2
        return (lambda labels: key not in labels), position
    key = _identifier(tokens, position)
    position += 1
    if position == len(tokens) or tokens[position] == ",":
        return (lambda labels: key in labels), position
    operator = tokens[position]
    position += 1
    if operator in ("=", "==", "!=", ">", "<"):
        value = ""
        if position < len(tokens) and tokens[position] != ",":
            value = _identifier(tokens, position)
            position += 1
        return _comparison(key, operator, value), position
    if operator in ("in", "notin"):
        values, position = _values(tokens, position)
        if operator == "in":
            return (lambda labels: labels.get(key) in values), position
        return (lambda labels: labels.get(key) not in values), position
    raise bad_request(f"unable to parse requirement: found '{operator}', expected: {_OPERATORS}")


def _identifier(tokens: list[str], position: int) -> str:
    if position >= len(tokens) or tokens[position] in ("=", "==", "!=", "!", "<", ">", "(", ")", ","):
        found = tokens[position] if position < len(tokens) else ""
        raise bad_request(f"unable to parse requirement: found '{found}', expected: identifier")
    return tokens[position]


def _comparison(key: str, operator: str, value: str) -> LabelTest:
    if operator in ("=", "=="):
        return lambda labels: labels.get(key) == value
    if operator == "!=":
        return lambda labels: labels.get(key) != value
    try:
        bound = int(value)
    except ValueError:
        raise bad_request(
            f"values: Invalid value: \"{value}\": for 'Gt', 'Lt' operators, the value must be an integer"
        ) from None

    def compare(labels: Mapping[str, str]) -> bool:
        try:
            number = int(labels[key])
        except (KeyError, ValueError):
            return False
        return number > bound if operator == ">" else number < bound

    return compare


def _values(tokens: list[str], position: int) -> tuple[frozenset[str], int]:
    if position >= len(tokens) or tokens[position] != "(":
        found = tokens[position] if position < len(tokens) else ""
        raise bad_request(f"unable to parse requirement: found '{found}' expected: '('")
    values: set[str] = set()
    position += 1
    expect_value = True
    while position < len(tokens) and tokens[position] != ")":
        if tokens[position] == ",":
            if expect_value:
                values.add("")
            expect_value = True
        else:
            values.add(_identifier(tokens, position))
            expect_value = False
        position += 1
    if position >= len(tokens):
        raise bad_request("unable to parse requirement: found '', expected: ',' or ')'")
    return frozenset(values), position + 1


# --- fields -----------------------------------------------------------------------------------------------


def _parse_fields(resource: Resource, text: str) -> tuple[str | None, tuple[ObjectTest, ...]]:
    allowed = {*_COMMON_FIELDS, *_selectable(resource)}
    tests: list[ObjectTest] = []
    name: str | None = None
    for term in filter(None, text.split(",")):
        match = re.fullmatch(r"([^=!]*)(!=|==|=)(.*)", term)
        if match is None:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{term}'")
        path, operator, value = match[1], match[2], match[3]
        if path not in allowed:
            raise bad_request(f"field label not supported: {path}")
        if path == "metadata.name" and operator != "!=":
            name = value
        tests.append(_field_test(path, value, negate=operator == "!="))
    return name, tuple(tests)


def _selectable(resource: Resource) -> Iterable[str]:
    if resource.custom is not None:
        return resource.custom.selectable_fields
    return _FIELDS.get(resource.key, ())


def _field_test(path: str, value: str, *, negate: bool) -> ObjectTest:
    read = _reader(path)
    if negate:
        return lambda body: read(body) != value
    return lambda body: read(body) == value


def _reader(path: str) -> Callable[[Json], str]:
    if path == "source":  # an Event's source is its component
        return lambda body: str((body.get("source") or {}).get("component") or body.get("reportingComponent") or "")
    steps = path.split(".")

    def read(body: Json) -> str:
        found: Any = body
        for step in steps:
            found = found.get(step) if isinstance(found, Mapping) else None
        if found is None:
            return "false" if path in ("spec.unschedulable", "spec.hostNetwork") else ""
        return str(found).lower() if isinstance(found, bool) else str(found)

    return read
