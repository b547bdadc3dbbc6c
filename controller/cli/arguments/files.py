"""The SlotPools and SlotTasks of YAML files, for `podslots submit`. What can't be sent is refused with its place."""

import math
import sys
from collections.abc import Hashable, Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import click
import yaml

from controller.kube.api import SLOTPOOLS, SLOTTASKS, Object
from controller.names import API_VERSION

KINDS = {resource.kind: resource for resource in (SLOTPOOLS, SLOTTASKS)}


MOST_VALUES = 1_000_000
"""Of a document. An object has at most some thousands; but by `&` and `*` a short text can say 2 to the 40th."""


class _Loader(yaml.SafeLoader):
    """Refuses a mapping that has a key twice, as kubectl does: YAML would take the last one, in silence."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """A value. One that its tag can't be is wrong at its place: PyYAML raises whatever Python does."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, OverflowError) as error:
            tag = node.tag.rpartition(":")[2]
            raise yaml.constructor.ConstructorError(None, None, f"this is no {tag}", node.start_mark) from error

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Put into a mapping what is merged into it. Each merge of a merged one may double it."""
        super().flatten_mapping(node)
        if len(node.value) > MOST_VALUES:
            raise yaml.constructor.ConstructorError(None, None, "merges that have no end", node.start_mark)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping. Those that are merged into it (`<<`) may have the same keys."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        "while constructing a mapping", node.start_mark, f"{key.value!r} is there twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def parse(text: str, origin: str) -> Iterator[Object]:
    """The SlotPools and SlotTasks of a YAML (or JSON) text. Anything else is refused, naming its place."""
    try:
        documents = [document for document in yaml.load_all(text, _Loader) if document is not None]
    except yaml.YAMLError as error:
        raise click.ClickException(f"{origin}: not YAML: {_yaml_problem(error)}") from error
    except RecursionError as error:
        raise click.ClickException(f"{origin}: lists or mappings in one another, too many to read") from error
    found: list[Object] = []
    for number, read in enumerate(documents, 1):
        document = _Sendable(f"{origin}, document {number}").of(read)
        listed = document.get("items") if isinstance(document, Mapping) else None
        items = listed if isinstance(listed, list) else [document]
        for item in items:
            _check(item, f"{origin}, document {number}")
            found.append(dict(item))
    if not found:
        raise click.ClickException(f"{origin}: no objects in it")
    yield from found


def pools_first(objects: Iterable[Object]) -> list[Object]:
    """The order in which they are sent: a task finds its pool."""
    return sorted(objects, key=lambda obj: obj["kind"] != SLOTPOOLS.kind)


_DEEPEST = 100
"""Levels of a document. No object has as many, and one that has itself in it (by `&` and `*`) has no end."""
_INTEGERS = range(-(1 << 63), 1 << 64)


class _Sendable:
    """Makes a document one that JSON has. Fails with the path of what JSON has no words for."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._values = 0

    def of(self, value: Any, path: str = "", depth: int = 0) -> Any:
        """The value as JSON has it."""
        self._values += 1
        top = path.partition("[")[0]
        if depth > _DEEPEST:
            raise click.ClickException(f"{self._where}: {top} is more than {_DEEPEST} levels deep, or has itself in it")
        if self._values > MOST_VALUES:
            raise click.ClickException(
                f"{self._where}: more than {MOST_VALUES} values, at {top}: are there too many * and & in it?"
            )
        if isinstance(value, str):
            return _paired(value, self._where, path)
        if isinstance(value, Mapping):
            return {
                _key(key, self._where, path): self.of(part, _below(path, key), depth + 1) for key, part in value.items()
            }
        if isinstance(value, list):
            return [self.of(part, f"{path}[{index}]", depth + 1) for index, part in enumerate(value)]
        if (problem := _unlike_json(value)) is not None:
            raise click.ClickException(f"{self._where}: {path} {problem}")
        return value


def _unlike_json(value: object) -> str | None:
    """What is wrong with a value that is no text, list or mapping, if anything is."""
    match value:
        case None | bool():
            return None
        case int():
            return None if value in _INTEGERS else "is an integer of more than 64 bits"
        case float():
            return None if math.isfinite(value) else "is no number"
        case bytes():
            return "is !!binary: write base64 as a plain text instead, as in files: {NAME: {base64: …}}"
        case date():
            return "is a date: put it in quotes"
    return "is nothing that JSON has: use texts, numbers, true, false, null, lists and mappings"


def _key(key: object, where: str, path: str) -> str:
    if not isinstance(key, str):
        raise click.ClickException(f"{where}: {_below(path, key)} is no text: put the key in quotes")
    return _paired(key, where, path)


def _paired(value: str, where: str, path: str) -> str:
    """JSON writes a character past U+FFFF as two escapes, and YAML reads two halves. Makes them whole again."""
    try:
        return value.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError as error:
        problem = "half of a surrogate pair, without its other half: that is no text"
        raise click.ClickException(f"{where}: {path or 'its text'} has {problem}") from error


def _below(path: str, key: object) -> str:
    """The path of a field, in characters that can be printed."""
    name = str(key).encode("ascii", "backslashreplace").decode()
    return f"{path}.{name}" if path else name


def _check(item: Any, where: str) -> None:
    if not isinstance(item, Mapping):
        raise click.ClickException(f"{where}: an object with apiVersion, kind, metadata and spec is expected")
    kind, version = item.get("kind"), item.get("apiVersion")
    if not isinstance(kind, str) or kind not in KINDS:
        what = f"{version or 'no apiVersion,'} {kind}" if kind else "an object without kind"
        raise click.ClickException(f"{where}: {what}, where {' or '.join(KINDS)} is expected (use kubectl for others)")
    if version != API_VERSION:
        raise click.ClickException(f"{where}: a {kind} with apiVersion {version or 'missing'}, not {API_VERSION}")
    metadata = item.get("metadata")
    if not isinstance(metadata, Mapping) or not (metadata.get("name") or metadata.get("generateName")):
        raise click.ClickException(f"{where}: {kind} without metadata.name")
    for field in ("name", "generateName", "namespace"):
        if not isinstance(metadata.get(field, ""), str):
            raise click.ClickException(f"{where}: {kind} with a metadata.{field} that is no text: put it in quotes")


def _yaml_problem(error: yaml.YAMLError) -> str:
    """What is wrong and where, in one line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem or error.context}"
    if isinstance(error, yaml.reader.ReaderError):
        return f"character {error.position + 1}: {error.reason}"
    return str(error)


STANDARD_INPUT = "standard input"
SUFFIXES = frozenset({".yaml", ".yml", ".json"})


def files_of(path: str, *, recursive: bool = False) -> list[str]:
    """A path itself; of a folder, as kubectl takes it, the YAML and JSON files in it, by name."""
    if path == "-" or not Path(path).is_dir():
        return [path]
    try:
        found = sorted(Path(path).rglob("*") if recursive else Path(path).iterdir())
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from error
    files = [str(each) for each in found if each.suffix in SUFFIXES and each.is_file()]
    if not files:
        below = "" if recursive else " (-R looks below it, too)"
        raise click.ClickException(f"{path}: no .yaml, .yml or .json files in this folder{below}")
    return files


def parse_file(path: str) -> Iterator[Object]:
    """The SlotPools and SlotTasks of a file, or of standard input for `-`."""
    return parse(read(path), STANDARD_INPUT if path == "-" else path)


def read(path: str) -> str:
    """A file's text, or standard input for `-`."""
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{path}: not a text file in UTF-8") from error
    except FileNotFoundError as error:
        raise click.ClickException(f"{path}: there is no such file") from error
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from error
