"""The custom resource definitions: what they take, what they refuse, and that they are bounded and agree with the code.

Objects are validated by the embedded API server's own engine, which is held to a real one elsewhere.
"""

import copy
import json
import math
import random
import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
import yaml

from agent.wire import STOP_SIGNALS, Outcome, Step, StepResult
from controller.crds import folder
from controller.errors import InvalidObject
from controller.local.apiserver.schema.structural import CustomSchema
from controller.local.apiserver.schema.validation import validate
from controller.objects.conditions import Condition
from controller.objects.output import Gap, Output, Source, document, packed
from controller.objects.pool import DEFAULT_LAYOUT, DeletionPolicy, PoolSpec, UpdateStrategy, UpdateType
from controller.objects.task import Task, TaskPhase, TaskStatus
from controller.objects.task_spec import ApprovalPolicy, KeepOutput, OnLostReservation, TaskSpec
from manifests.generate import policies
from tests.support.pools import NOW
from tests.support.refused_templates import REFUSED

Json = dict[str, Any]

DIGEST = "sha256:" + "a" * 64
OTHER_DIGEST = "sha256:" + "b" * 64


def definition(plural: str) -> Json:
    with (folder() / f"{plural}.yaml").open() as file:
        loaded: Json = yaml.safe_load(file)
    return loaded


DEFINITIONS = {plural: definition(plural) for plural in ("slotpools", "slottasks", "slottaskoutputs")}
SCHEMAS = {plural: CustomSchema.compile(crd["spec"]["versions"][0]) for plural, crd in DEFINITIONS.items()}


def submit(plural: str, body: Json, old: Json | None = None) -> tuple[Json, list[str]]:
    """The object as it would be stored, and what is wrong with it, as `field: message`."""
    schema = SCHEMAS[plural]
    metadata = {"name": "n", "namespace": "ns", "uid": "u", "resourceVersion": "1"}
    metadata = {**metadata, "creationTimestamp": "2026-01-01T00:00:00Z", **body.get("metadata", {})}
    own, unknown = schema.prune({name: copy.deepcopy(part) for name, part in body.items() if name != "metadata"})
    stored = {"metadata": metadata, **schema.default(own)}
    problems = [f"{path}: unknown field" for path in unknown]
    before = None if old is None else submit(plural, old)[0]
    problems += [f"{cause.field}: {cause.message}" for cause in validate(schema, stored, before)]
    return stored, problems


def merged(base: Json, change: Json) -> Json:
    """A JSON merge patch."""
    result = {key: value for key, value in base.items() if key not in change}
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            result[key] = merged(base[key], value)
        elif value is not None:
            result[key] = value
    return result


POOL: Json = {"spec": {"template": {"spec": {"containers": [{"name": "worker", "image": "i"}]}}}}
SCALED: Json = merged(POOL, {"spec": {"autoscaling": {"maxReplicas": 5}}})
TASK: Json = {
    "spec": {
        "pool": "terraform",
        "type": "plan_and_apply",
        "steps": {"plan": {"command": ["terraform", "plan"]}, "apply": {"command": ["terraform", "apply"]}},
    }
}
PLAN: Json = {"spec": {"pool": "p", "type": "plan", "steps": {"plan": {"command": ["true"]}}}}


GOOD_POOLS: dict[str, Json] = {
    "the least": {},
    "autoscaled": {"autoscaling": {"maxReplicas": 3}},
    "all of it": {
        "replicas": 2,
        "autoscaling": {
            "minReplicas": 1,
            "maxReplicas": 20,
            "scaleUpUtilizationPercent": 80,
            "scaleDownUtilizationPercent": 20,
            "idleSlots": {"plan_and_apply": 1},
            "minIdleSeconds": 60,
            "paused": True,
        },
        "slots": [{"accepts": ["plan", "apply", "plan_and_apply"]}, {"accepts": ["plan"]}],
        "reservation": {"ttlSeconds": 60},
        "output": {"maxBytes": 1024, "waitingMaxBytes": 1000000},
        "auth": {
            "lockReads": True,
            "rotationPeriodSeconds": 60,
            "tls": {"secretName": "a", "serverName": "a.b.svc", "clientAuth": {"secretName": "c.d"}},
        },
        "deletionPolicy": "Force",
        "updateStrategy": {"type": "OnDelete", "maxUnavailable": 2, "maxSurge": 0, "paused": True},
        "revisionHistoryLimit": 0,
    },
    "locked reads": {"auth": {"lockReads": True}},
    "tls, the least": {"auth": {"tls": {"secretName": "agents-tls"}}},
    "types of its own": {"slots": [{"accepts": ["render-4k", "Index.v2"]}] * 16},
    "template with anything": {
        "template": {
            "metadata": {"labels": {"a": "b"}, "x": 1},
            "spec": {"containers": [{"name": "a", "x": {"y": [1]}, "ports": [{"containerPort": 80, "x": 1}]}], "x": 1},
        }
    },
    "min is max": {"autoscaling": {"minReplicas": 3, "maxReplicas": 3}},
}

