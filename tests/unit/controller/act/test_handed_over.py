"""What a task hands over stands in its Secret before the agent may forget it, and nobody else's Secret is touched."""

import base64
from typing import Any

import pytest

from agent.wire import Outcome
from controller.act.handed_over import key_of
from controller.errors import ApiUnavailable
from controller.kube.api import SECRETS, Object, Resource
from controller.objects.task import TaskPhase
from tests.support.dispatch_site import NS, DispatchSite, run

ASKED = {"path": "out/outputs.json", "secretName": "vpc-outputs"}


def ended(site: DispatchSite, content: bytes | None, outcome: Outcome = Outcome.SUCCEEDED, **spec: Any) -> None:
    """A plan that is over, and may have handed a file over."""
    replica = site.replica()
    run(replica.assign(site.add(kind="plan", **{"outputs": ASKED, **spec})))
    site.agent.start("uid-t.1")
    if content is not None:
        site.agent.handed_over["uid-t.1"] = content
    site.agent.finish("uid-t.1", outcome)


def secret(site: DispatchSite) -> Object | None:
    return site.api.objects.get((SECRETS, NS, "vpc-outputs"))


def foreign(site: DispatchSite, **metadata: Any) -> None:
    made = {"name": "vpc-outputs", "namespace": NS, **metadata}
    site.api.put(SECRETS, {"metadata": made, "data": {"old.json": "AA=="}})


def test_the_file_is_in_the_secret_before_the_result_and_the_ack() -> None:
    site = DispatchSite()
    ended(site, b'{"id": "\xff"}')
    seen: list[bool] = []

    async def asked(path: str) -> None:
        if path.endswith("/ack"):
            seen.append(secret(site) is not None and site.phase() is TaskPhase.SUCCEEDED)

    site.agent.before = asked
    run(site.replica().follow(site.task()))
    assert seen == [True]
    made = secret(site)
    assert made is not None
    assert made["data"] == {"outputs.json": base64.b64encode(b'{"id": "\xff"}').decode()}
    assert made["metadata"]["labels"] == {"podslots.dev/outputs": "true"}
    assert made["metadata"]["annotations"] == {"podslots.dev/outputs-of": "t"}
    assert "ownerReferences" not in made["metadata"], "it outlives the task"


def test_one_that_podslots_made_is_replaced_whole() -> None:
    site = DispatchSite()
    foreign(site, labels={"podslots.dev/outputs": "true"})
    ended(site, b"new")
    run(site.replica().follow(site.task()))
    made = secret(site)
    assert made is not None
    assert made["data"] == {"outputs.json": "bmV3"}


def test_one_that_podslots_did_not_make_is_left_and_the_task_says_so() -> None:
    site = DispatchSite()
    foreign(site, labels={"podslots.dev/pool": "p"})
    ended(site, b"new")
    replica = site.replica()
    run(replica.follow(site.task()))
    made = secret(site)
    assert made is not None
    assert made["data"] == {"old.json": "AA=="}
    assert site.phase() is TaskPhase.SUCCEEDED
    assert "was not made by podslots" in str(site.task().status.message)
    assert "OutputsNotStored" in replica.said()
    assert not site.agent.state.ended


def test_what_was_not_handed_over_is_said() -> None:
    site = DispatchSite()
    ended(site, None)
    run(site.replica().follow(site.task()))
    assert secret(site) is None
    assert "out/outputs.json was not handed over" in str(site.task().status.message)


def test_a_task_that_failed_leaves_what_the_last_one_handed_over() -> None:
    site = DispatchSite()
    foreign(site, labels={"podslots.dev/outputs": "true"})
    ended(site, b"half", Outcome.FAILED)
    run(site.replica().follow(site.task()))
    made = secret(site)
    assert made is not None
    assert made["data"] == {"old.json": "AA=="}


def test_a_write_without_an_answer_is_tried_again_before_anything_is_said_or_forgotten() -> None:
    site = DispatchSite()
    ended(site, b"x")

    async def unanswered(verb: str, resource: Resource, _name: str) -> None:
        if (verb, resource) == ("create", SECRETS):
            raise ApiUnavailable("no answer")

    site.api.after = unanswered
    with pytest.raises(ApiUnavailable):
        run(site.replica().follow(site.task()))
    assert site.phase() is TaskPhase.RUNNING
    run(site.replica().follow(site.task()))
    assert site.phase() is TaskPhase.SUCCEEDED
    assert site.task().status.message is None


def test_the_key_is_the_files_name() -> None:
    assert key_of("a/b/out puts.json") == "out_puts.json"
