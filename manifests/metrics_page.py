"""docs/metrics.md, from the definitions of the metric families."""

from collections.abc import Iterator
from pathlib import Path

from metrics import agent_families, controller_families
from metrics.families import Family, Kind

FILE = Path(__file__).parent.parent / "docs" / "metrics.md"

_HEAD = """# Metrics

Made by `make manifests` from `metrics/*_families.py`: change it there.

`GET /metrics` of the controller (port 8080) and of each agent (port 8721), as Prometheus scrapes it; both the text
format and OpenMetrics are spoken. What is scraped how is in [monitoring.md](monitoring.md), what to do about an alert
in [runbooks.md](runbooks.md).

- A prefix says what a family is about: `podslots_controller_` the controller's process, `podslots_pool_` a pool,
  `podslots_agent_` an agent's process, `podslots_slot` an agent's slots. Names end in their unit; all else are counts.
- Families of pools are shown by the leader alone. They carry `namespace` and `pool` as labels: a scrape of the
  controller needs `honor_labels`. Which Pod and pool an agent's series is about, the scrape's target labels say.
- Every value of a label is there from the first scrape on, at 0; only calls of the Kubernetes API and of agents are
  shown once there was one. No label takes values that people choose, but for pools, their namespaces and the task
  types of a pool's layout.
- Counters and histograms of pools begin at 0 with each leader, and with each pool. A wait, a step or an end is counted
  by the replica whose write of the task's status says so: once, whoever leads next. If the answer to that very write
  is lost, it is not counted.

"""


def page() -> str:
    """The whole page."""
    sections = (
        ("The controller's process", controller_families.OF_THE_PROCESS),
        ("Pools, as their leader sees them", controller_families.OF_POOLS),
        ("Agents", agent_families.FAMILIES),
    )
    parts = [_HEAD.rstrip("\n"), *("\n".join(_section(title, families)) for title, families in sections), _TAIL]
    return "\n\n".join(parts)


_TAIL = """Both show the process's own figures too, as the client library has them: `process_*` and `python_gc_*`.
"""


def _section(title: str, families: tuple[Family, ...]) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    yield "| name | kind | unit | what | labels |"
    yield "| --- | --- | --- | --- | --- |"
    for family in families:
        shown = f"`{family.shown_name}`"
        labels = "; ".join(_label(name, values) for name, values in family.labels.items())
        buckets = (
            f" Up to {', '.join(f'{bound:g}' for bound in family.buckets)}." if family.kind is Kind.HISTOGRAM else ""
        )
        yield f"| {shown} | {family.kind} | {family.unit} | {family.text}.{buckets} | {labels} |"


def _label(name: str, values: str) -> str:
    return f"`{name}`" if name in {"namespace", "pool"} else f"`{name}`: {values}"


def files() -> Iterator[tuple[Path, str]]:
    """The file, and what is to stand in it."""
    yield FILE, page()
