"""What may never happen, looked for in the records. Each check says which evidence it counts."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path

from tests.checker.pods import Agent, Hold, Pod, missing_logs, pods_of
from tests.checker.records import Json, Records, Write, read
from tests.checker.tasks import CONTROLLER, FINAL, End, SlotTask, Start, steps_of, tasks_of

NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found, by kind, and how much was looked at."""

    findings: dict[str, list[str]]
    looked_at: dict[str, int]

    @property
    def ok(self) -> bool:
        """Whether nothing was found, and nothing was missing."""
        return not any(self.findings.values())

    def summary(self) -> Json:
        """The counts."""
        return {**{kind: len(found) for kind, found in self.findings.items()}, **self.looked_at, "ok": self.ok}

    def report(self) -> str:
        """For people."""
        lines = []
        for kind, found in self.findings.items():
            lines.append(f"{kind.replace('_', ' ')}: {len(found)}")
            lines += [f"  - {text}" for text in found]
        looked_at = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in self.looked_at.items())
        return "\n".join([*lines, f"looked at: {looked_at}"])


def judge(records: Records, *, settled: bool = True) -> Verdict:
    """Look for everything. `settled`: the run is over, so that every task must have come to its end."""
    pods, tasks = pods_of(records), tasks_of(records)
    starts, ends = steps_of(records)
    locks = list(_unlocks(records.writes, tasks))
    findings = {
        "busy_pods_deleted": list(_busy_deleted(pods)),
        "tasks_lost": list(_lost(tasks, pods, starts, settled=settled)),
        "final_phases_changed": list(_final_changed(tasks)),
        "steps_started_twice": list(_started_twice(starts, tasks)),
        "tasks_in_two_slots": list(_in_two_slots(pods, tasks)),
        "applies_without_approval": list(_unapproved(starts, ends, tasks, pods)),
        "lock_overlaps": list(_overlaps(starts, tasks, pods, locks)),
        "wrong_results": list(_wrong_results(tasks, pods)),
        "missing_evidence": [*records.missing, *missing_logs(pods, records), *_unexplained(starts, tasks, pods)],
    }
    looked_at = {
        "pods": len(pods),
        "pods_deleted": sum(bool(pod.deletes) for pod in pods.values()),
        "tasks": len(tasks),
        "steps": len(starts),
        "applies": sum(start.step == "apply" for start in starts),
        "unanswered_writes": sum(not write.answered for write in records.writes),
    }
    return Verdict(findings, looked_at)


def check(folder: Path, *, settled: bool = True) -> Verdict:
    """Judge the run whose evidence is in a folder: (cluster/)audit.jsonl and logs/."""
    audit = folder / "audit.jsonl"
    return judge(
        read(audit if audit.exists() else folder / "cluster" / "audit.jsonl", folder / "logs"), settled=settled
    )


# --- Pods -------------------------------------------------------------------------------------------------------------


def _busy_deleted(pods: dict[str, Pod]) -> Iterator[str]:
    """The first DELETE of each Pod, by whomever, against its agent's log.

    At that moment nothing was held, no result was without its ack, and a drain was granted and in force or the agent
    had never been opened; and nothing was taken or opened after it. A Pod that was proven dead before is free to go.
    """
    for pod in pods.values():
        if not pod.deletes:
            continue
        delete = pod.deletes[0]
        if pod.died is not None and pod.died <= delete.at:
            continue
        who = f"Pod {pod.name} was deleted by {delete.user} at {delete.at.isoformat()}"
        yield from (f"{who} {what}" for what in (*_busy_at(pod.agent, delete.at), *_taken_after(pod.agent, delete.at)))


def _busy_at(agent: Agent, moment: datetime) -> Iterator[str]:
    for hold in agent.held_at(moment):
        yield f"while slot {hold.slot} was held by {hold.task_id} since {hold.since.isoformat()}"
    for result in agent.unacked_at(moment):
        yield f"while the result of {result.task_id} was not acknowledged"
    phase = agent.phase_at(moment)
    if phase is not None and agent.opened_before(moment) and not (phase.phase == "drained" and phase.granted):
        yield f"without a drain in force: its agent was {phase.phase} since {phase.at.isoformat()}"


