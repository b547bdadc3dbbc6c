"""Whole tasks against an agent, as fast as it goes: the calls of controller and worker, without a command to run."""

from collections.abc import Iterator
from typing import Any

import orjson

from agent.wire import encode
from tests.bench.load import Answer, Load, Script, request
from tests.support.agent_process import LAYOUT, POOL_TOKEN, AgentProcess
from tests.support.fake_worker import one_step

SLOTS = len(LAYOUT)
REQUESTS_A_TASK = 6
OUTPUT = b"Plan: 1 to add, 0 to change, 0 to destroy.\n" * 5
TIME = "2026-01-01T00:00:00Z"


class Tasks:
    """Counts tasks of one agent; `script` runs them one after the other, through whichever slot each gets."""

    def __init__(self, agent: AgentProcess) -> None:
        self.done = 0
        self._work = encode(one_step())
        self._tokens = [agent.credential(str(slot)) for slot in range(SLOTS)]
        for slot, token in enumerate(self._tokens):
            agent.post("/work/register", {"instance": _instance(slot), "tasks": []}, token=token)

    def script(self, load: Load, names: Iterator[str]) -> Script:
        """Until the names end. Every answer must be 200."""
        for task_id in names:
            asked = {"task_id": task_id, "task_type": "plan", "work": self._work}
            answer = yield request("POST", "/slots/acquire", asked, token=POOL_TOKEN)
            slot = _json(answer)["slot"]
            token, instance = self._tokens[slot], _instance(slot)
            assigned: dict[str, Any] | None = None
            while assigned is None:
                answer = yield request("GET", f"/work?instance={instance}", token=token)
                assigned = _json(answer).get("run")
            given = {name: assigned[name] for name in ("fence", "nonce")}
            about = {"instance": instance, "task_id": task_id, "step": "plan", **given}
            _json((yield request("POST", "/work/started", {**about, "start_time": TIME}, token=token)))
            output = f"/work/output?instance={instance}&task_id={task_id}&step=plan&offset=0"
            _json((yield request("POST", output, OUTPUT, token=token)))
            ended = {**about, "outcome": "succeeded", "start_time": TIME, "end_time": TIME, "exit_code": 0}
            _json((yield request("POST", "/work/exit", ended, token=token)))
            _json((yield request("POST", f"/tasks/{task_id}/ack", {}, token=POOL_TOKEN)))
            self.done += 1
            if load.over:
                return


def holds(load: Load, names: Iterator[str]) -> Script:
    """Acquire and release, until the names end."""
    for task_id in names:
        answer = yield request("POST", "/slots/acquire", {"task_id": task_id, "task_type": "plan"}, token=POOL_TOKEN)
        held = _json(answer)
        body = {"task_id": task_id, "fence": held["fence"]}
        _json((yield request("POST", f"/slots/{held['slot']}/release", body, token=POOL_TOKEN)))
        if load.over:
            return


def _instance(slot: int) -> str:
    return f"{slot + 1}-bench"


def _json(answer: Answer) -> Any:
    if answer.status != 200:
        raise AssertionError(answer)
    return orjson.loads(answer.body)
