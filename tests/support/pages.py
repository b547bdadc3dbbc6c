"""The pages of the documentation, as tests read them: their blocks of code, commands and links.

A block of `sh` is run by a test, unless a comment above it says why not: `<!-- not run: WHY -->`. A block of YAML is
held to its schema, unless `<!-- not checked: WHY -->` stands there; one with `file=NAME` behind its language is written
to that file before the commands after it run, one with `part-of=KIND` or `part-of=KIND.spec.FIELD` is a piece of one.
`console` shows a session: what it says is not compared, its commands are looked at.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.repository import ROOT

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
_FENCE = re.compile(r"^ *```(?P<info>.*)$")
_COMMENT = re.compile(r"^<!-- (?P<word>not run|not checked): (?P<why>.+) -->$")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block of code. `left_out` says why no test runs or checks it, if none does."""

    page: Path
    line: int
    language: str
    text: str
    options: dict[str, str] = field(default_factory=dict)
    left_out: str | None = None

    @property
    def place(self) -> str:
        """Where it stands, for people."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def commands(self) -> list[list[str]]:
        """Each simple command, as words; of a session, what was typed."""
        text = self.text
        if self.language == "console":
            text = "\n".join(line[2:] for line in text.splitlines() if line.startswith("$ "))
        return list(_simple_commands(text.replace("\\\n", " ")))


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page, in their order."""
    lines = page.read_text().splitlines()
    start: int | None = None
    info = ""
    for number, line in enumerate(lines):
        fence = _FENCE.match(line)
        if fence is None:
            continue
        if start is None:
            start, info = number, fence["info"]
            continue
        language, *words = info.split() or [""]
        comment = _COMMENT.match(lines[start - 1]) if start else None
        yield Block(
            page=page,
            line=start + 1,
            language=language,
            text="\n".join(lines[start + 1 : number]) + "\n",
            options=dict(word.partition("=")[::2] for word in words),
            left_out=comment["why"] if comment else None,
        )
        start = None
    assert start is None, f"{page}: a block that does not end"


def links(page: Path) -> Iterator[str]:
    """What a page links, but for addresses elsewhere."""
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in _LINK.findall(prose):
        if not re.match(r"[a-z]+:", target):
            yield target


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links name them: github.com's rule."""
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    found = (re.sub(r"[`*]", "", heading).strip().lower() for heading in _HEADING.findall(prose))
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in found}


_PROGRAMS = ("podslots", "kubectl")
_SEPARATORS = {";", "|", "||", "&&", "&", "(", ")", "do", "then", "!"}


def _simple_commands(text: str) -> Iterator[list[str]]:
    """The commands of our programs in a script, without redirections. Substitutions are looked into."""
    for line in text.splitlines():
        for part in (*re.findall(r"\$\(([^()]*)\)", line), line):
            lexer = shlex.shlex(part, posix=True, punctuation_chars="();|&<>")
            lexer.commenters, lexer.whitespace_split = "#", True
            try:
                words = list(lexer)
            except ValueError:  # a here-document, or a quote over several lines
                continue
            current: list[str] = []
            for word in [*words, ";"]:
                if word in _SEPARATORS:
                    if current and current[0] in _PROGRAMS:
                        yield current
                    current = []
                elif current or word in _PROGRAMS or "=" not in word:
                    current.append(word)