def _taken_after(agent: Agent, moment: datetime) -> Iterator[str]:
    before = agent.phase_at(moment)
    for later in agent.phases:
        if later.at > moment and later.phase == "open" and (before is None or before.phase != "open"):
            yield f"and its agent was open after that, at {later.at.isoformat()}"
    for hold in agent.holds:
        if hold.since > moment:
            yield f"and slot {hold.slot} was taken after that by {hold.task_id}"


# --- tasks ------------------------------------------------------------------------------------------------------------


def _lost(tasks: dict[str, SlotTask], pods: dict[str, Pod], starts: list[Start], *, settled: bool) -> Iterator[str]:
    """SlotTasks that have no final phase in the audit log, unless they were deleted before any agent had them."""
    placed = {start.uid for start in starts} | {_uid(hold) for pod in pods.values() for hold in pod.agent.holds}
    for task in tasks.values():
        if task.final is not None:
            continue
        if task.deleted is not None and task.uid in placed:
            yield f"SlotTask {task.name} was deleted after it had been given to an agent, and has no final phase"
        elif task.deleted is None and settled:
            last = task.phases[-1][1] if task.phases else "none"
            yield f"SlotTask {task.name} never came to an end; its last phase is {last}"


def _final_changed(tasks: dict[str, SlotTask]) -> Iterator[str]:
    for task in tasks.values():
        final: str | None = None
        for at, phase in task.phases:
            if final is not None and phase != final:
                yield f"SlotTask {task.name} was {final}, and became {phase} at {at.isoformat()}"
            if phase in FINAL:
                final = final or phase


def _wrong_results(tasks: dict[str, SlotTask], pods: dict[str, Pod]) -> Iterator[str]:
    """A task is called Succeeded only if its agent said so of one of its attempts."""
    outcomes: dict[str, set[str]] = defaultdict(set)
    for pod in pods.values():
        for result in pod.agent.results:
            outcomes[result.task_id.rpartition(".")[0]].add(result.outcome)
    for task in tasks.values():
        if task.final == "Succeeded" and "succeeded" not in outcomes[task.uid]:
            yield f"SlotTask {task.name} is Succeeded, and no agent said so: {sorted(outcomes[task.uid])}"


# --- steps ------------------------------------------------------------------------------------------------------------


def _started_twice(starts: list[Start], tasks: dict[str, SlotTask]) -> Iterator[str]:
    """The same step of the same attempt; and any second apply of a task, whatever its attempt."""
    times: dict[tuple[str, str], list[Start]] = defaultdict(list)
    for start in starts:
        times[start.task_id, start.step].append(start)
        if start.step == "apply":
            times[start.uid, "apply of any attempt"].append(start)
    seen: set[tuple[datetime, ...]] = set()
    for (task_id, step), found in times.items():
        moments = tuple(start.at for start in found)
        if len(found) > 1 and moments not in seen:
            seen.add(moments)
            where = ", ".join(f"{start.at.isoformat()} in {start.container} of {start.pod_uid}" for start in found)
            yield f"the {step} of {_name(tasks, task_id)} ({task_id}) was started {len(found)} times: {where}"


def _in_two_slots(pods: dict[str, Pod], tasks: dict[str, SlotTask]) -> Iterator[str]:
    """One task, whatever its attempt, in two slots at a time, by agents' logs. What died with its Pod ended then."""
    holds: dict[str, list[Hold]] = defaultdict(list)
    for pod in pods.values():
        for hold in pod.agent.holds:
            holds[_uid(hold)].append(hold)
    for uid, found in holds.items():
        for one, other in combinations(sorted(found, key=lambda hold: hold.since), 2):
            end = _end(one.until, pods.get(one.pod_uid))
            if (one.pod_uid, one.slot) != (other.pod_uid, other.slot) and other.since < end:
                yield (
                    f"{_name(tasks, uid)} held slot {one.slot} of {one.pod_uid} from {one.since.isoformat()} to"
                    f" {end.isoformat()}, and slot {other.slot} of {other.pod_uid} from {other.since.isoformat()}"
                )


