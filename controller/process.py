"""The controller as a process: the composition root. Real clock, randomness and transports come in here."""

import argparse
import asyncio
import gc
import logging
import os
import random
import resource
import secrets
import socket
import sys
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import uvloop
from aiohttp import web

from controller.agents.transport import http_transport
from controller.app import Controller
from controller.config import Config, ConfigError
from controller.errors import PodslotsError
from controller.kube.access import KubeSettings
from controller.kube.client import ClientSettings, connect
from controller.logs import configure_logging
from controller.own_image import agent_image
from controller.prometheus.client import prometheus
from controller.signals import STOPPING, deliver
from controller.status_page.access import Reviewer
from controller.status_page.connections import Runner
from controller.status_page.server import create_app
from metrics.controller import KubernetesRequests
from metrics.exposition import new_registry

log = logging.getLogger("controller")

T = TypeVar("T")

BAD_SETTINGS = 2
"""The exit status for settings that can't be used, as argparse has it for options."""

_OTHER_DESCRIPTORS = 400
"""Connections to the API server (64, and a watch for each kind), requests to agents (100), people, files."""
_MANY_AGENTS = 2000
"""Fewer streams than this are worth a warning: pools have as many Pods."""


_COLLECTOR_THRESHOLDS = (50_000, 1, 50)
"""When the garbage collector looks at young, middle and all objects; see `spare_the_collector`."""


def spare_the_collector() -> None:
    """Keep garbage collection from holding the loop: by default it looks at everything again and again.

    A hundred thousand tasks are some 600 000 objects, and to look at those once takes 350 ms. A page of a list has
    15 000, which are gone by themselves when it was taken in: under 50 000 it is no cause to look. Twice as many, the
    young and the middle ones, take 30 ms. What the first lists leave behind is frozen: never looked at.
    """
    gc.set_threshold(*_COLLECTOR_THRESHOLDS)


def run() -> None:
    """What `slot-controller` does."""
    arguments = _parser().parse_args()
    environ = {"HOSTNAME": socket.gethostname(), **os.environ}
    for name in ("kubeconfig", "context", "namespace", "agent_image", "http_port"):
        if (value := getattr(arguments, name)) is not None:
            environ[f"PODSLOTS_{name.upper()}"] = str(value)
    configure_logging(sys.stderr)
    spare_the_collector()
    try:
        config = Config.from_environ(environ)
    except ConfigError as error:
        sys.stderr.write(f"slot-controller: {error}\n")
        sys.exit(BAD_SETTINGS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(serve(config, environ)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="slot-controller", description="Adds and removes Pods by what their agents say, and dispatches tasks."
    )
    parser.add_argument("--kubeconfig", help="default: the service account inside a cluster, else as kubectl")
    parser.add_argument("--context", help="the kubeconfig's context (default: its current one)")
    parser.add_argument("--namespace", help="where the leader's Lease is (default: podslots-system)")
    parser.add_argument("--agent-image", help="image of slot-agent to put into Pods")
    parser.add_argument("--http-port", help="port of /metrics, /healthz and the status page; 0 takes a free one")
    return parser


async def serve(config: Config, environ: Mapping[str, str]) -> int:
    """Serve health and metrics, then control until told to stop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in STOPPING:
        loop.add_signal_handler(number, stop.set)
    deliver()
    try:
        async with AsyncExitStack() as stack:
            registry = new_registry()
            limits = ClientSettings(requests_per_second=config.kube_qps, burst=config.kube_burst)
            observe = KubernetesRequests(registry).observe
            settings = kube_settings(config, environ)
            api = await stack.enter_async_context(connect(settings, _now, limits, observe=observe))
            if config.image_pod is not None:
                reading = agent_image(api, config.namespace, config.image_pod)
                image = await _unless(stop, reading)
                if image is None:
                    return 0
                config = replace(config, agent_image=image)
            log.info("the agent's image", extra={"image": config.agent_image})
            transport = await stack.enter_async_context(http_transport(max_streams=streams_at_most()))
            ask = await stack.enter_async_context(prometheus())
            controller = Controller(
                config,
                api,
                transport,
                now=_now,
                rng=random.SystemRandom(),
                random_bytes=secrets.token_bytes,
                registry=registry,
                over_tls=transport.over_tls,
                ask=ask,
                page_kept=gc.freeze,
            )
            runner = Runner(create_app(controller, registry, config, Reviewer(api)), handle_signals=False)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, config.http_host, config.http_port)
            await site.start()
            log.info("serving", extra={"url": site.name, "port": runner.addresses[0][1]})
            return await _until(stop, controller)
    except (PodslotsError, OSError) as error:  # OSError: the port is taken
        log.error("slot-controller stopped", extra={"error": str(error)})  # noqa: TRY400 - the user's to mend
        return 1


def streams_at_most() -> int:
    """How many agents can be streamed, of as many file descriptors as this process may have: the hard limit.

    The rest is for the Lease, the API server and people. Agents beyond that are polled.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return 0  # no bound
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = max(1, hard - _OTHER_DESCRIPTORS)
    if most < _MANY_AGENTS:
        log.warning("few file descriptors", extra={"limit": hard, "streams": most})
    return most


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """What `work` gives; None if it was told to stop before."""
    working = asyncio.create_task(work, name="begin")
    stopping = asyncio.create_task(stop.wait(), name="wait for a signal")
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)


async def _until(stop: asyncio.Event, controller: Controller) -> int:
    """Run the controller until `stop`; its own end is a failure."""
    running = asyncio.create_task(controller.run(), name="controller")
    stopping = asyncio.create_task(stop.wait(), name="wait for a signal")
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    failed = running.done()
    for task in (running, stopping):
        task.cancel()
    results = await asyncio.gather(running, stopping, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            log.error("controller failed", exc_info=result)
    return 1 if failed else 0


def kube_settings(config: Config, environ: Mapping[str, str]) -> KubeSettings:
    """How to find the API server: a kubeconfig that is named wins over the service account."""
    found = KubeSettings.from_environ(environ)
    return replace(found, kubeconfig=config.kubeconfig or found.kubeconfig, context=config.context)


def _now() -> datetime:
    return datetime.now(UTC)
