"""When a pool's token is replaced, and how far that has come.

A rotation is three writes of the token Secret: the next token is added; once every agent reports that it accepts it,
it is used; a while later the one before is taken out. Each can be the last one for long: in between, agents and
controller always have a token in common. What comes next is read off the Secret, never remembered.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from controller.decide.view import PodView
from controller.objects.token_secret import TokenState

PATIENCE = timedelta(minutes=10)
"""How long agents are waited for that do not report the next token. A mounted Secret follows within two minutes."""
KEPT = timedelta(minutes=2)
"""How long the token before is still accepted: requests are on their way, and another replica may learn late."""
MOST_NAMED = 5


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
    """How a pool's tokens stand. `reason` and `message` are for the condition, in sync or not.

    `step` is what is to be written now, if anything; else `wait` is after how long to look again.
    """

    in_sync: bool
    reason: str
    message: str
    step: RotationStep | None = None
    wait: timedelta | None = None


def rotation(
    state: TokenState, pods: Iterable[PodView], *, period: timedelta, requested: str | None, now: datetime
) -> Rotation:
    """How the tokens stand that `state` tells of, for these Pods. `requested` is what the pool's annotation says."""
    if state.current is None:
        return Rotation(in_sync=False, reason="NoToken", message="the token Secret has no usable token")
    if not _passed(state.since, now) or (state.next is not None and not _passed(state.next_since, now)):
        return Rotation(in_sync=True, reason="InUse", message="", step=RecordTimes())
    wanted = state.next or state.current
    behind = sorted(pod.name for pod in pods if not pod.dead and not pod.start_problem and not _accepts(pod, wanted))
    if state.next is not None:
        return _introducing(state, state.next, behind, now)
    if state.previous is not None:
        return _dropping(state, state.previous, behind, now)
    asked = bool(requested) and requested != state.requested
    due = timedelta(0) if asked else (state.since or now) + period - now
    step = AddNext(state.current) if due <= timedelta(0) else None
    if behind:
        return Rotation(
            in_sync=False,
            reason="AgentsBehind",
            message=f"token {state.current} is in use, and not reported by {_named(behind)}",
            step=step,
            wait=due,
        )
    return Rotation(in_sync=True, reason="InUse", message=f"token {state.current} is in use", step=step, wait=due)


def _passed(moment: datetime | None, now: datetime) -> bool:
    """A time that is still to come was recorded by a clock that was wrong."""
    return moment is not None and moment <= now


def _introducing(state: TokenState, following: str, behind: list[str], now: datetime) -> Rotation:
    left = (state.next_since or now) + PATIENCE - now
    if not behind or left <= timedelta(0):
        message = f"token {following} is to be used now"
        if behind:
            message += f", though not reported by {_named(behind)} in {PATIENCE // timedelta(minutes=1)} minutes"
        return Rotation(in_sync=False, reason="Switching", message=message, step=UseNext(following))
    message = f"token {following} is to follow {state.current}, and not yet reported by {_named(behind)}"
    return Rotation(in_sync=False, reason="WaitingForAgents", message=message, wait=left)


def _dropping(state: TokenState, previous: str, behind: list[str], now: datetime) -> Rotation:
    left = (state.since or now) + KEPT - now
    message = f"token {state.current} is in use, and {previous} is still accepted"
    if behind:
        message += f"; not reported by {_named(behind)}"
    if left <= timedelta(0):
        return Rotation(in_sync=False, reason="Dropping", message=message, step=DropPrevious(previous))
    return Rotation(in_sync=False, reason="Dropping", message=message, wait=left)


def _accepts(pod: PodView, token: str) -> bool:
    return pod.connected and pod.agent is not None and token in pod.agent.tokens


def _named(pods: list[str]) -> str:
    more = f" and {len(pods) - MOST_NAMED} more" if len(pods) > MOST_NAMED else ""
    return ", ".join(pods[:MOST_NAMED]) + more