BAD_POOLS: dict[str, tuple[Json, str]] = {
    "no maximum (T5)": ({"autoscaling": {"minReplicas": 1}}, "maxReplicas"),
    "min above max": ({"autoscaling": {"minReplicas": 4, "maxReplicas": 3}}, "minReplicas must not exceed maxReplicas"),
    "thresholds crossed": (
        {"autoscaling": {"maxReplicas": 3, "scaleDownUtilizationPercent": 50, "scaleUpUtilizationPercent": 50}},
        "scaleDownUtilizationPercent must be below",
    ),
    "negative size": ({"replicas": -1}, "spec.replicas"),
    "no slots": ({"slots": []}, "spec.slots"),
    "17 slots": ({"slots": [{"accepts": ["plan"]}] * 17}, "spec.slots"),
    "a slot for nothing": ({"slots": [{"accepts": []}]}, "spec.slots[0].accepts"),
    "a slot without accepts": ({"slots": [{}]}, "spec.slots[0].accepts"),
    "a type twice": ({"slots": [{"accepts": ["plan", "plan"]}]}, "spec.slots[0].accepts"),
    "a type without a name": ({"slots": [{"accepts": [""]}]}, "spec.slots[0].accepts[0]"),
    "a type with spaces": ({"slots": [{"accepts": ["a b"]}]}, "spec.slots[0].accepts[0]"),
    "a type too long": ({"slots": [{"accepts": ["x" * 64]}]}, "spec.slots[0].accepts[0]"),
    "a buffer nothing can hold": (
        {"autoscaling": {"maxReplicas": 3, "idleSlots": {"plna": 1}}},
        "idleSlots names a task type that no slot accepts",
    ),
    "a policy of its own": ({"deletionPolicy": "Orphan"}, "spec.deletionPolicy"),
    "no template": ({"template": None}, "spec.template"),
    "a template without a spec": ({"template": {"spec": None}}, "spec.template.spec"),
    "a typing mistake": ({"autoscaling": {"maxReplicas": 3, "minReplica": 1}}, "minReplica: unknown field"),
    "a setting that does not exist": ({"modes": "Deployment"}, "modes: unknown field"),
    "a mode that does not exist": ({"mode": "StatefulSet"}, "spec.mode"),
    "an update that interrupts": ({"updateStrategy": {"type": "Recreate"}}, "spec.updateStrategy.type"),
    "an update that may do nothing": ({"updateStrategy": {"maxUnavailable": 0}}, "spec.updateStrategy.maxUnavailable"),
    "a share of Pods": ({"updateStrategy": {"maxSurge": "25%"}}, "spec.updateStrategy.maxSurge"),
    "too long a history": ({"revisionHistoryLimit": 101}, "spec.revisionHistoryLimit"),
    "tls without a Secret": ({"auth": {"tls": {}}}, "spec.auth.tls.secretName"),
    "tls by an empty Secret": ({"auth": {"tls": {"secretName": ""}}}, "spec.auth.tls.secretName"),
    "tls by no Secret's name": ({"auth": {"tls": {"secretName": "A_b"}}}, "spec.auth.tls.secretName"),
    "tls by too long a name": ({"auth": {"tls": {"secretName": "a" * 254}}}, "spec.auth.tls.secretName"),
    "a server name that is an address": (
        {"auth": {"tls": {"secretName": "a", "serverName": "https://a"}}},
        "spec.auth.tls.serverName",
    ),
    "client certificates of nobody": (
        {"auth": {"tls": {"secretName": "a", "clientAuth": {}}}},
        "spec.auth.tls.clientAuth.secretName",
    ),
    "reads half locked": ({"auth": {"lockReads": "yes"}}, "spec.auth.lockReads"),
    "a token used for seconds": ({"auth": {"rotationPeriodSeconds": 59}}, "spec.auth.rotationPeriodSeconds"),
    "tls with a typing mistake": ({"auth": {"tls": {"secretname": "a"}}}, "secretname: unknown field"),
    "an output larger than an object": ({"output": {"maxBytes": 1000001}}, "spec.output.maxBytes"),
    "a reservation without time": ({"reservation": {"ttlSeconds": 0}}, "spec.reservation.ttlSeconds"),
}


