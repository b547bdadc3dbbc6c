"""What people do to tasks: approve, cancel, wait, run again, unlock."""

import asyncio
from collections.abc import Callable

import click

from controller import names
from controller.cli import approval, outputs, rights
from controller.cli.asking import Asker
from controller.cli.seeing import CouldNotSee, Watched, ended_otherwise
from controller.cli.session import Connection
from controller.cli.tables import FINAL_PHASES, phase
from controller.errors import ApiError, NotFound
from controller.kube.api import LEASES, SLOTTASKS, Object, Resource

SELF_REVIEWS = Resource("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", namespaced=False)
POLL_SECONDS = 0.25
PHASES = ("Queued", "Assigned", "Running", "AwaitingApproval", *sorted(FINAL_PHASES))


class TimedOut(click.ClickException):
    """`wait` gave up. The task goes on."""

    exit_code = 3


async def approve(connection: Connection, name: str, *, digest: str | None, asker: Asker) -> str:
    """Approve the plan that waits, after `asker` was shown all of it. Returns what to tell the person."""
    await rights.demand(connection, rights.APPROVE, name=name)
    task = await connection.get(SLOTTASKS, name)
    try:
        asked = approval.question(task, digest=digest)
    except approval.NotApprovable as error:
        raise click.ClickException(str(error)) from error
    seen = await outputs.of_last_attempt(connection, task, "plan")
    asker.page(approval.plan_text(seen))
    warning = approval.missing_text(seen)
    text = approval.summary(asked)
    if not asker("\n" + (f"{warning}\n{text}" if warning else text)):
        raise click.ClickException("not approved")
    by = await whoami(connection)
    await connection.api.patch(SLOTTASKS, connection.namespace, name, approval.patch(asked, by))
    return f"{name}: plan {asked.plan_digest} approved" + (f" by {by}" if by else "")


async def plans(connection: Connection, *, everywhere: bool) -> str:
    """What waits for an approval, the one that expires first at the top."""
    found = await connection.list_all(SLOTTASKS, everywhere=everywhere)
    waiting = [
        task for task in found if phase(task) == approval.AWAITING and not (task.get("spec") or {}).get("approval")
    ]
    waiting.sort(key=lambda task: str((task.get("status") or {}).get("expiresAt") or ""))
    if not waiting:
        return "no plan waits for an approval"
    now = connection.now()
    texts = []
    for task in waiting:
        namespace = task["metadata"].get("namespace")
        other = f"-n {namespace} " if namespace != connection.namespace else ""
        command = f"podslots {other}approve {task['metadata']['name']}"
        texts.append(approval.waiting_text(task, now, command))
    return "\n\n".join(texts)


async def whoami(connection: Connection) -> str | None:
    """The name that the API server knows the caller by; None if it does not say."""
    body: Object = {"apiVersion": SELF_REVIEWS.api_version, "kind": SELF_REVIEWS.kind}
    try:
        review = await connection.api.create(SELF_REVIEWS, None, body)
    except ApiError:
        return None
    return str(((review.get("status") or {}).get("userInfo") or {}).get("username") or "") or None


async def cancel(connection: Connection, name: str) -> str:
    """Ask for a task's end. The controller sees to it."""
    task = await connection.get(SLOTTASKS, name)
    if phase(task) in FINAL_PHASES:
        raise click.ClickException(f"{name} is {phase(task)} already")
    await connection.api.patch(SLOTTASKS, connection.namespace, name, {"spec": {"cancel": True}})
    return f"{name}: cancel requested"


async def wait(connection: Connection, name: str, wanted: frozenset[str], timeout_seconds: float | None) -> str:
    """Wait until the task's phase is one of `wanted`; fail at once if it ended in another.

    What it waits for is said on stderr, once each. Raises EndedOtherwise, TimedOut or CouldNotSee.
    """
    watched = Watched(connection, name, lambda text: click.echo(text, err=True))
    try:
        async with asyncio.timeout(timeout_seconds):
            while True:
                task = await watched.read()
                if phase(task) in wanted:
                    return f"{name}: {phase(task)}"
                if (error := ended_otherwise(task, wanted)) is not None:
                    raise error
                watched.say_obstacle(task)
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        if watched.away:
            raise CouldNotSee(f"the Kubernetes API can't be reached; how {name} goes on is not known") from None
        raise TimedOut(f"{name} did not become {' or '.join(sorted(wanted))} in {timeout_seconds:g} s") from None


async def unlock(
    connection: Connection, lock_key: str | None, task_name: str | None, confirm: Callable[[str], bool]
) -> str:
    """Delete a lockKey's Lease. Only a person can know that whatever held it is over."""
    if task_name is not None:
        task = await connection.get(SLOTTASKS, task_name)
        lock_key = (task.get("spec") or {}).get("lockKey")
        if not lock_key:
            raise click.ClickException(f"{task_name} has no lockKey")
    if not lock_key:
        raise click.UsageError("name a lockKey, or a task with --task")
    lease_name = names.lock_lease(lock_key)
    try:
        lease = await connection.api.get(LEASES, connection.namespace, lease_name)
    except NotFound as error:
        raise click.ClickException(f"lockKey {lock_key!r} is not held in namespace {connection.namespace}") from error
    await rights.demand(connection, rights.UNLOCK, name=lease_name)
    metadata = lease["metadata"]
    holder = (metadata.get("annotations") or {}).get(names.LOCK_TASK, "unknown")
    warning = (
        f"lockKey {lock_key!r} is held by task {holder} since {metadata.get('creationTimestamp')}.\n"
        "Another task of this key starts as soon as it is free. If an apply of the holder still runs\n"
        "somewhere, the two will change the same things at the same time."
    )
    if not confirm(warning):
        raise click.ClickException("not unlocked")
    await connection.api.delete(
        LEASES, connection.namespace, lease_name, uid=metadata["uid"], resource_version=metadata["resourceVersion"]
    )
    return f"lockKey {lock_key!r} is free"
