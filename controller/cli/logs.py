"""A task's output. Workers echo it to their container's log, each line after `[NAMESPACE/NAME STEP] `."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable

import click

from controller import names
from controller.cli.session import Connection
from controller.cli.tables import FINAL_PHASES, phase
from controller.cli.tasks import obstacle
from controller.errors import Invalid, NotFound
from controller.kube.api import SLOTTASKS, Object

STEPS = ("plan", "apply")
POLL_SECONDS = 0.5
QUIET_SECONDS = 1.0
"""A finished task's output is taken as complete after this much silence: the log is a file that the kubelet reads."""


def lines_of(task: Object, step: str | None) -> tuple[bytes, ...]:
    """The prefixes that a task's lines have in its worker's log."""
    metadata = task["metadata"]
    name = f"{metadata['namespace']}/{metadata['name']}"
    return tuple(f"[{name} {each}] ".encode() for each in ([step] if step else STEPS))


def strip(line: bytes, prefixes: Iterable[bytes]) -> bytes | None:
    """The task's own text of a log line; None for a line of another task or step."""
    for prefix in prefixes:
        if line.startswith(prefix):
            return line.removeprefix(prefix)
        if line == prefix.rstrip():
            return b""
    return None


def tails(task: Object, step: str | None) -> str:
    """What the task's status keeps of its output, for when its Pod is gone."""
    steps = (task.get("status") or {}).get("steps") or {}
    return "".join(str((steps.get(each) or {}).get("logTail") or "") for each in ([step] if step else STEPS))


async def show(connection: Connection, name: str, *, step: str | None, follow: bool) -> None:
    """Write a task's output to stdout; with `follow`, until the task has ended."""
    task = await connection.get(SLOTTASKS, name)
    said: str | None = None
    while follow and not _place(task) and phase(task) not in FINAL_PHASES:
        if (lacks := obstacle(task)) is not None and lacks != said:
            click.echo(f"{name} does not go on: {lacks}", err=True)
            said = lacks
        await asyncio.sleep(POLL_SECONDS)
        task = await connection.get(SLOTTASKS, name)
    place = _place(task)
    if place is None:
        raise click.ClickException(f"{name} is {phase(task)}: it has not run yet")
    prefixes = lines_of(task, step)
    try:
        if follow and phase(task) not in FINAL_PHASES:
            await _follow(connection, name, place, prefixes)
        else:
            async for line in connection.api.pod_log(connection.namespace, *place):
                _print(strip(line, prefixes))
    except (NotFound, Invalid):
        task = await connection.get(SLOTTASKS, name)
        click.echo(f"Pod {place[0]} is gone; this is the end of the output, as the task's status has it", err=True)
        click.echo(tails(task, step), nl=False)


def _place(task: Object) -> tuple[str, str] | None:
    """The Pod and container that the task's last attempt is or was in."""
    status = task.get("status") or {}
    if not status.get("pod") or not isinstance(status.get("slot"), int):
        return None
    return str(status["pod"]), names.worker_container(status["slot"])


async def _follow(connection: Connection, name: str, place: tuple[str, str], prefixes: tuple[bytes, ...]) -> None:
    """The log as it grows. The container outlives the task, so the task's phase says when to stop."""
    stream = connection.api.pod_log(connection.namespace, *place, follow=True)
    ended = asyncio.create_task(_until_final(connection, name), name=f"wait for {name}")
    try:
        while (line := await _next_line(stream, ended)) is not None:
            _print(strip(line, prefixes))
    finally:
        ended.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ended


async def _next_line(stream: AsyncIterator[bytes], ended: asyncio.Task[None]) -> bytes | None:
    """The next line; None when the log has ended, or the task has and the log is silent."""
    reading = asyncio.ensure_future(anext(stream, None))
    try:
        await asyncio.wait({reading, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not reading.done():
            await asyncio.wait({reading}, timeout=QUIET_SECONDS)
        if reading.done():
            return await reading
        ended.result()  # what kept us from learning the task's phase, if anything
        return None
    finally:
        if not reading.done():
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading


async def _until_final(connection: Connection, name: str) -> None:
    while True:
        if phase(await connection.get(SLOTTASKS, name)) in FINAL_PHASES:
            return
        await asyncio.sleep(POLL_SECONDS)


def _print(text: bytes | None) -> None:
    if text is not None:
        click.echo(text)
