"""What `podslots get` prints, from objects alone."""

import json
import re
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from controller.cli.show import colours, tables
from controller.cli.show.table import Layout, Table
from controller.cli.show.times import age, until

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def task(name: str = "t", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "team", "creationTimestamp": "2026-03-01T11:58:30Z"},
        "spec": {"pool": "terraform", "type": "plan"},
        "status": status,
    }


def pod(name: str = "p", slots: int = 3, **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "team", "uid": f"uid-{name}", **metadata},
        "spec": {
            "initContainers": [
                {"name": "slot-agent", "env": [{"name": "PODSLOTS_LAYOUT", "value": json.dumps([["plan"]] * slots)}]}
            ],
            "containers": [{"name": f"worker-{n}"} for n in range(slots)] + [{"name": "log-shipper"}],
        },
        "status": {"phase": "Running"},
    }


def cell(table: Table, column: str, row: int = 0) -> str:
    return table.rows[row][table.columns.index(column)]


def test_columns_line_up_and_lines_have_no_trailing_blanks() -> None:
    text = Table(["NAME", "X"], [["long-name", ""], ["n", "1"]]).text()
    assert text.splitlines() == ["NAME        X", "long-name", "n           1"]


def test_an_empty_table_is_its_heads() -> None:
    assert tables.tasks([], NOW, namespaces=False).text().split()[:2] == ["NAME", "POOL"]


@pytest.mark.parametrize(
    ("created", "shown"),
    [
        ("2026-03-01T11:59:59Z", "1s"),
        ("2026-03-01T11:58:30Z", "1m30s"),
        ("2026-03-01T09:00:00Z", "3h"),
        ("2026-03-01T08:59:00Z", "3h1m"),
        ("2026-02-27T10:00:00Z", "2d2h"),
        ("2026-03-01T12:00:05Z", "0s"),
        (None, "-"),
    ],
)
def test_an_age_has_two_units_at_most_and_never_is_negative(created: str | None, shown: str) -> None:
    assert age({"metadata": {"creationTimestamp": created}}, NOW) == shown


@pytest.mark.parametrize(
    "nonsense",
    ["", "x", "2026-03-01T12:00:60Z", "2026-03-01T12:00:00", "9999-12-31T23:59:59-23:59", 7, {}, None],
    ids=str,
)
def test_a_time_that_is_none_keeps_nobody_from_the_rest(nonsense: Any) -> None:
    """One object with such a status, and no list could be printed."""
    assert until(nonsense, NOW) == "-"
    assert age({"metadata": {"creationTimestamp": nonsense}}, NOW) == "-"


def test_a_task_nobody_has_looked_at_is_queued() -> None:
    table = tables.tasks([{"metadata": {"name": "new"}, "spec": {"pool": "a", "type": "plan"}}], NOW, namespaces=False)
    assert (cell(table, "PHASE"), cell(table, "POD"), cell(table, "REASON")) == ("Queued", "-", "-")


def test_why_says_what_a_queued_task_waits_for_and_why_a_task_ended() -> None:
    rows = [
        task("a", phase="Queued", queuedReason="LockHeld"),
        task("b", phase="Failed", reason="TimeLimit"),
        task("c", phase="Succeeded", reason="Succeeded"),
        task("d", phase="Running", queuedReason="LockHeld"),
    ]
    table = tables.tasks(rows, NOW, namespaces=False)
    assert [cell(table, "REASON", row) for row in range(4)] == ["LockHeld", "TimeLimit", "-", "-"]


def denied(kind: str, reason: str, message: str) -> list[dict[str, str]]:
    return [{"type": kind, "status": "False", "reason": reason, "message": message}]


@pytest.mark.parametrize(
    ("obj", "shown"),
    [
        (
            task(conditions=denied("Accepted", "PoolNotFound", "there is no SlotPool 'x'"), queuedReason="old"),
            "PoolNotFound: there is no SlotPool 'x'",
        ),
        (task(phase="Queued", conditions=denied("Accepted", "UnknownTaskType", "m" * 200)), "UnknownTaskType"),
        (task(phase="Failed", reason="Failed", message="exit code 9"), "exit code 9"),
        (task(phase="Failed", reason="Failed", message="a\nb"), "a b"),
        (task(phase="Failed", reason="Failed", message="m" * 200), f"{'m' * 99}…"),
        (task(phase="Lost", reason="PodLost", message="Pod p is gone"), "PodLost: Pod p is gone"),
        (task(phase="Lost", reason="PodLost", message="m" * 200), "PodLost"),
        (task(phase="Running", conditions=denied("Accepted", "PoolNotFound", "")), "-"),
    ],
)
def test_why_says_what_refused_a_task_and_what_it_failed_of(obj: dict[str, Any], shown: str) -> None:
    assert cell(tables.tasks([obj], NOW, namespaces=False), "REASON") == shown


