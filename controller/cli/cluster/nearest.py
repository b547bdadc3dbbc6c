"""What somebody may have meant by a word that there is not."""

from collections.abc import Iterable

MOST_NAMED = 10


def meant(word: str, known: Iterable[str], *, likeness: float = 0.6) -> str:
    """The nearest word that there is, as a question; else all that there are, if they are few."""
    from difflib import get_close_matches  # noqa: PLC0415 - for mistakes only

    words = sorted(set(known))
    near = get_close_matches(word, words, n=1, cutoff=likeness)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are: {', '.join(words)}" if 0 < len(words) <= MOST_NAMED else ""
