"""What the cluster takes, the controller understands; and what it would understand, the cluster takes.

An object that is stored but not understood can only be complained about; one that is refused for no reason is a riddle.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from hypothesis import given, note, settings
from hypothesis import strategies as st

from controller.crds import folder
from controller.errors import InvalidObject
from controller.local.apiserver.schema.structural import CustomSchema
from controller.local.apiserver.schema.validation import validate
from controller.objects.fields import Fields
from controller.objects.pool import PoolSpec
from controller.objects.task_spec import TaskSpec

Json = dict[str, Any]
Values = st.SearchStrategy[Any]
Place = tuple[list[str | int], Json]

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

LONGEST_TRIED = 40_000

# Values that the rules between fields are about: hardly one would be hit by chance.
WORDS: dict[str, list[Any]] = {
    "type": ["plan", "apply", "plan_and_apply", "render"],
    "idleSlots": [{}, {"plan": 1}, {"apply": 0, "plan": 2}],
    "accepts": [["plan"], ["apply", "plan"], ["render"]],
    # What is in a file the definition can't see.
    "files": [{}, {"main.tf": "x"}, {"a/b": {"text": "x", "mode": 493}, "a/c": {"base64": "AA==", "mode": "0600"}}],
    "command": [["true"], ["sh", "-c", ""]],
    "url": ["http://prometheus:9090", "https://p.example.com/a/b/", "http://p/?q", "ftp://p", "https://u:p@host"],
    # Which days a month has, and that a range begins before it ends, the definition can't see.
    "start": ["0 22 * * *", "*/15 8-18 1,15 JAN-MAR,12 mon-FRI", "0 0 29 2 *"],
    "timeZone": ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5", "Europe/Nowhere"],
}


def fitting(schema: Json, name: str = "") -> Values:
    """Values that the schema alone allows, mostly."""
    if name in WORDS:
        return st.sampled_from(WORDS[name]).map(copy.deepcopy)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema["type"]:
        case "string":
            return texts(schema)
        case "integer":
            least = schema.get("minimum", -5)
            return st.integers(least, min(schema.get("maximum", least + 100), least + 100))
        case "number":
            return st.integers(schema["minimum"], schema["maximum"]) | st.floats(schema["minimum"], schema["maximum"])
        case "boolean":
            return st.booleans()
        case "array":
            fewest = schema.get("minItems", 0)
            return st.lists(fitting(schema["items"]), min_size=fewest, max_size=max(3, fewest))
        case _ if "additionalProperties" in schema:
            return st.dictionaries(st.text("ab./", max_size=4), fitting(schema["additionalProperties"]), max_size=3)
    properties = schema.get("properties", {})
    wanted = {key: fitting(part, key) for key, part in properties.items() if key in schema.get("required", ())}
    others = {key: fitting(part, key) for key, part in properties.items() if key not in wanted}
    return st.fixed_dictionaries(wanted, optional=others)


def texts(schema: Json) -> Values:
    """Strings, those of the pattern if there is one; of the bounds' length, too."""
    longest = schema.get("maxLength", 8)
    if "pattern" in schema:
        return st.from_regex(schema["pattern"], fullmatch=True).filter(lambda text: len(text) <= longest)
    return st.text(min_size=schema.get("minLength", 0), max_size=min(longest, 6))


def odd(schema: Json) -> Values:
    """Values at the bounds and beyond, of other types, empty, and null."""
    strange: list[Any] = [None, "", "plan\n", 0, -1, True, [], {}, [""], {"a": ""}, "x"]
    for bound, step in (("minimum", -1), ("maximum", 1)):
        if bound in schema:
            strange += [schema[bound], schema[bound] + step]
    if schema.get("maxLength", LONGEST_TRIED) < LONGEST_TRIED:
        strange += ["x" * schema["maxLength"], "x" * (schema["maxLength"] + 1)]
    if schema.get("type") == "number":
        strange += [schema["maximum"] + 0.001, -0.001]
    options = [st.sampled_from(strange)]
    if schema.get("type") == "array":
        most = schema["maxItems"]
        options.append(fitting(schema["items"]).map(lambda item: [copy.deepcopy(item) for _ in range(most)]))
        options.append(fitting(schema["items"]).map(lambda item: [copy.deepcopy(item) for _ in range(most + 1)]))
    if "additionalProperties" in schema:
        most = schema["maxProperties"]
        options.append(
            fitting(schema["additionalProperties"]).map(lambda part: {f"k{index}": part for index in range(most + 1)})
        )
    return st.one_of(options)


def places(schema: Json, value: Any, path: list[str | int]) -> Iterator[Place]:
    """Every value in an object with its schema."""
    yield path, schema
    if isinstance(value, dict):
        for key, part in value.items():
            child = schema.get("properties", {}).get(key) or schema.get("additionalProperties")
            if child:
                yield from places(child, part, [*path, key])
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(schema["items"], item, [*path, index])


@st.composite
def specs(draw: st.DrawFn, schema: Json) -> Any:
    """A spec that fits, or one with something odd in one place, or without one of its parts."""
    spec = draw(fitting(schema))
    found = list(places(schema, spec, []))[1:]
    if not found or not draw(st.integers(0, 3)):
        return spec
    path, part = draw(st.sampled_from(found))
    above = spec
    for step in path[:-1]:
        above = above[step]
    if draw(st.integers(0, 5)):
        above[path[-1]] = draw(odd(part))
    else:
        del above[path[-1]]
    return spec


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
