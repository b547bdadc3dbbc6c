"""Custom resources: defaults, pruning, validation and CEL rules by the schema of their definition."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import pytest

from controller.local.apiserver.errors import ApiError
from controller.local.apiserver.schema.cel import CelEvaluationError, compile_rule, is_true, untyped_to_cel
from controller.local.apiserver.store.patches import MERGE
from controller.local.apiserver.store.store import Store, WriteOptions

Json = dict[str, Any]

NOW = datetime(2026, 3, 1, tzinfo=UTC)
KEY = "things.example.dev"


def definition(spec: Json, *, subresources: Json | None = None, **root: Any) -> Json:
    schema = {
        "type": "object",
        "properties": {
            "spec": {"type": "object", **spec},
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
        **root,
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": KEY},
        "spec": {
            "group": "example.dev",
            "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": subresources if subresources is not None else {"status": {}},
                }
            ],
        },
    }


class Things:
    """A cluster with one definition."""

    def __init__(self, spec: Json, **options: Any) -> None:
        self.rng = random.Random(0)
        self.store = Store()
        self.store.bootstrap(NOW, self.rng)
        self.store.apply(definition(spec, **options), now=NOW, rng=self.rng)

    def create(self, spec: Json, *, validation: str = "Warn", name: str = "a") -> Json:
        document = {"apiVersion": "example.dev/v1", "kind": "Thing", "metadata": {"name": name}, "spec": spec}
        outcome = self.store.create(
            self.store.registry.by_key(KEY), "default", document,
            now=NOW, rng=self.rng, options=WriteOptions(field_validation=validation),
        )  # fmt: skip
        assert outcome.record is not None
        return outcome.record.body

    def patch(self, spec: Json, *, subresource: str = "", part: str = "spec", validation: str = "Warn") -> Json:
        resource = self.store.registry.by_key(KEY)
        options = WriteOptions(field_validation=validation)
        outcome = self.store.patch(
            resource, "default", "a", MERGE, {part: spec}, subresource=subresource, options=options
        )
        assert outcome.record is not None
        return outcome.record.body


def causes(error: ApiError) -> list[tuple[str, str]]:
    assert error.details is not None, error
    return [(cause["reason"], cause["field"]) for cause in error.details["causes"] if cause["field"] != "<nil>"]


def rule(text: str, **more: Any) -> Json:
    return {"x-kubernetes-validations": [{"rule": text, **more}]}


# --- pruning and defaults ---------------------------------------------------------------------------------


def test_defaults_reach_into_objects_arrays_and_maps() -> None:
    part = {"type": "object", "properties": {"n": {"type": "integer", "default": 7}}}
    things = Things(
        {
            "properties": {
                "one": {**part, "default": {}},
                "list": {"type": "array", "items": part},
                "map": {"type": "object", "additionalProperties": part},
            }
        }
    )
    spec = things.create({"list": [{}, {"n": 1}], "map": {"a": {}}})["spec"]
    assert spec == {"one": {"n": 7}, "list": [{"n": 7}, {"n": 1}], "map": {"a": {"n": 7}}}


def test_a_null_counts_as_absent_where_null_is_not_allowed() -> None:
    text = {"type": "string"}
    things = Things(
        {"properties": {"a": {**text, "default": "x"}, "b": text, "c": {**text, "nullable": True, "default": "x"}}}
    )
    assert things.create({"a": None, "b": None, "c": None})["spec"] == {"a": "x", "c": None}


def test_unknown_fields_fall_out_except_where_kept() -> None:
    things = Things(
        {
            "properties": {
                "open": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": True,
                    "properties": {"closed": {"type": "object", "properties": {"a": {"type": "string"}}}},
                },
                "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
            }
        }
    )
    spec = {"x": 1, "open": {"any": {"thing": [1]}, "closed": {"a": "1", "b": 2}}, "list": [{"a": "1", "b": 2}]}
    assert things.create(spec)["spec"] == {"open": {"any": {"thing": [1]}, "closed": {"a": "1"}}, "list": [{"a": "1"}]}
    with pytest.raises(ApiError) as caught:
        things.create(spec, validation="Strict", name="b")
    assert caught.value.code == 400
    for path in ("spec.x", "spec.open.closed.b", "spec.list[0].b"):
        assert f'unknown field "{path}"' in caught.value.message
    with pytest.raises(ApiError) as caught:
        things.patch({"y": 1}, validation="Strict")
    assert caught.value.code == 422  # as the real server: a patch that is refused is invalid, not a bad request
    assert caught.value.message.endswith('strict decoding error: unknown field "spec.y"')
    assert "y" not in things.patch({"y": 1})["spec"]


def test_a_write_that_changes_no_defaulted_field_shares_the_spec() -> None:
    things = Things({"properties": {"n": {"type": "integer", "default": 7}}})
    before = things.create({})
    after = things.patch({"phase": "Done"}, subresource="status", part="status")
    assert after["spec"] is before["spec"]


# --- validation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "value", "reason"),
    [
        ({"type": "integer"}, "1", "FieldValueTypeInvalid"),
        ({"type": "integer"}, 1.5, "FieldValueTypeInvalid"),
        ({"type": "string"}, 1, "FieldValueTypeInvalid"),
        ({"type": "boolean"}, "true", "FieldValueTypeInvalid"),
        ({"type": "integer", "minimum": 1}, 0, "FieldValueInvalid"),
        ({"type": "integer", "maximum": 1}, 2, "FieldValueInvalid"),
        ({"type": "string", "minLength": 1}, "", "FieldValueInvalid"),
        ({"type": "string", "maxLength": 2}, "abc", "FieldValueTooLong"),
        ({"type": "string", "pattern": "^[a-z]+$"}, "A", "FieldValueInvalid"),
        ({"type": "string", "enum": ["A", "B"]}, "C", "FieldValueNotSupported"),
        ({"type": "string", "format": "date-time"}, "yesterday", "FieldValueTypeInvalid"),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 1}, [1, 2], "FieldValueTooMany"),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 1}, [], "FieldValueInvalid"),
        (
            {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
            ["a", "a"],
            "FieldValueDuplicate",
        ),
        (
            {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 1},
            {"a": "", "b": ""},
            "FieldValueTooMany",
        ),
        ({"x-kubernetes-int-or-string": True}, True, "FieldValueTypeInvalid"),
        ({"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}, [], None),
    ],
)
def test_what_the_schema_refuses(schema: Json, value: Any, reason: str | None) -> None:
    things = Things({"properties": {"field": schema}})
    with pytest.raises(ApiError) as caught:
        things.create({"field": value})
    assert caught.value.code == 422
    found = causes(caught.value)
    assert all(field.startswith("spec.field") for _, field in found)
    assert reason is None or reason in [cause for cause, _ in found]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "integer"}, 3),
        ({"type": "number"}, 3),
        ({"x-kubernetes-int-or-string": True}, "25%"),
        ({"x-kubernetes-int-or-string": True}, 25),
        ({"type": "string", "format": "date-time"}, "2026-01-01T00:00:00.5+02:00"),
        ({"type": "string", "nullable": True}, None),
        ({"type": "object", "properties": {}, "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
          "x-kubernetes-preserve-unknown-fields": True}, {"a": 1}),
    ],
)  # fmt: skip
def test_what_the_schema_accepts(schema: Json, value: Any) -> None:
    assert Things({"properties": {"field": schema}}).create({"field": value})["spec"] == {"field": value}


def test_missing_fields_stop_the_rules() -> None:
    """Rules would only stumble over an object of the wrong shape; the answer says that they weren't run."""
    things = Things({"required": ["a"], "properties": {"a": {"type": "integer"}}, **rule("self.a > 0")})
    with pytest.raises(ApiError) as caught:
        things.create({})
    assert causes(caught.value) == [("FieldValueRequired", "spec.a")]
    assert "some validation rules were not checked" in caught.value.message


