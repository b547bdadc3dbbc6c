"""`podslots local`: a cluster and a controller on this machine, for trying things out."""

import asyncio
import shlex
import signal
from collections.abc import Callable
from pathlib import Path

import click

from controller.cli.session import Session
from controller.cli.stack import Stack
from controller.cli.tables import phase
from controller.errors import PodslotsError
from controller.kube.access import KubeSettings
from controller.kube.api import SLOTTASKS

DEFAULT_FOLDER = Path(".podslots") / "local"
WATCH_SECONDS = 0.5


async def up(stack: Stack, *, detach: bool, keep_pods: bool, http_port: int, echo: Callable[[str], None]) -> None:
    """Start both processes; unless detached, stay until Ctrl-C or SIGTERM and stop them then."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    await stack.start(keep_pods=keep_pods, http_port=http_port)
    echo(f"API server   {stack.ready['url']}")
    echo(f"Status page  {stack.status_page}")
    echo(f"Logs         {stack.folder}/*.log")
    echo(f"\nexport KUBECONFIG={stack.kubeconfig}")
    if detach:
        # Absolute, so that it holds in any folder.
        chosen = "" if stack.folder == DEFAULT_FOLDER.absolute() else f" --state-dir {shlex.quote(str(stack.folder))}"
        echo(f"\nStop it with: podslots local down{chosen}")
        return
    echo("\nCtrl-C stops it; what ran in Pods is stopped too, all objects are kept for the next start.")
    try:
        while not stopping.is_set():
            stack.check()
            await asyncio.sleep(WATCH_SECONDS)
    finally:
        echo("Stopping")
        await stack.stop()


async def down(stack: Stack, session: Session, *, force: bool) -> bool:
    """Stop what `up` started; False if nothing ran. Refuses while tasks run, unless forced.

    A cluster that was killed is started again first: what runs in its Pods has nobody else to stop it.
    """
    if stack.cluster_was_killed:
        await stack.start()
    if not stack.running():
        return False
    if not force and (busy := await _busy(session)):
        raise click.ClickException(f"still running: {', '.join(busy)}. Wait for them, or stop them too with --force")
    await stack.stop()
    return True


async def _busy(session: Session) -> list[str]:
    """Tasks with a step under way. A reservation is no hindrance: it survives the cluster's restart."""
    try:
        async with session.open() as connection:
            tasks = await connection.list_all(SLOTTASKS, everywhere=True)
    except PodslotsError:
        return []  # the cluster is half dead already: nothing to be learned from it
    return [task["metadata"]["name"] for task in tasks if phase(task) in {"Assigned", "Running"}]


def settings_of(stack: Stack) -> KubeSettings:
    """How the folder's cluster is reached."""
    return KubeSettings(kubeconfig=str(stack.kubeconfig))
