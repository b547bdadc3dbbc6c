"""Replays recorded conversations with a kube-apiserver and compares answers as far as they can be compared.

Volatile values (identities, versions, times, tokens, generated names) are compared by presence, shape and relation: an
identity or a version that was equal to another in the recording must be so again, and versions must rise alike.
"""

from __future__ import annotations

import base64
import copy
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

Json = dict[str, Any]

ROOT = Path(__file__).parent.parent / "contract" / "transcripts"
VERSIONS = ("v1.32", "v1.36")
NAMESPACE = "conformance"
GROUP = "example.dev"
"""The group of the custom resource that the scenarios use."""
# How the names of the policies begin that the scenarios make.
CLUSTER_WIDE = "tryout-"

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_GENERATED = re.compile(r"-[a-z0-9]{5}$")
_AGE = re.compile(r"\b(\d+[smhdy])+\b")
# Go wrote `null` for a time that is not set, until it left the field out (1.34).
_NULL_OR_ABSENT = frozenset({"creationTimestamp", "startedAt", "finishedAt"})
# Times of this day were written by the recorded server: 1.36's newer scenarios. Those that clients sent are of another.
_RECORDING_DAY = "2026-11-28T"
_TIMES = frozenset({"creationTimestamp", "deletionTimestamp"})


def _without_age(cell: str) -> str:
    """A table's cell: `2 (331d ago)`, `5s`, a time."""
    return _TIME.sub("TIME", _AGE.sub("AGE", cell))


@dataclass(frozen=True)
class Scenario:
    """One recorded file."""

    version: str
    name: str

    def steps(self) -> list[Json]:
        """The recorded requests and responses."""
        steps: list[Json] = json.loads((ROOT / self.version / f"{self.name}.json").read_text())["steps"]
        return steps

    def __str__(self) -> str:
        return f"{self.version}-{self.name}"


def scenarios() -> list[Scenario]:
    """Every recorded scenario of every version."""
    return [
        Scenario(version, path.stem)
        for version in VERSIONS
        for path in sorted((ROOT / version).glob("*.json"))
        if path.stem != "widget-crd"
    ]


def widget_crd(version: str, group: str = GROUP) -> Json:
    """The CustomResourceDefinition that the scenarios use, in their group or another."""
    definition: Json = json.loads((ROOT / version / "widget-crd.json").read_text().replace(GROUP, group))
    return definition


def _camel(group: str) -> str:
    """A group as tags of OpenAPI documents have it."""
    first, *others = group.split(".")
    return first + "".join(_capital(part) for part in others)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _reversed(group: str) -> str:
    """A group as it begins names in OpenAPI documents."""
    return ".".join(reversed(group.split(".")))