@pytest.mark.parametrize("spec", GOOD_POOLS.values(), ids=GOOD_POOLS)
def test_pools_that_are_taken_are_understood(spec: Json) -> None:
    stored, problems = submit("slotpools", merged(POOL, {"spec": spec}))
    assert not problems
    PoolSpec.parse(stored)


@pytest.mark.parametrize(("spec", "problem"), BAD_POOLS.values(), ids=BAD_POOLS)
def test_pools_that_are_refused(spec: Json, problem: str) -> None:
    _, problems = submit("slotpools", merged(POOL, {"spec": spec}))
    assert any(problem in text for text in problems), problems


@pytest.mark.parametrize("name", [name for name, (_, problem) in BAD_POOLS.items() if "unknown field" not in problem])
def test_a_pool_that_slipped_through_is_refused_by_its_parser_too(name: str) -> None:
    with pytest.raises(InvalidObject):
        PoolSpec.parse(merged(POOL, {"spec": BAD_POOLS[name][0]}))


@pytest.mark.parametrize("name", REFUSED)
def test_templates_that_podslots_refuses_are_refused_by_the_cluster(name: str) -> None:
    """Whoever applies one hears it at once, not when the first Pod is wanted."""
    template, _, _ = REFUSED[name]
    assert submit("slotpools", {"spec": {"template": template}})[1]


def test_a_template_is_kept_as_it_is() -> None:
    """Fields that the definition does not describe are no business of it: none is dropped, none gets a default."""
    template = GOOD_POOLS["template with anything"]["template"]
    stored, problems = submit("slotpools", {"spec": {"template": template}})
    assert not problems
    assert stored["spec"]["template"] == template


def test_a_pools_name_fits_a_label() -> None:
    assert not submit("slotpools", merged(POOL, {"metadata": {"name": "n" * 63}}))[1]
    assert submit("slotpools", merged(POOL, {"metadata": {"name": "n" * 64}}))[1]


def test_defaults_of_the_definition_are_those_of_the_code() -> None:
    stored, _ = submit("slotpools", SCALED)
    assert PoolSpec.parse(stored) == PoolSpec.parse(SCALED)
    assert tuple(tuple(slot["accepts"]) for slot in stored["spec"]["slots"]) == DEFAULT_LAYOUT
    task, _ = submit("slottasks", TASK)
    bare = {**task, "spec": TASK["spec"]}
    assert Task.parse(task) == Task.parse(bare)


PAUSED: Json = merged(SCALED, {"spec": {"autoscaling": {"paused": True}}})

REPLICAS: dict[str, tuple[Json, Json, bool]] = {
    "not autoscaled": (POOL, POOL, True),
    "autoscaled": (SCALED, SCALED, False),
    "paused": (PAUSED, PAUSED, True),
    "being paused": (SCALED, PAUSED, True),
    "being resumed": (PAUSED, SCALED, True),
    "autoscaling goes": (SCALED, POOL, True),
    "autoscaling comes": (POOL, SCALED, True),
}


@pytest.mark.parametrize(("old", "new", "allowed"), REPLICAS.values(), ids=REPLICAS)
def test_replicas_are_refused_to_change_while_autoscaling_decides(old: Json, new: Json, allowed: bool) -> None:
    _, problems = submit("slotpools", merged(new, {"spec": {"replicas": 7}}), old)
    assert (not problems) == allowed, problems
    _, problems = submit("slotpools", new, merged(old, {"spec": {"replicas": 7}}))
    assert (not problems) == allowed, problems
    for replicas in (None, 7):
        given = {"spec": {"replicas": replicas}}
        assert not submit("slotpools", merged(new, given), merged(old, given))[1]


def test_a_size_that_nobody_set_is_no_number() -> None:
    """A default would be the size that a pool which is paused goes to."""
    assert "replicas" not in submit("slotpools", PAUSED)[0]["spec"]
    assert PoolSpec.parse(PAUSED).fixed_size(present=3) == 3
    assert PoolSpec.parse(POOL).fixed_size(present=3) == 0
    assert PoolSpec.parse(merged(PAUSED, {"spec": {"replicas": 0}})).fixed_size(present=3) == 0


