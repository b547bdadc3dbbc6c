"""A step's output is kept before its agent may forget it: whole or bounded, once, and never in the way of the end."""

import random
from typing import Any

import pytest

from agent.wire import Outcome, Step
from controller.act import outputs
from controller.errors import AgentUnreachable, ApiUnavailable, Forbidden
from controller.kube.api import SLOTTASKOUTPUTS, SLOTTASKS, Resource
from controller.objects.output import Gap, Output, parse
from controller.objects.task import Task, TaskPhase
from tests.support.dispatch_site import NS, DispatchSite, run
from tests.support.machine_agent import DIGEST, PAGE_BYTES

PLAN = ("uid-t.1", Step.PLAN)
APPLY = ("uid-t.1", Step.APPLY)


def running(site: DispatchSite, kind: str = "plan_and_apply", **spec: Any) -> None:
    replica = site.replica()
    run(replica.assign(site.add(kind=kind, **spec)))
    site.agent.start("uid-t.1")
    run(replica.follow(site.task()))


def printed(site: DispatchSite, data: bytes, key: tuple[str, Step] = PLAN) -> None:
    site.agent.outputs[key] = data, b"", len(data)


def kept(site: DispatchSite, name: str = "t-1-plan") -> Output | None:
    found = site.api.objects.get((SLOTTASKOUTPUTS, NS, name))
    return None if found is None else parse(found)


def whole(data: bytes) -> Output:
    return Output(kept=data, size_bytes=len(data))


@pytest.mark.parametrize("data", [b"", b"short\n", b"\xff\xfe no text", "é".encode() * 500, b"several pages " * 100])
def test_output_is_kept_byte_for_byte_before_the_result_and_the_ack(data: bytes) -> None:
    site = DispatchSite()
    running(site, "plan")
    printed(site, data)
    site.agent.finish("uid-t.1")
    seen: list[tuple[str, bool, TaskPhase]] = []

    async def asked(path: str) -> None:
        seen.append((path, kept(site) is not None, site.phase()))

    async def written(verb: str, resource: Resource, _name: str) -> None:
        if verb == "patch" and resource is SLOTTASKS:
            seen.append(("status", kept(site) is not None, site.phase()))

    site.agent.before = asked
    site.before_api(written)
    run(site.replica().follow(site.task()))
    assert kept(site) == whole(data)
    assert site.task().status.outputs == {Step.PLAN: "t-1-plan"}
    by_path = {path: (is_kept, phase) for path, is_kept, phase in seen}
    assert by_path["status"] == (True, TaskPhase.RUNNING)
    assert by_path["/tasks/uid-t.1/ack"] == (True, TaskPhase.SUCCEEDED)
    assert not site.agent.state.ended


def test_a_plan_that_waits_has_its_output_kept_when_it_begins_to_wait_and_within_its_own_limit() -> None:
    site = DispatchSite()
    running(site)
    data = random.Random(1).randbytes(6000)
    printed(site, data)
    site.agent.finish("uid-t.1")
    run(site.replica().follow(site.task()))
    assert site.phase() is TaskPhase.AWAITING_APPROVAL
    assert kept(site) == whole(data)
    site.edit(approval={"attempt": 1, "planDigest": DIGEST})
    run(site.replica().approve(site.task()))
    site.agent.start("uid-t.1")
    printed(site, data, APPLY)
    site.agent.finish("uid-t.1")
    creates = len(site.api.calls)
    run(site.replica().follow(site.task()))
    assert ("create", "slottaskoutputs") not in site.api.calls[:creates][-1:]
    applied = kept(site, "t-1-apply")
    assert applied is not None
    assert 0 < applied.missing_bytes < 3000, "an apply has the smaller limit"
    assert site.task().status.outputs == {Step.PLAN: "t-1-plan", Step.APPLY: "t-1-apply"}


@pytest.mark.parametrize(("policy", "waiting", "ended"), [("Waiting", True, False), ("Never", False, False)])
def test_less_is_kept_if_the_task_says_so(policy: str, waiting: bool, ended: bool) -> None:
    site = DispatchSite()
    running(site, keepOutput=policy)
    printed(site, b"plan")
    site.agent.finish("uid-t.1")
    run(site.replica().follow(site.task()))
    assert (kept(site) is not None) == waiting
    site.edit(approval={"attempt": 1, "planDigest": DIGEST})
    run(site.replica().approve(site.task()))
    site.agent.start("uid-t.1")
    printed(site, b"apply", APPLY)
    site.agent.finish("uid-t.1")
    run(site.replica().follow(site.task()))
    assert site.phase() is TaskPhase.SUCCEEDED
    assert (kept(site, "t-1-apply") is not None) == ended
    assert not site.agent.state.ended


def test_what_the_agent_could_not_keep_is_said_with_its_place() -> None:
    site = DispatchSite()
    running(site, "plan")
    site.agent.outputs[PLAN] = b"beginning", b"end", 1000
    site.agent.finish("uid-t.1")
    run(site.replica().follow(site.task()))
    assert kept(site) == Output(kept=b"beginningend", size_bytes=1000, missing=(Gap(9, 988),))


