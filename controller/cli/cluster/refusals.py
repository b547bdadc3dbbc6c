"""What the API server says of an object that it refuses, in words for people. Pure."""

import re

_NOT_CHECKED = re.compile(r"(, )?<nil>: Invalid value: [^:]*: some validation rules were not checked[^,\]]*")
"""A note of the server to itself, which stands for no field."""
_WRONG_TYPE = re.compile(
    r"(?P<path>[^\s\[][^\s:]*): Invalid value: \"(?P<given>\w+)\": (?P=path) in body must be of type (?P<wanted>\w+): "
    r"\"(?P=given)\""
)
_TYPES = {
    "string": "a text",
    "array": "a list",
    "object": "a mapping",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}
"""The types of a schema as YAML's writers call them."""
_LIST_FOR_TEXT = ("string", "array")


def in_words(message: str) -> str:
    """The message of a refusal, without what says nothing and with types as people name them."""
    text = _NOT_CHECKED.sub("", message)
    head, bracket, rest = text.partition(" is invalid: [")
    if bracket and rest.endswith("]") and ", " not in rest:
        text = f"{head} is invalid: {rest[:-1]}"
    return _WRONG_TYPE.sub(_type, text)


def _type(found: re.Match[str]) -> str:
    given, wanted = found["given"], found["wanted"]
    example = ", as [terraform, plan]" if (given, wanted) == _LIST_FOR_TEXT else ""
    return f"{found['path']}: {_TYPES.get(given, given)}, where {_TYPES.get(wanted, wanted)} is needed{example}"
