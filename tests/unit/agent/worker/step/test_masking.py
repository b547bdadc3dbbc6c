"""Values of Secrets don't leave the worker: not in pieces, not in base64, not line by line. All else is unchanged."""

import base64
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.worker.step.masking import Mask, Recorded, patterns, too_short

KEY = "-----BEGIN KEY-----\nMIIEpAIBAAKCAQEA75\nw0rJalrXUtnFEMIK7\n-----END KEY-----\n"


def masked(output: bytes, *values: str, size: int = 1 << 20) -> bytes:
    mask = Mask(patterns(values))
    pieces = [output[start : start + size] for start in range(0, len(output), size)]
    return b"".join(mask.feed(piece) for piece in pieces) + mask.end()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize(
    ("output", "seen"),
    [
        (b"key: hunter22!\n", b"key: ***!\n"),
        (b"hunter22hunter22", b"***"),
        (b"hunter2 hunter22 hunter2", b"hunter2 *** hunter2"),
        (b"hunthunter22", b"hunt***"),
        (b"a hunter22", b"a ***"),
        (b"nothing of it\xff\x00", b"nothing of it\xff\x00"),
        (b"", b""),
    ],
)
def test_a_value_is_masked_however_output_is_cut(output: bytes, seen: bytes, size: int) -> None:
    assert masked(output, "hunter22", size=size) == seen


def test_a_value_that_begins_as_a_longer_one_does_not_leave_its_rest() -> None:
    for size in (1, 5, 100):
        assert masked(b"x secret-long y secret z", "secret", "secret-long", size=size) == b"x *** y *** z"


def test_a_value_may_end_in_what_it_begins_with() -> None:
    for size in (1, 3, 100):
        assert masked(b"aaaaaaaaaaab", "aaaaaa", size=size) == b"***b"
        assert masked(b"-abcabcabc-", "abcabc", size=size) == b"-***-"


def test_every_line_of_a_key_is_masked() -> None:
    seen = masked(b"got " + KEY.encode() + json.dumps(KEY).encode(), KEY)
    for line in KEY.splitlines():
        assert line.encode() not in seen
    assert masked(b'a "quo\\"ted!" b', 'quo"ted!') == b'a "***" b'


ODD = "p&ss<w>0rd'\"x\\y-ä\t$!"


def _as_go_writes(text: str) -> str:
    """A JSON string of Go's encoder, as in `terraform show -json`: it is safe in HTML, too."""
    quoted = json.dumps(text, ensure_ascii=False)
    return quoted.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _as_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


@pytest.mark.parametrize("write", [_as_json, _as_go_writes])
@pytest.mark.parametrize("around", [str, _as_json, _as_go_writes])
def test_a_value_in_a_string_of_json_is_masked(write: Callable[[str], str], around: Callable[[str], str]) -> None:
    """Once, and as `jsonencode` has it within the JSON of a plan."""
    output = around(write(f"password={ODD};")).encode()
    assert masked(output, ODD) == around(write("password=***;")).encode()


@pytest.mark.parametrize("text", ["hunter22", "hunter22\n", "user:hunter22", "a:hunter22", "hunter22/é+~", KEY])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode, base64.encodebytes])
def test_base64_of_a_value_is_masked(text: str, encode: object) -> None:
    assert callable(encode)
    encoded = encode(text.encode())
    secret = text.partition(":")[2] or text
    seen = masked(b"Authorization: Basic " + encoded + b"\nend", secret)
    assert b"***" in seen
    assert (
        len(seen) < len(b"Authorization: Basic \nend") + 3 * (seen.count(b"***") + 3) + len(text.partition(":")[1]) * 8
    )
    for start in range(len(encoded) - 12):
        assert encoded[start : start + 12] not in seen


def test_a_short_value_is_named_and_stays() -> None:
    values = {"db/pin": "1234", "db/empty": "", "db/blank": "\n", "db/password": "long enough"}
    assert too_short(values) == ["db/pin"]
    assert masked(b"1234 \n long enough", *values.values()) == b"1234 \n ***"


@given(st.lists(st.binary(min_size=6, max_size=9), max_size=3), st.lists(st.binary(max_size=12)))
def test_no_value_is_left_and_pieces_make_no_difference(values: list[bytes], pieces: list[bytes]) -> None:
    found = tuple(sorted(values, key=len, reverse=True))
    whole = b"".join(piece + value for piece, value in zip(pieces, [*values, *[b""] * 99], strict=False))
    once, cut = Mask(found), Mask(found)
    seen = once.feed(whole) + once.end()
    assert b"".join(cut.feed(bytes([byte])) for byte in whole) + cut.end() == seen
    for value in values:
        if b"*" not in value:
            assert value not in seen


@given(st.binary(max_size=200))
def test_without_secrets_nothing_changes(output: bytes) -> None:
    assert masked(output) == output


class _Mounts:
    def keys(self, name: str) -> list[str] | None:
        return ["a", "b"] if name == "s" else None

    def read(self, name: str, key: str) -> str | None:
        return {"a": "value-a"}.get(key) if name == "s" else None


def test_what_was_read_of_secrets_is_known_by_name() -> None:
    mounts = Recorded(_Mounts())
    assert mounts.keys("s") == ["a", "b"]
    assert (mounts.read("s", "a"), mounts.read("s", "b")) == ("value-a", None)
    assert mounts.values == {"s/a": "value-a"}
