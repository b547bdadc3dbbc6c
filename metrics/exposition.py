"""A process's registry, and how a scrape is answered."""

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder


def new_registry() -> CollectorRegistry:
    """A registry with the process's own figures.

    The `_created` series are switched off, for the whole process: they double the series and nobody reads them.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]  # the library left it unannotated
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def render(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """The exposition that a scrape with this `Accept` header gets, and its content type."""
    encoder, content_type = choose_encoder(accept)
    return encoder(registry), content_type
