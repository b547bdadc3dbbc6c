"""`podslots get`: pools, Pods, tasks and slots as tables or documents, once or as they change."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from typing import Any, Protocol

import click

from controller import names
from controller.cli import colours, kinds, tables
from controller.cli.documented import as_text
from controller.cli.given import KindName, Name
from controller.cli.kinds import Kind
from controller.cli.session import Connection, Session
from controller.cli.tables import Table
from controller.cli.verbs import Verb, pass_session
from controller.errors import ApiUnavailable, Gone
from controller.kube.api import PODS, SLOTTASKS, Object

SLOTS_SECONDS = 2.0
"""Slots are seen in Pods and tasks together: watched, both are listed again this often."""
RETRY_SECONDS = 1.0


class _Make(Protocol):
    def __call__(self, objects: list[Object], now: datetime, *, namespaces: bool, wide: bool = False) -> Table: ...


_TABLES: dict[str, _Make] = {"pools": tables.pools, "pods": tables.pods, "tasks": tables.tasks}


@click.command(cls=Verb)
@click.argument("kind", metavar=f"{{{'|'.join(kind.plural for kind in kinds.KINDS)}}}", type=KindName())
@click.argument("names_", metavar="[NAME]...", nargs=-1, type=Name())
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="In all namespaces.")
@click.option("-p", "--pool", type=Name(kinds.POOLS), help="Only of this pool.")
@click.option("-o", "--output", type=click.Choice(["table", "wide", "json", "yaml", "name"]), default="table")
@click.option("-w", "--watch", is_flag=True, help="Go on, and show what changes.")
@pass_session
def get(
    session: Session,
    *,
    kind: Kind,
    names_: tuple[str, ...],
    everywhere: bool,
    pool: str | None,
    output: str,
    watch: bool,
) -> None:
    """Show pools, Pods, tasks or slots. Short names: slp, po, slt.

    Slots are shown as the tasks' status has them. A state of "-" means that no task is known to be there; whether the
    slot is idle, only its agent knows. Pools show how many are. A task "(sidecar)" stands for the Pod's own program,
    which holds its slots without tasks.
    """
    if kind.resource is None and output not in {"table", "wide"}:
        raise click.UsageError("slots are no objects: they have no JSON, YAML or names of their own")
    if watch and output not in {"table", "wide", "name"}:
        raise click.UsageError("-w goes with tables and with -o name")
    session.run(lambda connection: _Get(connection, kind, names_, pool, output, everywhere=everywhere).run(watch=watch))


class _Get:
    """One `get`."""

    def __init__(
        self,
        connection: Connection,
        kind: Kind,
        wanted: tuple[str, ...],
        pool: str | None,
        output: str,
        *,
        everywhere: bool,
    ) -> None:
        self._connection = connection
        self._kind = kind
        self._wanted = wanted
        self._pool = pool
        self._output = output
        self._everywhere = everywhere
        self._selector = f"{names.POOL_LABEL}={pool}" if pool else names.POOL_LABEL

    def run(self, *, watch: bool) -> None:
        """Show what is there, and with `watch` what changes, until Ctrl-C."""
        found, version = self._list()
        missing = set(self._wanted) - {_name(obj) for obj in found}
        if missing:
            what = "Pod" if self._kind.plural == "slots" else self._kind.singular
            where = "" if self._everywhere else f" in namespace {self._connection.namespace}"
            raise click.ClickException(f"no {what} named {', '.join(sorted(missing))}{where}")
        if self._output in {"json", "yaml"}:
            click.echo(as_text(self._document(found), self._output))
            return
        if self._output == "name":
            self._show_names(found)
        table = None if self._output == "name" else self._table(found)
        if table is not None and (table.rows or watch):
            click.echo(table.text(coloured=colours.wanted()))
        elif not found:
            where = "" if self._everywhere else f" in namespace {self._connection.namespace}"
            click.echo(f"no {self._kind.plural}{where}", err=True)
        if watch:
            self._watch(table, found, version)

    def _document(self, found: list[Object]) -> Object:
        """One object that was named is itself; all else is a list, as kubectl has it."""
        if len(self._wanted) == len(found) == 1:
            return found[0]
        return {"apiVersion": "v1", "kind": "List", "items": found}

    def _show_names(self, found: list[Object]) -> None:
        resource = self._kind.resource
        assert resource is not None  # noqa: S101 - the command has refused it
        what = f"{resource.kind.lower()}.{resource.group}" if resource.group else resource.kind.lower()
        for obj in found:
            click.echo(f"{what}/{_name(obj)}")

    def _list(self) -> tuple[list[Object], str]:
        """The objects; of slots their Pods."""
        resource = self._kind.resource or PODS
        selector = self._selector if resource is PODS else ""
        found, version = self._connection.list_with_version(
            resource, everywhere=self._everywhere, label_selector=selector
        )
        return [obj for obj in found if self._is_wanted(obj)], version

    def _is_wanted(self, obj: Object) -> bool:
        if self._wanted and _name(obj) not in self._wanted:
            return False
        if self._pool is None or self._kind.resource in {None, PODS}:
            return True
        return self._pool in {_name(obj), (obj.get("spec") or {}).get("pool")}

    def _table(self, found: list[Object]) -> Table:
        wide = self._output == "wide"
        if self._kind.resource is None:
            held = self._connection.list_all(SLOTTASKS, everywhere=self._everywhere)
            return tables.slots(found, held, namespaces=self._everywhere)
        make = _TABLES[self._kind.plural]
        return make(found, self._connection.now(), namespaces=self._everywhere, wide=wide)

    def _watch(self, table: Table | None, found: list[Object], version: str) -> None:
        if self._kind.resource is None and table is not None:
            _Rows(table).follow(lambda: self._table(self._list()[0]))
            return
        shown = {_key(obj): self._seen(obj) for obj in found}
        widths = table.widths() if table is not None else []
        for obj in self._changes(version):
            if not self._is_wanted(obj) or shown.get(_key(obj)) == self._seen(obj):
                continue
            shown[_key(obj)] = self._seen(obj)
            if table is None:
                self._show_names([obj])
                continue
            row = self._table([obj])
            widths = row.widths(widths)
            click.echo("\n".join(row.lines(widths, coloured=colours.wanted())))

    def _seen(self, obj: Object) -> tuple[str, ...]:
        """What is seen of an object: its row without its age; for names, each change."""
        if self._output == "name":
            return (str(obj["metadata"]["resourceVersion"]),)
        return tuple(self._table([obj]).rows[0][:-1])

    def _changes(self, version: str) -> Iterator[Object]:
        """Each object as it changes, through ends of streams and an API server that is away for a while."""
        resource = self._kind.resource
        assert resource is not None  # noqa: S101 - slots are followed otherwise
        away = False
        while True:
            try:
                if not version:
                    found, version = self._list()
                    yield from found
                events = self._connection.api.watch(
                    resource,
                    None if self._everywhere else self._connection.namespace,
                    resource_version=version,
                    label_selector=self._selector if resource is PODS else "",
                )
                with closing(events):  # type: ignore[type-var]
                    for event in events:
                        away = False
                        version = event["object"]["metadata"]["resourceVersion"]
                        if event["type"] != "BOOKMARK":
                            yield event["object"]
            except Gone:
                version = ""
            except ApiUnavailable as error:
                if "no answer in time" not in str(error):  # on a quiet server a watch is silent
                    if not away:
                        click.echo(f"the Kubernetes API can't be reached: {error}; trying again", err=True)
                    away = True
                    time.sleep(RETRY_SECONDS)


class _Rows:
    """Rows of a table that is made again and again: those that are new or changed are shown."""

    def __init__(self, table: Table) -> None:
        self._seen: set[tuple[Any, ...]] = {tuple(row) for row in table.rows}
        self._widths = table.widths()

    def follow(self, make: Callable[[], Table]) -> None:
        """Until Ctrl-C."""
        while True:
            time.sleep(SLOTS_SECONDS)
            table = make()
            now = {tuple(row) for row in table.rows}
            fresh = Table(table.columns, [row for row in table.rows if tuple(row) not in self._seen])
            self._seen = now
            self._widths = fresh.widths(self._widths)
            for line in fresh.lines(self._widths, coloured=colours.wanted()):
                click.echo(line)


def _name(obj: Object) -> str:
    return str(obj["metadata"]["name"])


def _key(obj: Object) -> tuple[str, str]:
    return str(obj["metadata"].get("namespace") or ""), _name(obj)
