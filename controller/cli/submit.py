"""`podslots submit`: create the objects of YAML files, or merge what changed into those that exist."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches

import click

from controller.cli import documents
from controller.cli.documents import KINDS
from controller.cli.last_applied import with_new_note, with_note
from controller.cli.session import STRICT, Connection, Session, explain
from controller.cli.verbs import Verb, pass_session
from controller.errors import AlreadyExists, ApiError, Invalid, InvalidObject, NotFound
from controller.kube.api import SLOTPOOLS, SLOTTASKS, Object, Resource
from controller.objects.acceptance import refusal
from controller.objects.pool import PoolSpec
from controller.objects.task import Task

MOST_NAMED = 10


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of one object: a line for people, and its name; without one, it was refused."""

    line: str
    name: str | None = None


def submitted(connection: Connection, objects: list[Object]) -> Iterator[Submitted]:
    """Create or merge each object, as kubectl does: those after one that is refused, too.

    Raises ApiUnavailable at the first that can't be asked for: the rest could not be, either.
    """
    for obj in objects:
        resource = KINDS[obj["kind"]]
        namespace = obj["metadata"].get("namespace") or connection.namespace
        shown = obj["metadata"].get("name") or obj["metadata"]["generateName"]
        try:
            outcome, name = _apply(connection, resource, namespace, obj)
        except ApiError as error:
            own = isinstance(error, Invalid) and STRICT not in error.message  # such words name the object
            yield Submitted(explain(error) if own else f"{resource.kind.lower()}/{shown}: {explain(error)}")
        else:
            yield Submitted(f"{resource.kind.lower()}/{name} {outcome}", name)


def warnings(connection: Connection, objects: list[tuple[Object, str]]) -> Iterator[str]:
    """What keeps the tasks among `objects`, with their names, from ever running, as far as the caller may read it."""
    for obj, name in objects:
        if obj["kind"] != SLOTTASKS.kind:
            continue
        namespace = obj["metadata"].get("namespace") or connection.namespace
        with suppress(ApiError):
            try:
                task = Task.parse(connection.api.get(SLOTTASKS, namespace, name))
            except InvalidObject as problem:
                yield f"slottask/{name} can't run as it is: {problem}"
                continue
            pool = _pool(connection, namespace, task.spec.pool)
            refused = None if task.final else refusal(task, pool)
            if refused is not None:
                hint = _meant(connection, namespace, task, pool)
                yield f"slottask/{name} can't run as it is: {': '.join(refused)}{hint}"


def _meant(connection: Connection, namespace: str, task: Task, pool: PoolSpec | None) -> str:
    """What its author may have meant by a pool or type that there is not; empty if nothing comes near."""
    if pool is None:
        page = connection.api.list_page(SLOTPOOLS, namespace)
        return meant(task.spec.pool, [obj["metadata"]["name"] for obj in page.get("items") or ()])
    if not pool.accepts(task.spec.type):
        return meant(task.spec.type, [kind for slot in pool.layout for kind in slot])
    return ""


def meant(word: str, known: Iterable[str]) -> str:
    """The nearest word that there is, as a question; else all that there are, if they are few."""
    words = sorted(set(known))
    near = get_close_matches(word, words, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are: {', '.join(words)}" if 0 < len(words) <= MOST_NAMED else ""


def _pool(connection: Connection, namespace: str, name: str) -> PoolSpec | None:
    try:
        return PoolSpec.parse(connection.api.get(SLOTPOOLS, namespace, name))
    except NotFound:
        return None


def _apply(connection: Connection, resource: Resource, namespace: str, obj: Object) -> tuple[str, str]:
    api = connection.api
    try:
        created = api.create(resource, namespace, with_note(obj, namespace))
    except AlreadyExists:
        name = obj["metadata"]["name"]
    else:
        return "created", created["metadata"]["name"]
    before = api.get(resource, namespace, name)
    changes = {key: value for key, value in obj.items() if key not in {"apiVersion", "kind", "status"}}
    after = api.patch(resource, namespace, name, with_new_note(changes, obj, before, namespace))
    same = before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]
    return "unchanged" if same else "configured", name


@click.command(cls=Verb)
@click.option("-f", "--file", "files", multiple=True, required=True, help="YAML file, or - for standard input.")
@click.pass_context
@pass_session
def submit(session: Session, ctx: click.Context, *, files: tuple[str, ...]) -> None:
    """Create pools and tasks from YAML, or merge changes into those that exist.

    What has `generateName` is created anew each time. If an object is refused, those after it are tried all the same,
    and the exit code is 1.
    """
    objects = [obj for path in files for obj in documents.parse(documents.read(path), path)]

    def run(connection: Connection) -> None:
        taken: list[tuple[Object, str]] = []
        for obj, each in zip(objects, submitted(connection, objects), strict=True):
            if each.name is None:
                click.echo(f"Error: {each.line}", err=True)
            else:
                click.echo(each.line)
                taken.append((obj, each.name))
        for warning in warnings(connection, taken):
            click.echo(f"Warning: {warning}", err=True)
        if len(taken) < len(objects):
            ctx.exit(1)

    session.run(run)
