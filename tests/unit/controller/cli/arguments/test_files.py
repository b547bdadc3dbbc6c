"""What `podslots submit` takes from a file, and what it refuses, naming the place."""

from pathlib import Path

import click
import pytest

from controller.cli.arguments import files
from controller.cli.arguments.files import files_of, parse, pools_first, read

TASK = """
apiVersion: podslots.dev/v1alpha1
kind: SlotTask
metadata: {name: one}
"""
POOL = """
apiVersion: podslots.dev/v1alpha1
kind: SlotPool
metadata: {name: terraform}
"""


def test_pools_come_before_the_tasks_that_need_them() -> None:
    found = pools_first(parse(f"{TASK}---{POOL}---\n", "f"))
    assert [obj["kind"] for obj in found] == ["SlotPool", "SlotTask"]


def test_what_is_merged_into_a_mapping_may_be_set_anew() -> None:
    shared = "x-steps: &steps {plan: {command: [a]}, apply: {command: [b]}}\n"
    text = f"{TASK}{shared}spec:\n  steps:\n    <<: *steps\n    plan: {{command: [c]}}\n"
    (obj,) = parse(text, "f")
    assert obj["spec"]["steps"] == {"plan": {"command": ["c"]}, "apply": {"command": ["b"]}}


def test_a_list_is_taken_apart() -> None:
    item = '{"apiVersion": "podslots.dev/v1alpha1", "kind": "SlotTask", "metadata": {"name": "x"}}'
    text = f'{{"kind": "List", "items": [{item}]}}'
    assert [obj["metadata"]["name"] for obj in parse(text, "f")] == ["x"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [", "f: not YAML"),
        ("", "f: no objects"),
        ("- 1", "f, document 1: an object with apiVersion"),
        ("just text", "f, document 1: an object with apiVersion"),
        ("a: b\nc: d: e", "f: not YAML: line 2, column 5: mapping values are not allowed here"),
        (
            f"{TASK}spec: {{pool: small, type: plan, pool: large}}\n",
            "f: not YAML: line 5, column 33: 'pool' is there twice",
        ),
        ("a\x00", "f: not YAML: character 2: special characters are not allowed"),
        ("items: 3", "f, document 1: an object without kind"),
        (f"{TASK}---\nkind: Pod\napiVersion: v1\n", "f, document 2: v1 Pod"),
        ("kind: SlotTask\nmetadata: {name: x}\n", "a SlotTask with apiVersion missing, not podslots.dev/v1alpha1"),
        ("apiVersion: podslots.dev/v1alpha1\nkind: SlotTask\n", "SlotTask without metadata.name"),
    ],
)
def test_anything_else_is_refused(text: str, problem: str) -> None:
    with pytest.raises(click.ClickException) as error:
        list(parse(text, "f"))
    assert problem in error.value.message


@pytest.mark.parametrize(
    "value",
    [
        "2026-99-99",
        "2026-01-01T99:99:99Z",
        "2026-01-01T00:00:00+99:99",
        "0000-01-01",
        5000 * "9",
        "!!float q",
        "!!int ''",
        "!!int q",
        "!!bool q",
        "!!timestamp q",
    ],
)
@pytest.mark.parametrize("place", ["a: {}", "? {}\n: a", "a: [[{}]]"])
def test_a_value_that_its_kind_can_not_have_is_refused_at_its_place(value: str, place: str) -> None:
    with pytest.raises(click.ClickException, match=r"f: not YAML: line 5, column [0-9]+: this is no ") as error:
        list(parse(f"{TASK}{place.format(value)}\n", "f"))
    assert len(error.value.message) < 200


