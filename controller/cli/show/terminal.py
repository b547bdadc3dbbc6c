r"""Step output made safe to look at: nothing in it can steer the terminal, and nothing of it disappears. Pure.

A terminal obeys what it is sent: a plan that moves the cursor up and erases a line shows a person another plan than the
one that waits. So colours pass (SGR sequences, but for "conceal", which makes text invisible), and so do tabs and line
ends. Every other control character is shown as text, as `\x1b`; so are the characters that turn the direction of text
(`\u202e`) or have no shape of their own, and, on a terminal, bytes that are no UTF-8.
"""

import codecs
import re
import unicodedata

RESET = "\x1b[0m"
_RESETS = frozenset({RESET, "\x1b[m"})
MAX_SEQUENCE_LENGTH = 64
"""A longer one is no colour."""
CONCEAL = 8
EXTENDED_COLOURS = frozenset({38, 48, 58})
_SGR = re.compile(r"\x1b\[([0-9;:]*)m")
_PERHAPS_SGR = re.compile(r"\x1b(\[[0-9;:]*)?\Z")
_JOINERS = "\u200c\u200d"
"""They have no shape, but scripts and emoji need them, and they hide nothing."""
_SUSPECT = re.compile(r"[^\n\t\x20-\x7e]")
"""Whatever is neither of these is looked at one by one."""


class Shown:
    """Turns a stream of bytes into text that is safe to show. Without `terminal`, bytes that are no UTF-8 stay."""

    def __init__(self, *, terminal: bool) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._terminal = terminal
        self._held = ""  # the beginning of what may be a colour, or of a line end
        self._coloured = False

    def feed(self, data: bytes) -> bytes:
        """What can be shown of it by now."""
        return self._encoded(self._safe(self._held + self._decoder.decode(data), last=False))

    def end(self) -> bytes:
        """The rest. On a terminal colours are set back, so that what comes next has its own."""
        text = self._safe(self._held + self._decoder.decode(b"", final=True), last=True)
        if self._coloured and self._terminal:
            text += RESET
        self._coloured = False
        return self._encoded(text)

    def _safe(self, text: str, *, last: bool) -> str:
        self._held = ""
        if not last and (held := _unfinished(text)):
            self._held = text[-held:]
            text = text[:-held]
        pieces: list[str] = []
        place = 0
        for found in _SUSPECT.finditer(text):
            start = found.start()
            if start < place:
                continue
            piece, length = self._shown(text, start)
            pieces += (text[place:start], piece)
            place = start + length
        pieces.append(text[place:])
        return "".join(pieces)

    def _shown(self, text: str, start: int) -> tuple[str, int]:
        """How a suspect character is shown, with how many characters that stands for."""
        character = text[start]
        if character == "\x1b":
            sequence = _SGR.match(text, start)
            if sequence and len(sequence[0]) <= MAX_SEQUENCE_LENGTH and not _conceals(sequence[1]):
                self._coloured = sequence[0] not in _RESETS
                return sequence[0], len(sequence[0])
            return _escaped(character), 1
        if character == "\r" and text.startswith("\r\n", start):
            return "\r\n", 2
        if "\udc80" <= character <= "\udcff":
            return (f"\\x{ord(character) - 0xDC00:02x}" if self._terminal else character), 1
        return (_escaped(character) if _is_control(character) else character), 1

    def _encoded(self, text: str) -> bytes:
        return text.encode("utf-8", "surrogateescape")


def shown(data: bytes, *, terminal: bool = True) -> str:
    """Some output as a whole."""
    view = Shown(terminal=terminal)
    return (view.feed(data) + view.end()).decode("utf-8", "surrogateescape")


def one_line(text: str, width: int) -> str:
    """One line of output for a table: without colours, cut to a width."""
    plain = _SGR.sub("", shown(text.encode("utf-8", "replace"))).strip()
    plain = plain.replace("\r\n", " ").replace("\n", " ").replace("\t", " ")
    return plain if len(plain) <= width else plain[: width - 1] + "…"


def _unfinished(text: str) -> int:
    """How many characters at the end can only be understood with what follows."""
    if text.endswith("\r"):
        return 1
    begun = _PERHAPS_SGR.search(text, max(0, len(text) - MAX_SEQUENCE_LENGTH))
    return len(begun[0]) if begun else 0


def _conceals(parameters: str) -> bool:
    """Whether an SGR sequence hides text. The 8 in `38;5;8` is the number of a colour."""
    numbers = iter(parameters.split(";"))
    for parameter in numbers:
        # With colons a parameter has its own parts with it, as 38:5:8.
        first = parameter.partition(":")[0]
        number = int(first) if first.isdecimal() else 0
        if number == CONCEAL:
            return True
        if number in EXTENDED_COLOURS and ":" not in parameter:
            kind = next(numbers, "")
            for _ in range({"5": 1, "2": 3}.get(kind.lstrip("0"), 0)):
                next(numbers, "")
    return False


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in {"Cc", "Cf", "Zl", "Zp"} and character not in _JOINERS


def _escaped(character: str) -> str:
    code = ord(character)
    if code < 0x100:  # noqa: PLR2004 - what two digits can say
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"  # noqa: PLR2004 - four digits
