"""A write as policies see it, once it is valid and before it is stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from controller.local.apiserver.store.registry import Resource
from controller.local.apiserver.store.users import User

Json = dict[str, Any]

CREATE, UPDATE, DELETE = "CREATE", "UPDATE", "DELETE"


@dataclass(frozen=True, slots=True)
class AdmissionRequest:
    """What is asked. `new` is None for a deletion, `old` for a creation; `kind` differs for some subresources."""

    operation: str
    resource: Resource
    namespace: str
    name: str
    new: Json | None
    old: Json | None
    user: User
    subresource: str = ""
    dry_run: bool = False


# Gives warnings, or raises ApiError for what is refused.
Admit = Callable[[AdmissionRequest], tuple[str, ...]]


def admit_all(request: AdmissionRequest) -> tuple[str, ...]:
    """No policies."""
    del request
    return ()
