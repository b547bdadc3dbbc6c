"""What `podslots submit` takes from a file, and what it refuses, naming the place."""

import click
import pytest

from controller.commands.documents import parse, read

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
    assert [obj["kind"] for obj in parse(f"{TASK}---{POOL}---\n", "f")] == ["SlotPool", "SlotTask"]


def test_a_list_is_taken_apart() -> None:
    item = '{"apiVersion": "podslots.dev/v1alpha1", "kind": "SlotTask", "metadata": {"name": "x"}}'
    text = f'{{"kind": "List", "items": [{item}]}}'
    assert [obj["metadata"]["name"] for obj in parse(text, "f")] == ["x"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [", "f: not YAML"),
        ("", "f: no objects"),
        ("- 1", "f, document 1: an object is expected"),
        ("just text", "f, document 1: an object is expected"),
        (f"{TASK}---\nkind: Pod\napiVersion: v1\n", "f, document 2: v1 Pod"),
        ("kind: SlotTask\nmetadata: {name: x}\n", "None SlotTask"),
        ("apiVersion: podslots.dev/v1alpha1\nkind: SlotTask\n", "SlotTask without metadata.name"),
    ],
)
def test_anything_else_is_refused(text: str, problem: str) -> None:
    with pytest.raises(click.ClickException) as error:
        list(parse(text, "f"))
    assert problem in error.value.message


def test_a_missing_file_is_a_clear_error() -> None:
    with pytest.raises(click.ClickException, match="No such file"):
        read("/nonexistent/pool.yaml")
