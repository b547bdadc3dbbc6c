"""What the handler of a call is given: the request as it was read, and the parts of the agent that answer it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from aiohttp import web

from agent.auth import Identity, Kind
from agent.service import Service
from agent.store.output import Outputs
from agent.wire import Write
from agent.workers import Workers

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of the agent that handlers work with. `now` is the wall clock; `with_workers`: whether it has any."""

    service: Service
    workers: Workers
    outputs: Outputs
    now: Callable[[], datetime]
    with_workers: bool

    def check(self, identity: Identity, write: Write) -> None:
        """Whether a write is meant for this agent now. Raises Refusal wrong_pod, restarted, stale.

        Only the controller numbers its writes; a local holder's must not count among them.
        """
        if identity.kind is Kind.POOL:
            self.service.addressee.check(write)
        else:
            self.service.addressee.check_address(write)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked(Generic[T]):
    """One request that was let in. `part` is the value of `{id}` in its path, `body` the parsed body of the call."""

    request: web.BaseRequest
    identity: Identity
    part: str
    body: T


Handler = Callable[[Parts, Asked[T]], Awaitable[web.StreamResponse]]
"""Answers one call. Raises Refusal or WireError, which become the error body."""
