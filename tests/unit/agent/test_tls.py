"""The context by which agents are spoken to: as their Secrets have it, through changes and faults."""

import asyncio
import base64
import random
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from controller.agents.client import Stamps
from controller.agents.fleet import Fleet
from controller.agents.tls import OVERLAP_SECONDS, REREAD_SECONDS, AgentTls, ContextSource, PodTls, make_context
from controller.agents.transport import Transport
from controller.errors import AgentUnreachable, ApiUnavailable
from controller.kube.api import SECRETS, Resource
from tests.support import virtual_time
from tests.support.agents import FakeNetwork
from tests.support.memory_api import MemoryApi
from tests.support.mounted import Authority

FIRST, SECOND, CLIENTS = Authority("first"), Authority("second"), Authority("clients")
SERVING = FIRST.sign("a.example.com")
SHOWN = CLIENTS.sign("controller")


class Scene:
    """The contexts that a transport to agents of Secrets `agents` and `controllers` is made with."""

    def __init__(self) -> None:
        self.api = MemoryApi()
        self.sources: list[tuple[ContextSource, str]] = []
        self.tls = AgentTls(self.api, self._over_tls)

    def _over_tls(self, source: ContextSource, name: str) -> Transport:
        self.sources.append((source, name))
        return FakeNetwork()

    def put(self, name: str, **files: bytes) -> None:
        data = {key.replace("_", "."): base64.b64encode(value).decode() for key, value in files.items()}
        self.api.put(SECRETS, {"metadata": {"namespace": "ns", "name": name}, "data": data})

    def follow(self, client: str | None = None) -> ContextSource:
        self.tls.transport("ns", PodTls("agents", "a.example.com", client))
        source, name = self.sources[-1]
        assert name == "a.example.com"
        return source

    def reads(self) -> int:
        return len([verb for verb, _ in self.api.calls if verb == "get"])


def trusted(context: ssl.SSLContext) -> set[str]:
    """The common names of the CAs that a context takes."""
    subjects: list[Any] = [certificate["subject"] for certificate in context.get_ca_certs()]
    return {value for subject in subjects for ((_, value),) in subject}


def play(script: Callable[[Scene], Awaitable[None]]) -> None:
    async def main() -> None:
        await script(Scene())

    virtual_time.run(main)


def test_secrets_are_read_once_for_many_pods_and_again_in_time() -> None:
    async def script(scene: Scene) -> None:
        scene.put("agents", ca_crt=FIRST.certificate, tls_crt=SERVING.certificate)
        sources = [scene.follow() for _ in range(5)]
        contexts = await asyncio.gather(*(source() for source in sources))
        assert len(set(map(id, contexts))) == 1
        assert scene.reads() == 1
        await asyncio.sleep(REREAD_SECONDS)
        assert await sources[0]() is contexts[0], "unchanged files keep the context, and with it open connections"
        assert scene.reads() == 2

    play(script)


def test_a_new_ca_is_taken_and_the_one_before_for_a_while() -> None:
    async def script(scene: Scene) -> None:
        scene.put("agents", ca_crt=FIRST.certificate)
        source = scene.follow()
        assert trusted(await source()) == {"first"}
        scene.put("agents", ca_crt=SECOND.certificate)
        await asyncio.sleep(REREAD_SECONDS)
        assert trusted(await source()) == {"first", "second"}
        await asyncio.sleep(OVERLAP_SECONDS / 2)
        assert trusted(await source()) == {"first", "second"}
        await asyncio.sleep(OVERLAP_SECONDS)
        assert trusted(await source()) == {"second"}

    play(script)


@pytest.mark.parametrize("fault", ["gone", "silent", "junk", "empty"])
def test_while_secrets_cannot_be_read_the_last_context_is_used(fault: str) -> None:
    async def script(scene: Scene) -> None:
        scene.put("agents", ca_crt=FIRST.certificate)
        source = scene.follow()
        context = await source()
        await spoil(scene, fault)
        await asyncio.sleep(REREAD_SECONDS)
        assert await source() is context

    play(script)


@pytest.mark.parametrize("fault", ["gone", "silent", "junk", "empty"])
def test_without_any_context_the_agent_is_not_reached(fault: str) -> None:
    """And is as soon as there is one."""

    async def script(scene: Scene) -> None:
        scene.put("agents", ca_crt=FIRST.certificate)
        await spoil(scene, fault)
        source = scene.follow()
        with pytest.raises(AgentUnreachable, match="agents"):
            await source()
        scene.api.before = quiet
        scene.put("agents", ca_crt=FIRST.certificate)
        assert trusted(await source()) == {"first"}

    play(script)


async def spoil(scene: Scene, fault: str) -> None:
    match fault:
        case "gone":
            scene.api.remove(SECRETS, "ns", "agents")
        case "silent":
            scene.api.before = unanswered
        case "junk":
            scene.put("agents", ca_crt=b"junk")
        case _:
            scene.put("agents")


async def quiet(verb: str, resource: Resource, name: str) -> None:
    """No fault."""


async def unanswered(verb: str, resource: Resource, name: str) -> None:
    del verb, resource, name
    raise ApiUnavailable("no answer")


def test_the_controllers_certificate_comes_from_its_secret_and_its_key_is_never_told() -> None:
    async def script(scene: Scene) -> None:
        scene.put("agents", ca_crt=FIRST.certificate)
        source = scene.follow("controllers")
        for files in ({}, {"tls_crt": SHOWN.certificate}, {"tls_crt": b"junk", "tls_key": SHOWN.key}):
            scene.put("controllers", **files)
            with pytest.raises(AgentUnreachable) as said:
                await source()
            assert SHOWN.key.decode().splitlines()[1] not in str(said.value)
        scene.put("controllers", tls_crt=SHOWN.certificate, tls_key=SHOWN.key)
        assert await source()

    play(script)


def test_names_are_checked_and_old_protocols_refused() -> None:
    context = make_context(FIRST.certificate, None)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


async def test_a_fleet_without_tls_never_speaks_plainly_instead() -> None:
    network = FakeNetwork()
    async with Fleet(
        network, tokens=lambda *_: "t", stamps=Stamps(lambda: 1), rng=random.Random(1), on_change=print
    ) as fleet:
        with pytest.raises(NotImplementedError):
            fleet.add("u", "https://10.0.0.1:8721", "ns", "p", PodTls("s", "n"))
        assert fleet.client("u") is None
