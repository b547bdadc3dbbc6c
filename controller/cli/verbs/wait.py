"""`podslots wait`: until tasks are where they are wanted, or can't get there any more."""

import time
from collections.abc import Callable
from contextlib import closing

import click
from click.shell_completion import CompletionItem

from controller.cli.arguments import kinds
from controller.cli.arguments.types import Duration, Name
from controller.cli.arguments.verb import Verb, pass_session
from controller.cli.cluster.nearest import meant
from controller.cli.cluster.session import Connection, Session
from controller.cli.show.changes import OUTPUT, Change, Teller
from controller.cli.show.tables import FINAL_PHASES, phase
from controller.cli.task.seeing import CouldNotSee, EndedOtherwise, Watched, ended_otherwise
from controller.kube.api import SLOTTASKS, Object

POLL_SECONDS = 0.25
WAY = ("Queued", "Assigned", "Running", "AwaitingApproval")
"""The phases before the final ones, in their order. A task that is run again goes back."""
PHASES = (*WAY, *sorted(FINAL_PHASES))
END = frozenset({"Succeeded"})
"""What is waited for if nothing is named. Any other end is a failure."""


class TimedOut(click.ClickException):
    """`wait` gave up. The task goes on."""

    exit_code = 3


class Phases(click.ParamType[frozenset[str]]):
    """`Succeeded,Failed`, as kubectl's `phase=…` too, in any case."""

    name = "phases"

    def convert(
        self, value: str | frozenset[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> frozenset[str]:
        """The phases. Raises BadParameter."""
        if isinstance(value, frozenset):
            return value
        known = {each.lower(): each for each in PHASES}
        words = [part.strip() for part in value.removeprefix("phase=").split(",")]
        if unknown := [word for word in words if word.lower() not in known]:
            near = meant(unknown[0], PHASES).partition("; did you mean ")[2]
            hint = f" Did you mean {near}" if near else ""
            self.fail(f"no such phase: {', '.join(unknown)}. Phases are {', '.join(PHASES)}.{hint}", param, ctx)
        return frozenset(known[word.lower()] for word in words)

    def shell_complete(self, _ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Those that are not named before a comma."""
        before, comma, last = incomplete.rpartition(",")
        there = before.split(",")
        return [CompletionItem(before + comma + each) for each in PHASES if each.startswith(last) and each not in there]


@click.command(cls=Verb)
@click.argument("names_", metavar="TASK...", nargs=-1, required=True, type=Name(kinds.TASKS))
@click.option(
    "--for",
    "wanted",
    type=Phases(),
    metavar="PHASE,…",
    help=f"Phases to wait for, of {', '.join(PHASES)} (default: the end).",
)
@click.option("--timeout", type=Duration(), metavar="TIME", help="Give up after this: 90s, 5m, 1h30m.")
@OUTPUT
@pass_session
def wait(
    session: Session,
    *,
    names_: tuple[str, ...],
    wanted: frozenset[str] | None,
    timeout: float | None,
    output: str | None,
) -> None:
    """Wait until tasks have ended, or are in a phase.

    Without --for it waits for success. On stderr it says what each task waits for. A task that is past the phase, as
    one that awaits its approval is past Running, is not waited for: that is an error.

    Exit codes, the largest if tasks differ: 0 they are there; 1 one ended in another phase, went past it, or there is
    no such task; 3 the time is over; 4 one can't be seen.
    """
    with closing(Teller(output)) as tell:
        session.run(lambda connection: Wait(connection, names_, wanted, timeout, tell=tell).run(), failure=CouldNotSee)


class Wait:
    """One wait for several tasks. `wanted` None: success, at their end."""

    def __init__(
        self,
        connection: Connection,
        names: tuple[str, ...],
        wanted: frozenset[str] | None,
        timeout_seconds: float | None,
        *,
        say: Callable[[str], None] = lambda text: click.echo(text, err=True),
        tell: Callable[[Change], None] = lambda change: click.echo(change.line),
    ) -> None:
        self._names = tuple(dict.fromkeys(names))
        self._wanted = wanted or END
        self._timeout_seconds = timeout_seconds
        self._deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        self._say, self._tell = say, tell
        self._watched = {name: Watched(connection, name, say, self._deadline) for name in self._names}
        self._failed: list[click.ClickException] = []
        self._goal = "the end" if wanted is None else " or ".join(sorted(wanted, key=PHASES.index))

    def run(self) -> None:
        """Wait. Raises the worst of EndedOtherwise, TimedOut and CouldNotSee once nothing is left to wait for."""
        left = [name for name in self._names if not self._is_over(name)]
        if left:
            self._say(f"waiting for {self._goal} of {', '.join(left)}")
        while left:
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self._failed += [self._late(name) for name in left]
                break
            time.sleep(POLL_SECONDS)
            left = [name for name in left if not self._is_over(name)]
        if self._failed:
            worst = max(self._failed, key=lambda failure: failure.exit_code)
            for failure in self._failed:
                if failure is not worst:
                    failure.show()
            raise worst

    def _is_over(self, name: str) -> bool:
        """Whether there is nothing more to wait for, be it good or bad."""
        try:
            return self._look(name)
        except click.ClickException as failure:
            self._failed.append(failure)
            return True

    def _look(self, name: str) -> bool:
        """Whether the task is where it is wanted. Raises EndedOtherwise, CouldNotSee."""
        watched = self._watched[name]
        task = watched.read()
        if phase(task) in self._wanted:
            self._tell(Change(f"{name}: {phase(task)}", ((SLOTTASKS, task),)))
            return True
        if (error := ended_otherwise(task, self._wanted)) is not None:
            raise error
        if (past := _gone_past(task, self._wanted)) is not None:
            raise EndedOtherwise(past)
        watched.say_obstacle(task)
        return False

    def _late(self, name: str) -> TimedOut:
        wanted = " or ".join(sorted(self._wanted, key=PHASES.index))
        return TimedOut(f"{name} did not become {wanted} in {self._timeout_seconds:g} s")


def _gone_past(task: Object, wanted: frozenset[str]) -> str | None:
    """What to say of a task that has gone past all that is waited for; None if it may still come there."""
    now = phase(task)
    if not wanted <= set(WAY) or now not in WAY:
        return None
    if WAY.index(now) <= max(WAY.index(each) for each in wanted):
        return None
    ahead = now == "AwaitingApproval" and "Running" in wanted
    more = "; it runs again once its plan is approved" if ahead else ""
    return f"{task['metadata']['name']} is {now} already, past {' or '.join(sorted(wanted, key=WAY.index))}{more}"
