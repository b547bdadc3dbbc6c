"""`podslots submit`: create the objects of YAML files, or merge what changed into those that exist."""

from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass

import click

from controller.cli.arguments.files import KINDS, files_of, parse_file, pools_first
from controller.cli.arguments.verb import Verb, pass_session
from controller.cli.cluster.last_applied import with_new_note, with_note
from controller.cli.cluster.nearest import meant
from controller.cli.cluster.session import STRICT, Connection, Session, explain
from controller.cli.cluster.unknown_fields import with_meant
from controller.cli.show.changes import OUTPUT, Change, Teller
from controller.cli.show.documents import short_name
from controller.errors import AlreadyExists, ApiError, Invalid, InvalidObject, NotFound
from controller.kube.api import SLOTPOOLS, Object, Resource
from controller.objects.acceptance import refusal
from controller.objects.pool import PoolSpec
from controller.objects.task import Task
from controller.objects.template_rules import check_template


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of one object: a line for people, and the object as it is now; without one, it was refused."""

    line: str
    obj: Object | None = None


def submitted(connection: Connection, objects: list[Object]) -> Iterator[Submitted]:
    """Create or merge each object, as kubectl does: those after one that is refused, too.

    Raises ApiUnavailable at the first that can't be asked for: the rest could not be, either.
    """
    for obj in objects:
        resource = KINDS[obj["kind"]]
        namespace = obj["metadata"].get("namespace") or connection.namespace
        shown = obj["metadata"].get("name") or obj["metadata"]["generateName"]
        try:
            outcome, after = _apply(connection, resource, namespace, obj)
        except ApiError as error:
            own = isinstance(error, Invalid) and STRICT not in error.message  # such words name the object
            why = with_meant(resource, explain(error), doctor=connection.cluster.podslots("doctor"))
            yield Submitted(why if own else f"{short_name(resource)}/{shown}: {why}")
        else:
            yield Submitted(f"{short_name(resource)}/{after['metadata']['name']} {outcome}", after)


def warnings(connection: Connection, objects: list[Object]) -> Iterator[str]:
    """What keeps submitted objects from ever running, or tasks from running in them, as far as that may be read."""
    for obj in objects:
        name = f"{obj['kind'].lower()}/{obj['metadata']['name']}"
        with suppress(ApiError):
            if (problem := _problem(connection, obj)) is not None:
                yield f"{name} {problem}"


def _problem(connection: Connection, obj: Object) -> str | None:
    if obj["kind"] == SLOTPOOLS.kind:
        return _pool_problem(obj)
    try:
        task = Task.parse(obj)
    except InvalidObject as problem:
        return f"can't run as it is: {problem}"
    pool = _pool(connection, task.namespace, task.spec.pool)
    refused = None if task.final else refusal(task, pool)
    if refused is None:
        return None
    return f"can't run as it is: {': '.join(refused)}{_meant(connection, task.namespace, task, pool)}"


def _pool_problem(obj: Object) -> str | None:
    try:
        pool = PoolSpec.parse(obj)
        check_template(pool.template)
    except InvalidObject as problem:
        return f"can't be used as it is: {problem}"
    if pool.has_workers:
        return None
    found = [str(container["name"]) for container in pool.template["spec"]["containers"]]
    return (
        f"has no container named 'worker' (but {', '.join(found)}), so no SlotTask can run in it. "
        "That is right only if its own program takes the slots"
    )


def _meant(connection: Connection, namespace: str, task: Task, pool: PoolSpec | None) -> str:
    """What its author may have meant by a pool or type that there is not; empty if nothing comes near."""
    if pool is None:
        page = connection.api.list_page(SLOTPOOLS, namespace)
        return meant(task.spec.pool, [obj["metadata"]["name"] for obj in page.get("items") or ()])
    if not pool.accepts(task.spec.type):
        return meant(task.spec.type, [kind for slot in pool.layout for kind in slot])
    return ""


def _pool(connection: Connection, namespace: str, name: str) -> PoolSpec | None:
    try:
        return PoolSpec.parse(connection.api.get(SLOTPOOLS, namespace, name))
    except NotFound:
        return None


def _apply(connection: Connection, resource: Resource, namespace: str, obj: Object) -> tuple[str, Object]:
    api = connection.api
    try:
        return "created", api.create(resource, namespace, with_note(obj, namespace))
    except AlreadyExists:
        name = obj["metadata"]["name"]
    before = api.get(resource, namespace, name)
    changes = {key: value for key, value in obj.items() if key not in {"apiVersion", "kind", "status"}}
    after = api.patch(resource, namespace, name, with_new_note(changes, obj, before, namespace))
    same = before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]
    return "unchanged" if same else "configured", after


@click.command(cls=Verb)
@click.option(
    "-f",
    "--file",
    "paths",
    multiple=True,
    type=click.Path(allow_dash=True),
    metavar="PATH",
    help="A YAML or JSON file, a folder of them, or - for standard input. May be given several times.",
)
@click.option("-R", "--recursive", is_flag=True, help="Of folders take what is below them, too.")
@click.argument("loose", nargs=-1, metavar="-f PATH...")
@OUTPUT
@click.pass_context
@pass_session
def submit(
    session: Session,
    ctx: click.Context,
    *,
    paths: tuple[str, ...],
    loose: tuple[str, ...],
    recursive: bool,
    output: str | None,
) -> None:
    """Create pools and tasks from YAML, or change those that exist.

    What a file says is merged into an object that exists. Nothing is sent if a file can't be read whole. Pools are
    sent first. What has `generateName` is created anew each time. If an object is refused, those after it are tried
    all the same, and the exit code is 1.

    \b
    Examples:
      podslots submit -f pool.yaml -f tasks.yaml
      podslots submit -f folder/
      generate-task | podslots submit -f - -o name
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    if loose or not paths:
        files_named = [word for path in (*paths, *loose) or ("FILE",) for word in ("-f", path)]
        how = [*(["-R"] if recursive else []), *(["-o", output] if output else [])]
        right = session.cluster.podslots("submit", *files_named, *how)
        raise click.UsageError(f"each file stands after a -f: {right}")
    if paths.count("-") > 1:
        raise click.UsageError("standard input can be read once: give -f - once")
    files = [file for path in paths for file in files_of(path, recursive=recursive)]
    objects = pools_first(obj for file in files for obj in parse_file(file))

    def run(connection: Connection) -> None:
        taken: list[Object] = []

        with closing(Teller(output)) as tell:
            for each in submitted(connection, objects):
                if each.obj is None:
                    click.echo(f"Error: {each.line}", err=True)
                else:
                    taken.append(each.obj)
                    tell(Change(each.line, ((KINDS[each.obj["kind"]], each.obj),)))
        for warning in warnings(connection, taken):
            click.echo(f"Warning: {warning}", err=True)
        if len(taken) < len(objects):
            ctx.exit(1)

    session.run(run)
