"""What people do to tasks: approve, cancel, wait, unlock."""

import asyncio
import getpass
from collections.abc import Callable

import click

from controller import names
from controller.cli import approval
from controller.cli.session import Connection
from controller.cli.tables import FINAL_PHASES, NONE, phase, refusal, why
from controller.errors import ApiError, NotFound
from controller.kube.api import LEASES, SLOTTASKS, Object, Resource

SELF_REVIEWS = Resource("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", namespaced=False)
POLL_SECONDS = 0.25
PHASES = ("Queued", "Assigned", "Running", "AwaitingApproval", *sorted(FINAL_PHASES))


class TimedOut(click.ClickException):
    """`wait` gave up. The task goes on."""

    exit_code = 3


async def approve(
    connection: Connection, name: str, *, digest: str | None, by: str | None, confirm: Callable[[str], bool]
) -> str:
    """Approve the plan that waits, after `confirm` was shown it. Returns what to tell the person."""
    task = await connection.get(SLOTTASKS, name)
    try:
        asked = approval.question(task, digest=digest)
    except approval.NotApprovable as error:
        raise click.ClickException(str(error)) from error
    text = asked.log_tail.rstrip("\n")
    shown = f"{text}\n\n" if text else ""
    shown += f"Task {name}, attempt {asked.attempt}, on {asked.pod} slot {asked.slot}\nPlan {asked.plan_digest}"
    if not confirm(shown):
        raise click.ClickException("not approved")
    by = by or await whoami(connection)
    await connection.api.patch(SLOTTASKS, connection.namespace, name, approval.patch(asked, by))
    return f"{name}: plan {asked.plan_digest} approved by {by}"


async def whoami(connection: Connection) -> str:
    """The name that the API server knows the caller by; the login name where it does not say."""
    body: Object = {"apiVersion": SELF_REVIEWS.api_version, "kind": SELF_REVIEWS.kind}
    try:
        review = await connection.api.create(SELF_REVIEWS, None, body)
    except ApiError:
        return getpass.getuser()
    return str(((review.get("status") or {}).get("userInfo") or {}).get("username") or getpass.getuser())


async def cancel(connection: Connection, name: str) -> str:
    """Ask for a task's end. The controller sees to it."""
    task = await connection.get(SLOTTASKS, name)
    if phase(task) in FINAL_PHASES:
        raise click.ClickException(f"{name} is {phase(task)} already")
    await connection.api.patch(SLOTTASKS, connection.namespace, name, {"spec": {"cancel": True}})
    return f"{name}: cancel requested"


async def wait(connection: Connection, name: str, wanted: frozenset[str], timeout_seconds: float | None) -> str:
    """Wait until the task's phase is one of `wanted`; fail at once if it ended in another.

    What keeps it from going on until a person acts is said on stderr, once: what it lacks may still come.
    """
    said: str | None = None
    try:
        async with asyncio.timeout(timeout_seconds):
            while True:
                task = await connection.get(SLOTTASKS, name)
                now = phase(task)
                if now in wanted:
                    return f"{name}: {now}"
                if now in FINAL_PHASES:
                    reason = why(task)
                    raise click.ClickException(f"{name} ended as {now}" + (f": {reason}" if reason != NONE else ""))
                if (lacks := obstacle(task)) is not None and lacks != said:
                    click.echo(f"{name} does not go on: {lacks}", err=True)
                    said = lacks
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise TimedOut(f"{name} did not become {' or '.join(sorted(wanted))} in {timeout_seconds:g} s") from None


def obstacle(task: Object) -> str | None:
    """What a task waits for that only a person can give it."""
    refused = refusal(task)
    if refused is not None:
        return ": ".join(part for part in refused if part)
    if phase(task) != "AwaitingApproval":
        return None
    spec = task.get("spec") or {}
    by_itself = spec.get("approvalPolicy") == "Auto" or spec.get("approval")
    return None if by_itself else "it waits for an approval (podslots approve)"


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