@pytest.mark.parametrize(
    ("first", "each"),
    [("[x, x]", "[*a{0}, *a{0}]"), ("{x: x}", "{{p: *a{0}, q: *a{0}}}"), ("{x: x}", "{{<<: [*a{0}, *a{0}]}}")],
)
def test_a_short_text_that_says_a_lot_by_its_aliases_is_refused(
    monkeypatch: pytest.MonkeyPatch, first: str, each: str
) -> None:
    monkeypatch.setattr(files, "MOST_VALUES", 1000)
    lines = [f"x-0: &a0 {first}"] + [f"x-{n}: &a{n} {each.format(n - 1)}" for n in range(1, 40)]
    with pytest.raises(click.ClickException, match=r"no end|too many"):
        list(parse(TASK + "\n".join(lines), "f"))


HEAD = '"apiVersion": "podslots.dev/v1alpha1", "kind": "SlotTask", "metadata": {"name": "x"}'


def test_characters_that_json_writes_as_two_escapes_are_whole() -> None:
    (obj,) = parse(f'{{{HEAD}, "spec": {{"env": [{{"name": "T", "value": "ship \\ud83d\\ude80"}}]}}}}', "f")
    assert obj["spec"]["env"][0]["value"] == "ship 🚀"


@pytest.mark.parametrize("half", ["\\ud83d", "\\ude80 \\ud83d", "a\\udc00"])
def test_half_a_character_is_a_clear_error(half: str) -> None:
    with pytest.raises(click.ClickException) as error:
        list(parse(f'{{{HEAD}, "spec": {{"env": [{{"name": "T", "value": "{half}"}}]}}}}', "f"))
    assert error.value.message == (
        "f, document 1: spec.env[0].value has half of a surrogate pair, without its other half: that is no text"
    )


def test_a_folder_stands_for_its_yaml_and_json_files_by_name(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.json", "c.yml", "README.md", "below/d.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "e.yaml").mkdir()
    assert [Path(file).name for file in files_of(str(tmp_path))] == ["a.json", "b.yaml", "c.yml"]
    below = [Path(file).name for file in files_of(str(tmp_path), recursive=True)]
    assert below == ["a.json", "b.yaml", "d.yaml", "c.yml"]
    assert files_of("-") == ["-"]
    assert files_of(str(tmp_path / "none")) == [str(tmp_path / "none")], "whoever reads it says that it is not there"


def test_a_folder_without_any_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match=f"^{tmp_path}: no .yaml, .yml or .json files in this folder"):
        files_of(str(tmp_path))


def test_what_is_no_text_file_is_a_clear_error(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    problems = {tmp_path / "none": "there is no such file", binary: "not a text file in UTF-8"}
    for path, problem in problems.items():
        with pytest.raises(click.ClickException, match=f"^{path}: {problem}"):
            read(str(path))


TASK_HEAD = "apiVersion: podslots.dev/v1alpha1\nkind: SlotTask\n"
NOT_JSON = {
    "a: &a [*a]": "a is more than 100 levels deep, or has itself in it",
    "[" * 5000: "too many to read",
    TASK_HEAD + "metadata: {name: x, namespace: 7}": "metadata.namespace that is no text",
    TASK_HEAD + "metadata: {name: x}\nspec: {priority: 99999999999999999999}": "spec.priority is an integer of",
    TASK_HEAD + "metadata: {name: x}\nspec: !!set {a, b}": "spec is nothing that JSON has",
    TASK_HEAD + "metadata: {name: x}\nspec: {1: 2}": "spec.1 is no text: put the key in quotes",
    TASK_HEAD + "metadata: {name: x}\nspec: {a: .nan}": "spec.a is no number",
    TASK_HEAD + "metadata: {name: x}\nspec: {a: 2020-01-01}": "spec.a is a date: put it in quotes",
    TASK_HEAD + 'metadata: {name: x}\nspec: {files: {a: !!binary "aGVsbG8="}}': "spec.files.a is !!binary",
    "kind: [x]": "where SlotPool or SlotTask is expected",
}


@pytest.mark.parametrize("text", NOT_JSON, ids=range(len(NOT_JSON)))
def test_what_yaml_has_and_json_has_not_is_a_clear_error(text: str) -> None:
    with pytest.raises(click.ClickException) as refused:
        list(parse(text, "x.yaml"))
    assert NOT_JSON[text] in refused.value.message
