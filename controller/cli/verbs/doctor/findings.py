"""What a check has found, and how it is shown."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from controller.cli.show.table import NONE, Table

MOST_NAMED = 5
"""Objects that one line names."""


class State(StrEnum):
    """How it stands. Only `fails` makes the command fail."""

    OK = "ok"
    WARNS = "warns"
    FAILS = "fails"
    UNSEEN = "unseen"
    """The caller may not look, or there is nothing to look at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line: what was looked at, how it stands, what was found, and what to do about it.

    `object` is what it is about, as `SlotPool team/terraform`, if that is one object. `command` is to be copied.
    """

    check: str
    state: State
    found: str
    object: str = ""
    advice: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True)
class Unseen:
    """In the place of a fact: why it is not known."""

    why: str
    no_such_kind: bool = False


def table(findings: Iterable[Finding], *, coloured: bool = False) -> str:
    """As the other verbs show tables, with what to do below it."""
    found = list(findings)
    rows = [[f.check, f.state, f.found or NONE] for f in found]
    text = Table(["CHECK", "STATE", "FOUND"], rows).text(coloured=coloured)
    todo = "\n".join(_todo([finding for finding in found if finding.state is not State.OK]))
    return f"{text}\n\nWhat to do:\n{todo}" if todo else text


def _todo(found: list[Finding]) -> Iterator[str]:
    """Each piece of advice once, with what it is about before it and its command on a line of its own."""
    about: dict[tuple[str, str], list[str]] = {}
    for finding in found:
        if finding.advice or finding.command:
            about.setdefault((finding.advice, finding.command), []).append(finding.object or finding.check)
    for (advice, command), objects in about.items():
        yield f"  {listed(objects)}: {advice}"
        if command:
            yield f"      {command}"


def listed(found: list[str]) -> str:
    """The first five, each once, and how many more there are."""
    found = list(dict.fromkeys(found))
    more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return ", ".join(found[:MOST_NAMED]) + more


def documents(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """The findings as objects of strings, for JSON and YAML."""
    return [{key: str(value) for key, value in asdict(finding).items()} for finding in findings]
