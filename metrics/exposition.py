"""A process's registry, and how a scrape is answered."""

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder

VERSIONS = frozenset({"0.0.1", "0.0.4", "1.0.0"})
"""Of the text format and of OpenMetrics, that are spoken."""


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
    encoder, content_type = choose_encoder(",".join(filter(_is_spoken, accept.split(","))))
    return encoder(registry), content_type


def _is_spoken(entry: str) -> bool:
    """Whether an entry of an `Accept` header names no version but those there are.

    The library answers in the name of any version that is a number, and breaks on others.
    """
    parameters = (parameter.strip().partition("=") for parameter in entry.split(";")[1:])
    return all(value in VERSIONS for name, _, value in parameters if name == "version")
