"""What a person is asked on a real terminal: nothing but a yes that follows the question approves anything."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.support.repository import ROOT
from tests.support.terminal import CTRL_C, CTRL_D, Terminal

ASK = """\
import pathlib, sys
import click
from controller.cli.show.asking import Asker

def ask():
    asker = Asker(yes=False, question="Apply this plan?")
    asker.page(sys.argv[1] * int(sys.argv[2]), what="the plan of net", again="podslots logs net --step plan")
    while not pathlib.Path(sys.argv[3]).exists():
        pass
    answer = asker("what is at stake")
    return answer

@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("rest", nargs=-1)
def main(rest):
    click.echo("approved" if ask() else "declined")

main()
"""
QUESTION = b"Apply this plan? [y/N]: "
OTHER_SCREEN = b"\x1b[?1049h"
"""With this a terminal of xterm's kind leaves its screen for another."""
RED = "\x1b[31m- destroy\x1b[0m\n"


def ask(
    folder: Path, environ: dict[str, str] | None = None, *, lines: int = 1, wait: bool = False, text: str = "a line\n"
) -> Terminal:
    """A program that shows so many lines and asks; with `wait`, not before the folder has a file `go`."""
    go = folder / "go" if wait else folder
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **(environ or {})}
    return Terminal([sys.executable, "-c", ASK, text, str(lines), str(go)], variables, folder)


@pytest.mark.parametrize(
    ("keys", "answer"),
    [(b"y\n", b"approved"), (b"n\n", b"declined"), (b"\n", b"declined"), (CTRL_D, b"declined")],
    ids=["y", "n", "Enter", "Ctrl-D"],
)
def test_only_a_yes_is_one_and_each_key_answers_at_once(tmp_path: Path, keys: bytes, answer: bytes) -> None:
    with ask(tmp_path) as terminal:
        terminal.until_seen(QUESTION)
        terminal.type(keys)
        assert terminal.until_over() == 0
        assert terminal.seen.endswith(b"\n" + answer + b"\r\n")


def test_ctrl_c_at_the_question_ends_the_command(tmp_path: Path) -> None:
    with ask(tmp_path) as terminal:
        terminal.until_seen(QUESTION)
        terminal.type(CTRL_C)
        assert terminal.until_over() == 1  # click's own code for it, which the program makes 130
        assert terminal.seen.endswith(b"\r\nAborted!\r\n"), "what comes next begins a line"


def test_what_was_typed_before_the_question_does_not_answer_it(tmp_path: Path) -> None:
    with ask(tmp_path, wait=True) as terminal:
        terminal.until_seen(b"a line")
        terminal.type(b"y\ny\n")
        terminal.until_seen(b"y\r\ny\r\n")  # the terminal's echo
        (tmp_path / "go").touch()
        terminal.until_seen(QUESTION)
        terminal.type(b"n\n")
        terminal.until_over()
        assert terminal.seen.endswith(b"declined\r\n")


@pytest.mark.parametrize(
    "environ",
    [{"PAGER": "cat"}, {"PAGER": "no-such-pager"}, {"PATH": "/nonexistent"}, {"TERM": "dumb"}],
    ids=["cat", "a missing one", "none", "a terminal that can't"],
)
def test_without_a_pager_all_of_it_is_shown_at_once(tmp_path: Path, environ: dict[str, str]) -> None:
    with ask(tmp_path, environ, lines=500) as terminal:
        terminal.until_seen(QUESTION)
        assert terminal.seen.count(b"a line\r\n") == 500
        terminal.type(b"y\n")
        terminal.until_over()
        assert terminal.seen.endswith(b"approved\r\n")


needs_less = pytest.mark.skipif(shutil.which("less") is None, reason="less is not on the PATH")


@needs_less
@pytest.mark.parametrize("options", ["", "-R", "-FRX", "-X"])
def test_in_a_pager_colours_are_colours_or_nothing(tmp_path: Path, options: str) -> None:
    """Never `ESC[31m` as text between the lines of a plan."""
    environ = {"PAGER": "less", **({"LESS": options} if options else {})}
    with ask(tmp_path, environ, lines=100, text=RED) as terminal:
        terminal.until_seen(b"- destroy")
        terminal.type(b"q")
        terminal.until_seen(QUESTION)
        assert b"ESC" not in terminal.seen
        assert (b"\x1b[31m" in terminal.seen) == (options != "-X")


@needs_less
@pytest.mark.parametrize("options", ["", "-R"])
def test_a_pager_says_what_comes_after_it_and_leaves_the_text_or_the_way_to_it(tmp_path: Path, options: str) -> None:
    """On a screen of its own a pager takes the plan away, and the question stands alone."""
    environ = {"PAGER": "less", "TERM": "xterm", **({"LESS": options} if options else {})}
    with ask(tmp_path, environ, lines=100) as terminal:
        terminal.until_seen(b"a line")
        terminal.type(b"G")
        terminal.until_seen(b"end of the plan of net. Apply this plan?")
        terminal.type(b"q")
        terminal.until_seen(QUESTION)
        assert b"To see the plan of net again: podslots logs net --step plan\r\n" in terminal.seen
        assert (OTHER_SCREEN in terminal.seen) == bool(options), "whoever sets LESS has it as they set it"
        terminal.type(b"n\n")
        terminal.until_over()


@needs_less
def test_ctrl_c_in_a_pager_is_the_pagers(tmp_path: Path) -> None:
    with ask(tmp_path, {"PAGER": "less"}, lines=100) as terminal:
        terminal.until_seen(b":")
        terminal.type(CTRL_C)
        terminal.seen = b""
        terminal.until_seen(b"\x07")  # its bell
        for _ in range(100):  # a key that comes with Ctrl-C is dropped by it: r draws anew, as often as it is hit
            if b":" in terminal.seen:
                break
            terminal.type(b"r")
            terminal._read()
        terminal.type(b"q")
        terminal.until_seen(QUESTION)
        terminal.type(b"y\n")
        terminal.until_over()
        assert terminal.seen.endswith(b"approved\r\n")
