"""`podslots get`: pools, Pods, tasks and slots as tables or documents, once or as they change."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import click

from controller import names
from controller.cli.arguments import kinds
from controller.cli.arguments.kinds import Selection
from controller.cli.arguments.options import EVERYWHERE, OF_POOL
from controller.cli.arguments.types import WhatArgument
from controller.cli.arguments.verb import Verb, pass_session
from controller.cli.cluster.nearest import meant
from controller.cli.cluster.session import Connection, Session
from controller.cli.cluster.watching import Fresh, Listing
from controller.cli.show import colours, screen, tables
from controller.cli.show.documents import as_text, listed, name_line, short_name
from controller.cli.show.table import Table
from controller.errors import PodslotsError
from controller.kube.api import PODS, SLOTPOOLS, SLOTTASKS, Object

SLOTS_SECONDS = 2.0
"""Slots are seen in Pods and tasks together: watched, both are listed again this often."""


class _Make(Protocol):
    def __call__(self, objects: list[Object], now: datetime, *, namespaces: bool, wide: bool = False) -> Table: ...


_TABLES: Mapping[str, _Make] = {"pools": tables.pools, "pods": tables.pods, "tasks": tables.tasks}


@dataclass(frozen=True, slots=True, kw_only=True)
class _How:
    """What is asked of all kinds alike."""

    output: str
    everywhere: bool
    pool: str | None

    @property
    def wide(self) -> bool:
        return self.output == "wide"


@click.command(cls=Verb)
@WhatArgument.argument(kinds.KINDS, metavar="KIND[,KIND] [NAME]... | KIND/NAME... | all")
@EVERYWHERE
@OF_POOL
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "wide", "json", "yaml", "name"]),
    default="table",
    help="How to show it (default: table). wide: with more columns.",
)
@click.option("-w", "--watch", is_flag=True, help="Go on, and show what changes.")
@pass_session
def get(
    session: Session, *, what: tuple[Selection, ...], everywhere: bool, pool: str | None, output: str, watch: bool
) -> None:
    """Show pools, Pods, tasks or slots.

    \b
    Kinds, with other names that they go by:
      pools   pool, slotpools, slotpool, slp
      pods    pod, po
      tasks   task, slottasks, slottask, slt
      slots   slot
    `all` is pools, pods and tasks.

    A slot is reserved or running as its task's status has it, and idle if its Pod serves and no task is there. "-"
    stands for what is not known: of slots whose Pod starts or goes, or whose Pod's own program holds them, which
    TASK shows as "(sidecar)".

    On a terminal that is too narrow, tables leave out columns; -o wide has all of them.

    \b
    Examples:
      podslots get tasks -w
      podslots get task/network -o yaml
      podslots get tasks,pods -p terraform
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    if any(each.kind.resource is None for each in what) and output not in {"table", "wide"}:
        raise click.UsageError("slots are no objects: they have no JSON, YAML or names of their own")
    if watch and output not in {"table", "wide", "name"}:
        raise click.UsageError("-w goes with tables and with -o name")
    if watch and len(what) > 1:
        raise click.UsageError("-w follows one kind: name one")
    how = _How(output=output, everywhere=everywhere, pool=pool)
    session.run(lambda connection: _run(connection, what, how, watch=watch))


def _run(connection: Connection, what: tuple[Selection, ...], how: _How, *, watch: bool) -> None:
    asked = [_Asked(connection, selection, how, several=len(what) > 1) for selection in what]
    found = [each.read() for each in asked]
    if how.output in {"json", "yaml"}:
        objects = [(each.resource, obj) for each, there in zip(asked, found, strict=True) for obj in there]
        alone = len(objects) == 1 == len(what) == len(what[0].names)
        if objects or not any(selection.names for selection in what):
            click.echo(as_text(listed(objects, alone=alone), how.output))
    else:
        texts = [text for each, there in zip(asked, found, strict=True) if (text := each.text(there, head=watch))]
        if texts:
            click.echo("\n\n".join(texts) if how.output != "name" else "\n".join(texts))
    missing = [line for each, there in zip(asked, found, strict=True) for line in each.missing(there)]
    if missing:
        raise click.ClickException("\n".join(missing))
    if not any(found) and how.output not in {"json", "yaml"}:
        click.echo(_nothing(connection, how), err=True)
    if watch:
        asked[0].watch(found[0])


def _nothing(connection: Connection, how: _How) -> str:
    """As kubectl says it, and what may be wrong: the namespace, or the pool."""
    if how.everywhere:
        return "No resources found"
    text = f"No resources found in {connection.namespace} namespace{connection.lack_of_namespace()}."
    if how.pool is None:
        return text
    try:
        pools = [str(obj["metadata"]["name"]) for obj in connection.list_all(SLOTPOOLS, everywhere=False)]
    except PodslotsError:
        return text
    return text if how.pool in pools else f"{text} There is no SlotPool {how.pool!r}{meant(how.pool, pools)}"


