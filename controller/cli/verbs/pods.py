"""What people do to Pods: ask for a drain, declare one dead, let one be deleted. Each is an annotation, and a right.

Only the controller, or the person's own `kubectl delete`, acts on them.
"""

from collections.abc import Callable

import click

from controller import names
from controller.cli.arguments import kinds
from controller.cli.arguments.types import Name
from controller.cli.arguments.verb import Verb, pass_session
from controller.cli.cluster import rights
from controller.cli.cluster.session import Connection, Session
from controller.cli.show.asking import Asker
from controller.cli.show.changes import OUTPUT, Change, each
from controller.cli.show.tables import FINAL_PHASES, phase
from controller.errors import NotFound
from controller.kube.api import PODS, SLOTTASKS, Object

MOST_REASON = 500
"""Characters of a reason: it is an annotation, read in audit logs."""


def request_drain(connection: Connection, name: str, *, everywhere: bool = False) -> Change:
    """Have a Pod, or a node's Pods, drained and deleted as they fall idle. Nothing is interrupted."""
    pods, node = _pods_named(connection, name, everywhere=everywhere)
    _demand_for(connection, rights.DRAIN, pods)
    held = _by_pod(connection.list_all(SLOTTASKS, everywhere=everywhere))
    note: dict[str, str | None] = {names.DRAIN_REQUESTED: connection.now().strftime("%Y-%m-%dT%H:%M:%SZ")}
    lines, after = [], []
    for pod in pods:
        after.append((PODS, _annotate(connection, pod, note)))
        waiting = held.get(pod["metadata"]["uid"], [])
        until = f"once these are done: {', '.join(waiting)}" if waiting else "as soon as its slots are idle"
        lines.append(f"{_shown(pod, everywhere=everywhere)}: drain requested; it goes {until}")
    if node:
        lines.append(
            f"new Pods may still come to {name}: `kubectl cordon {name}` keeps them away, and drains as this does"
        )
    return Change("\n".join(lines), tuple(after))


def take_back(connection: Connection, name: str, *, everywhere: bool = False) -> Change:
    """Take back what `drain` asked for. A drain that an agent has granted is taken back by the controller alone."""
    pods, _ = _pods_named(connection, name, everywhere=everywhere)
    asked = [pod for pod in pods if names.DRAIN_REQUESTED in (pod["metadata"].get("annotations") or {})]
    if not asked:
        raise click.ClickException(f"nobody asked for a drain of {name}")
    _demand_for(connection, rights.DRAIN, asked)
    lines, after = [], []
    for pod in asked:
        after.append((PODS, _annotate(connection, pod, {names.DRAIN_REQUESTED: None})))
        going = pod["metadata"].get("deletionTimestamp")
        result = "too late: it is being deleted" if going else "drain no longer requested"
        lines.append(f"{_shown(pod, everywhere=everywhere)}: {result}")
    return Change("\n".join(lines), tuple(after))


def declare_dead(connection: Connection, name: str, confirm: Callable[[str], bool]) -> Change:
    """Declare a Pod dead that nothing else proves dead."""
    pod = _slot_pod(connection, name)
    rights.demand(connection, rights.FORGET, name=name)
    node = (pod.get("spec") or {}).get("nodeName") or "no node"
    now = (pod.get("status") or {}).get("phase", "Unknown")
    warning = (
        f"Pod {name} ({now}, on {node}) will be treated as dead: its tasks end as lost or are tried again,\n"
        "its lockKeys become free, and it is deleted. Do this only when you know that its containers no longer run,\n"
        "because the machine is off or wiped. If they do run, an apply may happen twice."
    )
    if not confirm(warning):
        raise click.ClickException("not forgotten")
    after = _annotate(connection, pod, {names.FORGET: pod["metadata"]["uid"]})
    return Change(f"{name}: declared dead", ((PODS, after),))


def let_delete(connection: Connection, name: str, reason: str, confirm: Callable[[str], bool]) -> Change:
    """Let a Pod be deleted whatever it holds. It is not deleted by this."""
    if not reason.strip():
        raise click.UsageError("say why with --reason: it stays on the Pod and in the audit log")
    pod = _slot_pod(connection, name)
    rights.demand(connection, rights.BREAK_GLASS, name=name)
    held = _by_pod(connection.list_all(SLOTTASKS, everywhere=False)).get(pod["metadata"]["uid"], [])
    warning = (
        f"From now on Pod {name} can be deleted by whoever may delete Pods, and by Kubernetes itself.\n"
        "What it holds ends with it: steps that run are stopped as at a time limit, plans that wait for an\n"
        f"approval are lost. As its tasks say it holds: {', '.join(held) or 'nothing'}.\n"
        f"`{connection.cluster.podslots('drain', name)}` interrupts nothing."
    )
    if not confirm(warning):
        raise click.ClickException("nothing was done")
    after = _annotate(connection, pod, {names.BREAK_GLASS: reason.strip()[:MOST_REASON]})
    delete = connection.cluster.kubectl("delete", "pod", name, namespace=connection.namespace)
    return Change(f"{name}: it can be deleted now: {delete}", ((PODS, after),))


