"""Hosts and URLs that people wrote down: whether anything can be connected to by them. Pure."""

import re
from urllib.parse import urlsplit

_CONTROL = re.compile(r"[\x00-\x20\x7f]")


def is_host(text: str) -> bool:
    """Whether this is a name or an IP address that can be looked up. An IPv6 address has no brackets here."""
    if not text or _CONTROL.search(text):
        return False
    try:
        text.encode("idna")  # as Python looks names up: each part has 1 to 63 characters
    except UnicodeError:
        return False
    return True


def url_problem(text: str) -> str | None:
    """What is wrong with a URL of a server; None if nothing is. Its scheme is not looked at.

    Nothing of the URL but its host is quoted: a proxy's may have a password.
    """
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
    except ValueError:
        return "it is no URL"
    try:
        _ = parts.port
    except ValueError:
        return "its port is no number from 0 to 65535"
    if _CONTROL.search(text):
        return "it has a space or a control character in it"
    return None if is_host(host) else f"{host!r} is no name of a host"


def proxy_url(written: str) -> str:
    """A proxy's URL. As client-go and curl have it, a name without a scheme is one of http://."""
    return written if "://" in written else f"http://{written}"
