"""The controller's operations, step by step: what each coroutine of `controller.act.pods` and `.tasks` does
between two awaits that others can get between.

An operation in flight is an `Op`. `at` names its next effect: a read, or a write at the API or an agent. `step` gives
what can come of that effect if it takes place now. Whatever the operation remembers is in the Op: whether the
resourceVersion it will name is still the newest (`fresh`), whether the incarnation it knows is still the agent's
(`same_agent`), its drain id, and what an agent answered (`known`).

What an operation decides without any await between is one step. A read that is followed by a decision alone is a step
of its own, for the answer may be old when the next write is sent.
"""

from tests.model import pod_operations as pods
from tests.model import task_operations as tasks
from tests.model.effects import Effect, Local, Op, Program, Rules


def step(op: Op, now: Local, rules: Rules) -> list[Effect]:
    """What can come of the operation's next effect, if it takes place now and is answered."""
    return PROGRAMS[op.kind](op, now, rules)


PROGRAMS: dict[str, Program] = {
    "open": pods.open_pod,
    "drain": pods.drain_and_delete,
    "delete starting": pods.delete_starting,
    "delete dead": pods.delete_dead,
    "assign": tasks.assign,
    "follow": tasks.follow,
    "approve": tasks.approve,
    "cancel": tasks.cancel,
    "retry": tasks.retry,
    "finish": tasks.finish,
    "ack": tasks.ack,
    "release lock": tasks.release_lock,
    "settle orphan": tasks.settle_orphan,
}
