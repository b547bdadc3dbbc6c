"""docs/reference: a page for each definition, from its schema."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Schema = dict[str, Any]

CRDS = Path(__file__).parent / "base" / "crds"
FOLDER = Path(__file__).parent.parent / "docs" / "reference"
_TABLE = ("| field | type | default | |", "| --- | --- | --- | --- |")


def files() -> Iterator[tuple[Path, str]]:
    """The pages, and what is to stand in them."""
    for path in sorted(CRDS.glob("*.yaml")):
        yield FOLDER / f"{path.stem}.md", _page(yaml.safe_load(path.read_text()))


def _page(definition: Schema) -> str:
    spec = definition["spec"]
    kind, short = spec["names"]["kind"], ", ".join(spec["names"].get("shortNames", []))
    lines = [f"# {kind}", ""]
    for version in spec["versions"]:
        schema = version["schema"]["openAPIV3Schema"]
        lines += [
            f"`{spec['group']}/{version['name']}`, short name `{short}`. {schema['description']}",
            "",
            "Made from the definition by `make manifests`; `kubectl explain` shows the same.",
        ]
        for path, part in _objects("", schema):
            lines += ["", f"## {path}" if path else "## The object", ""]
            if path and part.get("description"):
                lines += [part["description"].strip(), ""]
            lines += [*_TABLE, *_rows(part)]
            if rules := list(_rules(part)):
                lines += ["", "Rules:", "", *(f"- {rule}" for rule in rules)]
    return "\n".join(lines) + "\n"


def _objects(path: str, schema: Schema) -> Iterator[tuple[str, Schema]]:
    """Each object with named fields, by its path: `spec.steps.plan`, `spec.env[]`."""
    if "properties" in schema:
        yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from _objects(f"{path}.{name}".lstrip("."), part)
    if "items" in schema:
        yield from _objects(f"{path}[]", schema["items"])
    if isinstance(inner := schema.get("additionalProperties"), dict):
        yield from _objects(f"{path}.*", inner)


def _rows(schema: Schema) -> Iterator[str]:
    required = schema.get("required", [])
    for name, part in schema["properties"].items():
        default = "required" if name in required else _code(part["default"]) if _says_something(part) else ""
        text = " ".join(filter(None, (part.get("description", "").strip(), _bounds(part))))
        yield f"| `{name}` | {_type(part)} | {default} | {_cell(text)} |"


def _says_something(part: Schema) -> bool:
    """Whether the default is shown: `{}` is not, because it only applies the defaults of the fields below it."""
    return "default" in part and part["default"] != {}


def _type(part: Schema) -> str:
    if part.get("x-kubernetes-int-or-string"):
        return "integer or string"
    kind = str(part.get("type", "any"))
    if kind == "array":
        return f"list of {_type(part['items'])}"
    if isinstance(inner := part.get("additionalProperties"), dict):
        return f"map to {_type(inner)}"
    return {"date-time": "time"}.get(part.get("format", ""), kind)


def _bounds(part: Schema) -> str:
    """The allowed values, for people."""
    words = []
    if "enum" in part:
        words.append("One of " + ", ".join(f"`{value}`" for value in part["enum"]) + ".")
    for low, high, unit in (
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " entries"),
        ("minProperties", "maxProperties", " entries"),
    ):
        if low in part and high in part:
            words.append(f"{part[low]} to {part[high]}{unit}.")
        elif high in part:
            words.append(f"At most {part[high]}{unit}.")
        elif low in part:
            words.append(f"At least {part[low]}{unit}.")
    return " ".join(words)


def _rules(schema: Schema) -> Iterator[str]:
    """The messages of the rules of an object, and of its fields that have no section of their own."""
    for rule in schema.get("x-kubernetes-validations", []):
        field = rule.get("fieldPath", "").lstrip(".")
        yield f"`{field}`: {rule['message']}" if field else rule["message"]
    for name, part in schema["properties"].items():
        inner = part.get("items", part) if "properties" not in part else {}
        if "properties" not in inner:
            for rule in inner.get("x-kubernetes-validations", []):
                yield f"`{name}`: {rule['message']}"


def _code(value: object) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=1000)
    end_of_a_scalar = "...\n"
    return f"`{text.removesuffix(end_of_a_scalar).strip()}`"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
