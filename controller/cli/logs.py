"""`podslots logs`: a task's output, all of it that is there, byte for byte."""

from controller.cli import outputs
from controller.cli.outputs import Seen
from controller.cli.seeing import CouldNotSee, Watched, seeing
from controller.cli.session import Connection
from controller.cli.sink import Sink
from controller.cli.tables import FINAL_PHASES, phase
from controller.kube.api import Object

ALL = "all"


async def show(connection: Connection, name: str, *, step: str | None, attempt: str | None, sink: Sink) -> None:
    """Write what there is of a task's output now."""
    task = await Watched(connection, name, sink.say).read()
    last = outputs.attempt_of(task)
    steps = [each for each in outputs.steps_of(task) if step in {None, each}]
    numbers = _attempts(name, attempt, last)
    if not last or (numbers == [last] and not any(outputs.begun(task, each) for each in steps)):
        what = f"its {step} step has" if step else "it has"
        ended = phase(task) in FINAL_PHASES
        raise CouldNotSee(f"{name} is {phase(task)}: {what} not run{'' if ended else ' yet'}")
    seen = False
    with seeing():
        for number in numbers:
            if len(numbers) > 1:
                sink.say(f"attempt {number} of {last}:")
            seen |= await _show_attempt(connection, task, number, steps, sink)
    if not seen:
        raise CouldNotSee(f"nothing of {name}'s output can be found")
    if attempt is None and last > 1:
        sink.say(f"this was attempt {last}; --attempt {ALL} shows those before it, too")


async def _show_attempt(connection: Connection, task: Object, number: int, steps: list[str], sink: Sink) -> bool:
    """Whether anything was found of it."""
    last = number == outputs.attempt_of(task)
    found = False
    for step in steps:
        if last:
            seen = await outputs.of_last_attempt(connection, task, step) if outputs.begun(task, step) else None
        else:
            seen = await outputs.stored(connection, task, number, step)
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
        there = f"attempts 1 to {last}" if last > 1 else "attempt 1" if last else "no attempt yet"
        raise CouldNotSee(f"{name} has {there}, not {number}")
    return [number]