def test_an_approval_of_another_plan_is_shown_until_it_is_mended() -> None:
    waits = task(
        phase="AwaitingApproval", attempt=2, planDigest="sha256:b", conditions=denied("Approved", "DigestMismatch", "m")
    )
    assert tables.why(waits) == "-"  # said of an attempt before this one
    waits["spec"]["approval"] = {"attempt": 1, "planDigest": "sha256:a"}
    assert tables.why(waits) == "DigestMismatch: m"
    waits["spec"]["approval"] = {"attempt": 2, "planDigest": "sha256:b"}
    assert tables.why(waits) == "-"


def test_slot_zero_is_shown_as_zero() -> None:
    assert cell(tables.tasks([task(slot=0)], NOW, namespaces=False), "SLOT") == "0"


def test_all_namespaces_puts_the_namespace_first() -> None:
    table = tables.tasks([task()], NOW, namespaces=True)
    assert (table.columns[0], table.rows[0][0]) == ("NAMESPACE", "team")


def test_a_pool_shows_size_bounds_and_what_its_slots_do() -> None:
    pool = {
        "metadata": {"name": "terraform"},
        "spec": {"autoscaling": {"minReplicas": 1, "maxReplicas": 9}},
        "status": {
            "replicas": 3,
            "readyReplicas": 2,
            "desiredReplicas": 4,
            "slots": {"idle": 5, "running": 3, "reserved": 1},
            "conditions": [{"type": "Ready", "status": "False", "reason": "NotSettled"}],
        },
    }
    table = tables.pools([pool], NOW, namespaces=False)
    shown = [cell(table, name) for name in ("PODS", "DESIRED", "MIN", "MAX", "IDLE", "RUNNING", "RESERVED", "STATUS")]
    assert shown == ["2/3", "4", "1", "9", "5", "3", "1", "NotSettled"]


def test_a_pool_without_autoscaling_is_fixed_at_its_replicas() -> None:
    table = tables.pools([{"metadata": {"name": "p"}, "spec": {"replicas": 2}}], NOW, namespaces=False)
    assert (cell(table, "MIN"), cell(table, "MAX"), cell(table, "DESIRED")) == ("-", "-", "2")


def test_a_pod_on_its_way_out_says_so_whatever_its_label() -> None:
    labels = {"podslots.dev/pool": "terraform", "podslots.dev/state": "draining"}
    leaving = pod(labels=labels, deletionTimestamp="2026-03-01T11:59:00Z")
    assert cell(tables.pods([leaving], NOW, namespaces=False), "STATE") == "deleting"


def test_what_people_asked_of_a_pod_is_shown() -> None:
    asked = pod(annotations={"podslots.dev/drain-requested": "now", "podslots.dev/forget": "uid-p"})
    assert cell(tables.pods([asked], NOW, namespaces=False), "REQUESTED") == "drain,forget"


def test_slots_of_a_pod_without_workers_are_listed_as_its_own_programs() -> None:
    """No task's status has them, and the pool's status counts them: an empty table would say that there are none."""
    sidecar = pod(labels={"podslots.dev/state": "active"})
    sidecar["spec"]["containers"] = [{"name": "runner"}]
    rows = tables.slots([sidecar], [], namespaces=False).rows
    assert [row[1:4] for row in rows] == [[str(slot), "-", "(sidecar)"] for slot in range(3)]


def test_slots_hold_what_tasks_say_and_others_of_a_pod_that_serves_are_idle() -> None:
    tasks = [
        task("runs", phase="Running", podUID="uid-p", slot=1, step="plan"),
        task("waits", phase="AwaitingApproval", podUID="uid-p", slot=0, step="plan"),
        task("over", phase="Succeeded", podUID="uid-p", slot=2),
        task("elsewhere", phase="Running", podUID="uid-of-a-pod-before", slot=2),
    ]
    rows = tables.slots([pod(labels={"podslots.dev/state": "active"})], tasks, namespaces=False).rows
    assert [row[1:4] for row in rows] == [["0", "reserved", "waits"], ["1", "running", "runs"], ["2", "idle", "-"]]


