"""What a table is made of: columns, and for each kind the cells of one object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from controller.local.apiserver.tables.ages import age

Json = dict[str, Any]

NAME_TEXT = (
    "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a "
    "client to request the generation of an appropriate name automatically. Name is primarily intended for creation "
    "idempotence and configuration definition. Cannot be updated. More info: "
    "https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names"
)
CREATED_TEXT = (
    "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed "
    "to be set in happens-before order across separate operations. Clients may not set this value. It is represented "
    "in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: "
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"
)
NONE = "<none>"


@dataclass(frozen=True, slots=True)
class Column:
    """One column. Those of priority 1 are shown by `-o wide` alone."""

    name: str
    description: str = ""
    type: str = "string"
    format: str = ""
    priority: int = 0

    def document(self) -> Json:
        """The entry of `columnDefinitions`."""
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        }


NAME = Column("Name", NAME_TEXT, format="name")
AGE = Column("Age", CREATED_TEXT)

Cells = Callable[[Json, datetime], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of a kind, the cells of an object in them, and the conditions of its row."""

    columns: tuple[Column, ...]
    cells: Cells
    conditions: Callable[[Json], list[Json]] = lambda _: []


def created(body: Json, now: datetime) -> str:
    """The cell of the column Age."""
    return age(body["metadata"].get("creationTimestamp"), now)


def joined(values: Sequence[str]) -> str:
    """Names in one cell."""
    return ",".join(values) if values else NONE
