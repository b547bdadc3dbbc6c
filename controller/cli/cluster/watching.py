"""Objects of a kind as they change, for `-w`."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import click

from controller.cli.cluster.session import Connection, explain
from controller.errors import ApiUnavailable, Gone
from controller.kube.api import Object, Resource

RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Which objects are listed, and watched from there on."""

    resource: Resource
    everywhere: bool = False
    label_selector: str = ""
    field_selector: str = ""

    def read(self, connection: Connection) -> tuple[list[Object], str]:
        """The objects that are there, with the resourceVersion that a watch goes on from."""
        return connection.list_with_version(
            self.resource,
            everywhere=self.everywhere,
            label_selector=self.label_selector,
            field_selector=self.field_selector,
        )

    def changes(self, connection: Connection, version: str) -> Iterator[Object]:
        """Each object as it changes, through ends of streams and an API server that is away for a while. No end."""
        away = False
        while True:
            try:
                if not version:
                    found, version = self.read(connection)
                    yield from found
                events = connection.api.watch(
                    self.resource,
                    None if self.everywhere else connection.namespace,
                    resource_version=version,
                    label_selector=self.label_selector,
                    field_selector=self.field_selector,
                )
                with closing(events):  # type: ignore[type-var]
                    for event in events:
                        away = False
                        version = event["object"]["metadata"]["resourceVersion"]
                        if event["type"] != "BOOKMARK":
                            yield event["object"]
            except Gone:
                version = ""
            except ApiUnavailable as error:
                if "no answer in time" not in str(error):  # on a quiet server a watch is silent
                    if not away:
                        click.echo(f"{explain(error)}; trying again", err=True)
                    away = True
                    time.sleep(RETRY_SECONDS)


class Fresh:
    """Tells what is new or changed of what comes again and again."""

    def __init__(self, look: Callable[[Object], object]) -> None:
        self._look = look
        self._seen: dict[tuple[str, str], object] = {}

    def __call__(self, obj: Object) -> bool:
        """Whether an object looks otherwise than when it came last."""
        key, looks = (str(obj["metadata"].get("namespace") or ""), str(obj["metadata"]["name"])), self._look(obj)
        if self._seen.get(key) == looks:
            return False
        self._seen[key] = looks
        return True
