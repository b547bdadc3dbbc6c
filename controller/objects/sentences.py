"""Messages for people as sentences. Many parts of a message come from elsewhere, as from an agent or the API server."""

_ENDS = (".", "!", "?", "…")


def sentence(text: str) -> str:
    """The text with a capital at its start and a full stop at its end. A first word that is a name stays as it is."""
    text = text.strip()
    if not text:
        return ""
    first = text.split(maxsplit=1)[0].rstrip(",:;")
    if first.isalpha() and first.islower():
        text = text[0].upper() + text[1:]
    return text if text.endswith(_ENDS) else f"{text}."
