"""A container that was killed for its memory is the cause of a lost step only if that was during the step."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.decide.tasks.memory import ran_out

STARTED = datetime(2026, 3, 1, 12, 0, 0, 700_000, tzinfo=UTC)


def pod(name: str = "worker-1", state: str = "lastState", *, reason: str = "OOMKilled", at: str) -> dict[str, Any]:
    ended = {"terminated": {"reason": reason, "exitCode": 137, "finishedAt": at}}
    return {
        "spec": {"containers": [{"name": "worker-1", "resources": {"limits": {"memory": "1Gi"}}}]},
        "status": {"containerStatuses": [{"name": name, state: ended}]},
    }


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (pod(at="2026-03-01T12:00:05Z"), True),
        (pod(at="2026-03-01T12:00:05Z", state="state"), True),
        (pod(at="2026-03-01T12:00:00Z"), True),  # a status has whole seconds
        (pod(at="2026-03-01T11:59:59Z"), False),
        (pod(at="2026-03-01T12:00:05Z", reason="Error"), False),
        (pod("worker-0", at="2026-03-01T12:00:05Z"), False),
        ({"status": {}}, False),
        ({}, False),
    ],
)
def test_only_a_kill_of_the_steps_container_after_its_start_counts(given: dict[str, Any], said: bool) -> None:
    word = ran_out(given, 1, STARTED)
    assert word == ("memory ran out (limit 1Gi): container worker-1 was killed" if said else None)


def test_without_a_limit_or_a_start_it_is_said_all_the_same() -> None:
    bare = pod(at="2026-03-01T12:00:05Z") | {"spec": {"containers": [{"name": "worker-1"}]}}
    assert ran_out(bare, 1, STARTED + timedelta(seconds=1)) == "memory ran out: container worker-1 was killed"
    assert ran_out(bare, 1, None) is not None
