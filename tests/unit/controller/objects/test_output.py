"""A step's output in an object: nothing is changed, what is missing is said, and its place is right."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire import Step
from controller.errors import InvalidObject
from controller.objects.output import Gap, Output, Source, document, name_of, packed, parse

SOURCE = Source(namespace="team", task="network", task_uid="u-1", attempt=2, step=Step.PLAN)


def whole(data: bytes) -> Output:
    return Output(kept=data, size_bytes=len(data))


def noise(size: int) -> bytes:
    return random.Random(7).randbytes(size)


def test_what_was_written_is_read_byte_for_byte() -> None:
    for data in (b"", b"\xff\x00\x1b[31m\r\n", "é🔥".encode() * 100_000):
        output, compressed = packed(whole(data), 262_144)
        assert parse(document(SOURCE, output, compressed)) == whole(data)


def test_an_output_over_the_limit_keeps_its_beginning_and_its_end_and_says_what_is_missing() -> None:
    data = noise(100_000)
    output, compressed = packed(whole(data), 10_000)
    assert 8_000 < len(compressed) <= 10_000
    read = parse(document(SOURCE, output, compressed))
    assert read.size_bytes == 100_000
    first, gap, last = read.pieces()
    assert isinstance(first, bytes)
    assert isinstance(gap, Gap)
    assert isinstance(last, bytes)
    assert data.startswith(first)
    assert data.endswith(last)
    assert gap == Gap(len(first), 100_000 - len(first) - len(last))
    assert read.missing_bytes == gap.size_bytes


@given(st.binary(max_size=60), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=4))
def test_pieces_are_always_what_stood_in_their_place(data: bytes, cuts: list[tuple[int, int]]) -> None:
    output = whole(data)
    for start, end in cuts:
        output = output.without(min(start, len(output.kept)), min(end, len(output.kept)))
    place = 0
    for piece in output.pieces():
        if isinstance(piece, Gap):
            assert piece.offset == place
            place += piece.size_bytes
        else:
            assert piece
            assert data[place : place + len(piece)] == piece
            place += len(piece)
    assert place == len(data) == output.size_bytes
    assert len(output.kept) + output.missing_bytes == output.size_bytes


def test_names_fit_and_stay_apart() -> None:
    assert name_of("network", 1, "plan") == "network-1-plan"
    names = [name_of("a" * 250 + end, attempt, "apply") for end in ("bcd", "bce", "b") for attempt in (1, 2)]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 253 for name in names)
    dotted = name_of("a" * 220 + "." * 33, 1, "plan")
    assert ".-" not in dotted


def test_it_goes_when_its_task_goes() -> None:
    owner = document(SOURCE, *packed(whole(b"x"), 100))["metadata"]["ownerReferences"]
    assert owner == [{"apiVersion": "podslots.dev/v1alpha1", "kind": "SlotTask", "name": "network", "uid": "u-1"}]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data", "AAAA"),
        ("data", "not base64"),
        ("encoding", "zstd"),
        ("keptBytes", 2),
        ("keptBytes", 1 << 40),
        ("sizeBytes", 99),
        ("digest", "sha256:" + "0" * 64),
    ],
)
def test_an_object_that_is_not_what_it_says_is_refused(field: str, value: object) -> None:
    made = document(SOURCE, *packed(whole(b"hello"), 100))
    made["spec"][field] = value
    with pytest.raises(InvalidObject):
        parse(made)