def test_what_was_stored_before_stays_allowed() -> None:
    """Ratcheting: a definition made stricter doesn't block updates of other fields."""
    text = {"type": "string"}
    things = Things({"properties": {"a": text, "b": text}})
    things.create({"a": "long ago", "b": "1"})
    stricter = {"properties": {"a": {**text, "maxLength": 3, **rule("self != 'long ago'")}, "b": text}}
    things.store.apply(definition(stricter), now=NOW, rng=things.rng)
    assert things.patch({"b": "2"})["spec"]["b"] == "2"
    with pytest.raises(ApiError):
        things.patch({"a": "longer"})


# --- rules ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "good", "bad"),
    [
        ("self.min <= self.max", {"min": 1, "max": 2}, {"min": 3, "max": 2}),
        ("!has(self.min) || self.min > 0", {}, {"min": 0}),
        ("has(self.name) ? self.name.startsWith('a') : true", {"name": "ab"}, {"name": "b"}),
        ("size(self.tags) <= 2 && self.tags.size() > 0", {"tags": ["a"]}, {"tags": ["a", "b", "c"]}),
        ("self.tags.all(t, t.matches('^[a-z]+$'))", {"tags": ["a"]}, {"tags": ["A"]}),
        ("self.tags.exists(t, t == 'x')", {"tags": ["y", "x"]}, {"tags": ["y"]}),
        ("self.tags.exists_one(t, t == 'x')", {"tags": ["x"]}, {"tags": ["x", "x"]}),
        ("self.labels.all(k, k.endsWith('.dev'))", {"labels": {"a.dev": "1"}}, {"labels": {"a": "1"}}),
        ("self.labels.all(k, self.labels[k] != '')", {"labels": {"a": "1"}}, {"labels": {"a": ""}}),
        ("'a' in self.labels && 'x' in self.tags", {"labels": {"a": "1"}, "tags": ["x"]}, {"labels": {}, "tags": []}),
        ("self.tags.map(t, t + '!') == ['a!']", {"tags": ["a"]}, {"tags": ["b"]}),
        ("self.tags.filter(t, t != 'a').size() == 0", {"tags": ["a"]}, {"tags": ["b"]}),
        ("self.labels == {'a': '1'}", {"labels": {"a": "1"}}, {"labels": {"a": "2"}}),
        ("self.name.lowerAscii() == 'ab' || self.name.split(',').size() == 2", {"name": "AB"}, {"name": "x"}),
        ("self.tags.isSorted()", {"tags": ["a", "b"]}, {"tags": ["b", "a"]}),
        ("duration(self.name) >= duration('1m')", {"name": "90s"}, {"name": "5s"}),
        ("self.min == 1 ? self.max == 2 : self.max == 3", {"min": 1, "max": 2}, {"min": 2, "max": 2}),
    ],
)
def test_rules(text: str, good: Json, bad: Json) -> None:
    fields = {
        "min": {"type": "integer"},
        "max": {"type": "integer"},
        "name": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    }
    things = Things({"properties": fields, **rule(text, message="not so")})
    things.create(good, name="good")
    with pytest.raises(ApiError) as caught:
        things.create(bad, name="bad")
    assert causes(caught.value) == [("FieldValueInvalid", "spec")]


