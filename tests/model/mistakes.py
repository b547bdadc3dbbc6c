"""Mistakes to plant in the protocol, each with a size in which the checker finds what comes of it.

They keep the model honest: a rule that no mistake can break is not checked, and a precondition that can be left out
without harm is not needed. What each leads to is told in docs/protocol.md.
"""

from dataclasses import dataclass, replace

from tests.model.tables import Config

SMALL = Config(pods=1, slots=1, tasks=1, faults=1)
STOPPED = replace(SMALL, faults=0, stopping=True)
SILENT = replace(SMALL, faults=2, kinds=frozenset({"vanish"}))
LATE_AND_LOST = replace(SMALL, faults=2, kinds=frozenset({"message", "journal"}))


@dataclass(frozen=True)
class Mistake:
    """A mistake: its name in the model's switches, what it is, where to look, and which rule breaks."""

    name: str
    what: str
    size: Config
    breaks: str

    @property
    def config(self) -> Config:
        """The size, with the mistake planted."""
        return replace(self.size, bugs=frozenset({self.name}))


DELETED_OPEN = "is deleted, and its agent is open"
HELD = "is Queued, and held by an agent"

MISTAKES = (
    Mistake(
        "no confirm",
        "after a conflict, the Pod is read again and deleted, and the agent not asked again",
        replace(SMALL, lease=False),
        DELETED_OPEN,
    ),
    Mistake(
        "same version",
        "a Pod that is labelled active already is opened without a new annotation, so its version does not move",
        replace(SMALL, lease=False),
        DELETED_OPEN,
    ),
    Mistake(
        "version late",
        "the version to delete with is read after the agent was asked",
        replace(SMALL, lease=False),
        DELETED_OPEN,
    ),
    Mistake(
        "same drain id",
        "a delete that begins anew after a conflict asks with the drain id of its first round",
        replace(SMALL, lease=False),
        DELETED_OPEN,
    ),
    Mistake("silence", "an agent that does not answer is taken for drained", SILENT, HELD),
    Mistake("still admits", "the agent grants a drain and goes on taking work", replace(SMALL, faults=0), DELETED_OPEN),
    Mistake(
        "unacked",
        "the agent grants a drain while a result is not acknowledged",
        replace(SMALL, operations=2),
        "is ended in it",
    ),
    Mistake("failed is proof", "phase Failed alone is taken for a proof of death", SMALL, DELETED_OPEN),
    Mistake("born open", "an agent that lost its journal comes up open", SMALL, DELETED_OPEN),
    Mistake("acquire first", "the slot is acquired before the intent is written", SMALL, HELD),
    Mistake(
        "another agent",
        "an acquire without an answer is followed by one at another agent",
        replace(SMALL, pods=2),
        "is in two slots",
    ),
    Mistake(
        "ask at once",
        "an agent is asked again without a status write before",
        replace(SMALL, operations=2),
        HELD,
    ),
    Mistake("stamp", "the agent does not look at stamps", SMALL, "starts"),
    Mistake(
        "incarnation",
        "an agent that began anew takes messages that were meant for it before",
        LATE_AND_LOST,
        "the apply of a task that has ended starts",
    ),
    Mistake(
        "no marker",
        "the worker leaves no mark of a step's start",
        replace(SMALL, faults=2),
        "the plan of attempt 1 starts a second time",
    ),
    Mistake(
        "reserve late",
        "the slot falls idle as the plan ends, and is reserved a moment later",
        replace(SMALL, faults=0),
        "starts a second time",
    ),
    Mistake(
        "approve first",
        "the agent is told of an approval before that is written down",
        replace(SMALL, faults=0),
        "an apply starts before that was written down",
    ),
    Mistake(
        "approve at once",
        "an approval is told again without a status write before",
        LATE_AND_LOST,
        "the apply of a task that has ended starts",
    ),
    Mistake(
        "approval unbound",
        "an approval counts for whatever attempt awaits one",
        SMALL,
        "an apply starts that nobody approved",
    ),
    Mistake("ack first", "a result is acknowledged before it is written", SMALL, "a result that is written nowhere"),
    Mistake(
        "output late",
        "a result is acknowledged before its output is kept",
        replace(SMALL, faults=0),
        "output that is kept nowhere",
    ),
    Mistake(
        "asks anyway", "a plan that changes nothing waits for an approval", replace(SMALL, faults=0), "written nowhere"
    ),
    Mistake("apply again", "an apply that failed is tried again", replace(SMALL, faults=0), "whose apply has begun"),
    Mistake(
        "on after stop", "a step that was told to stop goes on to its next command", STOPPED, "starts after its stop"
    ),
    Mistake(
        "first is last",
        "while a step is being stopped, the end of its first process is taken for its end",
        STOPPED,
        "over, and a command of it runs",
    ),
    Mistake(
        "stopped is well",
        "a step that was told to stop, and ended with 0, is said to have succeeded",
        STOPPED,
        "was stopped, and is said to have succeeded",
    ),
    Mistake(
        "lost unlocks",
        "the lockKey of a lost apply is released at once",
        SMALL,
        "an apply of task 0 runs without its lockKey",
    ),
)
