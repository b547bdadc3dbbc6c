"""The tasks of a simulation, and which of them may take a lockKey."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, StrEnum
from typing import TYPE_CHECKING

from agent.wire import Step, Steps, StepSpec
from controller.cli.verbs.simulate.trace import Arrival
from controller.decide.tasks.assignment import blocked
from controller.objects.task import Task
from controller.objects.task_spec import TaskSpec
from controller.objects.work import STEPS_OF_TYPE

if TYPE_CHECKING:
    from controller.cli.verbs.simulate.engine import Pod

NAMESPACE, POOL = "simulated", "simulated"
_STEP = StepSpec(command=("simulated",), cancel_grace_seconds=0)


class Stage(Enum):
    """Where a task is."""

    QUEUED = "queued"
    PLAN = "running its plan"
    RESERVED = "reserved"
    APPLY = "running its apply"
    ENDED = "ended"


class Ending(StrEnum):
    """How a task ended.

    `cancelled`: its plan was not approved; `expired`: it waited for longer than a reservation may; `lost`: its apply
    was killed.
    """

    SUCCEEDED = "succeeded"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    LOST = "lost"


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """A task. `turn` rises with each stage, so that an event of an earlier one is known as stale.

    `free_since`: since when it waits only for a slot, in seconds of the simulation; None while it does not. `waited` is
    how long it waited for a slot before. `started` once it had a slot.
    """

    arrival: Arrival
    task: Task
    stage: Stage = Stage.QUEUED
    turn: int = 0
    pod: "Pod | None" = None
    slot: int = -1
    free_since: float | None = None
    waited: float = 0.0
    started: bool = False


@dataclass(slots=True)
class Maker:
    """Makes the tasks of arrivals; those that are alike have one spec."""

    _specs: dict[tuple[str, str | None, int, bool, bool], TaskSpec] = field(default_factory=dict)

    def task(self, arrival: Arrival, name: str, created: datetime) -> Task:
        """A queued task, as the API would have it."""
        return Task(
            namespace=NAMESPACE,
            name=name,
            uid=name,
            resource_version="1",
            created=created,
            spec=self._spec(arrival),
        )

    def _spec(self, arrival: Arrival) -> TaskSpec:
        plan, apply = arrival.plan_seconds is not None, arrival.apply_seconds is not None
        key = (arrival.type, arrival.lock_key, arrival.priority, plan, apply)
        if key not in self._specs:
            given = {step for step, there in ((Step.PLAN, plan), (Step.APPLY, apply)) if there}
            steps = STEPS_OF_TYPE.get(arrival.type, given)
            self._specs[key] = TaskSpec(
                pool=POOL,
                type=arrival.type,
                steps=Steps(plan=_STEP if Step.PLAN in steps else None, apply=_STEP if Step.APPLY in steps else None),
                lock_key=arrival.lock_key,
                priority=arrival.priority,
            )
        return self._specs[key]


class Locks:
    """The holder of each lockKey, and the tasks that wait for it. The controller's own rule decides which is next."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[str, Task]] = {}
        self._holder: dict[str, str] = {}

    @staticmethod
    def key(task: Task) -> str | None:
        """The lockKey that a task needs; None if it needs none."""
        return task.spec.lock_key if task.may_change else None

    def wait(self, key: str, task: Task) -> None:
        """Another task waits for the key."""
        self._waiting.setdefault(key, {})[task.uid] = task

    def take(self, key: str, task: Task) -> None:
        """A task takes its key: it was its turn."""
        del self._waiting[key][task.uid]
        self._holder[key] = task.uid

    def release(self, key: str) -> None:
        """Nobody holds the key."""
        del self._holder[key]

    def waiting(self, key: str) -> Iterable[str]:
        """UIDs of those that wait for the key, or have its turn and wait for a slot."""
        return list(self._waiting.get(key, ()))

    def blocked(self, key: str) -> frozenset[str]:
        """The UIDs of the tasks that must still wait for their key."""
        return blocked(self._waiting.get(key, {}).values(), self._holder)
