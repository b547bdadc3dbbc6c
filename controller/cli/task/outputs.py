"""Where a step's output is: in its SlotTaskOutput, else in its worker's log, else its end in the task's status."""

from dataclasses import dataclass
from typing import Any

from controller import names
from controller.cli.cluster.session import Connection
from controller.cli.task.marks import Kind, RunLines
from controller.errors import Invalid, InvalidObject, NotFound
from controller.kube.api import SLOTTASKOUTPUTS, Object
from controller.objects.output import Gap, Output, belongs_to, name_of, parse

STEPS = ("plan", "apply")


@dataclass(frozen=True, slots=True)
class Seen:
    """What could be found of a step's output. `note` says what is wrong with it; None: it is whole, as far as it is."""

    output: Output
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where an attempt runs or ran."""

    pod: str
    container: str


def place_of(task: Object) -> Place | None:
    """Where the task's last attempt is or was."""
    status = task.get("status") or {}
    if not status.get("pod") or not isinstance(status.get("slot"), int):
        return None
    return Place(str(status["pod"]), names.worker_container(status["slot"]))


def attempt_of(task: Object) -> int:
    """The number of the last attempt; 0 if there was none."""
    attempt = (task.get("status") or {}).get("attempt")
    return attempt if isinstance(attempt, int) else 0


def result_of(task: Object, step: str) -> dict[str, Any]:
    """What the status says of a step of the last attempt; empty if it has not begun, or its start is not known yet."""
    steps = (task.get("status") or {}).get("steps") or {}
    return steps.get(step) or {}


def steps_of(task: Object) -> tuple[str, ...]:
    """The steps that the task has, in order."""
    steps = (task.get("spec") or {}).get("steps") or {}
    return tuple(step for step in STEPS if step in steps)


def begun(task: Object, step: str) -> bool:
    """Whether a step of the last attempt has begun, as far as the status knows."""
    return bool(result_of(task, step)) or (task.get("status") or {}).get("step") == step


def run_lines(task: Object, attempt: int, step: str) -> RunLines:
    """Finds the run's lines in its worker's log."""
    metadata = task["metadata"]
    name = f"{metadata['namespace']}/{metadata['name']}"
    return RunLines(name, step, names.task_id(metadata["uid"], attempt))


def stored(connection: Connection, task: Object, attempt: int, step: str) -> Seen | None:
    """A step's output as the controller has kept it; None if it has not."""
    metadata = task["metadata"]
    try:
        found = connection.api.get(SLOTTASKOUTPUTS, connection.namespace, name_of(metadata["name"], attempt, step))
    except NotFound:
        return None
    if not belongs_to(found, metadata["uid"]):
        return None
    try:
        return Seen(parse(found))
    except InvalidObject as error:
        return Seen(Output(kept=b"", size_bytes=0), f"SlotTaskOutput {found['metadata']['name']} is of no use: {error}")


def logged(connection: Connection, task: Object, step: str) -> Seen | None:
    """A step's output of the last attempt as its worker's log has it; None if the log has nothing of it."""
    place = place_of(task)
    if place is None:
        return None
    lines = run_lines(task, attempt_of(task), step)
    kept = bytearray()
    begins = found = False
    try:
        for raw in connection.api.pod_log(connection.namespace, place.pod, place.container):
            line = lines.read(raw)
            if line is not None:
                begins = begins or (line.kind is Kind.BEGINS and not found)
                found = True
                if line.kind is Kind.TEXT:
                    kept += line.text
    except (NotFound, Invalid):
        pass  # the Pod is gone, or the container is not there yet: what came before that counts
    if not found:
        return None
    said = result_of(task, step).get("logBytes")
    size = max(said, len(kept)) if isinstance(said, int) and result_of(task, step).get("endTime") else len(kept)
    if begins and size == len(kept):
        return Seen(Output(kept=bytes(kept), size_bytes=size))
    missing = size - len(kept)
    gap = (Gap(len(kept) if begins else 0, missing),) if missing else ()
    note = None if gap else "the container's log no longer has its beginning"
    return Seen(Output(kept=bytes(kept), size_bytes=size, missing=gap), note)


def tail(task: Object, step: str) -> Seen | None:
    """The end of a step's output, as the task's status has it."""
    result = result_of(task, step)
    kept = str(result.get("logTail") or "").encode()
    said = result.get("logBytes")
    if not kept and not said:
        return None
    size = max(said, len(kept)) if isinstance(said, int) else len(kept)
    missing = (Gap(0, size - len(kept)),) if size > len(kept) else ()
    return Seen(Output(kept=kept, size_bytes=size, missing=missing), "this is its end, as the task's status has it")


def of_last_attempt(connection: Connection, task: Object, step: str) -> Seen | None:
    """A step's output of the last attempt, from the best place that has it."""
    return stored(connection, task, attempt_of(task), step) or logged(connection, task, step) or tail(task, step)
