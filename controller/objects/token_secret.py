"""What a pool's token Secret says: its tokens, which of them is in use, and how far a rotation has come. Pure.

One key a token, named by its id. Annotations name the token that the controller uses, the one that is to follow it, and
the one that it followed: whichever write a rotation is interrupted after, the Secret alone says how to go on.
"""

import base64
import binascii
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agent.wire import READERS_PREFIX
from controller import names
from controller.objects.times import time_or_none

TOKEN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
"""Keys that agents take for tokens: file names of the mounted Secret, without dots in front."""
MIN_TOKEN_LENGTH = 16
"""Anything shorter in a Secret that was made by hand is no token that could be meant."""

Object = dict[str, Any]
"""A parsed Kubernetes object."""
Data = dict[str, str]
"""A Secret's `data`: values in base64."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token and the id that agents list it by."""

    id: str
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenState:
    """How far a rotation has come. Ids without a usable token in the Secret are None here.

    `since` is when `current` came into use, `next_since` when `next` was written. `requested` is the request to rotate
    that the last rotation has answered.
    """

    current: str | None = None
    since: datetime | None = None
    next: str | None = None
    next_since: datetime | None = None
    previous: str | None = None
    requested: str | None = None


def token_state(secret: Object) -> TokenState:
    """What a token Secret says of its rotation."""
    given, usable = secret["metadata"].get("annotations") or {}, tokens_of(secret)

    def usable_one(annotation: str, *, but: str | None = None) -> str | None:
        named = given.get(annotation)
        return named if named in usable and named != but else None

    current = usable_one(names.CURRENT_TOKEN)
    return TokenState(
        current=current,
        since=time_or_none(given.get(names.TOKEN_SINCE)),
        next=usable_one(names.NEXT_TOKEN, but=current),
        next_since=time_or_none(given.get(names.NEXT_TOKEN_SINCE)),
        previous=usable_one(names.PREVIOUS_TOKEN, but=current),
        requested=given.get(names.ROTATION_REQUESTED),
    )


def tokens_of(secret: Object) -> Data:
    """The entries of a Secret's data that are tokens good for all, still encoded."""
    data: Data = secret.get("data") or {}
    return {
        key: value
        for key, value in data.items()
        if TOKEN_ID.fullmatch(key) and not key.startswith(READERS_PREFIX) and _decode(value)
    }


def current_token(secret: Object) -> Token | None:
    """The token that the annotation names, if it is there."""
    current = (secret["metadata"].get("annotations") or {}).get(names.CURRENT_TOKEN)
    value = _decode(tokens_of(secret).get(current, "")) if current else None
    return Token(current, value) if current and value else None


def generation(token_id: str) -> tuple[int, str]:
    """Orders ids: those made by the controller begin with `t` and a number that rises."""
    number = re.match(r"t(\d{1,9})-", token_id)
    return (int(number[1]) if number else 0, token_id)


def _decode(value: str) -> str | None:
    """A token's text, as agents read it: without white space around it."""
    try:
        text = base64.b64decode(value, validate=True).decode("ascii").strip()
    except (binascii.Error, UnicodeDecodeError):
        return None
    return text if len(text) >= MIN_TOKEN_LENGTH and text.isprintable() else None