class _Asked:
    """The objects of one kind that were asked for."""

    def __init__(self, connection: Connection, selection: Selection, how: _How, *, several: bool) -> None:
        self._connection = connection
        self._kind = selection.kind
        self._wanted = selection.names
        self._how = how
        self._several = several
        self.resource = self._kind.resource or PODS
        by_pool = f"{names.POOL_LABEL}={how.pool}" if how.pool else names.POOL_LABEL
        self._listing = Listing(
            resource=self.resource,
            everywhere=how.everywhere,
            label_selector=by_pool if self.resource is PODS else "",
            field_selector=f"metadata.name={self._wanted[0]}" if len(self._wanted) == 1 else "",
        )
        self._version = ""

    def read(self) -> list[Object]:
        """The objects; of slots their Pods."""
        found, self._version = self._listing.read(self._connection)
        return [obj for obj in found if self._is_wanted(obj)]

    def missing(self, found: list[Object]) -> list[str]:
        """A line for each name that is not there."""
        there = {obj["metadata"]["name"] for obj in found}
        return [self._missing(name) for name in self._wanted if name not in there]

    def _missing(self, name: str) -> str:
        """Why there is none of this name: none at all, or none of those that were asked for."""
        everywhere, pool = self._how.everywhere, self._how.pool
        if (pool or self.resource is PODS) and self._connection.some(self.resource, everywhere=everywhere, name=name):
            return f"{self.resource.kind} {name} is {f'not of pool {pool}' if pool else 'no Pod of a pool'}"
        return self._connection.absence(self.resource, name, everywhere=everywhere)

    def text(self, found: list[Object], *, head: bool) -> str:
        """What is shown of them. An empty table has its heads if rows may follow (`head`)."""
        if self._how.output == "name":
            return "\n".join(name_line(self.resource, obj) for obj in found)
        table = self._table(found)
        return screen.shown(table, whole=self._how.wide) if table.rows or (head and not self._wanted) else ""

    def watch(self, found: list[Object]) -> None:
        """Show what changes, until Ctrl-C."""
        if self._how.output == "name":
            fresh = Fresh(lambda obj: obj["metadata"]["resourceVersion"])
            _all(map(fresh, found))
            for obj in filter(fresh, self._changes()):
                click.echo(name_line(self.resource, obj))
        elif self._kind.resource is None:
            _Rows(self._table(found), whole=self._how.wide).follow(lambda: self._table(self.read()))
        else:
            layout = screen.layout(self._table(found), whole=self._how.wide)
            fresh = Fresh(self._row_without_age)
            _all(map(fresh, found))
            for obj in filter(fresh, self._changes()):
                rows = self._table([obj]).rows
                layout.grow(rows)
                click.echo("\n".join(layout.lines(rows, coloured=colours.wanted())))

    def _changes(self) -> Iterator[Object]:
        return filter(self._is_wanted, self._listing.changes(self._connection, self._version))

    def _is_wanted(self, obj: Object) -> bool:
        name, pool = obj["metadata"]["name"], self._how.pool
        if self._wanted and name not in self._wanted:
            return False
        if pool is None or self.resource is PODS:
            return True
        return pool == (name if self._kind is kinds.POOLS else (obj.get("spec") or {}).get("pool"))

    def _table(self, found: list[Object]) -> Table:
        if self._kind.resource is None:
            held = self._connection.list_all(SLOTTASKS, everywhere=self._how.everywhere)
            return tables.slots(found, held, namespaces=self._how.everywhere)
        make = _TABLES[self._kind.plural]
        table = make(found, self._connection.now(), namespaces=self._how.everywhere, wide=self._how.wide)
        return tables.with_kind(table, short_name(self.resource)) if self._several else table

    def _row_without_age(self, obj: Object) -> tuple[str, ...]:
        table = self._table([obj])
        return tuple(cell for column, cell in zip(table.columns, table.rows[0], strict=True) if column != "AGE")


def _all(results: Iterator[bool]) -> None:
    for _ in results:
        pass


class _Rows:
    """Rows of a table that is made again and again: those that are new or changed are shown."""

    def __init__(self, table: Table, *, whole: bool) -> None:
        self._seen: set[tuple[Any, ...]] = {tuple(row) for row in table.rows}
        self._layout = screen.layout(table, whole=whole)

    def follow(self, make: Callable[[], Table]) -> None:
        """Show new and changed rows of what `make` gives, until Ctrl-C."""
        while True:
            time.sleep(SLOTS_SECONDS)
            now = {tuple(row): row for row in make().rows}
            fresh = [row for key, row in now.items() if key not in self._seen]
            self._seen = set(now)
            self._layout.grow(fresh)
            for line in self._layout.lines(fresh, coloured=colours.wanted()):
                click.echo(line)
