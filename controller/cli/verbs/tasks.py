"""What people do to tasks: approve, cancel, unlock."""

from collections.abc import Callable
from typing import Any

import click

from controller import names
from controller.cli.arguments import kinds
from controller.cli.arguments.types import Name
from controller.cli.arguments.verb import Verb, pass_session
from controller.cli.cluster import rights
from controller.cli.cluster.session import Connection, Session
from controller.cli.show.asking import Asker
from controller.cli.show.changes import OUTPUT, Change, each
from controller.cli.show.tables import has_ended, phase
from controller.cli.task import approval, outputs
from controller.errors import ApiError, NotFound
from controller.kube.api import LEASES, SLOTTASKS, Object, Resource

SELF_REVIEWS = Resource("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", namespaced=False)


def approved(connection: Connection, name: str, *, digest: str | None, asker: Asker) -> Change:
    """Approve the plan that waits, after `asker` was shown all of it."""
    rights.demand(connection, rights.APPROVE, name=name)
    task = connection.get(SLOTTASKS, name)
    try:
        asked = approval.question(task, digest=digest)
    except approval.NotApprovable as error:
        raise click.ClickException(str(error)) from error
    seen = outputs.of_last_attempt(connection, task, "plan")
    again = connection.cluster.podslots("logs", name, "--step", "plan")
    asker.page(approval.plan_text(seen), what=f"the plan of {name}", again=again)
    warning = approval.missing_text(seen)
    text = approval.summary(asked)
    if not asker("\n" + (f"{warning}\n{text}" if warning else text)):
        raise click.ClickException("not approved")
    by = whoami(connection)
    after = connection.api.patch(SLOTTASKS, connection.namespace, name, approval.patch(asked, by))
    return Change(f"{name}: plan {asked.plan_digest} approved" + (f" by {by}" if by else ""), ((SLOTTASKS, after),))


def whoami(connection: Connection) -> str | None:
    """The name that the API server knows the caller by; None if it does not say."""
    body: Object = {"apiVersion": SELF_REVIEWS.api_version, "kind": SELF_REVIEWS.kind}
    try:
        review = connection.api.create(SELF_REVIEWS, None, body)
    except ApiError:
        return None
    return str(((review.get("status") or {}).get("userInfo") or {}).get("username") or "") or None


def cancelled(connection: Connection, name: str) -> Change:
    """Ask for a task's end. The controller sees to it."""
    task = connection.get(SLOTTASKS, name)
    if has_ended(task):
        raise click.ClickException(f"{name} is {phase(task)} already")
    after = connection.api.patch(SLOTTASKS, connection.namespace, name, {"spec": {"cancel": True}})
    return Change(f"{name}: cancel requested", ((SLOTTASKS, after),))


def _lock_key_of(connection: Connection, task_name: str) -> str:
    task = connection.get(SLOTTASKS, task_name)
    lock_key = (task.get("spec") or {}).get("lockKey")
    if not lock_key:
        raise click.ClickException(f"{task_name} has no lockKey")
    return str(lock_key)


def unlocked(connection: Connection, lock_key: str, confirm: Callable[[str], bool]) -> Change:
    """Delete a lockKey's Lease. Only a person can know that whatever held it is over."""
    lease_name = names.lock_lease(lock_key)
    try:
        lease = connection.api.get(LEASES, connection.namespace, lease_name)
    except NotFound as error:
        raise click.ClickException(f"lockKey {lock_key!r} is not held in namespace {connection.namespace}") from error
    rights.demand(connection, rights.UNLOCK, name=lease_name)
    metadata = lease["metadata"]
    holder = (metadata.get("annotations") or {}).get(names.LOCK_TASK, "unknown")
    warning = (
        f"lockKey {lock_key!r} is held by task {holder} since {metadata.get('creationTimestamp')}.\n"
        "Another task of this key starts as soon as it is free. If an apply of the holder still runs\n"
        "somewhere, the two will change the same things at the same time."
    )
    if not confirm(warning):
        raise click.ClickException("not unlocked")
    connection.api.delete(
        LEASES, connection.namespace, lease_name, uid=metadata["uid"], resource_version=metadata["resourceVersion"]
    )
    return Change(f"lockKey {lock_key!r} is free")


# --- the commands -----------------------------------------------------------------------------------------------------


def _tasks(completed: Callable[[Object], bool]) -> Callable[..., Any]:
    return click.argument(
        "names_", metavar="TASK...", nargs=-1, required=True, type=Name(kinds.TASKS, completed=completed)
    )


@click.command(cls=Verb)
@_tasks(approval.waits)
@click.option(
    "--digest", metavar="DIGEST", help="Approve this plan and no other, without a question (12 hex digits or more)."
)
@click.option("-y", "--yes", is_flag=True, help="Don't ask.")
@OUTPUT
@pass_session
def approve(session: Session, *, names_: tuple[str, ...], digest: str | None, yes: bool, output: str | None) -> None:
    """Show the plans that tasks wait with, ask, and approve them.

    All of a plan is shown, in a pager if it is longer than the screen. If any of it is missing, that is said. The apply
    then runs only for the very plan that was approved.

    \b
    Examples:
      podslots approve network
      podslots approve network --digest sha256:19b12c0fb3d5
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    if digest is not None and len(names_) > 1:
        raise click.UsageError("--digest is of one plan: name one task")
    asker = Asker(yes=yes or digest is not None, question="Apply this plan?", aside=output is not None)
    session.run(
        lambda connection: each(names_, lambda name: approved(connection, name, digest=digest, asker=asker), output)
    )


@click.command(cls=Verb)
@_tasks(lambda task: not has_ended(task))
@OUTPUT
@pass_session
def cancel(session: Session, *, names_: tuple[str, ...], output: str | None) -> None:
    """Cancel tasks.

    A step that runs is stopped, by its stop signal first. A plan that waits for an approval is given up.
    """
    session.run(lambda connection: each(names_, lambda name: cancelled(connection, name), output))


@click.command(cls=Verb)
@click.argument("lockkeys", metavar="[LOCKKEY]...", nargs=-1)
@click.option("--task", type=Name(kinds.TASKS), help="The lockKey of this task.")
@click.option("-y", "--yes", is_flag=True, help="Don't ask.")
@pass_session
def unlock(session: Session, *, lockkeys: tuple[str, ...], task: str | None, yes: bool) -> None:
    """Free lockKeys whose holders are lost.

    A lockKey is the field of that name of a task. It stays held when an apply is lost, as nobody knows whether it still
    runs.
    """
    if bool(lockkeys) == (task is not None):
        raise click.UsageError("name a lockKey, or a task with --task")
    confirm = Asker(yes=yes, question="Has everything that the holder started ended?")

    def run(connection: Connection) -> None:
        keys = (_lock_key_of(connection, task),) if task is not None else lockkeys
        each(keys, lambda key: unlocked(connection, key, confirm))

    session.run(run)
