"""What kubectl says of kinds that are not there: the words of a real API server, which rest on its documents."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.kubectl import on_a_cluster

UNKNOWN = (
    ("podslots.dev/v1alpha1", "SlotPoool"),
    ("podslots.dev/v1", "SlotPool"),
    ("podslots.io/v1alpha1", "SlotPool"),
    ("v1", "Servce"),
    ("batch/v1", "Job"),
)


@pytest.mark.parametrize("verb", [("apply",), ("create",), ("apply", "--dry-run=server")])
async def test_a_kind_that_is_not_served_is_named(tmp_path: Path, verb: tuple[str, ...]) -> None:
    async with on_a_cluster(tmp_path) as kubectl:
        for version, kind in UNKNOWN:
            document = f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x}}\n"
            ran = await kubectl.run(*verb, "-f", "-", stdin=document)
            where = 'resource mapping not found for name: "x" namespace: "" from "STDIN"'
            words = f'error: {where}: no matches for kind "{kind}" in version "{version}"'
            assert (ran.status, ran.err) == (1, f"{words}\nensure CRDs are installed first\n")


async def test_a_resource_that_is_not_served_is_named(tmp_path: Path) -> None:
    async with on_a_cluster(tmp_path) as kubectl:
        for call in (("get", "nosuch"), ("describe", "nosuch", "x"), ("delete", "nosuch/x")):
            ran = await kubectl.run(*call)
            assert (ran.status, ran.err) == (1, 'error: the server doesn\'t have a resource type "nosuch"\n')
