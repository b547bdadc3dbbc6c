"""What a write to the store asks for beside its document, and what it comes to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from controller.local.apiserver.store.users import SYSTEM, User
from controller.local.apiserver.store.versions import Change, Record

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """The query parameters of a write."""

    dry_run: bool = False
    field_validation: str = "Warn"
    user: User = SYSTEM


DEFAULT_OPTIONS = WriteOptions()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a write came to. `record` is the object as answered, or None where `status` is the answer."""

    code: int
    record: Record | None
    changes: tuple[Change, ...] = ()
    warnings: tuple[str, ...] = ()
    status: Json | None = None


def stamp(now: datetime) -> str:
    """A time as Kubernetes writes it: UTC, whole seconds."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
