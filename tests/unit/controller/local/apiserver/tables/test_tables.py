"""What `kubectl get` prints: ages, the status of a Pod, the columns of a custom resource."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from controller.local.apiserver.tables import custom
from controller.local.apiserver.tables.ages import age, human_duration
from controller.local.apiserver.tables.builtin import layout

Json = dict[str, Any]

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "<invalid>"), (-1, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (125, "2m5s"), (600, "10m"),
        (3 * 3600, "3h"), (3 * 3600 + 60, "3h1m"), (47 * 3600, "47h"), (49 * 3600, "2d1h"), (9 * 86400, "9d"),
        (3 * 365 * 86400, "3y"), (3 * 365 * 86400 + 86400, "3y1d"), (9 * 365 * 86400 + 86400, "9y"),
    ],
)  # fmt: skip
def test_a_duration_is_shown_as_kubectl_shows_it(seconds: int, shown: str) -> None:
    assert human_duration(seconds) == shown


def test_no_time_and_no_such_time_are_told_apart() -> None:
    assert age(None, NOW) == "<unknown>"
    assert age("yesterday", NOW) == "<invalid>"


def _pod(status: Json, *, deleted: bool = False, init: tuple[Json, ...] = ()) -> list[Any]:
    metadata: Json = {"name": "a", "creationTimestamp": "2026-03-01T11:59:00Z"}
    if deleted:
        metadata["deletionTimestamp"] = "2026-03-01T12:00:00Z"
    spec = {"containers": [{"name": "m"}], "initContainers": list(init)}
    return list(layout("pods").cells({"metadata": metadata, "spec": spec, "status": status}, NOW))[:4]


SIDECAR = {"name": "agent", "restartPolicy": "Always"}
RUNNING: Json = {"running": {}}


@pytest.mark.parametrize(
    ("status", "options", "shown"),
    [
        ({"phase": "Pending"}, {}, ["0/1", "Pending", "0"]),
        (
            {
                "phase": "Running",
                "containerStatuses": [{"name": "m", "ready": True, "restartCount": 2, "state": RUNNING}],
            },
            {},
            ["1/1", "Running", "2"],
        ),
        (
            {
                "phase": "Pending",
                "containerStatuses": [{"name": "m", "state": {"waiting": {"reason": "ImagePullBackOff"}}}],
            },
            {},
            ["0/1", "ImagePullBackOff", "0"],
        ),
        (
            {"phase": "Failed", "containerStatuses": [{"name": "m", "state": {"terminated": {"exitCode": 3}}}]},
            {},
            ["0/1", "ExitCode:3", "0"],
        ),
        (
            {"phase": "Pending", "initContainerStatuses": [{"name": "agent", "state": {"waiting": {}}}]},
            {"init": (SIDECAR,)},
            ["0/2", "Init:0/1", "0"],
        ),
        (
            {
                "phase": "Running",
                "initContainerStatuses": [{"name": "agent", "started": True, "ready": True, "state": RUNNING}],
                "containerStatuses": [{"name": "m", "ready": True, "state": RUNNING}],
            },
            {"init": (SIDECAR,)},
            ["2/2", "Running", "0"],
        ),
        ({"phase": "Running"}, {"deleted": True}, ["0/1", "Terminating", "0"]),
        ({"phase": "Failed", "reason": "Evicted"}, {"deleted": True}, ["0/1", "Evicted", "0"]),
    ],
)
def test_a_pods_status_is_summed_up(status: Json, options: Json, shown: list[str]) -> None:
    assert _pod(status, **options)[1:] == shown


def _cells(*columns: Json, **body: Any) -> list[Any]:
    return list(custom.layout(columns).cells({"metadata": {"name": "x"}, **body}, NOW))[1:]


def test_the_columns_of_a_custom_resource_are_read_by_json_path() -> None:
    ready = {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'}
    size = {"name": "Size", "type": "integer", "jsonPath": ".spec.size"}
    dotted = {"name": "Dotted", "type": "string", "jsonPath": r".spec.labels.a\.b/c"}
    conditions = [{"type": "Other", "status": "x"}, {"type": "Ready", "status": "True"}]
    spec = {"size": 3, "labels": {"a.b/c": "found"}}
    assert _cells(ready, size, dotted, spec=spec, status={"conditions": conditions}) == ["True", 3, "found"]
    assert _cells(ready, size, dotted) == [None, None, None]


def test_a_value_of_another_type_is_left_empty() -> None:
    assert _cells({"name": "Size", "type": "integer", "jsonPath": ".spec.size"}, spec={"size": "many"}) == [None]
    assert _cells({"name": "All", "type": "string", "jsonPath": ".spec"}, spec={"a": 1}) == ['{"a":1}']


def test_a_path_that_does_not_parse_is_refused() -> None:
    with pytest.raises(custom.InvalidPathError):
        custom.layout([{"name": "Bad", "type": "string", "jsonPath": ".spec["}])


def test_a_controller_revision_shows_its_owner_and_its_number() -> None:
    owner = {"apiVersion": "podslots.dev/v1alpha1", "kind": "SlotPool", "name": "p", "controller": True}
    metadata = {"name": "p-1", "creationTimestamp": "2026-03-01T11:59:00Z"}
    shown = layout("controllerrevisions.apps")
    assert [column.name for column in shown.columns] == ["Name", "Controller", "Revision", "Age"]
    owned = {"metadata": {**metadata, "ownerReferences": [owner]}, "revision": 3}
    assert shown.cells(owned, NOW) == ["p-1", "slotpool.podslots.dev/p", 3, "60s"]
    assert shown.cells({"metadata": metadata}, NOW)[1:3] == ["<none>", 0]
