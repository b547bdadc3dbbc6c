"""The protocol, explored: in small sizes here, `python -m tests.model` explores larger ones. See docs/protocol.md."""

import sys
from dataclasses import replace

import pytest

from agent.errors import Refusal
from agent.rules.recovery import recover
from agent.rules.slots import Acquire, decide
from agent.rules.state import apply, initial_state
from agent.wire import ErrorCode, Outcome, RegisterRequest, Step, TaskState
from tests.model import workers
from tests.model.checker import check
from tests.model.mistakes import MISTAKES, SMALL, Mistake
from tests.model.protocol import Config, Protocol
from tests.model.site import MOMENT, Kept, work
from tests.model.tables import DELETION, KINDS

SIZES = {
    "one of each, one fault": SMALL,
    "one of each, one fault, plans that fail are tried again": replace(SMALL, trying_again=True),
    "one of each, one fault, a replaced leader goes on": replace(SMALL, lease=False),
    "one of each, two operations at once": replace(SMALL, faults=0, operations=2),
}
LARGER = {
    "one of each, one fault, steps are stopped, and a Pod is deleted while it works": replace(
        SMALL, trying_again=True, stopping=True, kinds=KINDS | {DELETION}
    ),
    "two tasks of one lockKey for one slot": replace(SMALL, tasks=2, faults=0, operations=2),
    "two of each": Config(faults=0),
}
"""For `make test-long`."""


@pytest.mark.parametrize(
    "config",
    [
        *(pytest.param(config, id=name) for name, config in SIZES.items()),
        *(pytest.param(config, id=name, marks=pytest.mark.long) for name, config in LARGER.items()),
    ],
)
def test_every_rule_holds_in_every_state_and_every_state_leads_to_the_end(config: Config) -> None:
    findings = check(Protocol(config))
    sys.stdout.write(f"{findings}\n")
    assert findings.counter_example is None, str(findings.counter_example)
    assert findings.complete
    assert findings.good


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_mistake_in_the_protocol_is_found(mistake: Mistake) -> None:
    findings = check(Protocol(mistake.config), liveness=False)
    sys.stdout.write(f"{findings}\n")
    assert findings.counter_example is not None, mistake.what
    assert mistake.breaks in findings.counter_example.what, str(findings.counter_example)


# --- what the model found, on the code --------------------------------------------------------------------------------


def test_a_recovering_agent_never_says_that_it_has_no_room_for_what_it_may_be_running() -> None:
    """Such an answer is taken for "certainly not here": the plan was started a second time, on another Pod."""
    state = initial_state((("plan",),), drain_id="born", lost=True, now=MOMENT)
    with pytest.raises(Refusal) as refusal:
        decide(state, Acquire(task_id="t0.1", task_type="plan", work=work("t0.1", "plan")), MOMENT)
    assert refusal.value.code is ErrorCode.NOT_READY


def test_after_a_lost_journal_only_the_newest_task_of_a_slot_holds_it() -> None:
    """The older one's reservation is over, though its plan looks as if it waited; else the newer was disowned."""
    older = Kept("t0.1", Step.PLAN, 1, Outcome.SUCCEEDED)
    newer = Kept("t1.1", Step.PLAN, 2, None)
    request = RegisterRequest(instance="2-new", tasks=(workers.registered(older), workers.registered(newer)))
    state = initial_state((("plan_and_apply",),), drain_id="born", lost=True, now=MOMENT)
    for record in recover(state, 0, request, MOMENT, repeated=False).records:
        state = apply(state, record)
    assert state.slots[0].task_id == "t1.1"
    assert state.tasks["t1.1"].state is TaskState.RUNNING
    assert (state.tasks["t0.1"].state, state.tasks["t0.1"].outcome) == (TaskState.ENDED, Outcome.LOST)