def test_a_spec_level_rule_guards_fields_that_may_be_absent() -> None:
    """A field can be neither added, changed nor removed, whether it was there or not."""
    frozen = (
        "has(self.key) == has(oldSelf.key) && (!has(self.key) || self.key == oldSelf.key)"
        " && has(self.steps) == has(oldSelf.steps) && (!has(self.steps) || self.steps == oldSelf.steps)"
    )
    step = {"type": "object", "properties": {"command": {"type": "array", "items": {"type": "string"}}}}
    spec = {
        "properties": {
            "key": {"type": "string"},
            "cancel": {"type": "boolean"},
            "steps": {"type": "object", "additionalProperties": step},
        },
        **rule(frozen, message="immutable"),
    }
    things = Things(spec)
    things.create({"steps": {"plan": {"command": ["a"]}}})
    assert things.patch({"cancel": True})["spec"]["cancel"] is True
    changes: list[Json] = [
        {"key": "x"},
        {"steps": None},
        {"steps": {"plan": {"command": ["b"]}}},
        {"steps": {"apply": {}}},
    ]
    for change in changes:
        with pytest.raises(ApiError) as caught:
            things.patch(change)
        assert causes(caught.value) == [("FieldValueInvalid", "spec")]


def test_transition_rules_follow_list_items_by_their_keys() -> None:
    item = {"type": "object", "properties": {"id": {"type": "string"}, "n": {"type": "integer"}}, "required": ["id"]}
    item |= rule("self.n >= oldSelf.n", message="must not fall")
    slots = {"type": "array", "items": item, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"]}
    things = Things({"properties": {"slots": slots}})
    things.create({"slots": [{"id": "a", "n": 1}, {"id": "b", "n": 5}]})
    things.patch({"slots": [{"id": "c", "n": 0}, {"id": "b", "n": 5}, {"id": "a", "n": 2}]})
    with pytest.raises(ApiError) as caught:
        things.patch({"slots": [{"id": "b", "n": 4}]})
    assert causes(caught.value) == [("FieldValueInvalid", "spec.slots[0]")]


def test_a_rule_with_optional_old_self_runs_at_creation_too() -> None:
    text = "oldSelf.hasValue() ? self.n >= oldSelf.value().n : self.n == 0"
    more = {"optionalOldSelf": True, "message": "no"}
    things = Things({"properties": {"n": {"type": "integer"}}, **rule(text, **more)})
    with pytest.raises(ApiError):
        things.create({"n": 1})
    things.create({"n": 0})
    things.patch({"n": 1})
    with pytest.raises(ApiError):
        things.patch({"n": 0})


def test_reason_field_path_and_computed_message() -> None:
    more = {
        "reason": "FieldValueForbidden",
        "fieldPath": ".max",
        "messageExpression": "'max is ' + string(self.max)",
    }
    fields = {"properties": {"max": {"type": "integer"}}}
    things = Things({**fields, **rule("self.max < 3", **more)})
    with pytest.raises(ApiError) as caught:
        things.create({"max": 4})
    assert causes(caught.value) == [("FieldValueForbidden", "spec.max")]
    assert "max is 4" in caught.value.message


def test_rules_may_read_the_objects_name() -> None:
    things = Things({"properties": {}}, **rule("self.metadata.name != 'b'", message="not b"))
    things.create({}, name="a")
    with pytest.raises(ApiError):
        things.create({}, name="b")


def test_a_rule_that_stumbles_refuses() -> None:
    """`has(a.b.c)` without `b` is an error, as in the real server, not false."""
    inner = {"type": "object", "properties": {"c": {"type": "string"}}}
    things = Things({"properties": {"b": inner}, **rule("!has(self.b.c) || self.b.c == ''")})
    things.create({"b": {}}, name="ok")
    with pytest.raises(ApiError) as caught:
        things.create({}, name="bad")
    assert causes(caught.value) == [("FieldValueInvalid", "spec")]


def test_errors_in_cel_give_way_to_a_decided_other_side() -> None:
    value = untyped_to_cel({"a": 1})
    assert is_true(compile_rule("self.missing == 1 || self.a == 1").evaluate({"self": value}))
    with pytest.raises(CelEvaluationError):
        compile_rule("self.missing == 1 || self.a == 2").evaluate({"self": value})


def test_a_rule_that_does_not_parse_is_refused_with_its_definition() -> None:
    with pytest.raises(ApiError) as caught:
        Things({"properties": {}, **rule("self.a ===")})
    assert caught.value.code == 422


# --- definitions ------------------------------------------------------------------------------------------


def test_generation_counts_changes_of_the_spec_alone() -> None:
    things = Things({"properties": {"n": {"type": "integer"}}})
    assert things.create({"n": 1})["metadata"]["generation"] == 1
    assert things.patch({"n": 2})["metadata"]["generation"] == 2
    assert things.patch({"phase": "x"}, subresource="status", part="status")["metadata"]["generation"] == 2


def test_deleting_a_definition_takes_its_objects_along() -> None:
    things = Things({"properties": {}})
    things.create({})
    definitions = things.store.registry.by_key("customresourcedefinitions.apiextensions.k8s.io")
    things.store.delete(definitions, "", KEY, now=NOW)
    while things.store.collect(NOW):
        pass
    assert things.store.registry.find("example.dev", "v1", "things") is None
    assert things.store.versions.get(KEY, ("default", "a")) is None


def test_an_updated_definition_is_in_force_at_once() -> None:
    things = Things({"properties": {"n": {"type": "integer", "maximum": 1}}})
    with pytest.raises(ApiError):
        things.create({"n": 2})
    things.store.apply(definition({"properties": {"n": {"type": "integer"}}}), now=NOW, rng=things.rng)
    assert things.create({"n": 2})["spec"] == {"n": 2}


def test_a_status_has_its_default_until_it_is_written_and_not_what_was_sent() -> None:
    """It is dropped from what is created, and filled in again when it is read."""
    phase = {"type": "object", "default": {"phase": "New"}, "properties": {"phase": {"type": "string"}}}
    things = Things({}, properties={"spec": {"type": "object"}, "status": phase})
    resource = things.store.registry.by_key(KEY)
    document = {"metadata": {"name": "a"}, "spec": {}, "status": {"phase": "Forged"}}
    outcome = things.store.create(resource, "default", document, now=NOW, rng=things.rng)
    assert outcome.record is not None
    assert outcome.record.body["status"] == {"phase": "New"}
    assert things.patch({"phase": "Seen"}, subresource="status", part="status")["status"] == {"phase": "Seen"}
