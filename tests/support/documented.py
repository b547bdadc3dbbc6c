"""Holds every answer that a test gets from an agent to what `/openapi.json` says of it."""

import copy
import json
from functools import cache
from typing import Any
from urllib.parse import unquote, urlsplit

import jsonschema_rs

from agent.http.openapi import document
from agent.wire import TASK_ID_PATTERN

METHODS = {"get", "post"}


def check_answer(method: str, target: str, status: int, headers: dict[str, str], body: bytes) -> None:
    """AssertionError if the document does not know this answer, or the answer says more than the document."""
    said = f"{method} {target} answered {status} {headers} {body[:500]!r}"
    lower = {name.lower(): value for name, value in headers.items()}
    content_type = lower.get("content-type", "").partition(";")[0]
    path = template_of(unquote(urlsplit(target).path))
    operations = document_of_this_version()["paths"].get(path, {})
    operation = operations.get(method.lower())
    if operation is None:
        expected = (405, "method_not_allowed") if operations else (404, "not_found")
        assert (status, json.loads(body).get("error")) == expected, said
        _validate("ErrorBody", json.loads(body), said)
        return
    answer = operation["responses"].get(str(status))
    assert answer is not None, f"undocumented: {said}"
    assert content_type in answer["content"], f"undocumented content type: {said}"
    for name in answer.get("headers", {}):
        assert status == 503 or name.lower() in lower, f"no {name}: {said}"
    if content_type == "application/json":
        assert body.endswith(b"\n"), "one object, one newline"
        assert body.count(b"\n") == 1, said
        _validate((path, method.lower(), str(status)), json.loads(body), said)


def check_line(line: bytes) -> None:
    """A line of a watch."""
    _validate("WatchLine", json.loads(line), line.decode())


def template_of(path: str) -> str:
    """The path of the document that a real one is an instance of."""
    pieces = path.split("/")
    if len(pieces) > 2 and "/".join(pieces) not in document_of_this_version()["paths"]:
        pieces[2] = "{id}"
    return "/".join(pieces)


@cache
def document_of_this_version() -> dict[str, Any]:
    """The document, with answers closed: this version says no more than it documents."""
    closed = copy.deepcopy(document())
    for schema in closed["components"]["schemas"].values():
        schema["additionalProperties"] = False
    assert TASK_ID_PATTERN in json.dumps(closed).replace("\\\\", "\\")
    return closed


Where = str | tuple[str, str, str]
"""A schema by its name, or as that of an answer: path, method, status."""


@cache
def _validator(where: Where) -> jsonschema_rs.Draft202012Validator:
    document = document_of_this_version()
    if isinstance(where, str):
        schema = document["components"]["schemas"][where]
    else:
        path, method, status = where
        schema = document["paths"][path][method]["responses"][status]["content"]["application/json"]["schema"]
    return jsonschema_rs.Draft202012Validator({"components": document["components"], **schema}, validate_formats=True)


def _validate(where: Where, value: Any, said: str) -> None:
    problems = [f"{problem.instance_path}: {problem.message}" for problem in _validator(where).iter_errors(value)]
    assert not problems, f"{problems} in what the document does not allow: {said}"
