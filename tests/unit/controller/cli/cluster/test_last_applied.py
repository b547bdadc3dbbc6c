"""The note of what was asked for, which `kubectl apply` looks for."""

import json
from typing import Any

from controller.cli.cluster.last_applied import ANNOTATION, MOST_BYTES, with_new_note, with_note


def task(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "podslots.dev/v1alpha1", "kind": "SlotTask", "metadata": {"name": "net"}, "spec": spec}


def test_the_note_is_byte_for_byte_kubectls() -> None:
    made = with_note({**task(type="plan", files={"a": "x < y && ü"}), "status": {"phase": "Queued"}}, "infra")
    assert made["metadata"]["annotations"][ANNOTATION] == (
        '{"apiVersion":"podslots.dev/v1alpha1","kind":"SlotTask",'
        '"metadata":{"annotations":{},"name":"net","namespace":"infra"},'
        '"spec":{"files":{"a":"x \\u003c y \\u0026\\u0026 ü"},"type":"plan"}}\n'
    )


def test_what_has_no_name_or_is_too_large_goes_without() -> None:
    nameless = {**task(), "metadata": {"generateName": "net-"}}
    assert with_note(nameless, "infra") == nameless
    large = task(files={"a": "x" * MOST_BYTES})
    assert with_note(large, "infra") == large


def test_a_note_keeps_what_was_asked_for_before_and_takes_what_is_new() -> None:
    before = with_note(task(priority=1, lockKey="vpc"), "infra")
    changes = {"metadata": {"name": "net", "annotations": {"mine": "x"}}, "spec": {"priority": 2}}
    patch = with_new_note(changes, {**task(), **changes}, before, "infra")
    noted = json.loads(patch["metadata"]["annotations"].pop(ANNOTATION))
    assert noted["spec"] == {"priority": 2, "lockKey": "vpc"}
    assert noted["metadata"] == {"annotations": {"mine": "x"}, "name": "net", "namespace": "infra"}
    assert patch == changes


def test_nothing_is_noted_anew_where_nothing_is_new_or_nothing_was_noted() -> None:
    """What somebody made by `kubectl create` stays as it is, and unchanged."""
    obj = task(priority=1)
    changes = {"metadata": {"name": "net"}, "spec": {"priority": 1}}
    assert with_new_note(changes, obj, with_note(obj, "infra"), "infra") == changes
    assert with_new_note(changes, obj, obj, "infra") == changes
    broken = {**obj, "metadata": {"name": "net", "annotations": {ANNOTATION: "{"}}}
    assert with_new_note(changes, obj, broken, "infra") == changes
