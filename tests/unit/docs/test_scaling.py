"""docs/scaling.md has an example for each field of `autoscaling`, and each is what it says it is."""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from controller.crds import folder
from controller.local.apiserver.schema.structural import CustomSchema
from controller.local.apiserver.schema.validation import validate
from controller.objects.pool import PoolSpec
from controller.objects.scaling_history import MOST
from tests.support.repository import ROOT

TEXT = (ROOT / "docs" / "scaling.md").read_text()
VERSION = yaml.safe_load((folder() / "slotpools.yaml").read_text())["spec"]["versions"][0]
AUTOSCALING = VERSION["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["autoscaling"]


def examples() -> Iterator[dict[str, Any]]:
    for block in re.findall(r"```yaml part-of=SlotPool.spec.autoscaling\n(.*?)```", TEXT, re.DOTALL):
        yield yaml.safe_load(block.replace("…", "vector(0)"))


def test_every_example_is_taken_and_understood() -> None:
    found = list(examples())
    assert len(found) >= 6
    for example in found:
        spec = {
            "autoscaling": {"maxReplicas": 20, **example},
            "template": {"spec": {"containers": [{"name": "worker"}]}},
        }
        schema = CustomSchema.compile(VERSION)
        stored = {"metadata": {"name": "n", "namespace": "ns"}, **schema.default({"spec": spec})}
        assert validate(schema, stored, None) == []
        PoolSpec.parse({"metadata": {"name": "n", "namespace": "ns"}, "spec": spec})


def fields(schema: dict[str, Any]) -> Iterator[str]:
    schema = schema.get("items", schema)
    for name, part in schema.get("properties", {}).items():
        yield name
        yield from fields(part)


def test_every_field_is_explained() -> None:
    assert [name for name in fields(AUTOSCALING) if name not in TEXT and name != "serverName"] == []


def test_the_length_of_the_history_is_told() -> None:
    assert f"at most {MOST} entries" in TEXT
