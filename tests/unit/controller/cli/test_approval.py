"""An approval names exactly the plan a person was shown."""

from typing import Any

import pytest

from controller.cli.approval import NotApprovable, patch, question

DIGEST = "sha256:" + "0123456789abcdef" * 4


def waiting(**status: Any) -> dict[str, Any]:
    given = {
        "phase": "AwaitingApproval",
        "planDigest": DIGEST,
        "attempt": 2,
        "pod": "p",
        "slot": 0,
        "steps": {"plan": {"logTail": "Plan: 1 to add"}},
        **status,
    }
    return {"metadata": {"name": "net"}, "status": given}


def test_the_patch_names_attempt_digest_and_person() -> None:
    asked = question(waiting(), digest=None)
    assert patch(asked, "anna") == {"spec": {"approval": {"attempt": 2, "planDigest": DIGEST, "by": "anna"}}}


def test_the_plans_output_is_part_of_what_is_asked() -> None:
    assert question(waiting(), digest=None).log_tail == "Plan: 1 to add"


@pytest.mark.parametrize(
    "given", [DIGEST, DIGEST.upper().replace("SHA256", "sha256"), DIGEST[7:], DIGEST[7:19], f" {DIGEST} "]
)
def test_a_digest_may_be_given_in_full_or_shortened(given: str) -> None:
    assert question(waiting(), digest=given).plan_digest == DIGEST


@pytest.mark.parametrize("given", ["", "sha256:", DIGEST[7:18], "sha256:ffff", DIGEST + "0", DIGEST.replace("0", "1")])
def test_another_or_too_short_a_digest_is_refused(given: str) -> None:
    with pytest.raises(NotApprovable, match="look at the plan again"):
        question(waiting(), digest=given)


@pytest.mark.parametrize(
    "phase", ["Queued", "Assigned", "Running", "Succeeded", "Failed", "Cancelled", "Expired", "Lost"]
)
def test_only_a_waiting_task_can_be_approved(phase: str) -> None:
    with pytest.raises(NotApprovable, match=phase):
        question(waiting(phase=phase), digest=None)


def test_without_a_digest_there_is_nothing_to_approve() -> None:
    with pytest.raises(NotApprovable, match="no plan digest"):
        question(waiting(planDigest=None), digest=None)
