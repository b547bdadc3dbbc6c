"""What a check has found, and how it is shown."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from controller.cli.tables import NONE, Table


class State(StrEnum):
    """How it stands. Only `fails` makes the command fail."""

    OK = "ok"
    WARNS = "warns"
    FAILS = "fails"
    UNSEEN = "unseen"
    """The caller may not look, or there is nothing to look at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line: what was looked at, how it stands, what was found, what to do about it."""

    check: str
    state: State
    found: str
    advice: str = ""


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
    advice = list(dict.fromkeys(f"{f.check}: {f.advice}" for f in found if f.advice and f.state is not State.OK))
    return text + ("\n\nWhat to do:\n" + "\n".join(f"  {line}" for line in advice) if advice else "")


def documents(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """For programs."""
    return [{key: str(value) for key, value in asdict(finding).items()} for finding in findings]
