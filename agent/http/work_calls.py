"""The calls below /work: what a worker says over HTTP, for `workers`. The credential has said which slot it is."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from aiohttp import web

from agent.codec import WireError, decode
from agent.errors import Refusal
from agent.http.asked import Asked, Parts
from agent.http.bodies import read_integer, read_step, respond
from agent.http.validation import MAX_NAME_LENGTH, check_exit, check_fence, check_name, check_task_id, check_task_type
from agent.rules.recovery import MAX_KEPT_TASKS, Dropped
from agent.wire import Empty, ExitReport, KeptTask, OutputAnswer, RegisterRequest, StartedReport
from agent.workers import NAMED_KEPT

MOST_READ = 4 * MAX_KEPT_TASKS
"""Tasks of one registration that are read at all: more than any worker keeps, and few enough to hold nobody up."""


def read_kept_tasks(listed: list[Any], known: Collection[str]) -> tuple[tuple[KeptTask, ...], tuple[Dropped, ...]]:
    """The tasks of a registration, and those that are none: the others are taken all the same.

    `known` are the slot's tasks that the agent knows. They are read first where there are very many, then what may
    still run; of what is not read at all only some are named.
    """
    ranked = sorted(listed, key=lambda entry: (_named(entry) not in known, _has_ended(entry)))
    kept: list[KeptTask] = []
    dropped: list[Dropped] = []
    for entry in ranked[:MOST_READ]:
        try:
            task = decode(KeptTask, entry, strict=True)
            check_task_id(task.assignment.task_id)
            check_fence(task.assignment.fence)
            check_task_type(task.assignment.task_type)
            check_name("name", task.assignment.work.name)
            if task.exit is not None:
                check_exit(task.exit)
        except (WireError, Refusal) as problem:
            reason = str(problem)[:MAX_NAME_LENGTH]
            dropped.append(Dropped(_named(entry), reason, may_run=not _has_ended(entry)))
        else:
            kept.append(task)
    surplus = (Dropped(_named(entry), "one of too many") for entry in ranked[MOST_READ : MOST_READ + NAMED_KEPT])
    return tuple(kept), (*dropped, *surplus)


def _named(entry: Any) -> str:
    """The id in what a worker says of a task, if there is one."""
    given = entry.get("assignment") if isinstance(entry, dict) else None
    task_id = given.get("task_id") if isinstance(given, dict) else None
    return task_id[:MAX_NAME_LENGTH] if isinstance(task_id, str) else ""


def _has_ended(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("exit") is not None


async def register(parts: Parts, asked: Asked[Any]) -> web.StreamResponse:
    """A worker instance takes over its slot."""
    slot, body = asked.identity.slot, asked.body
    listed: Any = body.pop("tasks", []) if isinstance(body, dict) else []
    request = decode(RegisterRequest, body, strict=True)
    check_name("instance", request.instance)
    if not isinstance(listed, list):
        raise WireError("tasks", "must be a list")
    known = {task_id for task_id, task in parts.service.state.tasks.items() if task.slot == slot}
    tasks, unusable = read_kept_tasks(listed, known)
    listed.clear()  # of the largest size it takes 40 MiB: not while the journal is written
    return respond(await parts.workers.register(slot, replace(request, tasks=tasks), unusable))


async def poll(parts: Parts, asked: Asked[None]) -> web.StreamResponse:
    """What the worker is to do; held until there is something."""
    request = asked.request
    query = request.query
    answer = await parts.workers.poll(
        asked.identity.slot,
        query.get("instance", ""),
        query.get("task_id"),
        read_step(query["step"]) if "step" in query else None,
        listening=lambda: request.transport is not None and not parts.service.stopping,
    )
    return respond(answer)


async def started(parts: Parts, asked: Asked[StartedReport]) -> web.StreamResponse:
    """The worker's command is about to run."""
    await parts.workers.started(asked.identity.slot, asked.body)
    return respond(Empty())


async def output(parts: Parts, asked: Asked[bytes]) -> web.StreamResponse:
    """The worker's step has written more."""
    query = asked.request.query
    task_id = query.get("task_id", "")
    check_task_id(task_id)
    have = await parts.workers.output(
        asked.identity.slot,
        instance=query.get("instance", ""),
        task_id=task_id,
        step=read_step(query.get("step", "")),
        offset=read_integer(query.get("offset"), "offset") or 0,
        data=asked.body,
    )
    return respond(OutputAnswer(offset=have))


async def ended(parts: Parts, asked: Asked[ExitReport]) -> web.StreamResponse:
    """The worker's step ended."""
    check_exit(asked.body)
    await parts.workers.exited(asked.identity.slot, asked.body)
    return respond(Empty())
