"""docs/reference has every field of every definition, with its default and its bounds."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from manifests.reference import CRDS, files

PAGES = {path.name: text for path, text in files()}


def fields(path: str, schema: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each field: the path of its object, its name, its schema."""
    for name, part in schema.get("properties", {}).items():
        yield path, name, part
        yield from fields(f"{path}.{name}".lstrip("."), part)
    if "items" in schema:
        yield from fields(f"{path}[]", schema["items"])
    if isinstance(inner := schema.get("additionalProperties"), dict):
        yield from fields(f"{path}.*", inner)


def schema_of(page: str) -> dict[str, Any]:
    definition = yaml.safe_load((CRDS / page.replace(".md", ".yaml")).read_text())
    schema: dict[str, Any] = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def section(text: str, path: str) -> str:
    return text.split(f"\n## {path or 'The object'}\n")[1].split("\n## ", maxsplit=1)[0]


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_field_has_a_row(page: str) -> None:
    missing = [
        f"{path}.{name}"
        for path, name, _ in fields("", schema_of(page))
        if f"\n| `{name}` | " not in section(PAGES[page], path)
    ]
    assert not missing


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_field_is_described(page: str) -> None:
    """`kubectl explain` shows nothing else."""
    assert not [f"{path}.{name}" for path, name, part in fields("", schema_of(page)) if not part.get("description")]


def test_defaults_and_bounds_are_told() -> None:
    spec = section(PAGES["slotpools.md"], "spec.autoscaling")
    row = next(line for line in spec.splitlines() if line.startswith("| `minIdleSeconds`"))
    assert row.startswith("| `minIdleSeconds` | integer | `60` | ")
    assert row.endswith(" 0 to 86400. |")
    assert "| `maxReplicas` | integer | required | " in spec
    assert "- `minReplicas`: minReplicas must not exceed maxReplicas" in spec