def test_each_attempt_has_its_own() -> None:
    site = DispatchSite()
    running(site, "plan")
    printed(site, b"first")
    site.agent.finish("uid-t.1", Outcome.LOST)
    run(site.replica().follow(site.task()))
    assert site.task().status.attempt == 2
    assert not site.task().status.outputs
    assert kept(site) == whole(b"first")


def test_one_that_is_there_already_is_left_and_that_of_an_earlier_task_is_replaced() -> None:
    site = DispatchSite()
    running(site, "plan")
    printed(site, b"mine")
    site.agent.finish("uid-t.1")
    before = site.task()
    run(site.replica().follow(before))
    stored = site.api.objects[SLOTTASKOUTPUTS, NS, "t-1-plan"]
    other = {**stored, "spec": {**stored["spec"], "taskUID": "earlier"}, "metadata": {**stored["metadata"]}}
    site.api.put(SLOTTASKOUTPUTS, other)
    again = DispatchSite()
    again.api.objects[SLOTTASKOUTPUTS, NS, "t-1-plan"] = site.api.objects[SLOTTASKOUTPUTS, NS, "t-1-plan"]
    running(again, "plan")
    printed(again, b"new")
    again.agent.finish("uid-t.1")
    run(again.replica().follow(again.task()))
    assert kept(again) == whole(b"new")


def test_a_write_without_an_answer_is_tried_again_before_anything_is_said_or_forgotten() -> None:
    site = DispatchSite()
    running(site, "plan")
    printed(site, b"x")
    site.agent.finish("uid-t.1")

    async def unanswered(verb: str, resource: Resource, _name: str) -> None:
        if (verb, resource) == ("create", SLOTTASKOUTPUTS):
            raise ApiUnavailable("no answer")

    site.api.after = unanswered
    with pytest.raises(ApiUnavailable):
        run(site.replica().follow(site.task()))
    assert site.phase() is TaskPhase.RUNNING
    assert site.agent.state.ended == ("uid-t.1",)
    run(site.replica().follow(site.task()))
    assert site.phase() is TaskPhase.SUCCEEDED
    assert kept(site) == whole(b"x")


def test_a_refusal_is_said_and_does_not_hold_up_the_end() -> None:
    site = DispatchSite()
    running(site, "plan")
    printed(site, b"x")
    site.agent.finish("uid-t.1")

    async def refused(verb: str, resource: Resource, _name: str) -> None:
        if (verb, resource) == ("create", SLOTTASKOUTPUTS):
            raise Forbidden(403, "Forbidden", "exceeded quota")

    site.before_api(refused)
    replica = site.replica()
    run(replica.follow(site.task()))
    assert site.phase() is TaskPhase.SUCCEEDED
    assert not site.task().status.outputs
    assert "OutputNotKept" in replica.said()
    assert not site.agent.state.ended


def test_an_end_that_was_written_without_the_output_has_it_kept_before_the_ack() -> None:
    site = DispatchSite()
    running(site, "plan")
    printed(site, b"late")
    site.agent.finish("uid-t.1")
    task = site.task()
    done = {**task.status.to_json(), "phase": "Failed"}
    site.api.put(SLOTTASKS, {**site.api.objects[SLOTTASKS, NS, "t"], "status": done})
    final = Task.parse(site.api.objects[SLOTTASKS, NS, "t"])
    assert final.final
    run(site.replica().ack_ended(final))
    assert kept(site) == whole(b"late")
    assert not site.agent.state.ended


def test_no_other_pod_has_the_output_of_a_task_that_ended() -> None:
    """What imitates an agent may name any task: also one that ran elsewhere, and whose output was not kept."""
    site = DispatchSite()
    running(site, "plan")
    printed(site, b"made up")
    site.agent.finish("uid-t.1")
    elsewhere = {**site.task().status.to_json(), "phase": "Failed", "podUID": "uid-of-another"}
    site.api.put(SLOTTASKS, {**site.api.objects[SLOTTASKS, NS, "t"], "status": elsewhere})
    run(site.replica().settle_orphan("uid-t.1"))
    assert not [name for resource, _, name in site.api.objects if resource == SLOTTASKOUTPUTS]
    assert not site.agent.state.ended


def test_output_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What imitates an agent may go on for ever; the task's end then waits, and the controller lives."""
    monkeypatch.setattr(outputs, "MAX_KEPT_BYTES", 100 * PAGE_BYTES)
    site = DispatchSite()
    running(site)
    printed(site, b"x" * 5000)
    site.agent.finish("uid-t.1")
    pages = 0

    def page(_path: str) -> bytes:
        nonlocal pages
        pages += 1
        return b"x" * PAGE_BYTES

    monkeypatch.setattr(site.agent, "_log", page)
    with pytest.raises(AgentUnreachable):
        run(site.replica().follow(site.task()))
    assert pages <= 101
    assert kept(site) is None
    assert site.phase() is TaskPhase.RUNNING
