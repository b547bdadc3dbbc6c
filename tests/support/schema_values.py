"""Values made from the schemas of the definitions: those that fit, and those with something odd in one place."""

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

Json = dict[str, Any]
Values = st.SearchStrategy[Any]
Place = tuple[list[str | int], Json]

LONGEST_TRIED = 40_000
TIMES = [
    "2026-03-01T11:59:00Z",
    "2026-03-01T12:00:00.123456789Z",
    "2036-01-01T00:00:00+01:00",
    "1970-01-01T00:00:00Z",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
]

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
    if schema.get("format") == "date-time":
        return st.sampled_from(TIMES)
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
