"""`podslots`: the command line for people. Speaks to the Kubernetes API only.

Exit codes: 0 done; 1 the cluster or the object says no, or (`wait`, `logs -f`) the task ended otherwise; 2 the command
line is wrong; 3 `wait` gave up; 4 (`wait`, `logs`) what was asked for can't be seen.
"""

import asyncio
import json
import os
from collections.abc import Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import click
import yaml

from controller import names
from controller.cli import again, documents, local, logs, outputs, pods, pools, rollouts, tables, tasks
from controller.cli.asking import Asker
from controller.cli.following import Follower
from controller.cli.given import Name, Namespace
from controller.cli.seeing import CouldNotSee
from controller.cli.session import Connection, Session, settings
from controller.cli.simulate.command import simulate
from controller.cli.sink import Sink
from controller.cli.stack import Stack
from controller.errors import PodslotsError
from controller.kube.api import PODS, SLOTPOOLS, SLOTTASKS, Object


def _now() -> datetime:
    return datetime.now(UTC)


T = TypeVar("T")
KINDS = ("pools", "pods", "tasks", "slots")
pass_session = click.make_pass_decorator(Session)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--kubeconfig", type=click.Path(dir_okay=False), help="Path of a kubeconfig (default: KUBECONFIG).")
@click.option("--context", help="Context of the kubeconfig.")
@click.option("-n", "--namespace", type=Namespace(), metavar="NAME", help="Namespace (default: the context's).")
@click.option("--as", "stands_in_for", metavar="USER", help="On behalf of this user, if you may; as kubectl's --as.")
@click.version_option(package_name="podslots")
@click.pass_context
def main(
    ctx: click.Context,
    *,
    kubeconfig: str | None,
    context: str | None,
    namespace: str | None,
    stands_in_for: str | None,
) -> None:
    """Pools of slots for long work, and the tasks in them."""
    here = Stack(local.DEFAULT_FOLDER, os.environ).kubeconfig
    found = settings(
        os.environ,
        kubeconfig=kubeconfig,
        context=context,
        local_kubeconfig=str(here) if here.is_file() else None,
    )
    found = replace(found, stands_in_for=stands_in_for)
    ctx.obj = Session(settings=found, now=_now, namespace=namespace)


# --- looking ----------------------------------------------------------------------------------------------------------


@main.command()
@click.argument(
    "what",
    metavar=f"{{{'|'.join(KINDS)}}}",
    type=click.Choice([*KINDS, *(kind.removesuffix("s") for kind in KINDS)]),
    callback=lambda _ctx, _argument, value: f"{value.removesuffix('s')}s",
)
@click.argument("names_", metavar="[NAME]...", nargs=-1, type=Name())
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="In all namespaces.")
@click.option("-p", "--pool", help="Only of this pool.")
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table")
@pass_session
def get(
    session: Session, *, what: str, names_: tuple[str, ...], everywhere: bool, pool: str | None, output: str
) -> None:
    """Show pools, Pods, tasks or slots.

    Slots are shown as the tasks' status has them. A state of "-" means that no task is known to be there; whether the
    slot is idle, only its agent knows. Pools show how many are. A task "(sidecar)" stands for the Pod's own program,
    which holds its slots without tasks.
    """

    async def run(connection: Connection) -> str:
        selector = f"{names.POOL_LABEL}={pool}" if pool else names.POOL_LABEL
        if what == "slots":
            if output != "table":
                raise click.UsageError("slots are no objects: they have no JSON or YAML")
            found = await connection.list_all(PODS, everywhere=everywhere, label_selector=selector)
            held = await connection.list_all(SLOTTASKS, everywhere=everywhere)
            return tables.slots(_named(found, names_, "Pod"), held, namespaces=everywhere).text()
        if what == "pods":
            found = await connection.list_all(PODS, everywhere=everywhere, label_selector=selector)
        else:
            resource = SLOTPOOLS if what == "pools" else SLOTTASKS
            found = await connection.list_all(resource, everywhere=everywhere)
            if pool:
                found = [obj for obj in found if pool in {obj["metadata"]["name"], obj["spec"].get("pool")}]
        found = _named(found, names_, what.removesuffix("s"))
        if output != "table":
            return _serialized(found, output)
        table = {"pools": tables.pools, "pods": tables.pods, "tasks": tables.tasks}[what]
        return table(found, connection.now(), namespaces=everywhere).text()

    click.echo(session.run(run))


def _named(objects: list[Object], wanted: tuple[str, ...], kind: str) -> list[Object]:
    """The objects with these names, or all; a name without an object is an error."""
    if not wanted:
        return objects
    missing = set(wanted) - {obj["metadata"]["name"] for obj in objects}
    if missing:
        raise click.ClickException(f"no {kind} named {', '.join(sorted(missing))}")
    return [obj for obj in objects if obj["metadata"]["name"] in wanted]


