"""A complete list, taken into a cache at once; the reflector does it page by page, and rests in between."""

from collections.abc import Iterable

from controller.kube.api import Object
from controller.kube.cache import Cache


def apply_list(cache: Cache, objects: Iterable[Object], resource_version: str) -> None:
    """What is newer than the list stays; everything else that it lacks is gone."""
    listed: set[str] = set()
    for obj in objects:
        listed.add(obj["metadata"]["uid"])
        cache.note(obj)
    for _ in cache.end_list(listed, resource_version):
        pass
