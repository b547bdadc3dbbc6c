"""Bugs, planted on purpose: each takes one protection away. A simulation that does not find them proves little.

Each is a context manager that patches what runs and puts it back. None is more than what a hurried change could do.
"""

from tests.simulation.planted import (
    agent,
    deployments,
    leadership,
    passes,
    pods,
    pools,
    signals,
    sizes,
    stops,
    tasks,
    worker,
)
from tests.simulation.planted.registry import BUGS, plant

__all__ = [
    "BUGS",
    "agent",
    "deployments",
    "leadership",
    "passes",
    "plant",
    "pods",
    "pools",
    "signals",
    "sizes",
    "stops",
    "tasks",
    "worker",
]