def _by_pod(tasks: list[Object]) -> dict[str, list[str]]:
    """The tasks that a Pod holds, as their status has it, by the Pod's UID; each with its phase."""
    found: dict[str, list[str]] = {}
    for task in tasks:
        pod = (task.get("status") or {}).get("podUID")
        if pod and phase(task) not in FINAL_PHASES:
            found.setdefault(pod, []).append(f"{task['metadata']['name']} ({phase(task)})")
    return {pod: sorted(names_) for pod, names_ in found.items()}


def _slot_pod(connection: Connection, name: str) -> Object:
    pod = connection.get(PODS, name)
    if names.POOL_LABEL not in (pod["metadata"].get("labels") or {}):
        raise click.ClickException(f"Pod {name} belongs to no pool")
    return pod


def _pods_named(connection: Connection, name: str, *, everywhere: bool) -> tuple[list[Object], bool]:
    """The Pod of this name, or the Pods of pools on the node of this name; and whether it is a node."""
    if not everywhere:
        try:
            connection.api.get(PODS, connection.namespace, name)
        except NotFound:
            pass
        else:
            return [_slot_pod(connection, name)], False
    of_pools = connection.list_all(PODS, everywhere=everywhere, label_selector=names.POOL_LABEL)
    found = [pod for pod in of_pools if (pod.get("spec") or {}).get("nodeName") == name]
    if not found:
        where = "in any namespace" if everywhere else f"in namespace {connection.namespace} (-A looks in all)"
        raise click.ClickException(f"no Pod {name}, and no Pod of a pool on a node {name}, {where}")
    return found, True


def _demand_for(connection: Connection, wanted: tuple[rights.Right, ...], pods: list[Object]) -> None:
    """Before anything is done: either all of it can be, or nothing is."""
    by_home: dict[str, list[str]] = {}
    for pod in pods:
        by_home.setdefault(pod["metadata"].get("namespace") or connection.namespace, []).append(pod["metadata"]["name"])
    for namespace, there in by_home.items():
        rights.demand(connection, wanted, namespace=namespace, name=there[0] if len(there) == 1 else "")


def _shown(pod: Object, *, everywhere: bool) -> str:
    metadata = pod["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}" if everywhere else str(metadata["name"])


def _annotate(connection: Connection, pod: Object, annotations: dict[str, str | None]) -> Object:
    """The Pod after it. The UID in the patch keeps it off a Pod that took the name meanwhile."""
    metadata = pod["metadata"]
    patch: Object = {"metadata": {"uid": metadata["uid"], "annotations": annotations}}
    return connection.api.patch(PODS, metadata.get("namespace") or connection.namespace, metadata["name"], patch)


# --- the commands -----------------------------------------------------------------------------------------------------

_PODS = click.argument("names_", metavar="POD...", nargs=-1, required=True, type=Name(kinds.POD_KIND))
_PODS_OR_NODES = click.argument("names_", metavar="POD|NODE...", nargs=-1, required=True, type=Name(kinds.POD_KIND))
_EVERYWHERE = click.option(
    "-A", "--all-namespaces", "everywhere", is_flag=True, help="A node's Pods in all namespaces."
)
_YES = click.option("-y", "--yes", is_flag=True, help="Don't ask.")


@click.command(cls=Verb)
@_PODS_OR_NODES
@_EVERYWHERE
@OUTPUT
@pass_session
def drain(session: Session, *, names_: tuple[str, ...], everywhere: bool, output: str | None) -> None:
    """Have Pods deleted as soon as they are idle.

    Of a node, all its Pods. Nothing is interrupted, and they take no new work.
    """
    session.run(
        lambda connection: each(names_, lambda name: request_drain(connection, name, everywhere=everywhere), output)
    )


@click.command(cls=Verb)
@_PODS_OR_NODES
@_EVERYWHERE
@OUTPUT
@pass_session
def undrain(session: Session, *, names_: tuple[str, ...], everywhere: bool, output: str | None) -> None:
    """Take back what `drain` asked for."""
    session.run(
        lambda connection: each(names_, lambda name: take_back(connection, name, everywhere=everywhere), output)
    )


@click.command("break-glass", cls=Verb)
@_PODS
@click.option(
    "--reason", metavar="TEXT", required=True, help="Why. It stays on the Pod, and in the API server's audit log."
)
@_YES
@OUTPUT
@pass_session
def break_glass(session: Session, *, names_: tuple[str, ...], reason: str, yes: bool, output: str | None) -> None:
    """Let Pods be deleted, whatever they hold.

    For when the work in them matters less than their end. This deletes nothing: it prints the command that does.
    """
    confirm = Asker(yes=yes, question="Let it be deleted?", aside=output is not None)
    session.run(lambda connection: each(names_, lambda name: let_delete(connection, name, reason, confirm), output))


@click.command(cls=Verb)
@_PODS
@_YES
@OUTPUT
@pass_session
def forget(session: Session, *, names_: tuple[str, ...], yes: bool, output: str | None) -> None:
    """Declare Pods dead that nothing else proves dead.

    For a machine that is off or wiped. What they held ends as lost, or is tried again.
    """
    confirm = Asker(yes=yes, question="Are its containers surely gone?", aside=output is not None)
    session.run(lambda connection: each(names_, lambda name: declare_dead(connection, name, confirm), output))
