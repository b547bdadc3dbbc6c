"""What a step printed can't steer the terminal of the person who reads it, and nothing of it disappears."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.cli.show.terminal import Shown, one_line, shown


@pytest.mark.parametrize(
    ("output", "seen"),
    [
        (b"plain \xc3\xa9 text\n\tnext\n", "plain é text\n\tnext\n"),
        (b"\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
        (b"\x1b[31mred", "\x1b[31mred\x1b[0m"),
        (b"\x1b[31mred\x1b[0m\x1b[1;0;32mgreen", "\x1b[31mred\x1b[0m\x1b[1;0;32mgreen\x1b[0m"),
        (b"\x1b[1;38;5;8mgrey\x1b[m", "\x1b[1;38;5;8mgrey\x1b[m"),
        (b"\x1b[38;2;8;8;8mx\x1b[38:5:8my", "\x1b[38;2;8;8;8mx\x1b[38:5:8my\x1b[0m"),
        (b"destroy\x1b[1A\x1b[2K", "destroy\\x1b[1A\\x1b[2K"),
        (b"\x1b]0;all well\x07", "\\x1b]0;all well\\x07"),
        (b"\x1b[8mhidden\x1b[28m", "\\x1b[8mhidden\x1b[28m\x1b[0m"),
        (b"\x1b[0;08mhidden", "\\x1b[0;08mhidden"),
        (b"\x1b[38;5;1;8mhidden", "\\x1b[38;5;1;8mhidden"),
        (b"3 to destroy\r0 to destroy\n", "3 to destroy\\x0d0 to destroy\n"),
        (b"of windows\r\n", "of windows\r\n"),
        (b"a\x08b\x00\x7f", "a\\x08b\\x00\\x7f"),
        (b"\xc2\x9b2K", "\\x9b2K"),
        (b"\x9b2K \xff", "\\x9b2K \\xff"),
        ("a\u202eb\u2066c\u200ed".encode(), "a\\u202eb\\u2066c\\u200ed"),
        ("a\u200bb\ufeffc\u2028d\U000e0041".encode(), "a\\u200bb\\ufeffc\\u2028d\\U000e0041"),
        ("👩\u200d🚒".encode(), "👩\u200d🚒"),
        (b"ends \x1b[3", "ends \\x1b[3"),
        (b"ends \r", "ends \\x0d"),
        (b"\x1b[" + b"1;" * 40 + b"m", "\\x1b[" + "1;" * 40 + "m"),
    ],
)
def test_only_colours_pass_all_else_is_shown(output: bytes, seen: str) -> None:
    assert shown(output) == seen


@given(
    st.lists(
        st.binary(max_size=8)
        | st.sampled_from([b"\x1b[", b"31", b"m", b"\x1b", b";8m", b"\r", b"\n", b"\xe2\x80", b"\xae"])
    )
)
def test_it_does_not_matter_how_output_is_cut_into_pieces(pieces: list[bytes]) -> None:
    for terminal in (True, False):
        view = Shown(terminal=terminal)
        once = Shown(terminal=terminal)
        in_pieces = b"".join(view.feed(piece) for piece in pieces) + view.end()
        assert in_pieces == once.feed(b"".join(pieces)) + once.end()


@given(st.binary(max_size=60))
def test_no_control_reaches_the_terminal(output: bytes) -> None:
    seen = shown(output).replace("\r\n", "\n")
    for sequence in seen.split("\x1b")[1:]:
        assert sequence.startswith("[")
        assert sequence[1:].lstrip("0123456789;:").startswith("m")
    assert not {character for character in seen.replace("\x1b", "") if ord(character) < 32} - {"\n", "\t"}
    assert not {character for character in seen if 0x7F <= ord(character) < 0xA0}


def test_bytes_that_are_no_text_stay_as_they_are_in_a_pipe_or_file() -> None:
    view = Shown(terminal=False)
    assert view.feed(b"a\xff\xc3") + view.feed(b"(\xe9") + view.end() == b"a\xff\xc3(\xe9"


def test_a_line_for_a_table_has_no_colours_and_fits() -> None:
    assert one_line("\x1b[1mPlan:\x1b[0m 1 to add\x1b[2K", 40) == "Plan: 1 to add\\x1b[2K"
    assert one_line("x" * 50, 10) == "x" * 9 + "…"
