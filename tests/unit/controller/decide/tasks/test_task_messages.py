"""What conditions and Events say of a task that ended: a type that fits, a CamelCase reason, a sentence."""

import re

import pytest

from agent.wire import NO_CHANGES, Step
from controller.decide.tasks.task_messages import end_message, end_reason, end_type
from controller.objects.sentences import sentence
from controller.objects.task import FINAL_PHASES, TaskPhase

REASON = re.compile(r"[A-Z][A-Za-z]*")


def test_only_a_task_that_failed_has_the_condition_failed() -> None:
    assert {phase: end_type(phase) for phase in FINAL_PHASES} == {
        TaskPhase.SUCCEEDED: "Complete",
        TaskPhase.CANCELLED: "Cancelled",
        TaskPhase.FAILED: "Failed",
        TaskPhase.EXPIRED: "Failed",
        TaskPhase.LOST: "Failed",
    }


@pytest.mark.parametrize(
    ("phase", "reason", "message", "said"),
    [
        (TaskPhase.SUCCEEDED, "Succeeded", "", "The task succeeded."),
        (TaskPhase.SUCCEEDED, "Succeeded", "o.json was not handed over", "The task succeeded, but o.json was not"),
        (TaskPhase.SUCCEEDED, NO_CHANGES, "the plan found nothing to change", "The plan found nothing to change, so"),
        (TaskPhase.FAILED, "Failed", "exit code 1", "The apply step failed: exit code 1."),
        (TaskPhase.FAILED, "WorkRefused", "too large", "The task failed: too large."),
        (TaskPhase.CANCELLED, "Cancelled", "", "The task was cancelled."),
        (TaskPhase.CANCELLED, "Cancelled", "cancelled", "The task was cancelled."),
        (TaskPhase.CANCELLED, "Cancelled", "cancelled before it started", "The task was cancelled before it started."),
        (TaskPhase.CANCELLED, "Cancelled", "Pod p is dead", "The task was cancelled: Pod p is dead."),
        (TaskPhase.EXPIRED, "Expired", "not approved in time", "The reservation expired: not approved in time."),
        (TaskPhase.LOST, "Lost", "the worker ended", "The apply step was lost: the worker ended."),
        (TaskPhase.LOST, "PodLost", "Pod p is gone", "The task was lost: Pod p is gone."),
    ],
)
def test_the_message_says_what_happened(phase: TaskPhase, reason: str, message: str, said: str) -> None:
    assert end_message(phase, reason, message, Step.APPLY).startswith(said)


@pytest.mark.parametrize("phase", sorted(FINAL_PHASES))
@pytest.mark.parametrize("step", [None, *Step])
def test_every_end_has_a_reason_and_a_sentence(phase: TaskPhase, step: Step | None) -> None:
    assert REASON.fullmatch(end_reason(phase, phase.value, step))
    text = end_message(phase, phase.value, "", step)
    assert text[0].isupper()
    assert text.endswith(".")


def test_the_reason_names_the_step_that_failed_unless_more_is_known() -> None:
    assert end_reason(TaskPhase.FAILED, "Failed", Step.PLAN) == "PlanFailed"
    assert end_reason(TaskPhase.LOST, "Lost", Step.APPLY) == "ApplyLost"
    assert end_reason(TaskPhase.LOST, "PodLost", Step.APPLY) == "PodLost"
    assert end_reason(TaskPhase.CANCELLED, "Cancelled", Step.APPLY) == "Cancelled"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no answer from p-1", "No answer from p-1."),
        ("spec.slots: must not be empty", "spec.slots: must not be empty."),
        ("Pods wait…", "Pods wait…"),
        ("already one.", "Already one."),
        ("tfplan.bin is gone", "tfplan.bin is gone."),
        ("", ""),
    ],
)
def test_a_sentence_begins_with_a_capital_unless_a_name_is_first(text: str, said: str) -> None:
    assert sentence(text) == said
    assert sentence(sentence(text)) == said
