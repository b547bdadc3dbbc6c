"""Which paths a task may name: of its files, its plan file, its outputs, and the folders that its commands run in.

One rule for four: the definition of SlotTasks (which has it as a pattern), the controller, the agent and the worker. A
path has one spelling only, so that two names are two files, and none leads out of the task's directory. Where links
lead is seen by the worker alone (`agent/worker/disk/files.py`). Standard library only.
"""

from collections.abc import Collection

MAX_PATH_LENGTH = 1024
"""In characters, like the next one: a pattern can't count bytes.

The policy over a task's files compares each path with each. Its cost in Kubernetes grows with this length and with the
square of the number of files, and is near its limit: see tests/unit/manifests/test_task_files.py.
"""

MAX_PART_LENGTH = 255
"""Of what stands between two slashes. File systems take as many bytes."""

PATH_RULE = "must be a path in the task's directory, such as a/b, without empty parts, '.' and '..'"
"""The error for a path that is not one of these."""


def is_path(text: str) -> bool:
    """Whether a task may name a file so."""
    return len(text) <= MAX_PATH_LENGTH and "\0" not in text and all(map(_is_part, text.split("/")))


def is_folder_path(text: str) -> bool:
    """Whether a task may name a folder so. `.` is its directory itself."""
    return text == "." or is_path(text)


def folder_among(paths: Collection[str]) -> str | None:
    """The first of these paths that another one uses as a folder, so it can't be a file. None if there is none."""
    folders = {path[:index] for path in paths for index, letter in enumerate(path) if letter == "/"}
    return next((path for path in paths if path in folders), None)


def _is_part(part: str) -> bool:
    return 0 < len(part) <= MAX_PART_LENGTH and part not in {".", ".."}
