"""`slot-agent serve`: everything made, started, stopped. The only place with a clock, a random source and sockets."""

import asyncio
import os
import resource
import secrets
import signal
import sys
import uuid
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import datetime

import uvloop
from aiohttp import web

from agent import __version__, signals
from agent.auth import Identity, Keyring, Kind, TokenFolder, has_credentials, own_credentials
from agent.clock import AgentClock, wall_time
from agent.config import Settings, from_environ
from agent.counters import Counters
from agent.errors import ConfigError
from agent.http.access import Access
from agent.http.asked import Parts
from agent.http.calls import COUNTED
from agent.http.listeners import Listeners
from agent.http.routes import HttpApi
from agent.http.server import Server
from agent.log import StreamLog, place_of, report_restored
from agent.nonces import Nonces
from agent.rules.report import Facts
from agent.rules.state import PhaseChanged, Record, initial_state
from agent.service import TICK_SECONDS, Service, Submit
from agent.store.disk import FolderDisk
from agent.store.disk_thread import DiskThread
from agent.store.folder_lock import lock_folder
from agent.store.journal import Opened, open_journal
from agent.store.journal_format import Header
from agent.store.output import FolderFiles, Outputs
from agent.tls import TlsFolder
from agent.workers import Workers
from metrics.exposition import new_registry

SHUTDOWN_SECONDS = 1.0
"""How long requests under way may take once the server stops; streams and polls are ended by then."""

FETCH_SECONDS = 60.0
"""How long results that nobody has fetched hold up the end. Another leader is there after a lease, 15 s unless set, and
reads every agent anew."""

FILE_THREADS = 2
"""For output and tokens; the journal has its own. asyncio would take four more than there are cores, up to 32, and each
thread has memory of its own in the C library, which grows to 1 MiB and is not given back."""

_Step = Callable[[], Awaitable[None]]

EXIT_CONFIG = 2
EXIT_FAILED = 1
MAX_DESCRIPTORS = 8192
"""Connections that ask for nothing take 6 to 13 KiB each: so many fit into the container's memory."""


def main(environ: Mapping[str, str]) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit status."""
    try:
        settings = from_environ(environ)
    except ConfigError as error:
        for problem in error.problems:
            sys.stderr.write(f"slot-agent: {problem}\n")
        return EXIT_CONFIG
    _raise_descriptor_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(settings))


def _raise_descriptor_limit() -> None:
    """Connections are descriptors: of the usual 1024 a task could open all, and keep others out."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def serve(settings: Settings) -> int:
    """Serve until told to stop; then refuse new work, let steps run as long as the Pod may, and end."""
    stop = _stop_signal()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(FILE_THREADS, thread_name_prefix="files"))
    later = asyncio.get_running_loop().call_later
    log = StreamLog(sys.stderr.fileno(), wall_time, {"pod": settings.pod, "pool": settings.pool}, later)
    # Not the exception's text: it may quote what a client sent.
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: log.event("unhandled", what=context["message"], error=repr(type(context.get("exception"))))
    )
    try:
        async with AsyncExitStack() as stack:
            agent = await _start(settings, log, stack)
            await _run(settings, agent, stop, log)
    except OSError as error:
        log.event("the agent can't run", error=str(error))
        return EXIT_FAILED
    except ConfigError as error:
        log.event("the agent can't run", error=str(error))
        return EXIT_CONFIG
    else:
        log.event("stopped")
        return 0
    finally:
        log.flush()


async def _start(settings: Settings, log: StreamLog, stack: AsyncExitStack) -> "_Agent":
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    # Before the journal is touched: a second agent would set aside what the first one writes.
    stack.callback(os.close, lock_folder(settings.state_dir))
    clock = AgentClock()
    opened = _open_journal(settings, clock.now())
    clock.resume(opened.state)
    for warning in opened.warnings:
        log.event("journal", warning=warning)
    # After the journal: credentials without a journal are the sign that one was lost.
    own = own_credentials(settings)
    tls = None
    if settings.tls_dir is not None:
        tls = TlsFolder(settings.tls_dir, settings.certificate_folders, log, kept_ca=settings.kept_client_ca_file)
    context = tls.first() if tls is not None else None
    outputs = Outputs(FolderFiles(settings.logs_dir), asyncio.to_thread)
    service = _make_service(settings, log, clock, opened, _disk_thread(stack).submit)
    report_restored(log, opened.state)
    service.on_publish(lambda _, records: _flush_phase(log, records))
    workers = Workers(service, outputs, Nonces(own[Identity(Kind.CLOSE)]))
    keyring = Keyring(own, {})
    tokens = TokenFolder(
        settings.tokens_dir,
        keyring,
        lambda: service.set_tokens(keyring.pool_token_ids),
        lambda problems: log.event("pool tokens not read", problems=list(problems)),
    )
    # The mount may come later. Until then every call is refused.
    await tokens.refresh()
    service.set_tokens(keyring.pool_token_ids)
    parts = Parts(service=service, workers=workers, outputs=outputs, now=wall_time, with_workers=settings.workers)
    access = Access(
        keyring,
        tokens.refresh,
        addresses=settings.addresses,
        lock_reads=settings.lock_reads,
        asks_certificates=lambda: tls is not None and tls.asks_certificates,
    )
    api = HttpApi(parts, access, log)
    listeners = await _make_listeners(api, log, stack)
    if tls is not None:
        tls.on_change = listeners.accept
    await listeners.open(settings.addresses, settings.port, context)
    log.event(
        "serving",
        addresses=list(settings.addresses),
        port=settings.port,
        incarnation=service.facts.incarnation,
        phase=opened.state.phase,
        held=[slot.task_id for slot in opened.state.slots if slot.task_id is not None],
    )
    return _Agent(service=service, workers=workers, tokens=tokens, outputs=outputs, tls=tls)