GOOD_TASKS: dict[str, Json] = {
    "plan and apply": {},
    "a type of its own": {"type": "render", "steps": {"plan": None}},
    "all of it": {
        "lockKey": "vpc-prod",
        "priority": -5,
        "files": {
            "main.tf": "…",
            "modules/a.tf": "",
            "run.sh": {"text": "#!/bin/sh", "mode": 0o755},
            "key.bin": {"base64": "AAE=", "mode": "0600"},
            ".hidden/..odd": "x",
        },
        "env": [
            {"name": "A", "value": ""},
            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}},
            {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
        ],
        "envFrom": [{"prefix": "X_", "secretRef": {"name": "s"}}, {"configMapRef": {"name": "c", "optional": True}}],
        "steps": {
            "plan": {
                "before": [{"command": ["git", "clone", "u", "src"]}, {"command": ["true"], "workingDir": "src"}],
                "workingDir": "src/live",
                "planFile": "out.tfplan",
                "exitCodes": {"changed": [2], "unchanged": [0]},
                "timeoutSeconds": 3600,
                "stopSignal": "SIGTERM",
                "cancelGraceSeconds": 0,
            },
            "apply": {"before": [{"command": ["terraform", "init"]}], "workingDir": "."},
        },
        "approvalPolicy": "Auto",
        "onLostReservation": "Replan",
        "retry": {"planMaxAttempts": 3, "planExitCodes": [1, 75]},
        "keepOutput": "Waiting",
        "maskSecrets": True,
        "outputs": {"path": "a/outputs.json", "secretName": "vpc.outputs"},
        "cancel": False,
        "ttlSecondsAfterFinished": 0,
    },
}

