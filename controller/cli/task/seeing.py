"""Reading a task again and again, through an API server that is away for a while.

`wait` and `logs -f` end with their own status when they can't see how the task goes on: that is another thing than a
task that failed.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from controller.cli.cluster.session import Connection, explain
from controller.cli.show.table import NONE
from controller.cli.show.tables import has_ended, phase, refusal, why
from controller.errors import ApiUnavailable, NotFound, PodslotsError, TooManyRequests
from controller.kube.api import SLOTTASKS, Object

PATIENCE_SECONDS = 300.0
"""How long the API server may be away, once it has answered: longer than its restart, shorter than a night."""
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.5, 5.0
COULD_NOT_SEE = 4


class CouldNotSee(click.ClickException):
    """What was asked for can't be seen. The task itself may be well."""

    exit_code = COULD_NOT_SEE


class EndedOtherwise(click.ClickException):
    """The task has ended, and not as it was hoped for."""

    exit_code = 1


@contextmanager
def seeing() -> Iterator[None]:
    """Whatever keeps a command from seeing is CouldNotSee."""
    try:
        yield
    except PodslotsError as error:
        raise CouldNotSee(explain(error)) from error


class Watched:
    """One task, read as often as it is asked for. What its user should know is told to `say`, once.

    `deadline`, in monotonic time: nobody waits for an API server that is away any longer than that.
    """

    def __init__(
        self, connection: Connection, name: str, say: Callable[[str], None], deadline: float | None = None
    ) -> None:
        self.connection = connection
        self.name = name
        self.say = say
        self.deadline = math.inf if deadline is None else deadline
        self.away = False
        self._uid = ""
        self._said = ""

    def read(self) -> Object:
        """The task as it is now. Raises CouldNotSee if that can't be learned, or it is not there any more.

        One that was never there is a plain error: to ask again would not help.
        """
        with seeing():
            task = self._answered()
        uid = str(task["metadata"]["uid"])
        if self._uid and uid != self._uid:
            raise CouldNotSee(f"{self.name} was deleted; there is another task of that name now")
        self._uid = uid
        return task

    def say_obstacle(self, task: Object) -> None:
        """Say what the task waits for, if that was not said yet."""
        approve = self.connection.cluster.podslots("approve", self.name)
        if (text := obstacle(task, approve)) is not None and text != self._said:
            self._said = text
            self.say(f"{self.name} {text}")

    def _answered(self) -> Object:
        until, pause = min(time.monotonic() + PATIENCE_SECONDS, self.deadline), FIRST_RETRY_SECONDS
        while True:
            try:
                task = self.connection.api.get(SLOTTASKS, self.connection.namespace, self.name)
            except NotFound as error:
                if not self._uid:
                    raise click.ClickException(self.connection.absence(SLOTTASKS, self.name)) from error
                raise CouldNotSee(f"{self.name} was deleted: how it ended is not known") from error
            except (ApiUnavailable, TooManyRequests) as error:
                if self._uid and time.monotonic() >= self.deadline:
                    raise CouldNotSee(f"{explain(error)}. How {self.name} goes on is not known") from error
                if not self._uid or time.monotonic() >= until:
                    raise
                if not self.away:
                    self.away = True
                    self.say(f"{explain(error)}; trying again")
                time.sleep(max(0.0, min(pause, until - time.monotonic())))
                pause = min(LAST_RETRY_SECONDS, pause * 2)
            else:
                if self.away:
                    self.away = False
                    self.say("the Kubernetes API is back")
                return task


def obstacle(task: Object, approve: str) -> str | None:
    """What a task waits for: another task, a slot, or what only a person can give it. `approve`: how to approve it."""
    refused = refusal(task)
    if refused is not None:
        return "does not go on: " + ": ".join(part for part in refused if part)
    status = task.get("status") or {}
    if phase(task) == "Queued" and status.get("queuedReason"):
        return f"is queued: {status['queuedReason']}"
    if phase(task) != "AwaitingApproval":
        return None
    spec = task.get("spec") or {}
    by_itself = spec.get("approvalPolicy") == "Auto" or spec.get("approval")
    return None if by_itself else f"does not go on: it waits for an approval ({approve})"


def ended_otherwise(task: Object, wanted: frozenset[str]) -> EndedOtherwise | None:
    """The error that says how the task ended, if it ended in no phase that is wanted."""
    now = phase(task)
    if now in wanted or not has_ended(task):
        return None
    reason = why(task, most=sys.maxsize)
    name = task["metadata"]["name"]
    return EndedOtherwise(f"{name} ended as {now}" + (f": {reason}" if reason != NONE else ""))
