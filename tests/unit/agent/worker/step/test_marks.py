"""What a step prints can be told from what others print in the same log, and got back byte for byte."""

from hypothesis import given
from hypothesis import strategies as st

from agent.worker.step.marks import BEGINS, ENDED, PIECE_BYTES, Marked, mark
from controller.cli.task.marks import Kind, RunLines

RUN = mark("team/net", "plan", "uid.1")


def test_another_run_of_the_same_name_has_another_mark() -> None:
    marks = {mark("team/net", step, task) for step in ("plan", "apply") for task in ("uid.1", "uid.2", "other.1")}
    assert len(marks) == 6
    assert len(RUN) == len(b"[team/net plan 01234567]")


def feed(marked: Marked, data: bytes) -> bytes:
    """Everything that is whole by now."""
    marked.add(data)
    return b"".join(iter(marked.next, None))


def read(echoed: bytes) -> bytes:
    """As the command line reads it back."""
    lines = RunLines("team/net", "plan", "uid.1")
    assert echoed.endswith(b"\n") or not echoed
    found = [lines.read(line) for line in echoed.split(b"\n")[:-1]]
    assert all(part is not None and part.kind is Kind.TEXT for part in found)
    return b"".join(part.text for part in found if part is not None)


@given(st.lists(st.binary(max_size=50) | st.sampled_from([b"\n", b"\r\n", b"x" * 40_000, "é".encode() * 20_001])))
def test_every_byte_comes_back(blocks: list[bytes]) -> None:
    marked = Marked(RUN)
    echoed = b"".join(feed(marked, block) for block in blocks) + marked.end()
    assert read(echoed) == b"".join(blocks)
    assert all(len(line) <= len(RUN) + 1 + PIECE_BYTES for line in echoed.split(b"\n"))


def test_a_long_line_is_cut_between_characters() -> None:
    marked = Marked(RUN)
    echoed = feed(marked, b"a" + "€".encode() * 30_000)
    for line in echoed.split(b"\n")[:-1]:
        line.removeprefix(RUN + b"+").decode()


def test_beginning_and_end_are_told_from_output() -> None:
    lines = RunLines("team/net", "plan", "uid.1")
    found = [lines.read((RUN + word).rstrip(b"\n")) for word in (BEGINS, ENDED)]
    assert [part.kind for part in found if part] == [Kind.BEGINS, Kind.ENDED]
    assert lines.read(b"[team/net plan 01234567] of another run") is None
    assert lines.read(RUN + b": ends") is None
    assert lines.read(b'{"event": "step started"}') is None
    empty = lines.read(RUN)  # some collectors take spaces off the end
    assert empty is not None
    assert empty.text == b"\n"
