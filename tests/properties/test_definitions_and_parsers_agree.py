"""What the cluster takes, the controller understands; and what it would understand, the cluster takes.

An object that is stored but not understood can only be complained about; one that is refused for no reason is a riddle.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import given, note, settings

from controller.crds import folder
from controller.errors import InvalidObject
from controller.local.apiserver.schema.structural import CustomSchema
from controller.local.apiserver.schema.validation import validate
from controller.objects.fields import Fields
from controller.objects.pool import PoolSpec
from controller.objects.task_spec import TaskSpec
from tests.support.schema_values import specs

Json = dict[str, Any]

VERSIONS = {
    plural: yaml.safe_load((folder() / f"{plural}.yaml").read_text())["spec"]["versions"][0]
    for plural in ("slotpools", "slottasks")
}
SCHEMAS = {plural: CustomSchema.compile(version) for plural, version in VERSIONS.items()}
SPECS: dict[str, Json] = {
    plural: version["schema"]["openAPIV3Schema"]["properties"]["spec"] for plural, version in VERSIONS.items()
}
TEMPLATE: Json = {"spec": {"containers": [{"name": "worker", "image": "i"}]}}
"""Not generated: what templates may be is held elsewhere."""


def refusal(plural: str, spec: Json) -> tuple[Json, list[str]]:
    """The spec as the cluster would store it, and why it would not."""
    schema = SCHEMAS[plural]
    own, _ = schema.prune({"spec": copy.deepcopy(spec)})  # both pass over fields that they do not know
    metadata = {"name": "n", "namespace": "ns", "uid": "u"}
    stored = {"metadata": metadata, **schema.default(own)}
    return stored["spec"], [f"{cause.field}: {cause.message}" for cause in validate(schema, stored, None)]


def parse_pool(spec: Json) -> PoolSpec:
    return PoolSpec.parse({"metadata": {"name": "n", "namespace": "ns"}, "spec": spec})


def parse_task(spec: Json) -> TaskSpec:
    return TaskSpec.parse(Fields(spec, "spec"))


def without_template(schema: Json) -> Json:
    properties = {key: part for key, part in schema["properties"].items() if key != "template"}
    return {**schema, "properties": properties, "required": []}


def agree(plural: str, spec: Json, parse: Callable[[Json], object]) -> None:
    stored, problems = refusal(plural, spec)
    note(f"{spec}: {problems}")
    if problems:
        with pytest.raises(InvalidObject):
            parse(spec)
    else:
        assert parse(stored) == parse(spec), "the defaults differ"


@pytest.mark.long
@pytest.mark.timeout(300)
@settings(max_examples=120)
@given(specs(without_template(SPECS["slotpools"])))
def test_of_pools(spec: Json) -> None:
    agree("slotpools", {**spec, "template": TEMPLATE}, parse_pool)


@pytest.mark.long
@pytest.mark.timeout(300)
@settings(max_examples=200)
@given(specs(SPECS["slottasks"]))
def test_of_tasks(spec: Json) -> None:
    agree("slottasks", spec, parse_task)


FREEZE_WORDS = {
    "0 22 * * *": "UTC",
    "5/10 0-23/2 * 1-12 0-7": "Europe/Berlin",
    "0 0 * * SUN,sat": "Pacific/Chatham",
}
BAD_FREEZE_WORDS = [
    ("", "UTC"),
    ("0 22 * *", "UTC"),
    ("0 0 22 * * *", "UTC"),
    ("60 22 * * *", "UTC"),
    ("0 24 * * *", "UTC"),
    ("0 22 0 * *", "UTC"),
    ("0 22 * 13 *", "UTC"),
    ("0 22 * * 8", "UTC"),
    ("0 22 * * *\n", "UTC"),
    ("22:00", "UTC"),
    ("@daily", "UTC"),
    ("*/0 * * * *", "UTC"),
    ("0 22 * * L", "UTC"),
    ("0 22 * * *", "Berlin"),
    ("0 22 * * *", "Europe/Nowhere"),
    ("0 22 * * *", "../etc/passwd"),
    ("0 22 * * *", "+02:00"),
]


def freeze_spec(start: str, zone: str) -> Json:
    window = {"start": start, "durationSeconds": 60, "timeZone": zone}
    return {"autoscaling": {"maxReplicas": 1, "freeze": [window]}, "template": TEMPLATE}


@pytest.mark.parametrize(("start", "zone"), FREEZE_WORDS.items())
def test_a_freeze_window_that_can_be_understood_is_taken_by_both(start: str, zone: str) -> None:
    spec = freeze_spec(start, zone)
    stored, problems = refusal("slotpools", spec)
    assert not problems
    assert parse_pool(stored) == parse_pool(spec)


@pytest.mark.parametrize(("start", "zone"), BAD_FREEZE_WORDS)
def test_a_freeze_window_that_makes_no_sense_is_refused_by_both(start: str, zone: str) -> None:
    """T29: none is read as midnight."""
    assert refusal("slotpools", freeze_spec(start, zone))[1]
    with pytest.raises(InvalidObject):
        parse_pool(freeze_spec(start, zone))


REFUSED: list[Json] = [
    {"targetUtilizationPercent": 60, "scaleUpUtilizationPercent": 80},
    {"targetUtilizationPercent": 60, "scaleDownUtilizationPercent": 20},
    {"targetUtilizationPercent": 0},
    {"scaleDownUtilizationPercent": 80},
    {"scaleUpUtilizationPercent": 20},
    {"behavior": {"scaleUp": {"policies": []}}},
    {"behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 0, "periodSeconds": 15}]}}},
    {"behavior": {"scaleDown": {"policies": [{"type": "Slots", "value": 1, "periodSeconds": 15}]}}},
    {"behavior": {"scaleDown": {"policies": [{"type": "Pods", "value": 1}]}}},
    {"behavior": {"scaleDown": {"selectPolicy": "Sum"}}},
    {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 3601}}},
    {"behavior": {"scaleDown": {"tolerance": 1.1}}},
    {"behavior": {"scaleDown": {"tolerance": "0.1"}}},
    {"freeze": [{"start": "0 22 * * *"}]},
    {"freeze": [{"start": "0 22 * * *", "durationSeconds": 604801}]},
    {"signal": {"source": "Prometheus"}},
    {"signal": {"source": "Prometheus", "url": "prometheus:9090"}},
    {"signal": {"source": "Prometheus", "url": "http://user:password@prometheus"}},
    {"signal": {"source": "Prometheus", "url": "http://p", "tls": {"secretName": "ca"}}},
    {"signal": {"source": "Prometheus", "url": "http://p", "fallback": "Shrink"}},
    {"signal": {"source": "Datadog", "url": "http://p"}},
]


@pytest.mark.parametrize("autoscaling", REFUSED)
def test_autoscaling_that_makes_no_sense_is_refused_by_both(autoscaling: Json) -> None:
    """T5."""
    spec = {"autoscaling": {"maxReplicas": 3, **autoscaling}, "template": TEMPLATE}
    assert refusal("slotpools", spec)[1]
    with pytest.raises(InvalidObject):
        parse_pool(spec)


@pytest.mark.parametrize("start", ["0 0 31 2 *", "0 0 30 2,02 *", "50-10 * * * *", "0 0 * * FRI-MON"])
def test_a_start_that_the_definition_can_t_see_through_is_refused_by_the_parser(start: str) -> None:
    """T29."""
    with pytest.raises(InvalidObject, match="start"):
        parse_pool(freeze_spec(start, "UTC"))


@pytest.mark.parametrize("step", ["plan", "apply"])
def test_a_command_without_a_program_is_refused_by_both(step: str) -> None:
    spec = {"pool": "p", "type": step, "steps": {step: {"command": [""]}}}
    assert refusal("slottasks", spec)[1]
    with pytest.raises(InvalidObject):
        parse_task(spec)
