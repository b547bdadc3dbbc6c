"""`podslots local`: a cluster and a controller on this machine, for trying things out."""

import asyncio
import contextlib
import os
import shlex
from collections.abc import Callable, Coroutine
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import click

from controller.cli.arguments import elsewhere
from controller.cli.arguments.verb import CONTEXT, now
from controller.cli.cluster.session import LOCAL_FOLDER, Session, local_command
from controller.cli.local.interrupts import call_on_interrupt
from controller.cli.local.processes import Standing, recorded
from controller.cli.local.processes import standing as cluster_standing
from controller.cli.local.stack import Stack
from controller.cli.show.tables import phase
from controller.errors import PodslotsError
from controller.kube.access import KubeSettings
from controller.kube.api import SLOTTASKS

WATCH_SECONDS = 0.5
NOT_RUNNING = 3
"""As `systemctl status` says it."""
T = TypeVar("T")


async def start(stack: Stack, *, detach: bool, keep_pods: bool, http_port: int, echo: Callable[[str], None]) -> None:
    """Start both processes; unless detached, stay until it is interrupted, and stop them then."""
    stack.refuse_a_second()
    stopping = asyncio.Event()
    echo(f"Starting a cluster and a controller in {stack.folder}")
    starting = asyncio.create_task(stack.start(keep_pods=keep_pods, http_port=http_port), name="start")

    def interrupt() -> None:
        if not stopping.is_set():
            stopping.set()
            starting.cancel()

    call_on_interrupt(interrupt)
    try:
        await starting
    except asyncio.CancelledError:
        echo(f"Interrupted. Stopped again: {', '.join(stack.started) or 'nothing, as nothing was started yet'}")
        raise
    if detach and not stopping.is_set():
        _tell(stack, echo)
        echo(f"\nStop it with: {local_command('down', stack.folder)}")
        return
    try:
        _tell(stack, echo)
        echo("\nCtrl-C stops it; what ran in Pods is stopped too, all objects are kept for the next start.")
        while not stopping.is_set():
            stack.check()
            await asyncio.sleep(WATCH_SECONDS)
    finally:
        with contextlib.suppress(OSError):  # the terminal may be closed
            echo("Stopping")
        await stack.stop()


def _tell(stack: Stack, echo: Callable[[str], None]) -> None:
    echo(f"API server   {stack.ready['url']}")
    echo(f"Status page  {stack.status_page}")
    echo(f"Logs         {stack.folder}/*.log")
    echo(f"\nFor kubectl, in each shell:\n\nexport KUBECONFIG={shlex.quote(str(stack.kubeconfig))}")


async def stop(stack: Stack, session: Session, *, force: bool) -> bool:
    """Stop what `up` started; False if nothing ran. Refuses while tasks run, unless forced.

    A cluster that was killed is started again first: what runs in its Pods has nobody else to stop it.
    """
    if stack.cluster_was_killed:
        await stack.start()
    if not stack.running():
        return False
    if not force and (busy := _busy(session)):
        raise click.ClickException(f"still running: {', '.join(busy)}. Wait for them, or stop them too with --force")
    await stack.stop()
    return True


def _busy(session: Session) -> list[str]:
    """Tasks with a step under way. A reservation is no hindrance: it survives the cluster's restart."""
    try:
        with session.open() as connection:
            tasks = connection.list_all(SLOTTASKS, everywhere=True)
    except PodslotsError:
        return []  # the cluster is half dead already: nothing to be learned from it
    return [task["metadata"]["name"] for task in tasks if phase(task) in {"Assigned", "Running"}]


def settings_of(stack: Stack) -> KubeSettings:
    """How the folder's cluster is reached."""
    return KubeSettings(kubeconfig=str(stack.kubeconfig))


def standing(stack: Stack) -> tuple[str, bool]:
    """What to say of a state folder, and whether all runs in it."""
    folder = stack.folder
    alive = {process.name: process.pid for process in stack.running()}
    if not alive and not recorded(folder):
        stands = cluster_standing(folder)
        kept = f"; its objects are kept. Start it again: {local_command('up', folder)}"
        return f"the local cluster in {folder} {stands}{kept if stands is Standing.STOPPED else ''}", False
    killed = f"was killed. Start it again: {local_command('up', folder)}"
    lines = []
    for name in ("cluster", "controller"):
        what = f"running, pid {alive[name]}" if name in alive else killed
        lines.append(f"{name.capitalize():<12} {what}")
    lines += [
        f"{'API server':<12} {stack.api_server()}",
        f"{'Status page':<12} {stack.page()}",
        f"{'Logs':<12} {folder}/*.log",
        f"{'Kubeconfig':<12} {stack.kubeconfig}",
    ]
    return "\n".join(lines), len(alive) > 1


# --- the commands -----------------------------------------------------------------------------------------------------


class _Local(elsewhere.Guessing):
    others = elsewhere.LOCAL


@click.group(cls=_Local, context_settings=CONTEXT)
def local() -> None:
    """A cluster embedded in this machine."""


_STATE_DIR = click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=LOCAL_FOLDER,
    show_default=True,
    help="Where it keeps everything.",
)


_PORT_HELP = "Port of the status page (default: its last one, else any free one)."


@local.command()
@_STATE_DIR
@click.option("--detach", is_flag=True, help="Return once it runs.")
@click.option("--keep-pods", is_flag=True, help="A stop leaves the Pods' processes running for the next start.")
@click.option("--http-port", type=click.IntRange(0, 65535), default=0, help=_PORT_HELP)
def up(state_dir: Path, *, detach: bool, keep_pods: bool, http_port: int) -> None:
    """Start the cluster and a controller.

    What an earlier run left in its folder is there again.
    """
    if find_spec("celpy") is None:
        raise click.ClickException(
            "the embedded cluster is not installed. Install podslots with its extra `local`:\n"
            "  from a clone:  pipx install --force '.[local]'\n"
            "  from a wheel:  pipx install --force './podslots-VERSION-py3-none-any.whl[local]'"
        )
    stack = Stack(state_dir, os.environ)
    _run(start(stack, detach=detach, keep_pods=keep_pods, http_port=http_port, echo=click.echo))


@local.command()
@_STATE_DIR
@click.option("--force", is_flag=True, help="Even if tasks run: an apply is then Lost, a plan is tried again.")
def down(state_dir: Path, *, force: bool) -> None:
    """Stop the cluster and its controller. Everything it knows is kept."""
    stack = Stack(state_dir, os.environ)
    session = Session(settings=settings_of(stack), now=now)
    stopped = _run(stop(stack, session, force=force))
    click.echo("stopped" if stopped else f"nothing runs in {stack.folder}")


@local.command()
@_STATE_DIR
@click.pass_context
def status(ctx: click.Context, *, state_dir: Path) -> None:
    """Say what runs, and where it is. Exit code 3 if it does not run."""
    try:
        text, runs = standing(Stack(state_dir, os.environ))
    except PodslotsError as error:
        raise click.ClickException(str(error)) from error
    click.echo(text)
    if not runs:
        ctx.exit(NOT_RUNNING)


def _run(command: Coroutine[None, None, T]) -> T:
    try:
        return asyncio.run(command)
    except asyncio.CancelledError as error:
        raise click.Abort from error
    except PodslotsError as error:
        raise click.ClickException(str(error)) from error
