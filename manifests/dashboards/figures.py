"""Figures that stand on more than one dashboard, each of the pools that are chosen there."""

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as model

from manifests.dashboards.panels import BLUE, RED, Query, figure
from manifests.dashboards.places import THE_APPROVALS
from manifests.dashboards.queries import total


def waiting_tasks() -> Builder[model.Panel]:
    """How many tasks wait for a slot."""
    return figure(
        "Tasks that wait for a slot",
        "What waits for a lockKey is not counted: no Pod would help it.",
        Query(total("podslots_pool_queued_tasks")),
        steps={1: BLUE},
    )


def plans_to_approve() -> Builder[model.Panel]:
    """How many plans await a person."""
    return figure(
        "Plans to approve",
        "Plans that await a person. Each holds its slot and its Pod.",
        Query(total("podslots_pool_tasks", 'phase="AwaitingApproval"')),
        steps={1: BLUE},
        link=THE_APPROVALS,
    )


def silent_agents() -> Builder[model.Panel]:
    """How many agents of active Pods don't answer."""
    return figure(
        "Agents that don't answer",
        "Agents of active Pods that are not known to be dead. Their Pods get nothing new, and are not deleted.",
        Query(total("podslots_pool_agents_unreachable")),
        steps={1: RED},
    )
