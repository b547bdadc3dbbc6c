"""The values of the page and its API. They are made from frozen views, and bounded. Pure.

These classes are the API: their fields are the JSON's, and `schema` describes them. Every time is absolute, so that the
values change only when something happens; readers compute ages. They contain no output of a task and no value of its
environment.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

from controller.act.recent import Decision
from controller.decide.view import PodView
from controller.errors import InvalidObject
from controller.objects.pool import PoolSpec
from controller.objects.task import Task, TaskPhase

MOST_LISTED = 100
"""Entries of a list that is sent at every change. The rest is there by pages."""

MOST_TEXT = 500
"""Characters of a message that somebody else wrote: a condition may have 32 768."""

SILENT = "silent"
"""Asked for like a state of slots, it gives the Pods with an agent that is not heard."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed(Generic[T]):
    """Some of a list: `items`, of `total`."""

    total: int
    items: tuple[T, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """The replica that answers.

    `leader` is the holder of the Lease, as it last saw; None: nobody, or it has not looked yet.

    `synced`: everything was read at least once. `namespace`: the only one that is looked at; None: all.
    """

    identity: str
    leads: bool
    leader: str | None
    synced: bool
    namespace: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionSaid:
    """A condition of a pool. `concern`: it says that something is not as it should be."""

    type: str
    status: str
    reason: str
    message: str
    since: datetime | None
    concern: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSaid:
    """A pool. `pods` counts them by state, `slots` by state, `tasks` by phase (ended ones too).

    `revision` moves when anything about its Pods does. `problem`: why its spec can't be read. `desired`: the size that
    was decided on; `minimum` and `maximum` are of autoscaling, None without. `silent`: Pods whose agent is not heard.
    `running_since` and `reserved_since` are of the slot in that state for the longest time, `waiting_since` of the task
    that is queued for the longest time.
    """

    namespace: str
    name: str
    revision: int
    problem: str | None
    deleting: bool
    paused: bool
    replicas: int
    ready: int
    desired: int | None
    minimum: int | None
    maximum: int | None
    silent: int
    pods: dict[str, int]
    slots: dict[str, int]
    tasks: dict[str, int]
    running_since: datetime | None
    reserved_since: datetime | None
    waiting_since: datetime | None
    conditions: tuple[ConditionSaid, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSaid:
    """A plan that awaits its approval. `command` shows it, and asks. `problem`: why an approval was not valid.

    `changes`: whether it found something to change, None if its exit code does not say.
    """

    namespace: str
    name: str
    pool: str
    type: str
    pod: str | None
    slot: int | None
    attempt: int
    plan_digest: str | None
    changes: bool | None
    since: datetime | None
    expires_at: datetime | None
    command: str
    problem: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingSaid:
    """A task that is queued. `waits` says for what; None: nobody has said yet. `refused`: only a change helps."""

    namespace: str
    name: str
    pool: str
    type: str
    priority: int
    lock_key: str | None
    attempt: int
    since: datetime
    waits: str | None
    refused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotSaid:
    """A slot, as its agent last said. `holder` is the name of its task, or what a program of the Pod's calls its hold.

    `worker`: whether its worker is heard of; None: it has none.
    """

    id: int
    accepts: tuple[str, ...]
    state: str
    since: datetime
    holder: str | None
    type: str | None
    step: str | None
    expires_at: datetime | None
    worker: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSaid:
    """A Pod. `connected`: its agent is heard; else `slots` are as last heard. `notes`: what is not as usual."""

    namespace: str
    pool: str
    name: str
    state: str
    created: datetime
    connected: bool
    agent_version: str | None
    idle_since: datetime | None
    notes: tuple[str, ...]
    slots: tuple[SlotSaid, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Everything but the Pods. `version` names this state of it; `now` is the controller's clock.

    Lists have at most 100 entries: of the plans those that expire first, of the queue those that are served first, of
    the decisions the newest.
    """

    version: str
    now: datetime
    replica: Replica
    pools: Listed[PoolSaid]
    plans: Listed[PlanSaid]
    queue: Listed[WaitingSaid]
    decisions: Listed[Decision]


@dataclass(frozen=True, slots=True, kw_only=True)
class PodsWanted:
    """Which Pods are asked for.

    `state`: with a slot in this state, or `silent`. `text` is part of a Pod's or holder's name. `oldest_first`: those
    first whose slots are held the longest.
    """

    state: str = ""
    text: str = ""
    oldest_first: bool = False
    offset: int = 0
    limit: int = MOST_LISTED


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolKnown:
    """All that is known of a pool. `obj` None: there is no pool of this name, but something refers to it.

    `unreadable` are its tasks whose objects can't be read, with the reason.
    """

    namespace: str
    name: str
    obj: Mapping[str, Any] | None
    spec: PoolSpec | InvalidObject | None
    pods: Sequence[PodView] = ()
    tasks: Sequence[Task] = ()
    unreadable: Sequence[tuple[Mapping[str, Any], InvalidObject]] = ()
    phases: Mapping[TaskPhase, int] = field(default_factory=dict)


def short(text: str) -> str:
    """The text, cut to MOST_TEXT characters."""
    return text if len(text) <= MOST_TEXT else f"{text[: MOST_TEXT - 1]}…"
