"""Names that a shell completes, as the cluster of the command line has them."""

from collections.abc import Callable

import click

from controller.cli.arguments.kinds import Kind
from controller.cli.arguments.verb import session_of
from controller.cli.cluster.session import MOST_NAMES
from controller.errors import PodslotsError
from controller.kube.api import PODS, Object
from controller.kube.blocking import BlockingClient, Patience
from controller.names import POOL_LABEL

PATIENCE = Patience(connect=1.0, answer=2.0)
"""Somebody has hit the tab key and waits."""


def names_of(
    ctx: click.Context, kind: Kind | None, begin: str, wanted: Callable[[Object], bool] = lambda _: True
) -> list[str]:
    """Names of a kind that begin so, as the cluster of the command line has them; none if they can't be had."""
    if kind is None:
        return []
    resource = kind.resource or PODS
    session = session_of(ctx)
    try:
        api = BlockingClient(session.settings, session.now, PATIENCE)
        selector = POOL_LABEL if resource is PODS else ""
        page = api.list_page(resource, session.namespace(api), label_selector=selector, limit=MOST_NAMES)
    except PodslotsError:
        return []
    names = (str(item["metadata"]["name"]) for item in page.get("items") or () if wanted(item))
    return sorted(name for name in names if name.startswith(begin))
