"""A task's own lines among all that its worker printed."""

import pytest

from controller.cli.logs import lines_of, strip, tails

TASK = {
    "metadata": {"namespace": "team", "name": "net"},
    "status": {"steps": {"plan": {"logTail": "planned\n"}, "apply": {"logTail": "applied\n"}}},
}


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"[team/net plan] Plan: 1 to add", b"Plan: 1 to add"),
        (b"[team/net apply] done", b"done"),
        (b"[team/net plan] ", b""),
        (b"[team/net plan]", b""),
        (b"[team/net-2 plan] other task", None),
        (b"[other/net plan] other namespace", None),
        (b'{"event": "step started", "task": "team/net"}', None),
        (b"", None),
    ],
)
def test_only_the_tasks_lines_are_shown_and_without_their_prefix(line: bytes, text: bytes | None) -> None:
    assert strip(line, lines_of(TASK, None)) == text


def test_a_step_shows_no_line_of_the_other() -> None:
    assert strip(b"[team/net apply] done", lines_of(TASK, "plan")) is None


def test_the_status_stands_in_when_the_pod_is_gone() -> None:
    assert (tails(TASK, None), tails(TASK, "apply"), tails({"metadata": {}}, None)) == (
        "planned\napplied\n",
        "applied\n",
        "",
    )
