"""A `Table`: rows of objects, with as much of each object as the client asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from controller.local.apiserver.errors import bad_request
from controller.local.apiserver.store.registry import Resource
from controller.local.apiserver.store.versions import Record
from controller.local.apiserver.tables import builtin, custom
from controller.local.apiserver.tables.columns import Layout

Json = dict[str, Any]

_INCLUDED = ("", "Metadata", "Object", "None")


def included(query: Mapping[str, str]) -> str:
    """How much of each object its row carries: `Metadata` unless asked otherwise. Raises BadRequest."""
    asked = query.get("includeObject", "")
    if asked not in _INCLUDED:
        raise bad_request(
            "Unable to convert to Table as requested: includeObject: Invalid value: "
            f"\"{asked}\": must be 'Metadata', 'Object', 'None', or empty"
        )
    return asked or "Metadata"


def table(
    resource: Resource,
    records: Sequence[Record],
    metadata: Mapping[str, Any],
    *,
    api_version: str,
    include: str,
    now: datetime,
    columns: bool = True,
) -> Json:
    """The table of these objects; later events of a watch go without the columns."""
    layout = _layout(resource)
    if records and records[0].body.get("kind") == "Scale":  # stored objects have no kind of their own
        layout = builtin.SCALE
    return {
        "kind": "Table",
        "apiVersion": api_version,
        "metadata": dict(metadata),
        "columnDefinitions": [column.document() for column in layout.columns] if columns else None,
        "rows": [
            _row(resource, layout, record, api_version=api_version, include=include, now=now) for record in records
        ],
    }


@lru_cache(maxsize=128)
def _layout(resource: Resource) -> Layout:
    return builtin.layout(resource.key) if resource.custom is None else custom.layout(resource.custom.printer_columns)


def _row(resource: Resource, layout: Layout, record: Record, *, api_version: str, include: str, now: datetime) -> Json:
    row: Json = {"cells": list(layout.cells(record.body, now))}
    conditions = layout.conditions(record.body)
    if conditions:
        row["conditions"] = conditions
    row["object"] = None
    if include == "Metadata":
        metadata = record.body["metadata"]
        row["object"] = {"kind": "PartialObjectMetadata", "apiVersion": api_version, "metadata": metadata}
    elif include == "Object":
        row["object"] = {"kind": resource.kind, "apiVersion": resource.api_version, **record.body}
    return row