def _serialized(objects: list[Object], output: str) -> str:
    return _dumped({"apiVersion": "v1", "kind": "List", "items": objects}, output)


def _dumped(document: object, output: str) -> str:
    return json.dumps(document, indent=2) if output == "json" else yaml.safe_dump(document, sort_keys=False).rstrip()


def _attempt(_ctx: click.Context, _argument: click.Parameter, value: str | None) -> str | None:
    if value not in {None, logs.ALL} and not (value.isascii() and value.isdecimal() and int(value)):
        raise click.BadParameter(f"a number from 1 on, or {logs.ALL}")
    return value


@main.command("logs")
@click.argument("task", type=Name(), metavar="TASK")
@click.option("-f", "--follow", is_flag=True, help="Go on until the task has ended.")
@click.option("--step", type=click.Choice(outputs.STEPS), help="Only this step's output.")
@click.option("--attempt", callback=_attempt, metavar="N|all", help="Of this attempt, or of all (default: the last).")
@click.option("--raw", is_flag=True, help="Byte for byte, control characters too; for pipes and files.")
@pass_session
def show_logs(session: Session, *, task: str, follow: bool, step: str | None, attempt: str | None, raw: bool) -> None:
    """Show a task's output.

    With -f the exit code is 0 if the task has succeeded, 1 if it ended otherwise, and 4 if it could not be seen to its
    end. Without, it is 0, or 4 if nothing could be found.

    Colours pass; other control characters are shown as text, so that output can't steer your terminal.
    """
    sink = Sink(raw=raw)
    if follow:
        if attempt is not None:
            raise click.UsageError("-f shows the last attempt and those to come; leave out --attempt")
        session.run(lambda connection: Follower(connection, task, step=step, sink=sink).run(), failure=CouldNotSee)
    else:
        session.run(
            lambda connection: logs.show(connection, task, step=step, attempt=attempt, sink=sink),
            failure=CouldNotSee,
        )


@main.command()
@click.argument("task", type=Name(), metavar="TASK")
@click.option("--for", "wanted", required=True, help="Phase to wait for, or several: Succeeded,Failed.")
@click.option("--timeout", type=click.FloatRange(min=0), help="Give up after so many seconds.")
@pass_session
def wait(session: Session, task: str, wanted: str, timeout: float | None) -> None:
    """Wait until a task is in a phase. Fails at once if it ends in another.

    Exit codes: 0 it is; 1 it ended in another phase; 3 the time is over; 4 the task can't be seen.
    """
    phases = frozenset(part.strip() for part in wanted.removeprefix("phase=").split(","))
    if unknown := phases - set(tasks.PHASES):
        raise click.UsageError(f"no such phase: {', '.join(sorted(unknown))}. Phases are {', '.join(tasks.PHASES)}")
    click.echo(session.run(lambda connection: tasks.wait(connection, task, phases, timeout), failure=CouldNotSee))


@main.command()
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="In all namespaces.")
@pass_session
def plans(session: Session, everywhere: bool) -> None:
    """List the plans that wait for an approval: since when, how long yet, and how they end."""
    click.echo(session.run(lambda connection: tasks.plans(connection, everywhere=everywhere)))


# --- doing ------------------------------------------------------------------------------------------------------------


@main.command()
@click.option("-f", "--file", "files", multiple=True, required=True, help="YAML file, or - for standard input.")
@pass_session
def submit(session: Session, files: tuple[str, ...]) -> None:
    """Create pools and tasks from YAML, or merge changes into those that exist.

    What has `generateName` is created anew each time. If an object is refused, those after it are tried all the same,
    and the exit code is 1.
    """
    objects = [obj for path in files for obj in documents.parse(documents.read(path), path)]

    async def run(connection: Connection) -> None:
        taken: list[tuple[Object, str]] = []
        every = iter(objects)
        async for each in documents.submit(connection, objects):
            obj = next(every)
            if each.name is None:
                click.echo(f"Error: {each.line}", err=True)
            else:
                click.echo(each.line)
                taken.append((obj, each.name))
        async for warning in documents.warnings(connection, taken):
            click.echo(f"Warning: {warning}", err=True)
        if len(taken) < len(objects):
            raise click.exceptions.Exit(1)

    session.run(run)


