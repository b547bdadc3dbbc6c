"""Takes the values of Secrets out of a step's output, before it leaves the worker. Pure.

The theory. For each byte that has come it is known whether it belongs to a complete value. Only the end of the data is
undecided if a value may begin there: it is held back until more comes. So a value is found no matter how the output was
cut into pieces.

What is looked for: each value, each line of one that has several, both in a string of JSON too, and the value's base64
in each of the three places it can have in a group, as in `user:password`. Very short values are part of ordinary words.
They are not masked, and a note says so.
"""

from binascii import b2a_base64
from collections.abc import Iterable, Iterator, Mapping

from agent.worker.process.environment import Mounts

MASK = b"***"
LEAST_BYTES = 6
"""A shorter value is not masked."""
WRAP_COLUMNS = (76, 64)
"""Where programs break lines of base64: `base64` and MIME, PEM."""
_GROUP = 3
_IN_JSON = str.maketrans({"\\": "\\\\", '"': '\\"', "\b": "\\b", "\t": "\\t", "\f": "\\f"})
_IN_JSON_OF_GO = {**_IN_JSON, **str.maketrans({"&": "\\u0026", "<": "\\u003c", ">": "\\u003e"})}
"""Go's encoder, and so Terraform's, makes JSON that is safe in HTML. No other control character is looked for."""


class Recorded:
    """Mounted Secrets that keep in mind what was read of them, by `SECRET/KEY`."""

    def __init__(self, mounts: Mounts) -> None:
        self._mounts = mounts
        self.values: dict[str, str] = {}

    def keys(self, name: str) -> list[str] | None:
        """The keys of one of them; None if it isn't mounted."""
        return self._mounts.keys(name)

    def read(self, name: str, key: str) -> str | None:
        """One value; None if there is no such key."""
        value = self._mounts.read(name, key)
        if value is not None:
            self.values[f"{name}/{key}"] = value
        return value


def too_short(values: Mapping[str, str]) -> list[str]:
    """The names of the values that can't be masked."""
    return sorted(name for name, value in values.items() if 0 < len(_bytes(value).strip()) < LEAST_BYTES)


def patterns(values: Iterable[str]) -> tuple[bytes, ...]:
    """All forms of the values that can be in output, the longest first."""
    found: set[bytes] = set()
    for value in values:
        whole = _bytes(value).strip()
        for text in {whole, *(line.strip() for line in whole.splitlines())}:
            if len(text) >= LEAST_BYTES:
                found |= _written(text)
        if len(whole) >= LEAST_BYTES:
            found.update(*(_encoded(text) for text in {_bytes(value), whole, whole + b"\n"}))
    return tuple(sorted(found, key=lambda pattern: (-len(pattern), pattern)))


class Mask:
    """Masks a stream of bytes."""

    def __init__(self, found: tuple[bytes, ...]) -> None:
        self._patterns = found
        self._held = b""
        self._masked = 0  # so many bytes of what is held belong to a value whose mask was written
        self._after_mask = False  # values that touch have one mask

    def feed(self, data: bytes) -> bytes:
        """What is decided by now."""
        return self._decided(self._held + data, last=False) if self._patterns else data

    def end(self) -> bytes:
        """The rest: nothing comes any more."""
        return self._decided(self._held, last=True)

    def _decided(self, data: bytes, *, last: bool) -> bytes:
        until = len(data) if last else self._undecided_from(data)
        shown: list[bytes] = []
        place = self._masked
        for start, end in self._found(data):
            if start >= until:
                break
            if start > place:
                shown.append(data[place:start])
                self._after_mask = False
            if not self._after_mask:
                shown.append(MASK)
                self._after_mask = True
            place = max(place, end)
        if place < until:
            shown.append(data[place:until])
            self._after_mask = False
        self._held = data[until:]
        self._masked = max(0, place - until)
        return b"".join(shown)

    def _found(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Where values are, by their beginning."""
        places: list[tuple[int, int]] = []
        for pattern in self._patterns:
            start = data.find(pattern)
            while start >= 0:
                places.append((start, start + len(pattern)))
                start = data.find(pattern, start + 1)
        return iter(sorted(places))

    def _undecided_from(self, data: bytes) -> int:
        """Where the longest end begins with which a value may begin."""
        return min((_begun(pattern, data) for pattern in self._patterns), default=len(data))


def _begun(pattern: bytes, data: bytes) -> int:
    """Where in `data` an end begins with which `pattern` begins; its length if there is none."""
    place = max(0, len(data) - len(pattern) + 1)
    while (place := data.find(pattern[:1], place)) >= 0:
        if pattern.startswith(data[place:]):
            return place
        place += 1
    return len(data)


def _bytes(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


def _written(text: bytes) -> set[bytes]:
    """A text by itself, in a string of JSON, and in JSON within such a string, as a plan has what `jsonencode` made."""
    once = {text, *_quoted(text)}
    return once.union(*map(_quoted, once))


def _quoted(text: bytes) -> tuple[bytes, bytes]:
    characters = text.decode("latin-1")
    plain, of_go = (characters.translate(escapes).encode("latin-1") for escapes in (_IN_JSON, _IN_JSON_OF_GO))
    return plain, of_go


def _encoded(value: bytes) -> Iterator[bytes]:
    """The base64 of a value as far as the value alone decides it, wherever in a group it begins, wrapped or not."""
    for before in range(_GROUP):
        text = b2a_base64(bytes(before) + value, newline=False)
        # The first characters also stand for what comes before, the last for what comes after.
        first = -(-before * 8 // 6)
        last = (before + len(value)) * 8 // 6
        inner = text[first:last]
        whole = text.rstrip(b"=") if before == 0 else inner
        for form in (inner, whole):
            yield form
            yield form.replace(b"+", b"-").replace(b"/", b"_")
        if before == 0:
            for columns in WRAP_COLUMNS:
                lines = (whole[start : start + columns] for start in range(0, len(whole), columns))
                yield from (line for line in lines if len(line) > LEAST_BYTES and len(whole) > columns)
