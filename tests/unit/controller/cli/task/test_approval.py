"""An approval names exactly the plan a person was shown."""

from datetime import UTC, datetime
from typing import Any

import pytest

from controller.cli.task.approval import (
    NotApprovable,
    last_line,
    missing_text,
    patch,
    plan_text,
    question,
    summary,
    waiting_text,
)
from controller.cli.task.outputs import Seen
from controller.objects.output import Gap, Output

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


def test_without_a_known_person_no_name_is_claimed() -> None:
    assert "by" not in patch(question(waiting(), digest=None), None)["spec"]["approval"]


def test_the_whole_plan_is_shown_and_what_is_missing_stands_in_its_place() -> None:
    whole = Seen(Output(kept=b"a\x1b[2K\nb", size_bytes=6))
    assert plan_text(whole) == "a\\x1b[2K\nb\n"
    assert missing_text(whole) is None
    cut = Seen(Output(kept=b"begin\nend\n", size_bytes=1010, missing=(Gap(6, 1000),)))
    assert plan_text(cut) == "begin\n\n[podslots: 1,000 bytes of the output are missing here, from byte 6]\nend\n"
    assert missing_text(cut) == "WARNING: 1,000 of the 1,010 bytes of the plan's output are missing above."
    assert "nothing of the plan's output" in str(missing_text(None))
    assert "may not be whole" in str(missing_text(Seen(Output(kept=b"", size_bytes=0), "it was rotated")))


def test_a_summary_fits_80_columns() -> None:
    asked = question(waiting(pod="terraform-2zcq7xnbm2"), digest=None)
    assert max(map(len, summary(asked).splitlines())) <= 80


NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_a_plan_that_waits_says_since_when_how_long_yet_how_it_ends_and_what_to_do() -> None:
    hint = "\n\nSaved the plan to: tfplan\n\nTo perform exactly these actions, run:\n    terraform apply\n"
    plan = {"endTime": "2026-03-01T11:55:30Z", "logTail": "x\n\x1b[1mPlan:\x1b[0m 1 to add, 0 to change." + hint}
    task = waiting(steps={"plan": plan}, expiresAt="2026-03-02T11:55:30Z")
    assert waiting_text(task, NOW, "podslots approve net") == (
        "net   waits 4m30s, expires in 23h55m\n  Plan: 1 to add, 0 to change.\n  podslots approve net"
    )
    assert last_line("one\nt\x1b[2Kwo\n\n") == "t\\x1b[2Kwo"
    assert len(last_line("y" * 500)) == 76
    assert waiting_text(waiting(steps={}), NOW, "c") == "net   waits\n  c"


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
