"""A Terraform provider whose things take some seconds to be made, to be stopped as the providers of clouds are.

It runs in `build/provider`, and imports nothing of this repository. Its resource is `slow_thing`: `name` is the file in
`folder`, the cloud, that is there as soon as its creation begins; `seconds` later it is made, and Terraform is told.

It minds signals as go-plugin's servers do: it lives through SIGINT, dies of SIGTERM, and goes on with what it makes
when Terraform asks it to stop. The framework's own server would end that at once.
"""

import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)  # before anything else: the imports below take a while

import sys
import time
from pathlib import Path
from typing import Any

from tf import runner
from tf.iface import Provider, Resource
from tf.schema import Attribute, Schema
from tf.types import Number, String


class SlowThing(Resource):  # type: ignore[misc]
    """A file. What is asked of it is Terraform's own life cycle."""

    def __init__(self, provider: "SlowProvider") -> None:
        del provider

    @classmethod
    def get_name(cls) -> str:
        return "thing"

    @classmethod
    def get_schema(cls) -> Schema:
        return Schema(
            attributes=[
                Attribute("folder", String(), required=True, requires_replace=True),
                Attribute("name", String(), required=True, requires_replace=True),
                Attribute("seconds", Number(), required=True, requires_replace=True),
            ]
        )

    def create(self, ctx: Any, planned: dict[str, Any]) -> dict[str, Any]:
        del ctx
        _file(planned).touch(exist_ok=False)
        time.sleep(planned["seconds"])
        return planned

    def read(self, ctx: Any, current: dict[str, Any]) -> dict[str, Any] | None:
        del ctx
        return current if _file(current).exists() else None

    def update(self, ctx: Any, current: dict[str, Any], planned: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError("every change makes it anew")

    def delete(self, ctx: Any, current: dict[str, Any]) -> None:
        del ctx
        _file(current).unlink()


class SlowProvider(Provider):  # type: ignore[misc]
    """`podslots/slow`. Nothing about it is to be configured."""

    def get_model_prefix(self) -> str:
        return "slow_"

    def full_name(self) -> str:
        return "registry.terraform.io/podslots/slow"

    def get_provider_schema(self, diags: Any) -> Schema:
        del diags
        return Schema()

    def validate_config(self, diags: Any, config: Any) -> None:
        del diags, config

    def configure_provider(self, diags: Any, config: Any) -> None:
        del diags, config

    def get_data_sources(self) -> list[Any]:
        return []

    def get_resources(self) -> list[Any]:
        return [SlowThing]


class OnlyShutdown(runner._ShutdownInterceptor):  # type: ignore[misc]
    """Ends the server when Terraform is done with it, and not at StopProvider, which is asked while things are made."""

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        if handler_call_details.method.endswith("/StopProvider"):
            return continuation(handler_call_details)
        return super().intercept_service(continuation, handler_call_details)


def _file(thing: dict[str, Any]) -> Path:
    return Path(thing["folder"], thing["name"])


if __name__ == "__main__":
    runner._ShutdownInterceptor = OnlyShutdown
    runner.run_provider(SlowProvider(), sys.argv)
