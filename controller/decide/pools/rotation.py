"""When a pool's token is replaced, and how far that has come.

A rotation is three writes of the token Secret: the next token is added; once every agent reports that it accepts it,
it is used; a while later the one before is taken out. Each can be the last one for long: in between, agents and
controller always have a token in common. What comes next is read off the Secret, never remembered.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from controller.decide.view import PodView
from controller.objects.token_secret import TokenState

PATIENCE = timedelta(minutes=10)
"""How long agents are waited for that do not report the next token. A mounted Secret follows within two minutes."""
KEPT = timedelta(minutes=2)
"""How long the token before is still accepted: requests are on their way, and another replica may learn late."""
MOST_NAMED = 5


class TokensStand(StrEnum):
    """How a pool's tokens stand: the reason of the condition `TokensInSync`."""

    IN_USE = "InUse"
    WAITING_FOR_AGENTS = "WaitingForAgents"
    SWITCHING = "Switching"
    DROPPING = "Dropping"
    AGENTS_BEHIND = "AgentsBehind"
    NONE_USABLE = "NoToken"


@dataclass(frozen=True, slots=True)
class RecordTimes:
    """Since when a token is in use, or was added, is not known, or is still to come: it counts from now on."""


@dataclass(frozen=True, slots=True)
class AddNext:
    """Write the token that is to follow `current`."""

    current: str


@dataclass(frozen=True, slots=True)
class UseNext:
    """Every agent that answers accepts `next`: use it."""

    next: str


@dataclass(frozen=True, slots=True)
class DropPrevious:
    """Take the token before out of the Secret."""

    previous: str


RotationStep = RecordTimes | AddNext | UseNext | DropPrevious


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """The state of a pool's rotation, since when the current token is in use, and a message for people.

    `step` is the write to make now, if there is one. Otherwise `wait` is the time until the next look.
    """

    reason: TokensStand
    message: str = ""
    since: datetime | None = None
    step: RotationStep | None = None
    wait: timedelta | None = None

    @property
    def in_sync(self) -> bool:
        """Whether every agent that is to accept the token in use does, and no rotation is under way."""
        return self.reason is TokensStand.IN_USE


def rotation(
    state: TokenState, pods: Iterable[PodView], *, period: timedelta, requested: str | None, now: datetime
) -> Rotation:
    """The state of the rotation for these tokens and Pods. `requested` is the value of the pool's annotation."""
    if state.current is None:
        return Rotation(reason=TokensStand.NONE_USABLE, message="the token Secret has no usable token")
    if not _passed(state.since, now) or (state.next is not None and not _passed(state.next_since, now)):
        return Rotation(reason=TokensStand.IN_USE, message="", step=RecordTimes())
    if state.next is not None:
        found = _introducing(state, state.next, list(pods), now)
    elif state.previous is not None:
        found = _dropping(state, state.previous, now)
    else:
        asked = bool(requested) and requested != state.requested
        found = _in_use(state.current, pods, timedelta(0) if asked else (state.since or now) + period - now)
    return replace(found, since=state.since)


def _passed(moment: datetime | None, now: datetime) -> bool:
    """A time that is still to come was recorded by a clock that was wrong."""
    return moment is not None and moment <= now


def _in_use(current: str, pods: Iterable[PodView], due: timedelta) -> Rotation:
    # Pods whose agent was never heard don't count: a Pod that starts is not late.
    behind = [pod for pod in pods if not pod.dead and pod.agent is not None and current not in pod.agent.tokens]
    return Rotation(
        reason=TokensStand.AGENTS_BEHIND if behind else TokensStand.IN_USE,
        message=f"token {current} is in use" + (f", and not reported by {_named(behind)}" if behind else ""),
        step=AddNext(current) if due <= timedelta(0) else None,
        wait=due,
    )


def _introducing(state: TokenState, following: str, pods: list[PodView], now: datetime) -> Rotation:
    left = (state.next_since or now) + PATIENCE - now
    behind = [pod for pod in pods if not pod.dead and not pod.start_problem and not _accepts(pod, following)]
    if behind and left > timedelta(0):
        message = f"token {following} is to follow {state.current}, and not yet reported by {_named(behind)}"
        return Rotation(reason=TokensStand.WAITING_FOR_AGENTS, message=message, wait=left)
    late = f", though not reported by {_named(behind)} in {PATIENCE // timedelta(minutes=1)} minutes" if behind else ""
    message = f"token {following} is to be used now{late}"
    return Rotation(reason=TokensStand.SWITCHING, message=message, step=UseNext(following))


def _dropping(state: TokenState, previous: str, now: datetime) -> Rotation:
    left = (state.since or now) + KEPT - now
    step = DropPrevious(previous) if left <= timedelta(0) else None
    message = f"token {state.current} is in use, and {previous} is still accepted"
    return Rotation(reason=TokensStand.DROPPING, message=message, step=step, wait=left)


def _accepts(pod: PodView, token: str) -> bool:
    return pod.connected and pod.agent is not None and token in pod.agent.tokens


def _named(pods: list[PodView]) -> str:
    more = f" and {len(pods) - MOST_NAMED} more" if len(pods) > MOST_NAMED else ""
    return ", ".join(heapq.nsmallest(MOST_NAMED, [pod.name for pod in pods])) + more
