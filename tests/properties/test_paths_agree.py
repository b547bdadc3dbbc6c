"""Which paths a task may name: the definition, the controller, the agent and the worker say the same of each."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.errors import Refusal
from agent.http.validation import check_work
from agent.paths import MAX_PART_LENGTH, MAX_PATH_LENGTH, is_folder_path, is_path
from agent.wire import Command, Steps, StepSpec, Work
from agent.worker.disk.files import open_plain, resolve_folder, write_files
from agent.worker.errors import StepRefusedError
from controller.crds import folder
from controller.errors import InvalidObject
from controller.local.apiserver.schema.structural import CustomSchema
from controller.local.apiserver.schema.validation import validate
from controller.objects.fields import Fields
from controller.objects.task_spec import TaskSpec

VERSION = yaml.safe_load((folder() / "slottasks.yaml").read_text())["spec"]["versions"][0]
SCHEMA = CustomSchema.compile(VERSION)

PARTS = [
    *("", ".", "..", "...", "a", "b.tf", ".a", "..a", "a.", " ", "a\n", "a\0", "é", "\\"),
    *("x" * MAX_PART_LENGTH, "x" * (MAX_PART_LENGTH + 1), "." + "x" * 254, "." + "x" * 255, ".." + "x" * 254),
]
LONGEST = "a/" * (MAX_PATH_LENGTH // 2 - 1) + "aa"
PATHS = st.lists(st.sampled_from(PARTS), min_size=1, max_size=4).map("/".join) | st.text("a./\0\n", max_size=6)


def command(**fields: Any) -> dict[str, Any]:
    return {"command": ["true"], **fields}


def spec(**fields: Any) -> dict[str, Any]:
    return {"pool": "p", "type": "plan", "steps": {"plan": command()}, **fields}


def work(step: StepSpec | None = None, **fields: Any) -> Work:
    return Work(name="n/t", attempt=1, steps=Steps(plan=step or StepSpec(command=("true",))), **fields)


SPECS: dict[str, Callable[[str], dict[str, Any]]] = {
    "planFile": lambda path: spec(steps={"plan": command(planFile=path)}),
    "outputs": lambda path: spec(outputs={"path": path, "secretName": "s"}),
    "workingDir": lambda path: spec(steps={"plan": command(workingDir=path)}),
    "workingDir of before": lambda path: spec(steps={"plan": command(before=[command(workingDir=path)])}),
    "files": lambda path: spec(files={path: "text"}),
}
WORKS: dict[str, Callable[[str], Work]] = {
    "planFile": lambda path: work(StepSpec(command=("true",), plan_file=path)),
    "outputs": lambda path: work(outputs_path=path),
    "workingDir": lambda path: work(StepSpec(command=("true",), working_dir=path)),
    "workingDir of before": lambda path: work(
        StepSpec(command=("true",), before=(Command(command=("true",), working_dir=path),))
    ),
    "files": lambda path: work(files={path: "text"}),
}


def of_definition(place: str, path: str) -> bool:
    metadata = {"name": "t", "namespace": "n", "uid": "u"}
    stored = {"metadata": metadata, **SCHEMA.default({"spec": SPECS[place](path)})}
    return not validate(SCHEMA, stored, None)


def of_controller(place: str, path: str) -> bool:
    return fits(InvalidObject, lambda: TaskSpec.parse(Fields(SPECS[place](path), "spec")))


def of_agent(place: str, path: str) -> bool:
    return fits(Refusal, lambda: check_work(WORKS[place](path)))


def of_worker(place: str, path: str) -> bool:
    with TemporaryDirectory() as directory:
        if place == "files":
            return fits(StepRefusedError, lambda: write_files(directory, {path: "text"}))
        if place.startswith("workingDir"):
            if is_folder_path(path):
                Path(directory, path).mkdir(parents=True, exist_ok=True)
            return fits(StepRefusedError, lambda: resolve_folder(directory, path))
        return fits(StepRefusedError, lambda: open_plain(directory, path))


def fits(refused: type[Exception], take: Callable[[], object]) -> bool:
    try:
        take()
    except refused:
        return False
    return True


@pytest.mark.parametrize("place", SPECS)
@settings(max_examples=50, deadline=None)
@given(path=PATHS)
@example(path=LONGEST)
@example(path="a" + LONGEST)
@example(path=".")
def test_a_path_that_one_takes_all_take(place: str, path: str) -> None:
    expected = is_folder_path(path) if place.startswith("workingDir") else is_path(path)
    answers = {
        "controller": of_controller(place, path),
        "agent": of_agent(place, path),
        "worker": of_worker(place, path),
    }
    if place != "files":
        # The definition can't look into the names of files.
        answers["definition"] = of_definition(place, path)
    assert answers == dict.fromkeys(answers, expected)


@settings(deadline=None)
@given(paths=st.dictionaries(st.sampled_from(["a", "b", "a/b", "a/b/c", "ab", "b/a", "a/bc"]), st.just("")))
def test_no_file_is_the_folder_of_another(paths: dict[str, str | Any]) -> None:
    expected = not any(other.startswith(f"{path}/") for path in paths for other in paths)
    assert fits(InvalidObject, lambda: TaskSpec.parse(Fields(spec(files=paths), "spec"))) == expected
    assert fits(Refusal, lambda: check_work(work(files=paths))) == expected
    with TemporaryDirectory() as directory:
        assert fits(StepRefusedError, lambda: write_files(directory, paths)) == expected


@pytest.mark.parametrize("path", ["a", "a/b.tf", ".terraform/x", "...", LONGEST, "x" * MAX_PART_LENGTH])
def test_ordinary_paths_are_taken(path: str) -> None:
    assert is_path(path)


@pytest.mark.parametrize(
    "path", ["", "/a", "a/", "a//b", "./a", "a/.", "..", "../a", "a/../b", "a\0", "a" + LONGEST, "x" * 256]
)
def test_a_path_has_one_spelling_and_leads_nowhere_else(path: str) -> None:
    assert not is_path(path)
    assert not is_folder_path(path)