@pytest.mark.parametrize(
    "metadata",
    [
        {"labels": {"podslots.dev/state": "starting"}},
        {"labels": {"podslots.dev/state": "draining"}},
        {"labels": {"podslots.dev/state": "active"}, "deletionTimestamp": "2026-03-01T11:59:00Z"},
        {},
    ],
)
def test_a_slot_is_not_called_idle_while_its_pod_takes_no_work(metadata: dict[str, Any]) -> None:
    assert {row[2] for row in tables.slots([pod(**metadata)], [], namespaces=False).rows} == {"-"}


def standing(**conditions: tuple[str, str]) -> str:
    entries = [{"type": kind, "status": status, "reason": reason} for kind, (status, reason) in conditions.items()]
    return tables.standing({"metadata": {"name": "p"}, "status": {"conditions": entries}})


def test_a_pool_says_what_is_wrong_before_what_is_on_its_way() -> None:
    assert standing(Ready=("False", "NotSettled"), Degraded=("True", "ErrImagePull")) == "ErrImagePull"
    assert standing(Ready=("False", "NotSettled"), Degraded=("False", "AsExpected")) == "NotSettled"
    assert standing(Ready=("True", "Settled")) == "Settled", "as kubectl's column and the pages call it"
    assert standing() == "Unknown"


def test_one_long_name_shifts_its_own_row_and_no_other() -> None:
    rows = tables.tasks([task("a"), task("b" * 253)], NOW, namespaces=False).text().splitlines()
    assert len(rows[0]) < 200
    assert rows[1].index("terraform") == rows[0].index("POOL")
    assert rows[2].startswith("b" * 253 + "   terraform")


LONG = "PoolNotFound: there is no SlotPool 'terafform' in namespace 'default', so the task waits for one"


def some_tasks() -> list[dict[str, Any]]:
    return [
        task("network-of-the-team", phase="Queued", queuedReason=LONG),
        task("t", phase="AwaitingApproval", pod="terraform-jzmq8ctzxn", slot=0, step="plan", attempt=1),
    ]


@pytest.mark.parametrize("width", [None, 200])
def test_a_long_reason_is_last_and_leaves_the_heads_where_the_cells_are(width: int | None) -> None:
    table = tables.tasks(some_tasks(), NOW, namespaces=False)
    head, first, *rest = table.text(width=width).splitlines()
    assert list(table.columns)[-2:] == ["AGE", "REASON"]
    for column, cell in zip(table.columns, table.rows[0], strict=True):
        shown = LONG[:20] if column == "REASON" else cell
        assert first[head.index(column) :].startswith(shown), column
    assert len(rest) == (1 if width is None else 2), "a pipe has one line for each; a terminal has it wrapped"


@pytest.mark.parametrize("width", [80, 100, 200])
def test_on_a_terminal_a_table_keeps_within_its_width_and_under_its_heads(width: int) -> None:
    text = tables.tasks(some_tasks(), NOW, namespaces=False).text(width=width)
    head, *rows = text.splitlines()
    assert max(map(len, [head, *rows])) <= width
    place = head.index("REASON")
    wrapped = [row[place:] for row in rows[:-1]]
    assert " ".join(wrapped) == LONG, "nothing is lost"
    assert all(not row[:place].strip() for row in rows[1:-1]), "what is wrapped stands in its column"
    assert {"NAME", "PHASE", "AGE", "REASON"} <= set(head.split())


def test_rows_that_come_later_stand_under_the_same_heads() -> None:
    table = Table(["NAME", "KIND", "WHY"], [["a", "b", "-"]], spare=["KIND"])
    layout = Layout(table, 40)
    layout.grow([["longer-name", "b", "x"]])
    assert layout.lines([["longer-name", "b", "x"]]) == ["longer-name   b      x"]


def test_states_have_colours_only_where_they_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    table = tables.tasks([task(phase="Failed")], NOW, namespaces=False)
    assert "\x1b" not in table.text()
    assert "\x1b[31mFailed\x1b[0m" in table.text(coloured=True)
    plain = re.sub("\x1b\\[[0-9;]*m", "", table.text(coloured=True))
    assert plain == table.text()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    for environ, wanted in (
        ({"TERM": "xterm"}, True),
        ({"TERM": "dumb"}, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
    ):
        monkeypatch.setenv("NO_COLOR", "")
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        assert colours.wanted() is wanted