@dataclass
class Replay:
    """What is known while one scenario is replayed: captures, and recorded values against those of today."""

    namespace: str
    ignored: Mapping[str, str]
    group: str = GROUP
    captured: dict[str, str] = field(default_factory=dict)
    _ignored_here: Mapping[str, str] = field(default_factory=dict)
    _uids: dict[str, str] = field(default_factory=dict)
    _versions: dict[int, tuple[int, int]] = field(default_factory=dict)

    def request(self, step: Json) -> Json:
        """The recorded request with today's names and values."""
        request = copy.deepcopy(step["request"])
        filled: Json = self._fill(request)
        return filled

    def _fill(self, value: Any) -> Any:
        if isinstance(value, dict) and set(value) == {"base64"}:
            # Lengths stand in a protobuf message: a namespace of another length would break it.
            raw = base64.b64decode(value["base64"])
            for old, new in self._todays:
                raw = raw.replace(old.encode(), new.encode())
            return {"base64": base64.b64encode(raw).decode()}
        if isinstance(value, dict):
            return {self._today(key): self._fill(part) for key, part in value.items()}
        if isinstance(value, list):
            return [self._fill(part) for part in value]
        if not isinstance(value, str):
            return value
        if value in self._uids:
            return self._uids[value]
        text = re.sub(r"\{\{(\w+)\}\}", lambda match: self.captured[match[1]], value)
        return self._today(text)

    @property
    def shared(self) -> bool:
        """Whether the cluster is others' too: then names are of this run, and versions rise by others' writes."""
        return self.namespace != NAMESPACE

    @property
    def _todays(self) -> list[tuple[str, str]]:
        """Names of the recording and those of this run, so that two runs don't meet."""
        if not self.shared:
            return []
        return [
            (NAMESPACE, self.namespace),
            (CLUSTER_WIDE, f"{self.namespace}-{CLUSTER_WIDE}"),
            (GROUP, self.group),
            (_reversed(GROUP), _reversed(self.group)),
            (_camel(GROUP), _camel(self.group)),
            (_capital(_camel(GROUP)), _capital(_camel(self.group))),
        ]

    def _today(self, text: str) -> str:
        for old, new in self._todays:
            text = text.replace(old, new)
        return text

    def as_recorded(self, text: str) -> str:
        """A text of today with the names of the recording."""
        for old, new in reversed(self._todays):
            text = text.replace(new, old)
        return text

    def in_recorded_names(self, body: Any) -> Any:
        """An answer's body with the names of the recording."""
        return self.as_recorded(body) if isinstance(body, str) else json.loads(self.as_recorded(json.dumps(body)))

    def capture(self, step: Json, body: Any, etag: str) -> None:
        """Keeps what later steps need."""
        if etag:
            self.captured["etag"] = etag
        if step.get("capture") and isinstance(body, str):
            body = json.loads(body)
        for name, pointer in step.get("capture", {}).items():
            found = body
            for part in self._today(pointer).strip("/").split("/"):
                found = found[part.replace("~1", "/").replace("~0", "~")]
            self.captured[name] = found

    def differences(
        self, step: Json, status: int, content_type: str, body: Any, also_ignored: Mapping[str, str]
    ) -> list[str]:
        """How an answer differs from the recorded one; nothing if it is the same."""
        self._ignored_here = also_ignored
        recorded = step["response"]
        found = []
        if status != recorded["status"]:
            found.append(f"status {status}, recorded {recorded['status']}: {json.dumps(body)[:500]}")
            return found
        if recorded["contentType"] and content_type.partition(";")[0] != recorded["contentType"]:
            found.append(f"content type {content_type}, recorded {recorded['contentType']}")
        found.extend(self._compare("", recorded["body"], body, {}))
        return found

    def _compare(self, path: str, recorded: Any, actual: Any, parent: Json) -> Iterator[str]:
        leaf = path.rpartition(".")[2]
        if isinstance(recorded, dict) and isinstance(actual, dict):
            yield from self._compare_members(path, recorded, actual)
        elif isinstance(recorded, list) and isinstance(actual, list):
            if len(recorded) != len(actual):
                yield f"{path} has {len(actual)} items, recorded {len(recorded)}: {json.dumps(actual)[:600]}"
            for index, (old, new) in enumerate(zip(recorded, actual, strict=False)):
                yield from self._compare(f"{path}[{index}]", old, new, parent)
        elif not self._same(leaf, recorded, actual, parent):
            yield f"{path} is {json.dumps(actual)[:300]}, recorded {json.dumps(recorded)[:300]}"

    def _compare_members(self, path: str, recorded: Json, actual: Json) -> Iterator[str]:
        for key in sorted({*recorded, *actual}):
            where = f"{path}.{key}"
            if self._is_ignored(where):
                continue
            if key in _NULL_OR_ABSENT and recorded.get(key) is None and actual.get(key) is None:
                continue
            if key not in actual:
                yield f"{where} is missing, recorded {json.dumps(recorded[key])[:200]}"
            elif key not in recorded:
                yield f"{where} is {json.dumps(actual[key])[:200]}, not in the recording"
            else:
                yield from self._compare(where, recorded[key], actual[key], recorded)

    def _is_ignored(self, path: str) -> bool:
        plain = re.sub(r"\[\d+\]", "[]", path)
        return any(plain == rule or plain.endswith(rule) for rule in (*self.ignored, *self._ignored_here))

    def _same(self, leaf: str, recorded: Any, actual: Any, parent: Json) -> bool:
        if leaf.startswith("cells[") and isinstance(recorded, str):
            return isinstance(actual, str) and _without_age(recorded) == _without_age(actual)
        if isinstance(recorded, str) and recorded.startswith(_RECORDING_DAY):
            return isinstance(actual, str) and _TIME.fullmatch(actual) is not None
        if leaf in _TIMES and isinstance(recorded, str):
            return isinstance(actual, str) and _TIME.fullmatch(actual) is not None
        if leaf == "uid":
            return (
                isinstance(actual, str)
                and _UID.fullmatch(actual) is not None
                and self._uids.setdefault(recorded, actual) == actual
                and list(self._uids.values()).count(actual) == 1
            )
        if leaf == "resourceVersion":
            return self._same_version(recorded, actual)
        if leaf in ("continue", "message", "serverAddress"):
            return isinstance(actual, str) and bool(actual) == bool(recorded)
        if leaf == "name" and "generateName" in parent:
            return isinstance(actual, str) and _GENERATED.sub("", actual) == _GENERATED.sub("", recorded)
        return bool(recorded == actual and isinstance(recorded, bool) == isinstance(actual, bool))

    def _same_version(self, recorded: Any, actual: Any) -> bool:
        if not isinstance(actual, str) or not actual.isdigit() or not recorded.isdigit():
            return False
        old, new = int(recorded), int(actual)
        least, most = self._versions.get(old, (new, new))
        self._versions[old] = (min(least, new), max(most, new))
        # Where others write too, a list is newer than the newest object in it.
        if not self.shared and least != new:
            return False
        ordered = [self._versions[version] for version in sorted(self._versions)]
        return all(earlier[1] < later[0] for earlier, later in pairwise(ordered))
