"""`podslots logs`: a task's output, all of it that is there, byte for byte."""

import click

from controller.cli.arguments import kinds
from controller.cli.arguments.types import Name
from controller.cli.arguments.verb import Verb, pass_session
from controller.cli.cluster.session import Connection, Session
from controller.cli.show.sink import Sink
from controller.cli.show.tables import has_ended, phase
from controller.cli.task import outputs
from controller.cli.task.outputs import Seen
from controller.cli.task.seeing import CouldNotSee, Watched, seeing
from controller.kube.api import Object

ALL = "all"


def show(connection: Connection, name: str, *, step: str | None, attempt: str | None, sink: Sink) -> None:
    """Write what there is of a task's output now."""
    task = Watched(connection, name, sink.say).read()
    last = outputs.attempt_of(task)
    steps = [each for each in outputs.steps_of(task) if step in {None, each}]
    numbers = _attempts(name, attempt, last)
    if not last or (numbers == [last] and not any(outputs.begun(task, each) for each in steps)):
        what = f"its {step} step has" if step else "it has"
        ended = has_ended(task)
        raise CouldNotSee(f"{name} is {phase(task)}: {what} not run{'' if ended else ' yet'}")
    seen = False
    with seeing():
        for number in numbers:
            if len(numbers) > 1:
                sink.say(f"attempt {number} of {last}:")
            seen |= _show_attempt(connection, task, number, steps, sink)
    if not seen:
        raise CouldNotSee(f"nothing of {name}'s output can be found")
    if attempt is None and last > 1:
        sink.say(f"this was attempt {last}; --attempt {ALL} shows those before it, too")


def _show_attempt(connection: Connection, task: Object, number: int, steps: list[str], sink: Sink) -> bool:
    """Whether anything was found of it."""
    last = number == outputs.attempt_of(task)
    found = False
    for step in steps:
        if last:
            seen = outputs.of_last_attempt(connection, task, step) if outputs.begun(task, step) else None
        else:
            seen = outputs.stored(connection, task, number, step)
        if seen is not None:
            found = True
            show_seen(seen, step, sink)
        elif last and outputs.begun(task, step):
            sink.say(f"the output of the {step} step is not in the container's log, nor anywhere else")
    if not found and not last:
        sink.say(f"the output of attempt {number} was not kept")
    return found


def show_seen(seen: Seen, step: str, sink: Sink, start: int = 0) -> None:
    """What was found of a step, after what is to be said of it."""
    if seen.note:
        sink.say(f"{step} step: {seen.note}")
    sink.show(seen.output, start)


def _attempts(name: str, wanted: str | None, last: int) -> list[int]:
    if wanted is None:
        return [last]
    if wanted == ALL:
        return list(range(1, last + 1))
    number = int(wanted)
    if not 1 <= number <= last:
        there = (
            f"there are attempts 1 to {last}" if last > 1 else "there is attempt 1" if last else "it has not run yet"
        )
        raise click.ClickException(f"{name} has no attempt {number}; {there}")
    return [number]


def _attempt(_ctx: click.Context, _argument: click.Parameter, value: str | None) -> str | None:
    if value not in {None, ALL} and not (value.isascii() and value.isdecimal() and int(value)):
        raise click.BadParameter(f"a number from 1 on, or {ALL}")
    return value


@click.command(cls=Verb)
@click.argument("names_", metavar="TASK...", nargs=-1, required=True, type=Name(kinds.TASKS))
@click.option("-f", "--follow", is_flag=True, help="Go on until the task has ended.")
@click.option("--step", type=click.Choice(outputs.STEPS), help="Only this step's output.")
@click.option("--attempt", callback=_attempt, metavar="N|all", help="Of this attempt, or of all (default: the last).")
@click.option("--raw", is_flag=True, help="Byte for byte, control characters too; for pipes and files.")
@pass_session
def logs(
    session: Session, *, names_: tuple[str, ...], follow: bool, step: str | None, attempt: str | None, raw: bool
) -> None:
    """Show the output of tasks.

    Several tasks are shown one after the other. With -f the exit code is 0 if the tasks have succeeded, 1 if one
    ended otherwise or is not there, and 4 if one could not be seen to its end. Without, it is 0, 1 if there is no such
    task or attempt, or 4 if nothing of its output could be found.

    Colours pass; other control characters are shown as text, so that output can't steer your terminal.
    """
    if follow and attempt is not None:
        raise click.UsageError("-f shows the last attempt and those to come; leave out --attempt")
    sink = Sink(raw=raw)

    def one(connection: Connection, name: str) -> None:
        if follow:
            from controller.cli.verbs.logs.following import Follower  # noqa: PLC0415 - it rests on this module

            Follower(connection, name, step=step, sink=sink).run()
        else:
            show(connection, name, step=step, attempt=attempt, sink=sink)

    def run(connection: Connection) -> None:
        failed: click.ClickException | None = None
        for name in names_:
            if len(names_) > 1:
                sink.say(f"task {name}:")
            try:
                with seeing():
                    one(connection, name)
            except click.ClickException as error:
                error.show()
                if failed is None or error.exit_code > failed.exit_code:
                    failed = error
        if failed is not None:
            click.get_current_context().exit(failed.exit_code)

    session.run(run, failure=CouldNotSee)
