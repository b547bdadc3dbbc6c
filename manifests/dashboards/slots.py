"""A Pod's slots: what each did, and how its agent is."""

import json

from manifests.dashboards.panels import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    YELLOW,
    Board,
    Query,
    choice,
    course,
    figure,
    shares,
    states,
)
from manifests.dashboards.places import SLOTS, of_pools
from manifests.dashboards.queries import IN_POD, IN_USE, RANGE, counted, per_second, quantile, shown

_STATES = ("idle", GREEN), ("running", BLUE), ("reserved", ORANGE), ("recovering", RED)
"""A slot's states with their colours. Their places are the numbers that stand for them in the timeline."""


def _number() -> str:
    """Each slot's state as a number. Idle is 0, and needs no term."""
    terms = (
        f"{number} * max by (pod, slot) ({shown('podslots_slot_state', IN_POD, 'state=' + json.dumps(state))})"
        for number, (state, _) in enumerate(_STATES)
        if number
    )
    return " + ".join(terms)


_SLOTS = (
    states(
        "What did each slot do?",
        "A line for each slot. `reserved`: its plan awaits an approval. `recovering`: its worker has not yet said what "
        "it holds, after a lost journal.",
        Query(_number(), "{{pod}} slot {{slot}}"),
        words={str(number): state for number, state in enumerate(_STATES)},
        height=9,
    ),
    shares(
        "How much of the time was each slot in use?",
        "The share of the time shown in which it ran something or was reserved.",
        Query(
            f"sum by (pod, slot) (avg_over_time({shown('podslots_slot_state', IN_POD, IN_USE)}[{RANGE}]))",
            "{{pod}} slot {{slot}}",
        ),
    ),
    course(
        "What happened to slots?",
        "Transitions of slots by cause.",
        Query(counted("podslots_slot_transitions_total", "cause", IN_POD) + " > 0", "{{cause}}"),
        bars=True,
    ),
)

_AGENT = (
    figure(
        "Does it take new work?",
        "An agent is drained when it starts, and before its Pod goes. Of several Pods: whether all do.",
        Query(f"min({shown('podslots_agent_open', IN_POD)})"),
        words={"0": ("no", YELLOW), "1": ("yes", GREEN)},
        width=4,
    ),
    figure(
        "Workers heard of",
        "One for each slot. Fewer: a worker's container does not run, or can't reach its agent.",
        Query(f"sum({shown('podslots_agent_workers_connected', IN_POD)})"),
        width=4,
    ),
    figure(
        "Results not yet stored",
        "Ended tasks whose result waits for the controller to record it. Until then the Pod can't go.",
        Query(f"sum({shown('podslots_agent_unacknowledged_tasks', IN_POD)})"),
        steps={1: YELLOW},
        width=4,
    ),
    figure(
        "Is the journal written?",
        "Whether the last write succeeded. If not, the agent keeps what it holds and refuses new work.",
        Query(f"max({shown('podslots_agent_journal_failing', IN_POD)})"),
        words={"0": ("yes", GREEN), "1": ("no", RED)},
        width=4,
    ),
    figure(
        "Size of the journal",
        "It is compacted by itself. One that only grows is worth a look.",
        Query(f"max({shown('podslots_agent_journal_bytes', IN_POD)})"),
        unit="bytes",
        width=4,
    ),
    figure(
        "Watched by",
        "Open watch streams: one is the leading controller's. None: it does not hear of this Pod.",
        Query(f"min({shown('podslots_agent_watchers', IN_POD)})"),
        width=4,
    ),
    course(
        "How did tasks with work end?",
        "By how their last step ended.",
        Query(counted("podslots_agent_tasks_ended_total", "outcome", IN_POD), "{{outcome}}"),
        bars=True,
    ),
    course(
        "How long did steps take?",
        "From their start to their end, of those that ended in the time shown.",
        Query(
            quantile(0.5, "podslots_agent_step_duration_seconds", by="step", where=IN_POD, window=RANGE),
            "{{step}}, half of them: at most",
        ),
        Query(
            quantile(0.95, "podslots_agent_step_duration_seconds", by="step", where=IN_POD, window=RANGE),
            "{{step}}, 95 %: at most",
        ),
        unit="s",
    ),
    course(
        "How long does a write to the journal take?",
        "Each change of a slot waits for it. Tenths of a second are a disk in trouble.",
        Query(
            quantile(0.99, "podslots_agent_journal_commit_duration_seconds", where=IN_POD, window=RANGE),
            "99 %: at most",
        ),
        unit="s",
        steps={0.1: RED},
    ),
    course(
        "What is asked of it, and what does it refuse?",
        "Requests by call, and refusals by error. `no_free_slot` and `drained` are a part of normal work.",
        Query(per_second("podslots_agent_requests_total", "call", IN_POD) + " > 0", "{{call}}"),
        Query(per_second("podslots_agent_refusals_total", "error", IN_POD) + " > 0", "refused: {{error}}"),
        unit="reqps",
    ),
    course(
        "How much output came in?",
        "Output of steps, in bytes a second.",
        Query(per_second("podslots_agent_output_bytes_total", "pod", IN_POD), "{{pod}}"),
        unit="Bps",
    ),
    course(
        "How much memory does the agent take?",
        "Of the agent's process, without workers. It stays flat, however many tasks have run.",
        Query(f"max by (pod) ({shown('process_resident_memory_bytes', IN_POD)})", "{{pod}}"),
        unit="bytes",
    ),
)

BOARD = Board(
    SLOTS,
    "podslots / slots of a Pod",
    "What did each slot of a Pod do, and how is its agent? Of several clusters, choose one.",
    (*of_pools(one=True), choice("pod", shown("podslots_agent_open"), everything=False)),
    (("Slots", _SLOTS), ("The agent", _AGENT)),
)