@main.command()
@click.argument("task", type=Name(), metavar="TASK")
@click.option("--digest", help="Approve this plan and no other, without a question (12 hex digits or more).")
@click.option("-y", "--yes", is_flag=True, help="Don't ask.")
@pass_session
def approve(session: Session, task: str, digest: str | None, yes: bool) -> None:
    """Approve the plan that a task waits with. Shows all of the plan, says if any of it is missing, and asks."""
    asker = Asker(yes=yes or digest is not None, question="Apply this plan?")
    click.echo(session.run(lambda connection: tasks.approve(connection, task, digest=digest, asker=asker)))


@main.command()
@click.argument("task", type=Name(), metavar="TASK")
@pass_session
def retry(session: Session, task: str) -> None:
    """Run an ended task anew, as a new object: the same work under the next free name."""
    click.echo(session.run(lambda connection: again.retry(connection, task)))


@main.command()
@click.argument("task", type=Name(), metavar="TASK")
@pass_session
def cancel(session: Session, task: str) -> None:
    """Cancel a task: a step that runs is stopped, by its stop signal first; a reservation ends."""
    click.echo(session.run(lambda connection: tasks.cancel(connection, task)))


@main.command()
@click.argument("name", metavar="POD|NODE", type=Name())
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="A node's Pods in all namespaces.")
@pass_session
def drain(session: Session, name: str, everywhere: bool) -> None:
    """Ask for a Pod, or a node's Pods, to be deleted as they fall idle. Interrupts nothing."""
    click.echo(session.run(lambda connection: pods.drain(connection, name, everywhere=everywhere)))


@main.command()
@click.argument("name", metavar="POD|NODE", type=Name())
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="A node's Pods in all namespaces.")
@pass_session
def undrain(session: Session, name: str, everywhere: bool) -> None:
    """Take back what `drain` asked for."""
    click.echo(session.run(lambda connection: pods.undrain(connection, name, everywhere=everywhere)))


@main.command("break-glass")
@click.argument("pod", type=Name(), metavar="POD")
@click.option("--reason", required=True, help="Why. It stays on the Pod, and in the API server's audit log.")
@click.option("-y", "--yes", is_flag=True, help="Don't ask.")
@pass_session
def break_glass(session: Session, pod: str, reason: str, yes: bool) -> None:
    """Let a Pod be deleted whatever it holds: the way out when the work in it matters less than its end."""
    confirm = Asker(yes=yes, question="Let it be deleted?")
    click.echo(session.run(lambda connection: pods.break_glass(connection, pod, reason, confirm)))


@main.command()
@click.argument("pod", type=Name(), metavar="POD")
@click.option("-y", "--yes", is_flag=True, help="Don't ask.")
@pass_session
def forget(session: Session, pod: str, yes: bool) -> None:
    """Declare a Pod dead that nothing else proves dead."""
    confirm = Asker(yes=yes, question="Are its containers surely gone?")
    click.echo(session.run(lambda connection: pods.forget(connection, pod, confirm)))


@main.command()
@click.argument("lockkey", required=False)
@click.option("--task", help="The lockKey of this task.")
@click.option("-y", "--yes", is_flag=True, help="Don't ask.")
@pass_session
def unlock(session: Session, lockkey: str | None, task: str | None, yes: bool) -> None:
    """Free a lockKey whose holder is lost."""
    confirm = Asker(yes=yes, question="Has everything that the holder started ended?")
    click.echo(session.run(lambda connection: tasks.unlock(connection, lockkey, task, confirm)))


@main.command()
@click.argument("pool", type=Name(), metavar="POOL")
@pass_session
def rotate(session: Session, pool: str) -> None:
    """Replace a pool's tokens. Takes minutes, and interrupts nothing."""
    click.echo(session.run(lambda connection: pools.rotate(connection, pool)))


# --- templates --------------------------------------------------------------------------------------------------------


@main.group()
def rollout() -> None:
    """The way of a pool's Pods to its present template and layout."""


@rollout.command("status")
@click.argument("pool")
@click.option("-w", "--watch", is_flag=True, help="Until it is over.")
@click.option("--timeout", type=click.FloatRange(min=0), help="Give up after so many seconds.")
@pass_session
def rollout_status(session: Session, pool: str, *, watch: bool, timeout: float | None) -> None:
    """Say how far it is.

    Exit codes as kubectl's: 0 it is over, or (without --watch) on its way; 1 new Pods don't start (watched: for a
    minute), the template can't be used, Pods are replaced only when somebody drains them, or the time is over.
    """
    session.run(
        lambda connection: rollouts.status(connection, pool, watch=watch, timeout_seconds=timeout, echo=click.echo)
    )


@rollout.command("pause")
@click.argument("pool")
@pass_session
def rollout_pause(session: Session, pool: str) -> None:
    """Replace no further Pod."""
    click.echo(session.run(lambda connection: rollouts.pause(connection, pool, paused=True)))


