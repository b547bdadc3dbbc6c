"""The recording rules: what a dashboard would else add up over the agents of a whole fleet, each time it is looked at.

Of 10 000 Pods the slots by state are 40 000 series, the journal's histogram 110 000, refusals 250 000; recorded, a few
for each pool. Figures of pools come from the controller, a few series each, and are asked for as they are. The names
are made Prometheus' own way: the labels that are left, the metric, what was done.
"""

from dataclasses import dataclass

from manifests.alerts import POOL


@dataclass(frozen=True, slots=True)
class Record:
    """One recording rule: the name of the series, and the PromQL that it is made of."""

    name: str
    expr: str


RECORDS = (
    Record("pool_state:podslots_slots:sum", f"sum by ({POOL}, state) (podslots_slots)"),
    Record("pool:podslots_agent_open:sum", f"sum by ({POOL}) (podslots_agent_open)"),
    Record("pool:podslots_agent_journal_failing:sum", f"sum by ({POOL}) (podslots_agent_journal_failing)"),
    Record("pool_version:podslots_agent_build_info:count", f"count by ({POOL}, version) (podslots_agent_build_info)"),
    Record(
        "pool_error:podslots_agent_refusals:rate5m",
        f"sum by ({POOL}, error) (rate(podslots_agent_refusals_total[5m]))",
    ),
    Record(
        "pool_le:podslots_agent_journal_commit_duration_seconds_bucket:rate5m",
        f"sum by ({POOL}, le) (rate(podslots_agent_journal_commit_duration_seconds_bucket[5m]))",
    ),
)
