"""Kubeconfig files, merged and read as kubectl does it: which cluster, which user, which namespace.

Of several files, the first that has an entry of a name, or a current context, wins. Paths in a file are relative to
its folder. Nothing but the files is read here; what a user's `exec` says is run by `controller.kube.exec_plugin`.
"""

import base64
import binascii
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controller.errors import NoConfiguration

DEFAULT = Path(".kube") / "config"
"""In the home directory."""
_MAPPINGS = {"clusters": "cluster", "users": "user", "contexts": "context"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A cluster, user or context, with the folder that its paths are relative to."""

    fields: Mapping[str, Any]
    folder: Path

    def text(self, key: str) -> str | None:
        """A field; None if it is not there, or empty. Raises NoConfiguration for what is no text."""
        value = self.fields.get(key)
        if value is not None and not isinstance(value, str):
            raise NoConfiguration(f"kubeconfig: {key} is {type(value).__name__}, not text")
        return value or None

    def path(self, key: str) -> Path | None:
        """A file that a field names."""
        name = self.text(key)
        return self.folder / name if name else None

    def content(self, key: str) -> bytes | None:
        """What is in `KEY-data`, else in the file that KEY names."""
        if (data := self.text(f"{key}-data")) is not None:
            try:
                return base64.b64decode(data, validate=True)
            except binascii.Error as error:
                raise NoConfiguration(f"kubeconfig: {key}-data is not base64: {error}") from error
        path = self.path(key)
        return path.read_bytes() if path else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The cluster, user and namespace of a context."""

    cluster: Entry
    user: Entry = field(repr=False)
    namespace: str | None


def choose(paths: str | None, context: str | None) -> Chosen:
    """The cluster and user of a context (None: the current one) of these files (None: ~/.kube/config).

    Raises NoConfiguration, OSError.
    """
    config = _Merged(_existing(paths or str(Path.home() / DEFAULT)))
    name = context or config.current
    if not name:
        raise NoConfiguration("the kubeconfig has no current context; name one with --context")
    entry = config.entry("contexts", name)
    cluster, user = entry.text("cluster"), entry.text("user")
    if not cluster:
        raise NoConfiguration(f"context {name!r} of the kubeconfig names no cluster")
    return Chosen(
        cluster=config.entry("clusters", cluster),
        user=config.entry("users", user) if user else Entry({}, Path()),
        namespace=entry.text("namespace"),
    )


def _existing(paths: str) -> list[Path]:
    """Those of several kubeconfigs that exist. Others are passed over, as kubectl does."""
    given = [path for path in paths.split(os.pathsep) if path]
    found = [path for path in (Path(path).expanduser() for path in given) if path.exists()]
    if not found:
        raise NoConfiguration(f"there is no kubeconfig {' or '.join(given)}")
    return found


class _Merged:
    """Some files as one."""

    def __init__(self, paths: list[Path]) -> None:
        self.current = ""
        self._entries: dict[tuple[str, str], Entry] = {}
        for path in paths:
            document = _read(path)
            self.current = self.current or str(document.get("current-context") or "")
            for plural, singular in _MAPPINGS.items():
                for name, entry in _named(document, plural, singular, path):
                    self._entries.setdefault((plural, name), entry)

    def entry(self, plural: str, name: str) -> Entry:
        """Raises NoConfiguration if there is none."""
        try:
            return self._entries[plural, name]
        except KeyError:
            known = ", ".join(sorted(other for kind, other in self._entries if kind == plural)) or "none"
            what = _MAPPINGS[plural]
            raise NoConfiguration(f"the kubeconfig has no {what} {name!r}; it has: {known}") from None


def _read(path: Path) -> Mapping[str, Any]:
    import yaml  # noqa: PLC0415 - 15 ms that a plain address does not need

    try:
        document = yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = f"{path}{where}: not YAML"
        raise NoConfiguration(problem) from error
    if document is None:
        return {}
    if not isinstance(document, Mapping):
        raise NoConfiguration(f"{path}: a kubeconfig is a mapping; this is {_what(document)}")
    return document


def _named(document: Mapping[str, Any], plural: str, singular: str, path: Path) -> Iterator[tuple[str, Entry]]:
    listed = document.get(plural)
    if listed is None:
        return
    if not isinstance(listed, list):
        raise NoConfiguration(f"{path}: {plural} is {_what(listed)}, not a list")
    for item in listed:
        fields = item.get(singular) if isinstance(item, Mapping) else None
        if not isinstance(item, Mapping) or not isinstance(item.get("name"), str):
            raise NoConfiguration(f"{path}: each of {plural} is a mapping with a name and a {singular}")
        if not isinstance(fields, Mapping | None):
            raise NoConfiguration(f"{path}: the {singular} {item['name']!r} is {_what(fields)}, not a mapping")
        yield item["name"], Entry(fields or {}, path.absolute().parent)


def _what(value: object) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, list) else "text" if isinstance(value, str) else repr(value)