@rollout.command("resume")
@click.argument("pool")
@pass_session
def rollout_resume(session: Session, pool: str) -> None:
    """Go on after a pause."""
    click.echo(session.run(lambda connection: rollouts.pause(connection, pool, paused=False)))


@rollout.command("history")
@click.argument("pool")
@click.option("--revision", type=int, help="Show all of this one.")
@pass_session
def rollout_history(session: Session, pool: str, revision: int | None) -> None:
    """List the templates that the pool had."""
    click.echo(session.run(lambda connection: rollouts.history(connection, pool, revision)))


@rollout.command("undo")
@click.argument("pool")
@click.option("--to-revision", "revision", type=int, help="Back to this one (default: the one before the present).")
@pass_session
def rollout_undo(session: Session, pool: str, revision: int | None) -> None:
    """Write an earlier template and layout back into the pool."""
    click.echo(session.run(lambda connection: rollouts.undo(connection, pool, revision)))


# --- the installation -------------------------------------------------------------------------------------------------


@main.command()
@click.option("--controller-namespace", help=f"Where it runs (default: {names.CONTROLLER_NAMESPACE}, or this one).")
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table")
@pass_session
def doctor(session: Session, *, controller_namespace: str | None, output: str) -> None:
    """Check an installation, and say what to do. Changes nothing.

    Exit code 1 if something fails. What you may not look at is "unseen": an administrator sees all.
    """
    from controller.cli.doctor import examine, findings  # noqa: PLC0415 - the other commands start without it

    found = session.run(lambda connection: examine.examine(connection, controller_namespace=controller_namespace))
    click.echo(findings.table(found) if output == "table" else _dumped(findings.documents(found), output))
    if any(finding.state is findings.State.FAILS for finding in found):
        raise SystemExit(1)


@main.command()
@click.option("--controller-namespace", help="Where it runs (default: where its Lease is).")
@click.option("--cancel-tasks", is_flag=True, help="Cancel tasks that have not ended; an apply that runs is stopped.")
@click.option("--wait", "patient", is_flag=True, help="Wait for Pods to be drained, and all else, and see it through.")
@click.option("-y", "--yes", is_flag=True, help="Don't ask.")
@pass_session
def uninstall(
    session: Session, *, controller_namespace: str | None, cancel_tasks: bool, patient: bool, yes: bool
) -> None:
    """Take podslots off the cluster: pools, tasks, policies, controller, definitions, in the order that can't hang.

    Refuses while tasks have not ended, unless they are to be cancelled. Can be interrupted, and run again.

    Exit codes: 0 all of it is gone; 1 it was refused; 3 something is on its way out, run it again or with --wait.
    """
    from controller.cli import uninstall as removing  # noqa: PLC0415 - the other commands start without it

    line = session.run(
        lambda connection: removing.uninstall(
            connection,
            controller_namespace=controller_namespace,
            cancel_tasks=cancel_tasks,
            wait=patient,
            confirm=Asker(yes=yes, question="Uninstall podslots?"),
            say=lambda text: click.echo(text, err=True),
        )
    )
    click.echo(line)


main.add_command(simulate)


# --- one machine ------------------------------------------------------------------------------------------------------


@main.group("local")
def local_group() -> None:
    """A cluster embedded in this machine."""


state_dir = click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=local.DEFAULT_FOLDER,
    show_default=True,
    help="Where it keeps everything.",
)


@local_group.command()
@state_dir
@click.option("--detach", is_flag=True, help="Return once it runs.")
@click.option("--keep-pods", is_flag=True, help="A stop leaves the Pods' processes running for the next start.")
@click.option("--http-port", type=click.IntRange(0, 65535), default=0, help="Port of the status page.")
def up(state_dir: Path, detach: bool, keep_pods: bool, http_port: int) -> None:
    """Start the cluster and a controller, or start them again on what they left."""
    stack = Stack(state_dir, os.environ)
    _run_local(local.up(stack, detach=detach, keep_pods=keep_pods, http_port=http_port, echo=click.echo))


@local_group.command()
@state_dir
@click.option("--force", is_flag=True, help="Even if tasks run: they end as lost.")
def down(state_dir: Path, force: bool) -> None:
    """Stop the cluster and its controller. Everything it knows is kept."""
    stack = Stack(state_dir, os.environ)
    session = Session(settings=local.settings_of(stack), now=_now)
    stopped = _run_local(local.down(stack, session, force=force))
    click.echo("stopped" if stopped else f"nothing runs in {state_dir}")


def _run_local(command: Coroutine[None, None, T]) -> T:
    try:
        return asyncio.run(command)
    except PodslotsError as error:
        raise click.ClickException(str(error)) from error