def _unapproved(
    starts: list[Start], ends: dict[tuple[str, str], list[End]], tasks: dict[str, SlotTask], pods: dict[str, Pod]
) -> Iterator[str]:
    """Each apply that follows a plan, against that plan's digest and the approvals written before it began."""
    for start in starts:
        task = tasks.get(start.uid)
        if start.step != "apply" or task is None or "plan" not in task.steps:
            continue
        what = f"the apply of {task.name}, attempt {start.attempt}, started at {start.at.isoformat()}"
        digest = start.digest
        planned = {end.digest for end in ends.get((start.task_id, "plan"), ()) if end.outcome == "succeeded"}
        pod = pods.get(start.pod_uid)
        if pod is not None and start.task_id in pod.agent.digests:
            planned.add(pod.agent.digests[start.task_id])
        if digest is None or planned != {digest}:
            yield f"{what} with digest {digest}, and its plan has {sorted(map(str, planned))}"
        if task.spec.get("approvalPolicy") == "Auto":
            continue
        given = [one for one in task.approvals if one.digest == digest and str(one.attempt) == start.attempt]
        if not given:
            yield f"{what} without an approval of attempt {start.attempt} and digest {digest}"
        elif min(one.at for one in given) > start.at:
            yield f"{what}, before its approval"


def _overlaps(
    starts: list[Start],
    tasks: dict[str, SlotTask],
    pods: dict[str, Pod],
    unlocks: Sequence[tuple[tuple[str, str], datetime]],
) -> Iterator[str]:
    """Steps of two tasks that may change things and have one lockKey: the later began without proof of the other's end.

    Proof is a worker's record of the end, the end of the Pod, or a person's statement that the lock is free.
    """
    groups: dict[tuple[str, str], list[Start]] = defaultdict(list)
    for start in starts:
        task = tasks.get(start.uid)
        if task is not None and task.lock is not None:
            groups[task.lock].append(start)
    for lock, found in groups.items():
        for one, other in combinations(found, 2):
            if one.uid == other.uid:
                continue
            end = _end(one.ended, pods.get(one.pod_uid))
            freed = [at for key, at in unlocks if key == lock and at > one.at]
            if other.at < min([end, *freed]):
                yield (
                    f"lockKey {lock[1]}: the {one.step} of {_name(tasks, one.uid)} ran from {one.at.isoformat()} to"
                    f" {end.isoformat()}, and the {other.step} of {_name(tasks, other.uid)} began at"
                    f" {other.at.isoformat()}"
                )


def _unlocks(writes: list[Write], tasks: dict[str, SlotTask]) -> Iterator[tuple[tuple[str, str], datetime]]:
    """When people took a lock away: the Lease is named after the lockKey's hash."""
    keys = {task.lock for task in tasks.values() if task.lock is not None}
    names = {(ns, f"podslots-lock-{hashlib.sha256(key.encode()).hexdigest()[:32]}"): (ns, key) for ns, key in keys}
    for write in writes:
        if write.resource == "leases" and write.verb == "delete" and write.user != CONTROLLER:
            lock = names.get((write.namespace, write.name))
            if lock is not None:
                yield lock, write.at


def _unexplained(starts: list[Start], tasks: dict[str, SlotTask], pods: dict[str, Pod]) -> Iterator[str]:
    """Steps that no agent's log, or no write, explains: then something was not recorded."""
    for start in starts:
        pod = pods.get(start.pod_uid)
        what = f"the {start.step} of {start.task_id} ran in {start.container} of {start.pod_uid}"
        if pod is None:
            yield f"{what}, and the audit log has no such Pod"
        elif not any(hold.task_id == start.task_id for hold in pod.agent.holds):
            yield f"{what}, and its agent's log has no slot held by it"
        if start.uid not in tasks:
            yield f"{what}, and the audit log has no such SlotTask"


def _end(known: datetime | None, pod: Pod | None) -> datetime:
    return min(moment for moment in (known, pod.over if pod else None, NEVER) if moment is not None)


def _uid(hold: Hold) -> str:
    return hold.task_id.rpartition(".")[0]


def _name(tasks: dict[str, SlotTask], task_id: str) -> str:
    task = tasks.get(task_id) or tasks.get(task_id.rpartition(".")[0])
    return task_id if task is None else f"SlotTask {task.name}"
