"""What the demo shows: whole names on 80 columns, and something that moves on any terminal."""

import asyncio
import io
from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from agent.wire import SlotState
from controller.demo.display import Display
from controller.demo.observe import Observer
from tests.support.cluster import until

TASK_NAMES = ("network-1", "check-11", "check-12")


def observer() -> Observer:
    """One Pod, with as much in its slots as there ever is."""
    pod = {
        "metadata": {"name": "terraform-zwnkpqdswv", "uid": "p", "labels": {"podslots.dev/state": "draining"}},
        "status": {"podIP": "127.250.142.3"},
    }
    states = (SlotState.RESERVED, SlotState.RUNNING, SlotState.RUNNING)
    slots = [
        SimpleNamespace(task_id=f"{name}.1", state=state, step="plan")
        for name, state in zip(TASK_NAMES, states, strict=True)
    ]
    tasks: list[dict[str, Any]] = [{"metadata": {"uid": name, "name": name}} for name in TASK_NAMES]
    found = SimpleNamespace(
        present=lambda: [pod],
        last=lambda _uid: SimpleNamespace(slots=slots),
        phases=lambda: Counter({"Running": 2, "AwaitingApproval": 1}),
        tasks=SimpleNamespace(items=lambda: tasks),
    )
    return cast("Observer", found)


def shown(width: int, **terminal: Any) -> Console:
    return Console(file=io.StringIO(), width=width, height=24, color_system=None, **terminal)


@pytest.mark.parametrize("width", [80, 129, 130, 200])
def test_no_name_and_nothing_to_copy_is_cut(width: int) -> None:
    console = shown(width, force_terminal=True)
    console.print(Display(console, lambda: 1.0)._picture(observer()))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "…" not in text
    for word in ("terraform-zwnkpqdswv", "draining", "reserved network-1", "plan check-11", "plan check-12"):
        assert word in text
    assert "curl http://127.250.142.3:8721/slots" in text


LONG = "5 Pods created from zero; each takes three tasks as soon as its workers are there, and not a moment before that"


@pytest.mark.parametrize("width", [60, 75, 80])
def test_a_small_terminal_shows_whole_words_and_the_newest_of_them(width: int) -> None:
    console = shown(width, force_terminal=True)
    display = Display(console, lambda: 1.0)
    for number in range(20):
        display.say(f"{number}: {LONG}")
    assert isinstance(console.file, io.StringIO)
    before = len(console.file.getvalue())
    console.print(display._picture(observer()))
    lines = [line.rstrip() for line in console.file.getvalue()[before:].splitlines()]
    assert max(map(len, lines)) <= width
    assert len(lines) < console.height, "no line of it is pushed out"
    text = "\n".join(lines)
    assert "…" not in text
    for name in ("zwnkpqdswv", "reserved network-1", "plan check-11", "plan check-12"):
        assert name in text
    assert f"19: {LONG}" in " ".join(text.split())
    assert lines[-1].startswith(" " * 9), "what goes on stands under what it goes on from"


@pytest.mark.parametrize("environ", [{"TERM": "dumb"}, {}], ids=["dumb", "file"])
def test_lines_are_broken_between_words_on_a_terminal_and_nowhere_else(environ: dict[str, str]) -> None:
    console = shown(60, force_terminal=bool(environ), _environ=environ)
    Display(console, lambda: 1.0).say(LONG)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert " ".join(" ".join(lines).split()) == f"1.0 s {LONG}"
    assert (len(lines) > 1) == bool(environ)
    assert not environ or max(map(len, lines)) <= 60


@pytest.mark.parametrize("environ", [{"TERM": "dumb"}, {}], ids=["dumb", "file"])
async def test_where_no_cursor_moves_lines_are_shown(environ: dict[str, str]) -> None:
    console = shown(80, force_terminal=bool(environ), _environ=environ)
    display = Display(console, lambda: 1.0)
    with display.live():
        running = asyncio.create_task(display.run(observer()))
        file = console.file
        assert isinstance(file, io.StringIO)
        await until(lambda: "slots: 2 running, 1 reserved" in file.getvalue(), "no line of figures was shown")
        running.cancel()
        await asyncio.wait([running])
