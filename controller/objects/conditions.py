"""Conditions of a status, as all of Kubernetes has them."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from agent.wire import format_time
from controller.objects.fields import Fields
from controller.objects.times import read_time

MAX_MESSAGE_LENGTH = 32768


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One condition. `status` is `True`, `False` or `Unknown`; `since` is the time it last changed."""

    type: str
    status: str
    reason: str
    message: str = ""
    since: datetime | None = None
    observed_generation: int | None = None

    @staticmethod
    def parse(fields: Fields) -> "Condition":
        """A condition of an object's status. Raises InvalidObject."""
        return Condition(
            type=fields.text("type"),
            status=fields.text("status"),
            reason=fields.text("reason", ""),
            message=fields.text("message", ""),
            since=time(fields, "lastTransitionTime"),
            observed_generation=fields.optional_integer("observedGeneration"),
        )

    def to_json(self) -> dict[str, Any]:
        """The condition as it stands in a status."""
        document: dict[str, Any] = {"type": self.type, "status": self.status, "reason": self.reason}
        document["message"] = self.message[:MAX_MESSAGE_LENGTH]
        if self.since is not None:
            document["lastTransitionTime"] = format_time(self.since)
        if self.observed_generation is not None:
            document["observedGeneration"] = self.observed_generation
        return document


def time(fields: Fields, name: str) -> datetime | None:
    """The time in a field, if there is one. Raises InvalidObject."""
    text = fields.optional_text(name)
    if text is None:
        return None
    try:
        return read_time(text)
    except ValueError:
        raise fields.fail(name, "must be an RFC 3339 time with a zone") from None


def find(conditions: tuple[Condition, ...], kind: str) -> Condition | None:
    """The condition of a type."""
    return next((item for item in conditions if item.type == kind), None)


def put(conditions: tuple[Condition, ...], new: Condition, now: datetime) -> tuple[Condition, ...]:
    """`conditions` with `new` in the place of the one of its type; `since` moves only if the status does."""
    old = find(conditions, new.type)
    since = old.since if old is not None and old.status == new.status and old.since is not None else now
    placed = replace(new, since=since)
    if old is None:
        return (*conditions, placed)
    return tuple(placed if item.type == new.type else item for item in conditions)
