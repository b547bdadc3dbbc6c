"""What of a task a worker runs: files, which only the controller can look into."""

from typing import Any

import pytest

from controller.errors import InvalidObject
from controller.objects.fields import Fields
from controller.objects.task_spec import MAX_SPEC_BYTES, TaskSpec
from controller.objects.work import parse_files

Json = dict[str, Any]

REFUSED: dict[str, tuple[Json, str]] = {
    "another name of the same file": ({"./main.tf": ""}, "must be a path"),
    "a path that leads out": ({"../main.tf": ""}, "must be a path"),
    "a way out on the way": ({"a/../../b": ""}, "must be a path"),
    "an absolute path": ({"/etc/passwd": ""}, "must be a path"),
    "an empty part": ({"a//b": ""}, "must be a path"),
    "a folder": ({"a/": ""}, "must be a path"),
    "no name": ({"": ""}, "must be a path"),
    "a NUL": ({"a\0b": ""}, "must be a path"),
    "a path that is too long": ({"a" * 1025: ""}, "must be a path"),
    "a file that is a folder, too": ({"a": "", "a/b": ""}, "is the folder of another file"),
    "a folder far above": ({"a/b/c": "", "a": ""}, "is the folder of another file"),
    "a number": ({"a": 5}, "must be a text, or an object"),
    "a text and bytes": ({"a": {"text": "", "base64": ""}}, "must have either text or base64"),
    "nothing": ({"a": {"mode": 384}}, "must have either text or base64"),
    "no base64": ({"a": {"base64": "A"}}, "spec.files[a].base64: is not valid base64"),
    "base64 with blanks": ({"a": {"base64": "AA ==\n"}}, "spec.files[a].base64: is not valid base64"),
    "a mode with a sticky bit": ({"a": {"text": "", "mode": 0o1777}}, "spec.files[a].mode: must be at most 511"),
    "a mode that is no number": ({"a": {"text": "", "mode": "rwx"}}, "spec.files[a].mode: must be an integer"),
    "a typing mistake": ({"a": {"txt": ""}}, "spec.files[a].txt: is not known"),
    "too many": ({f"f{number}": "" for number in range(65)}, "at most 64"),
}


@pytest.mark.parametrize(("files", "problem"), REFUSED.values(), ids=REFUSED)
def test_files_that_no_worker_could_write_are_refused(files: Json, problem: str) -> None:
    with pytest.raises(InvalidObject) as caught:
        parse_files(Fields({"files": files}, "spec"))
    assert problem in str(caught.value)


@pytest.mark.parametrize("path", ["main.tf", ".terraformrc", "a/b/..c", "...", "a b", "ü/é"])
def test_paths_that_are_taken(path: str) -> None:
    assert parse_files(Fields({"files": {path: "x"}}, "spec")) == {path: "x"}


def test_what_no_agent_would_take_is_refused_before_a_pod_is_up() -> None:
    """Agents take requests of 1 MiB. What counts is the JSON: a line feed is two characters there."""
    spec: Json = {"pool": "p", "type": "plan", "steps": {"plan": {"command": ["true"]}}}
    TaskSpec.parse(Fields({**spec, "files": {"a": "x" * (MAX_SPEC_BYTES - 200)}}, "spec"))
    with pytest.raises(InvalidObject, match="bytes as JSON"):
        TaskSpec.parse(Fields({**spec, "files": {"a": "\n" * (MAX_SPEC_BYTES // 2)}}, "spec"))