BAD_TASKS: dict[str, tuple[Json, str]] = {
    "plan with an apply step": ({"type": "plan"}, "a task of type plan has a plan step, and no other"),
    "apply with a plan step": ({"type": "apply"}, "a task of type apply has an apply step, and no other"),
    "plan_and_apply without an apply": (
        {"steps": {"apply": None}},
        "a task of type plan_and_apply has a plan step and an apply step",
    ),
    "no step": ({"type": "render", "steps": {"plan": None, "apply": None}}, "a task has a plan step, an apply step"),
    "an empty command": ({"steps": {"plan": {"command": []}}}, "spec.steps.plan.command"),
    "no pool": ({"pool": None}, "spec.pool"),
    "an empty lockKey": ({"lockKey": ""}, "spec.lockKey"),
    "value and reference": (
        {"env": [{"name": "A", "value": "v", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]},
        "a variable has either a value or a valueFrom",
    ),
    "a reference to nothing": ({"env": [{"name": "A", "valueFrom": {}}]}, "either secretKeyRef or configMapKeyRef"),
    "a reference to two": (
        {"envFrom": [{"secretRef": {"name": "s"}, "configMapRef": {"name": "c"}}]},
        "either secretRef or configMapRef",
    ),
    "a variable twice": ({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}, "Duplicate value"),
    "a variable that is none": ({"env": [{"name": "A B", "value": "1"}]}, "spec.env[0].name"),
    "an approval of no digest": ({"approval": {"attempt": 1, "planDigest": "yes"}}, "spec.approval.planDigest"),
    "an approval of no attempt": ({"approval": {"planDigest": DIGEST}}, "spec.approval.attempt"),
    "a source that does not exist yet": ({"source": {"git": {}}}, "source: unknown field"),
    "outputs without a Secret": ({"outputs": {"path": "a"}}, "spec.outputs.secretName"),
    "outputs by no Secret's name": ({"outputs": {"path": "a", "secretName": "A_b"}}, "spec.outputs.secretName"),
    "outputs as a pool's tokens": (
        {"outputs": {"path": "t9", "secretName": "podslots-tokens-next"}},
        "a Secret of this name belongs to a pool",
    ),
    "outputs as a pool's holder": (
        {"outputs": {"path": "a", "secretName": "podslots-holder-next"}},
        "a Secret of this name belongs to a pool",
    ),
    "outputs from elsewhere": ({"outputs": {"path": "/etc/a", "secretName": "a"}}, "spec.outputs.path"),
    "a folder above": ({"steps": {"plan": {"workingDir": "a/../.."}}}, "spec.steps.plan.workingDir"),
    "a plan file elsewhere": ({"steps": {"plan": {"planFile": "/plans/p"}}}, "spec.steps.plan.planFile"),
    "a signal that does not stop": ({"steps": {"apply": {"stopSignal": "SIGCONT"}}}, "spec.steps.apply.stopSignal"),
    "nothing before": ({"steps": {"plan": {"before": [{"command": [""]}]}}}, "command must name a program"),
    "an exit code that says both": (
        {"steps": {"plan": {"exitCodes": {"changed": [2], "unchanged": [0, 2]}}}},
        "the same code can't say both",
    ),
    "no exit code": ({"steps": {"plan": {"exitCodes": {"changed": [256]}}}}, "exitCodes.changed[0]"),
    "success tried again": ({"retry": {"planExitCodes": [0]}}, "spec.retry.planExitCodes[0]"),
    "too many files": ({"files": {str(number): "" for number in range(65)}}, "spec.files"),
}


@pytest.mark.parametrize("spec", GOOD_TASKS.values(), ids=GOOD_TASKS)
def test_tasks_that_are_taken_are_understood(spec: Json) -> None:
    stored, problems = submit("slottasks", merged(TASK, {"spec": spec}))
    assert not problems
    Task.parse(stored)


@pytest.mark.parametrize(("spec", "problem"), BAD_TASKS.values(), ids=BAD_TASKS)
def test_tasks_that_are_refused(spec: Json, problem: str) -> None:
    _, problems = submit("slottasks", merged(TASK, {"spec": spec}))
    assert any(problem in text for text in problems), problems


FULL: Json = merged(TASK, {"spec": GOOD_TASKS["all of it"]})

CHANGES: dict[str, Json] = {
    "pool": {"pool": "other"},
    "type": {"type": "render"},
    "lockKey": {"lockKey": "other"},
    "files": {"files": {"main.tf": "other"}},
    "a file more": {"files": {"b.tf": ""}},
    "env": {"env": [{"name": "A", "value": "other"}]},
    "envFrom": {"envFrom": [{"secretRef": {"name": "other"}}]},
    "a file's mode": {"files": {"run.sh": {"mode": 0o700}}},
    "what is done before": {"steps": {"apply": {"before": []}}},
    "a command": {"steps": {"apply": {"command": ["rm"]}}},
    "a limit": {"steps": {"plan": {"timeoutSeconds": 1}}},
    "a limit less": {"steps": {"plan": {"timeoutSeconds": None}}},
    "approvalPolicy": {"approvalPolicy": "Manual"},
    "onLostReservation": {"onLostReservation": "Fail"},
    "retry": {"retry": {"planMaxAttempts": 9}},
    "keepOutput": {"keepOutput": "Never"},
    "maskSecrets": {"maskSecrets": False},
    "outputs": {"outputs": {"secretName": "other"}},
    "ttl": {"ttlSecondsAfterFinished": 5},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_a_task_does_is_immutable(change: Json) -> None:
    _, problems = submit("slottasks", merged(FULL, {"spec": change}), FULL)
    assert any(
        "only approval, cancel and priority can be changed; a changed task needs a new name" in text
        for text in problems
    ), problems


def test_every_field_of_a_task_but_three_is_covered_by_the_rule() -> None:
    spec = DEFINITIONS["slottasks"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    rule = spec["x-kubernetes-validations"][0]["rule"]
    free = {name for name in spec["properties"] if f"self.{name} == oldSelf.{name}" not in rule}
    assert free == {"approval", "cancel", "priority"}
    optional = {
        name
        for name, schema in spec["properties"].items()
        if name not in free and name not in spec["required"] and "default" not in schema
    }
    assert optional == {name for name in spec["properties"] if f"has(self.{name}) == has(oldSelf.{name})" in rule}


@pytest.mark.parametrize("field", ["lockKey", "files", "env", "envFrom", "outputs"])
def test_an_optional_field_can_neither_be_added_nor_removed(field: str) -> None:
    without = merged(FULL, {"spec": {field: None}})
    assert submit("slottasks", without, FULL)[1]
    assert submit("slottasks", FULL, without)[1]


def test_cancel_and_priority_can_change() -> None:
    for change in ({"cancel": True}, {"priority": 7}):
        assert not submit("slottasks", merged(FULL, {"spec": change}), FULL)[1]


def approval(digest: str, attempt: int = 1) -> Json:
    return {"spec": {"approval": {"attempt": attempt, "planDigest": digest, "by": "anna"}}}


def test_an_approval_can_come_and_change_until_it_names_the_plan_there_is() -> None:
    waiting = merged(TASK, {"status": {"phase": "AwaitingApproval", "planDigest": DIGEST, "attempt": 1}})
    wrong = merged(waiting, approval(OTHER_DIGEST))
    right = merged(waiting, approval(DIGEST))
    assert not submit("slottasks", right, waiting)[1]
    assert not submit("slottasks", wrong, waiting)[1]
    assert not submit("slottasks", right, wrong)[1]
    assert not submit("slottasks", waiting, wrong)[1]
    for change in (waiting, wrong, merged(waiting, approval(DIGEST, attempt=2))):
        assert any("the plan was approved" in text for text in submit("slottasks", change, right)[1])
    assert not submit("slottasks", merged(right, {"spec": {"cancel": True}}), right)[1]
    replanned = merged(right, {"status": {"planDigest": OTHER_DIGEST, "attempt": 2}})
    assert not submit("slottasks", replanned, right)[1]
    assert not submit("slottasks", merged(replanned, approval(OTHER_DIGEST, attempt=2)), replanned)[1]


def test_every_status_the_controller_can_write_is_taken() -> None:
    result = StepResult(
        start_time=NOW,
        end_time=NOW,
        outcome=Outcome.LOST,
        changed=True,
        exit_code=-9,
        reason="r",
        log_bytes=5,
        log_tail="é" * 4096,
    )
    condition = Condition(type="Accepted", status="False", reason="R", message="m" * 99999, since=NOW)
    for phase in TaskPhase:
        status = TaskStatus(
            phase=phase,
            step=Step.APPLY,
            pod="p",
            pod_uid="u",
            slot=0,
            attempt=2,
            plan_digest=DIGEST,
            expires_at=NOW,
            reason="r",
            message="m",
            queued_reason="q",
            not_before=NOW,
            plan=result,
            apply=StepResult(),
            plan_output="n-2-plan",
            apply_output="n-2-apply",
            conditions=(condition,),
            observed_generation=3,
            started_at=NOW,
            finished_at=NOW,
        )
        assert all(getattr(status, field.name) is not None for field in fields(TaskStatus))
        stored, problems = submit("slottasks", merged(TASK, {"status": status.to_json()}))
        assert not problems
        assert stored["status"] == status.to_json()


def schemas(schema: Json, path: str) -> Iterator[tuple[str, Json]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from schemas(child, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if name in schema:
            yield from schemas(schema[name], f"{path}[]")


@pytest.mark.parametrize("plural", DEFINITIONS)
def test_every_list_map_and_string_is_bounded(plural: str) -> None:
    """The API server estimates what a rule may cost from the bounds, and refuses a definition that costs too much."""
    root = DEFINITIONS[plural]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for path, schema in schemas(root, ""):
        assert schema.keys() & {"type", "x-kubernetes-int-or-string"}, path
        if "type" not in schema:
            continue
        if path.split(".")[1:2] in (["apiVersion"], ["kind"]):
            continue
        match schema["type"]:
            case "string":
                assert schema.keys() & {"maxLength", "enum", "format"}, path
            case "array":
                assert {"maxItems", "items", "x-kubernetes-list-type"} <= schema.keys(), path
            case "object" if "additionalProperties" in schema:
                assert "maxProperties" in schema, path


MOST_OF_A_RULE, MOST_OF_A_DEFINITION = 10_000_000, 100_000_000
"""What kube-apiserver takes (StaticEstimatedCostLimit, StaticEstimatedCRDCostLimit of its apiextensions): the
estimated cost of a rule times how often its place can occur, and the sum of these."""

STRING_FACTOR = 0.1
"""What the estimator counts for each character or entry that is compared."""


def size(schema: Json) -> int:
    """What the estimator takes for the size of such a value. Of an object it counts no fields either."""
    match schema.get("type"):
        case "string":
            return int(schema.get("maxLength") or max((len(word) for word in schema.get("enum", ())), default=64))
        case "array":
            return int(schema["maxItems"])
        case "object" if "additionalProperties" in schema:
            return int(schema["maxProperties"])
    return 1


def mentioned(rule: str, schema: Json) -> Iterator[tuple[Json, bool]]:
    """The schemas of what a rule names, and whether it goes through all that is in it."""
    for path, loop in re.findall(
        r"\b(?:self|oldSelf)((?:\.\w+\b(?!\())*)(\.(?:all|exists|exists_one|map|filter)\()?", rule
    ):
        found = schema
        for name in path.split(".")[1:]:
            found = found.get("properties", {}).get(name) or {"type": "string", "maxLength": 253}  # of metadata
        yield found, bool(loop)


def most_cost(rule: str, schema: Json) -> float:
    """No less than the estimate: each word costs one, what is named is compared once, and all of it in each loop."""
    named = list(mentioned(rule, schema))
    once = len(re.findall(r"\w+|[^\w\s]", rule)) + sum(size(value) for value, _ in named) * (
        1 if " in " in rule else STRING_FACTOR
    )
    return once * math.prod(max(1, size(value)) for value, loop in named if loop)


def rules(schema: Json, times: int = 1) -> Iterator[tuple[str, Json, int]]:
    """Each rule, the schema it stands in, and how often that can occur in an object."""
    for entry in schema.get("x-kubernetes-validations", ()):
        yield entry["rule"], schema, times
    for child in schema.get("properties", {}).values():
        yield from rules(child, times)
    for name in ("items", "additionalProperties"):
        if name in schema:
            yield from rules(schema[name], times * size(schema))


@pytest.mark.parametrize("plural", DEFINITIONS)
def test_no_rule_costs_more_than_an_api_server_takes(plural: str) -> None:
    """It refuses the whole definition otherwise; the embedded one counts no costs."""
    root = DEFINITIONS[plural]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    costs = {f"{times} times {rule}": most_cost(rule, schema) * times for rule, schema, times in rules(root)}
    assert costs
    assert {rule: cost for rule, cost in costs.items() if cost > MOST_OF_A_RULE} == {}
    assert sum(costs.values()) < MOST_OF_A_DEFINITION


def test_a_rule_over_what_has_no_small_bound_is_seen_to_cost_too_much() -> None:
    text = {"type": "string", "maxLength": 32768}
    wide = {"type": "array", "maxItems": 4096, "items": text}
    schema = {"type": "object", "properties": {"a": wide, "b": wide}}
    assert most_cost("self.a.all(x, x in self.b)", schema) > MOST_OF_A_RULE
    assert most_cost("self.a == oldSelf.a", schema) < 1000
    (found,) = rules({"type": "array", "maxItems": 9, "items": {"x-kubernetes-validations": [{"rule": "self != ''"}]}})
    assert found[2] == 9


@pytest.mark.parametrize("plural", DEFINITIONS)
def test_the_schema_is_structural(plural: str) -> None:
    """Every level has a type, lists that are maps have required keys, defaults are valid."""
    root = DEFINITIONS[plural]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for path, schema in schemas(root, ""):
        for key in schema.get("x-kubernetes-list-map-keys", ()):
            assert key in schema["items"]["required"], path
        for name in schema.get("required", ()):
            assert name in schema["properties"], path
        unknown = schema.keys() - KNOWN
        assert not unknown, f"{path}: {unknown}"


KNOWN = {
    "type", "format", "description", "properties", "items", "additionalProperties", "required", "default", "enum",
    "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "maxProperties", "pattern",
    "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-validations",
    "x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string",
}  # fmt: skip


def test_enumerations_are_those_of_the_code() -> None:
    tasks, pools = (
        DEFINITIONS[plural]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
        for plural in ("slottasks", "slotpools")
    )
    spec, status = tasks["spec"]["properties"], tasks["status"]["properties"]
    assert spec["approvalPolicy"]["enum"] == list(ApprovalPolicy)
    assert spec["keepOutput"]["enum"] == list(KeepOutput)
    assert spec["onLostReservation"]["enum"] == list(OnLostReservation)
    assert pools["spec"]["properties"]["deletionPolicy"]["enum"] == list(DeletionPolicy)
    update = pools["spec"]["properties"]["updateStrategy"]["properties"]
    assert update["type"]["enum"] == list(UpdateType)
    assert {name: rule["default"] for name, rule in update.items()} == {
        "type": UpdateStrategy().type,
        "maxUnavailable": UpdateStrategy().max_unavailable,
        "maxSurge": UpdateStrategy().max_surge,
        "paused": UpdateStrategy().paused,
    }
    assert status["phase"]["enum"] == list(TaskPhase)
    assert status["step"]["enum"] == list(Step)
    for step in Step:
        assert status["steps"]["properties"][step]["properties"]["outcome"]["enum"] == list(Outcome)
    assert spec["steps"]["properties"]["plan"]["properties"]["stopSignal"]["enum"] == list(STOP_SIGNALS)
    # Of each field of the spec one, and of `retry` one for each of its own; what its steps need is worked out of them.
    given = {field.name for field in fields(TaskSpec)} - {"needed_grace_seconds"}
    assert len(given) == len(spec) + len(spec["retry"]["properties"]) - 1


def test_the_output_of_a_step_is_taken_as_the_code_writes_it_and_never_changes() -> None:
    source = Source(namespace="ns", task="t", task_uid="u", attempt=1, step=Step.APPLY)
    cut = Output(kept=b"ab", size_bytes=10, missing=(Gap(1, 8),))
    for output in (Output(kept=b"", size_bytes=0), cut):
        made = document(source, *packed(output, 1000))
        stored, problems = submit("slottaskoutputs", made)
        assert not problems
        assert stored["spec"] == made["spec"]
        assert not submit("slottaskoutputs", made, made)[1]
        for change in ({"data": "AA=="}, {"task": "other"}, {"missing": [{"offset": 0, "bytes": 1}]}):
            assert any(
                "what a step has written does not change" in text
                for text in submit("slottaskoutputs", merged(made, {"spec": change}), made)[1]
            )


def test_the_largest_output_that_a_pool_may_keep_fits_its_object() -> None:
    """An object may have 1.5 MiB in etcd."""
    data = random.Random(1).randbytes(2_000_000)
    source = Source(namespace="n" * 63, task="t" * 253, task_uid="u" * 36, attempt=99, step=Step.APPLY)
    output, compressed = packed(Output(kept=data, size_bytes=len(data)), 921_600)
    made = document(source, output, compressed)
    assert not submit("slottaskoutputs", made)[1]
    assert len(json.dumps(made)) < 1_400_000


def test_all_paths_have_one_pattern() -> None:
    """What it says is held to the code by `test_paths_agree`, in one place of each kind."""
    root = DEFINITIONS["slottasks"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    steps = root["properties"]["steps"]["properties"]
    path = steps["plan"]["properties"]["planFile"]["pattern"].removeprefix("^").removesuffix("$")
    assert root["properties"]["outputs"]["properties"]["path"]["pattern"] == f"^{path}$"
    for step in steps.values():
        before = step["properties"]["before"]["items"]["properties"]
        for given in (step["properties"], before):
            assert given["workingDir"]["pattern"] == f"^(\\.|{path})$"


def test_every_field_that_people_write_says_what_it_is_for() -> None:
    """`kubectl explain` shows it. Of the Pod template's own parts Kubernetes' pages say it."""
    for plural, definition_ in DEFINITIONS.items():
        root = definition_["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
        fields_ = [(path, schema) for path, schema in schemas(root, plural) if not path.endswith("[]")]
        silent = [path for path, schema in fields_ if not schema.get("description") and ".template." not in path]
        assert silent == []


def compared(rule: str, schema: Json) -> Iterator[str]:
    """The paths of what a rule compares with what was there before."""
    for path in re.findall(r"\bself((?:\.\w+)*) == oldSelf\b", rule):
        found = schema
        for name in path.split(".")[1:]:
            found = found.get("properties", {}).get(name, {})
        yield from (f"{path}{below}" for below, part in schemas(found, "") if has_unknown_keys(part))


def has_unknown_keys(schema: Json) -> bool:
    return bool(schema.get("x-kubernetes-preserve-unknown-fields"))


@pytest.mark.parametrize("plural", DEFINITIONS)
def test_what_a_rule_keeps_from_changing_has_no_keys_without_a_schema(plural: str) -> None:
    """kube-apiserver overlooks a key that was renamed there: of such keys it compares those that both have.

    A task's files have none that could be given one; a policy compares them.
    """
    root = DEFINITIONS[plural]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    found = {path for rule, schema, _ in rules(root) for path in compared(rule, schema)}
    assert found == ({".files"} if plural == "slottasks" else set())
    assert [policy.name for policy in policies() if "oldObject.spec.?files" in policy.validations[0]["expression"]]


def test_such_keys_are_seen_in_what_a_rule_compares() -> None:
    loose = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {"a": {"type": "object", "properties": {"b": loose}}}}
    assert list(compared("self.a == oldSelf.a", schema)) == [".a.b"]
    assert list(compared("self == oldSelf", schema)) == [".a.b"]
    assert list(compared("self.c == oldSelf.c", schema)) == []
