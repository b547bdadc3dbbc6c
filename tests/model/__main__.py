"""`python -m tests.model`: explore the whole protocol, in a size that the options give. Exits with 1 if a rule breaks.

What is modelled: docs/protocol.md. The agent and its recovery decide by the code that ships (`slots`,
`tasks`, `recovery` of `agent.rules`), and so does the controller what to do next for a task
(`controller.decide.tasks.task_actions`); the order of its reads and writes (`controller.act.pods`,
`controller.act.tasks`) is written down again, in `*_operations.py`.

What is bounded:

- `--pods`, `--slots`, `--tasks`, and two attempts a task. A rule speaks of a Pod and a task, of two tasks and a
  lockKey, or of a task and two Pods: two of each can break it if any number can. Pods that are gone are created anew.
- `--faults`: of all kinds together, anywhere in a run: an answer lost, a message held up until any later time, a
  leader replaced (with its last writes still on their way), a worker killed, a report held up, an agent restarted, with
  or without its journal, a node gone, a Pod gone from the API while it runs on. What is no fault comes any number of
  times: a reservation's limit, a person's cancel or approval (of an old plan, too), a status write of the kubelet, a
  drain of any idle Pod, and every delay between two steps.
- `--late`: messages held up at the same time. `--operations`: operations of one leader at the same time.
- `--stopping`: steps have a command before their own one and a time limit, and take their time to stop; a Pod that
  works may be deleted, as one of the faults. Without it a step that is being stopped is one that runs.
- `--no-lease`: a replaced leader goes on with all it had in flight, although its Lease is gone: the order of writes and
  the stamps have to do alone.

What is left out, and why nothing is lost:

- Versions, incarnations, stamps and fences are compared, never counted. Instead of a number, whoever holds one has a
  flag for "still the newest"; a message whose number is outdated can only be refused, so it is dropped. A message that
  arrives twice has the stamp of the first copy: it is refused, unless stamps are not looked at (`--bug stamp`).
- A controller remembers nothing across its leadership, so only the leader's operations and what is late of former
  ones are in a state. With `--controllers 1` nothing is late after its end.
- The caches: a decision made on old data is one made earlier whose first step was put off.
- Of an end it matters only whether the step was lost, and whether it is a plan that failed. What a finished task leaves
  behind is dropped once no rule and no decision can depend on it; what only a further fault can bring up, once no fault
  is left.
- Names: states that differ by the names of Pods, slots or tasks are one.
- Workers: see `site` and `workers`. They are tested against the agent in tests/properties/test_worker_and_agent.py,
  and the Lease in tests/properties/test_lease_exclusion.py.
- Both the journal and a worker's directories lost at once, without the Pod: then nothing knows of a step that began.
"""

import argparse
import sys
from dataclasses import replace

from tests.model.checker import check
from tests.model.mistakes import MISTAKES
from tests.model.protocol import Config, Protocol
from tests.model.tables import DELETION, KINDS

NUMBERS = ("controllers", "pods", "slots", "tasks", "operations", "faults", "late")


def main() -> int:
    """Explore, and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.model", description="Explore the protocol exhaustively.")
    sizes = Config()
    for name in NUMBERS:
        parser.add_argument(f"--{name}", type=int, default=getattr(sizes, name), help="default: %(default)s")
    parser.add_argument("--no-lease", action="store_true", help="a leader that was replaced goes on")
    parser.add_argument(
        "--stopping", action="store_true", help="how steps are stopped, and a Pod that works is deleted"
    )
    parser.add_argument("--max-states", type=int, help="stop after so many")
    parser.add_argument(
        "--bug", choices=[m.name for m in MISTAKES], help="plant this mistake, in the size that shows it"
    )
    parser.add_argument("--bugs", action="store_true", help="plant one after the other, and show what comes of each")
    given = parser.parse_args()
    if given.bugs or given.bug:
        return _show(given.bug)
    config = replace(
        sizes,
        **{
            name: getattr(given, name)
            for name in ("controllers", "pods", "slots", "tasks", "operations", "faults", "late")
        },
        lease=not given.no_lease,
        stopping=given.stopping,
        trying_again=given.stopping,
        kinds=KINDS | {DELETION} if given.stopping else KINDS,
    )
    findings = check(Protocol(config), max_states=given.max_states)
    _say(findings)
    if findings.counter_example is None:
        _say("every rule holds in all of them" + (", and each leads to the end" if findings.complete else ""))
        return 0
    _say(findings.counter_example)
    return 1


def _show(bug: str | None) -> int:
    for mistake in MISTAKES:
        if bug not in {None, mistake.name}:
            continue
        findings = check(Protocol(mistake.config))
        _say(f"{mistake.name}: {mistake.what}\n{findings}\n{findings.counter_example}\n")
    return 0


def _say(text: object) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
