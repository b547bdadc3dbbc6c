"""Whether a run held what podslots promises. Pure: a function of the evidence."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agent.wire import Phase, Step
from controller import names
from controller.demo.evidence import AuditEvent, Evidence, StepRecord, by_step


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the workload must come to. `declined` applies were not approved, and their tasks cancelled."""

    plans: int
    applies: int
    pods: int
    slots: int
    declined: int = 0

    @property
    def approved(self) -> int:
        """How many applies must have run."""
        return self.applies - self.declined


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The figures of a run, and every promise that did not hold."""

    figures: dict[str, Any]
    problems: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """What `--unattended` prints as its last line."""
        summary = {**self.figures, "ok": not self.problems}
        return {**summary, "problems": list(self.problems)} if self.problems else summary


def judge(evidence: Evidence, expected: Expected) -> Verdict:
    """Look at everything; never stop at the first problem."""
    figures = {
        "tasks": dict(Counter(evidence.phases.values())),
        "pods_max": most_pods(evidence.audit),
        "pods_end": evidence.pods_left,
        "pods_deleted": len({event.uid for event in _deletes(evidence)}),
        "deletes_while_held": len(list(_deletes_while_held(evidence))),
        "plans_run": sum(record.step is Step.PLAN for record in evidence.records),
        "applies_run": sum(record.step is Step.APPLY for record in evidence.records),
        "applies_on_plan_pod": sum(1 for plan, apply in _pairs(evidence) if _same_place(plan, apply)),
        "most_running_in_a_pod": [history.most_running() for history in evidence.agents.values()],
        "seconds": round(evidence.seconds, 1),
    }
    problems = [
        *_wrong_figures(figures, expected),
        *_deletes_while_held(evidence),
        *_undrained(evidence),
        *_unconditional_deletes(evidence),
        *_wrong_steps(evidence),
        *_wrong_applies(evidence),
        *_wrong_settled(evidence, expected),
    ]
    return Verdict(figures=figures, problems=tuple(problems))


def most_pods(audit: Sequence[AuditEvent]) -> int:
    """The most Pods there were at one time: created by the controller, and not yet asked to end."""
    present: set[str] = set()
    most = 0
    for event in audit:
        if event.resource != "pods" or event.subresource or event.user != names.CONTROLLER_USER:
            continue
        if event.verb == "create":
            present.add(event.name)
        elif event.verb == "delete":
            present.discard(event.name)
        most = max(most, len(present))
    return most


def _deletes(evidence: Evidence) -> Iterator[AuditEvent]:
    for event in evidence.audit:
        if (event.verb, event.resource, event.subresource, event.user) == ("delete", "pods", "", names.CONTROLLER_USER):
            yield event


def _wrong_figures(figures: dict[str, Any], expected: Expected) -> Iterator[str]:
    phases = {"Succeeded": expected.plans + expected.approved}
    if expected.declined:
        phases["Cancelled"] = expected.declined
    wanted = {
        "tasks": phases,
        "pods_max": expected.pods,
        "pods_end": 0,
        "pods_deleted": expected.pods,
        "most_running_in_a_pod": [expected.slots] * expected.pods,
        "plans_run": expected.plans + expected.applies,
        "applies_run": expected.approved,
        "applies_on_plan_pod": expected.approved,
    }
    for name, value in wanted.items():
        if figures[name] != value:
            yield f"{name} is {figures[name]}, not {value}"


def _deletes_while_held(evidence: Evidence) -> Iterator[str]:
    """Rule 1, by the agents' own times: every hold of a Pod was over when its delete arrived."""
    for event in _deletes(evidence):
        history = evidence.agents.get(event.uid)
        if history is None:
            continue
        for hold in history.holds():
            if hold.since <= event.time and (hold.until is None or hold.until > event.time):
                yield f"Pod {event.name} was deleted while slot {hold.slot} was held by {hold.task_id}"


def _undrained(evidence: Evidence) -> Iterator[str]:
    """The last word of every deleted Pod's agent was a drain."""
    for event in _deletes(evidence):
        history = evidence.agents.get(event.uid)
        if history is None or not history.states:
            yield f"Pod {event.name} was deleted, and its agent was never heard"
        elif history.states[-1].phase is not Phase.DRAINED:
            yield f"Pod {event.name} was deleted, and its agent's last word was not a drain"


def _unconditional_deletes(evidence: Evidence) -> Iterator[str]:
    for event in _deletes(evidence):
        given = event.body.get("preconditions") or {}
        if not given.get("uid") or not given.get("resourceVersion"):
            yield f"the delete of Pod {event.name} named no UID and resourceVersion"


def _wrong_steps(evidence: Evidence) -> Iterator[str]:
    """Rule 3, by the tasks' own records: each step began once, and came to its end."""
    for (task, step), starts in by_step(evidence.records).items():
        if len(starts) > 1:
            yield f"the {step} of {task} was started {len(starts)} times"
        if any(record.ended is None for record in starts):
            yield f"the {step} of {task} was started and never ended"


def _pairs(evidence: Evidence) -> Iterator[tuple[StepRecord, StepRecord]]:
    """Each apply with the plan it applies."""
    steps = by_step(evidence.records)
    for (task, step), starts in steps.items():
        plans = steps.get((task, Step.PLAN))
        if step is Step.APPLY and plans:
            yield plans[0], starts[0]


def _same_place(plan: StepRecord, apply: StepRecord) -> bool:
    return (plan.pod, plan.directory, plan.inode) == (apply.pod, apply.directory, apply.inode)


def _wrong_applies(evidence: Evidence) -> Iterator[str]:
    """Rule 3 again: no apply began before an approval of the digest that its agent gave for the plan."""
    approved = {approval.task_id: approval for approval in evidence.approvals}
    for plan, apply in _pairs(evidence):
        if not _same_place(plan, apply):
            yield f"the apply of {apply.task_id} ran on {apply.pod} in {apply.directory}, its plan on {plan.pod}"
        approval = approved.get(apply.task_id)
        given = None if approval is None else _approved_at(evidence, approval.task, approval.plan_digest)
        if given is None:
            yield f"the apply of {apply.task_id} ran without an approval of its plan"
        elif apply.started < given:
            yield f"the apply of {apply.task_id} began before its approval"


def _approved_at(evidence: Evidence, task: str, plan_digest: str) -> datetime | None:
    """When a person's approval of exactly this plan reached the API server."""
    for event in evidence.audit:
        if event.resource != "slottasks" or event.name != task or event.user == names.CONTROLLER_USER:
            continue
        approval = (event.body.get("spec") or {}).get("approval") or {}
        if event.verb in {"patch", "update"} and approval.get("planDigest") == plan_digest:
            return event.time
    return None


def _wrong_settled(evidence: Evidence, expected: Expected) -> Iterator[str]:
    """With all plans done and nothing approved yet, exactly the Pods with a reservation are left."""
    settled = evidence.settled
    if settled is None:
        yield "the pool never came down to the reserved Pods before the approvals"
    elif settled.pods != settled.reserved or len(settled.pods) != expected.applies:
        yield f"before the approvals {len(settled.pods)} Pods were left, {len(settled.reserved)} of them reserved"
