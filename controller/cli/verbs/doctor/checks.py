"""All checks, in the order in which things rest on each other. Each is a function of the facts. Pure."""

from collections.abc import Callable, Iterable

from controller.cli.verbs.doctor.facts import Facts
from controller.cli.verbs.doctor.findings import Finding
from controller.cli.verbs.doctor.installation import clock, controller, definitions, kubernetes, node_clocks, policies
from controller.cli.verbs.doctor.pools import agents, budgets, pools, priority, quotas, secrets

CHECKS: tuple[Callable[[Facts], Iterable[Finding]], ...] = (
    kubernetes, clock, definitions, policies, controller, node_clocks,
    pools, agents, secrets, budgets, quotas, priority,
)  # fmt: skip
