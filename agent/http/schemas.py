"""JSON Schemas of the wire types, with the limits that `validation` sets.

Requests are closed and limited; answers are open, for a later agent may say more.
"""

import dataclasses
import types
import typing
from datetime import datetime
from enum import StrEnum
from typing import Any

from agent.codec import MAX_INTEGER
from agent.config import MAX_TASK_TYPE_LENGTH
from agent.http.validation import (
    DIGEST_PATTERN,
    EXIT_CODES,
    MAX_FENCE,
    MAX_FILE_MODE,
    MAX_NAME_LENGTH,
    MAX_REASON_LENGTH,
    MAX_SECONDS,
    NAME_PATTERN,
)
from agent.rules.recovery import MAX_KEPT_TASKS
from agent.wire import (
    STOP_SIGNALS,
    TASK_ID_PATTERN,
    AcquireRequest,
    Assignment,
    Command,
    DrainRequest,
    EnvVar,
    ExitReport,
    File,
    HoldRequest,
    RegisterRequest,
    StepSpec,
    Work,
)

Json = dict[str, Any]

SCALARS: dict[Any, Json] = {
    str: {"type": "string"},
    int: {"type": "integer", "minimum": -MAX_INTEGER, "maximum": MAX_INTEGER},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    datetime: {"type": "string", "format": "date-time"},
}

TASK_ID: Json = {"pattern": f"^{TASK_ID_PATTERN}$"}
SHORT_NAME: Json = {"minLength": 1, "maxLength": MAX_NAME_LENGTH, "pattern": NAME_PATTERN}
SECONDS: Json = {"minimum": 1, "maximum": MAX_SECONDS}
NO_NUL = r"^[^\u0000]*$"

LIMITS: dict[tuple[type[Any], str], Json] = {
    (AcquireRequest, "task_id"): TASK_ID,
    (AcquireRequest, "task_type"): {"minLength": 1, "maxLength": MAX_TASK_TYPE_LENGTH},
    (HoldRequest, "task_id"): TASK_ID,
    (HoldRequest, "ttl_seconds"): SECONDS,
    (HoldRequest, "fence"): {"minimum": 0, "maximum": MAX_FENCE},
    (DrainRequest, "drain_id"): SHORT_NAME,
    (Work, "name"): {"minLength": 1, "maxLength": MAX_NAME_LENGTH},
    (Work, "attempt"): {"minimum": 1},
    (Work, "reservation_ttl_seconds"): SECONDS,
    (StepSpec, "command"): {"minItems": 1},
    (StepSpec, "stop_signal"): {"enum": list(STOP_SIGNALS)},
    (Command, "command"): {"minItems": 1},
    (File, "mode"): {"minimum": 0, "maximum": MAX_FILE_MODE},
    (StepSpec, "timeout_seconds"): SECONDS,
    (StepSpec, "cancel_grace_seconds"): {"minimum": 0, "maximum": MAX_SECONDS},
    (EnvVar, "name"): {"minLength": 1, "pattern": r"^[^=\u0000]+$"},
    (EnvVar, "value"): {"pattern": NO_NUL},
    (ExitReport, "exit_code"): {"minimum": EXIT_CODES.start, "maximum": EXIT_CODES.stop - 1},
    (ExitReport, "log_bytes"): {"minimum": 0},
    (ExitReport, "reason"): {"maxLength": MAX_REASON_LENGTH},
    (ExitReport, "plan_digest"): {"pattern": DIGEST_PATTERN},
    (RegisterRequest, "instance"): SHORT_NAME,
    (RegisterRequest, "tasks"): {"maxItems": MAX_KEPT_TASKS},
    (Assignment, "task_id"): TASK_ID,
    (Assignment, "fence"): {"minimum": 0, "maximum": MAX_FENCE},
}
"""Rules beyond a field's type. For rules that JSON Schema can't express, the agent answers 422 `invalid`."""


class Schemas:
    """The components of one document, made as they are asked for."""

    def __init__(self) -> None:
        self.components: dict[str, Json] = {}

    def request(self, kind: type[Any]) -> Json:
        """A reference to the closed schema of what a request carries."""
        return self._reference(kind, closed=True)

    def answer(self, kind: type[Any]) -> Json:
        """A reference to the open schema of what an answer carries."""
        return self._reference(kind, closed=False)

    def _reference(self, kind: type[Any], *, closed: bool) -> Json:
        name = kind.__name__ if closed or kind not in _SENT else f"{kind.__name__}.answer"
        if name not in self.components:
            self.components[name] = {}
            self.components[name] = self._object(kind, closed=closed)
        return {"$ref": f"#/components/schemas/{name}"}

    def _object(self, kind: type[Any], *, closed: bool) -> Json:
        fields = dataclasses.fields(kind)
        properties = {}
        for name, hint in typing.get_type_hints(kind).items():
            properties[name] = self._limited(self._schema(hint, closed=closed), LIMITS.get((kind, name), {}))
        schema: Json = {"type": "object", "properties": properties}
        if kind.__doc__:
            schema["description"] = " ".join(kind.__doc__.split())
        missing = dataclasses.MISSING
        required = [field.name for field in fields if field.default is missing and field.default_factory is missing]
        if required:
            schema["required"] = required
        if closed:
            schema["additionalProperties"] = False
        return schema

    def _limited(self, schema: Json, limits: Json) -> Json:
        if "anyOf" in schema:
            first, *rest = schema["anyOf"]
            return {"anyOf": [{**first, **limits}, *rest]}
        return {**schema, **limits}

    def _schema(self, kind: Any, *, closed: bool) -> Json:
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if origin is types.UnionType:
            inner = [self._schema(argument, closed=closed) for argument in arguments if argument is not types.NoneType]
            return {"anyOf": [*inner, *([{"type": "null"}] if types.NoneType in arguments else [])]}
        if origin is tuple:
            return {"type": "array", "items": self._schema(arguments[0], closed=closed)}
        if origin is dict:
            return {"type": "object", "additionalProperties": self._schema(arguments[1], closed=closed)}
        if dataclasses.is_dataclass(kind):
            return self._reference(typing.cast("type[Any]", kind), closed=closed)
        if kind in SCALARS:
            return dict(SCALARS[kind])
        if issubclass(kind, StrEnum):
            return {"type": "string", "enum": list(kind)}
        raise TypeError(f"no schema for {kind!r}")


def _parts(kind: Any) -> set[type[Any]]:
    """A wire type and the types of its fields, nested ones included."""
    found: set[type[Any]] = set()
    if dataclasses.is_dataclass(kind):
        found.add(typing.cast("type[Any]", kind))
        for hint in typing.get_type_hints(kind).values():
            found |= _parts(hint)
    for argument in typing.get_args(kind):
        found |= _parts(argument)
    return found


_SENT = _parts(AcquireRequest) | _parts(RegisterRequest)
"""The types in requests. Some of them are in answers, too."""
