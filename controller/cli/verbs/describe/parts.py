"""What descriptions are made of: fields, conditions, and what happened, in its order."""

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click

from controller.cli.cluster.session import Connection
from controller.cli.show import screen
from controller.cli.show.table import NONE, Layout, Table
from controller.cli.show.times import age_text, time_or_none
from controller.errors import ApiError
from controller.kube.api import EVENTS, Object

INDENT = "  "
LEAST_WIDTH = 40
"""Columns that a message is wrapped to at least, however narrow the terminal."""
HEAD_WIDTH = 12
_CONDITION_RANKS = {"Approved": 2}
"""An approval stands between the end of the plan and the start of the apply, in the same second, too."""
_EVENT_RANKS = {"Assigned": 0}
"""Events that come before a task's steps, within one second."""


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened: when, in a word, and in more. `rank` orders those of one second."""

    time: datetime
    word: str
    text: str = ""
    rank: int = 0


def fields(fields: Mapping[str, object], width: int) -> list[str]:
    """What is known, a line each."""
    lines = []
    for name, value in fields.items():
        if value not in {None, ""}:
            lines += wrapped(f"{name}:".ljust(HEAD_WIDTH), str(value), width)
    return lines


def wrapped(head: str, text: str, width: int) -> list[str]:
    """A text beside its head; what has no spaces stays whole, so that it can be copied."""
    parts = textwrap.wrap(text, max(LEAST_WIDTH, width - len(head)), break_long_words=False, break_on_hyphens=False)
    return [(head if number == 0 else " " * len(head)) + part for number, part in enumerate(parts or [""])]


def conditions(status: Mapping[str, Any], now: datetime, width: int) -> list[str]:
    """All that there are, with their messages below them."""
    found = status.get("conditions") or ()
    if not found:
        return []
    rows = []
    for entry in found:
        since = time_or_none(entry.get("lastTransitionTime"))
        rows.append([entry["type"], entry.get("status", ""), entry.get("reason") or NONE, ago(since, now)])
    lines = ["", "Conditions:"]
    table = Table(["CONDITION", "STATUS", "REASON", "SINCE"], rows)
    layout = Layout(table)
    lines.append(layout.head())
    for entry, row in zip(found, rows, strict=True):
        lines += layout.lines([row])
        if entry.get("message"):
            lines += wrapped(INDENT, entry["message"], width)
    return lines


def changes(status: Mapping[str, Any]) -> Iterable[Happening]:
    """Conditions as they became what they are."""
    for entry in status.get("conditions") or ():
        if (since := time_or_none(entry.get("lastTransitionTime"))) is not None:
            reason = f"{entry['reason']}: " if entry.get("reason") else ""
            text = f"{reason}{entry.get('message') or ''}".removesuffix(": ")
            yield Happening(
                since, f"{entry['type']}={entry.get('status')}", text, _CONDITION_RANKS.get(entry["type"], 50)
            )


def events(connection: Connection, obj: Object) -> list[Happening]:
    """What others said of it. Kubernetes keeps Events for an hour, unless it is told otherwise."""
    selector = f"involvedObject.uid={obj['metadata']['uid']}"
    try:
        found = connection.list_all(EVENTS, everywhere=False, field_selector=selector)
    except ApiError as error:
        click.echo(f"Events can't be shown: {error.message}", err=True)
        return []
    happened = []
    for event in found:
        last = time_or_none(event.get("lastTimestamp") or event.get("eventTime") or event.get("firstTimestamp"))
        if last is not None:
            count = int(event.get("count") or 1)
            often = f" ({count} times since {clock(first)})" if count > 1 and (first := _first(event)) else ""
            word = str(event.get("reason") or "")
            happened.append(Happening(last, word, f"{event.get('message') or ''}{often}", _EVENT_RANKS.get(word, 60)))
    return happened


def _first(event: Object) -> datetime | None:
    return time_or_none(event.get("firstTimestamp") or event.get("eventTime"))


def told(happened: Iterable[Happening], now: datetime, width: int) -> list[str]:
    """What happened, the first at the top."""
    ordered = sorted(happened, key=lambda each: (each.time.replace(microsecond=0), each.rank))
    lines = ["", "What happened:"]
    widest = max((len(each.word) for each in ordered), default=0)
    for each in ordered:
        head = f"{clock(each.time)}  {ago(each.time, now):>8}  {each.word.ljust(min(widest, 24))}  "
        lines += wrapped(head, each.text, width) if each.text else [head.rstrip()]
    return [line.rstrip() for line in lines]


def clock(time: datetime) -> str:
    """As the API writes it, for the logs are to be searched for it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def ago(time: datetime | None, now: datetime) -> str:
    """How long it is since a time."""
    return age_text(now - time) if time is not None else NONE


def section(title: str, table: Table) -> list[str]:
    """A table under its title; nothing of an empty one."""
    return ["", f"{title}:", screen.shown(table)] if table.rows else []