def _make_service(settings: Settings, log: StreamLog, clock: AgentClock, opened: Opened, submit: Submit) -> Service:
    return Service(
        facts=Facts(
            version=__version__,
            pod=settings.pod,
            pod_uid=settings.pod_uid,
            pool=settings.pool,
            incarnation=secrets.token_hex(8),
            # Not from 0: a watcher that names a revision of an earlier incarnation must not be taken to know this one.
            first_revision=secrets.randbelow(1 << 40) << 10,
        ),
        state=opened.state,
        journal=opened.journal,
        submit=submit,
        now=clock.now,
        clock=clock,
        counters=Counters(new_registry(), COUNTED),
        log=log,
        warnings=opened.warnings,
    )


async def _make_listeners(api: HttpApi, log: StreamLog, stack: AsyncExitStack) -> Listeners:
    """The API's server, which listens on no address yet. It ends with the stack."""
    runner = web.ServerRunner(Server(api.handle, log), handle_signals=False, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    listeners = Listeners(runner, log)
    stack.callback(listeners.close)
    return listeners


def _flush_phase(log: StreamLog, records: list[Record]) -> None:
    """A Pod may be deleted as soon as its drain is answered: all that led to it is in the log by then."""
    if any(isinstance(record, PhaseChanged) for record in records):
        log.flush()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Agent:
    """The parts of an agent that run until it is stopped."""

    service: Service
    workers: Workers
    tokens: TokenFolder
    outputs: Outputs
    tls: TlsFolder | None


def _disk_thread(stack: AsyncExitStack) -> DiskThread:
    thread = DiskThread()
    thread.start()
    stack.callback(thread.stop)
    return thread


def _open_journal(settings: Settings, now: datetime) -> Opened:
    header = Header(pod_uid=settings.pod_uid, journal_id=uuid.uuid4().hex, slots=len(settings.layout))
    drain_id = f"born-{header.journal_id}"
    return open_journal(
        FolderDisk(settings.state_dir),
        header,
        initial_state(settings.layout, drain_id=drain_id, lost=False, now=now),
        initial_state(settings.layout, drain_id=drain_id, lost=True, now=now),
        used_before=has_credentials(settings),
    )


def _stop_signal() -> asyncio.Event:
    """Set once somebody asks the process to stop, be it before it serves."""
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    signals.deliver()
    return stop


async def _run(settings: Settings, agent: _Agent, stop: asyncio.Event, log: StreamLog) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            # Two, because one of them waits for the disk.
            ticking = [
                group.create_task(_every_second(log, _state_steps(agent)), name="tick-state"),
                group.create_task(_every_second(log, _surrounding_steps(agent)), name="tick-surroundings"),
            ]
            await stop.wait()
            await _drain_steps(settings, agent.service, log)
            for task in ticking:
                task.cancel()
    finally:
        agent.service.stop()


def _state_steps(agent: _Agent) -> dict[str, _Step]:
    """What the clock brings to the state: limits of reservations, output that belongs to nobody."""
    return {"state": agent.service.tick, "outputs": agent.workers.tidy_outputs}


def _surrounding_steps(agent: _Agent) -> dict[str, _Step]:
    """What the clock brings around it: silent workers, new tokens and certificates."""

    async def links() -> None:
        agent.workers.tick()

    steps: dict[str, _Step] = {"workers": links, "tokens": agent.tokens.refresh}
    return steps if agent.tls is None else {**steps, "tls": agent.tls.refresh}


async def _every_second(log: StreamLog, steps: dict[str, _Step]) -> None:
    """An error in one of these jobs is logged once. It does not end the process, which holds slots."""
    said: dict[str, str] = {}
    while True:
        for name, step in steps.items():
            try:
                await step()
            except Exception as error:  # noqa: BLE001 - an agent must outlive any mistake in here
                # Not the error's text, which may quote what a file holds.
                if said.get(name) != (kind := type(error).__name__):
                    said[name] = kind
                    log.event("tick failed", of=name, error=kind, at=place_of(error))
        await asyncio.sleep(TICK_SECONDS)


async def _drain_steps(settings: Settings, service: Service, log: StreamLog) -> None:
    """Wait until the running steps have ended and their results were fetched, for as long as the Pod's grace allows.

    The grace counts from the moment the stop was asked for. The journal is deleted with the Pod, so a result that
    nobody has fetched is lost.
    """
    service.close()
    loop = asyncio.get_running_loop()
    deadline = (service.closing_since or loop.time()) + settings.stop_seconds
    log.event("stopping", running=service.running, seconds=max(0, round(deadline - loop.time())))
    await _until(service, lambda: not service.running, deadline)
    await _until(service, lambda: not service.state.ended, min(deadline, loop.time() + FETCH_SECONDS))


async def _until(service: Service, done: Callable[[], bool], deadline: float) -> None:
    """Wait until the state fulfils the condition, or until the deadline."""
    loop = asyncio.get_running_loop()
    while not done() and (rest := deadline - loop.time()) > 0:
        with suppress(TimeoutError):
            await service.changed_since(service.revision, rest)
