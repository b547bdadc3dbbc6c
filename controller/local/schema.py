"""Structural schemas (placeholder)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from controller.local.errors import Cause

Json = dict[str, Any]


@dataclass(frozen=True)
class CustomSchema:
    selectable_fields: tuple[str, ...] = ()
    scale: dict[str, str] | None = None

    @classmethod
    def compile(cls, version: Json) -> CustomSchema:
        del version
        return cls()

    def prune(self, body: Json) -> tuple[Json, list[str]]:
        return body, []

    def default(self, body: Json) -> Json:
        return body

    def validate(self, body: Json, old: Json | None) -> list[Cause]:
        del body, old
        return []
