"""Where credentials are good."""

from typing import Any

import pytest

from agent.auth import Identity, Keyring, Kind
from agent.errors import Refusal
from agent.http.access import Access, Who
from agent.wire import ErrorCode

OWN = {Identity(Kind.SLOT, 1): "s" * 40, Identity(Kind.LOCAL): "l" * 40, Identity(Kind.CLOSE): "c" * 40}


class Request:
    """From an address, with a token."""

    def __init__(self, address: str | None, token: str) -> None:
        self.headers = {"Authorization": f"Bearer {token}"}
        self.transport: Any = self
        self._address: str | None = address

    def get_extra_info(self, name: str) -> Any:
        return (self._address, 1) if name == "peername" and self._address else None


async def unchanged() -> None:
    pass


async def kind_of(address: str | None, token: str, who: Who) -> Kind | ErrorCode:
    access = Access(Keyring(OWN, {"1": "pool"}), unchanged, addresses=("10.1.2.3", "fd00::3"), lock_reads=True)
    request: Any = Request(address, token)
    try:
        return (await access.admit(request, who)).kind
    except Refusal as refusal:
        return refusal.code


@pytest.mark.parametrize(
    ("token", "who", "kind"),
    [
        ("s" * 40, Who.WORKER, Kind.SLOT),
        ("l" * 40, Who.HOLDERS, Kind.LOCAL),
        ("l" * 40, Who.READERS, Kind.LOCAL),
        ("c" * 40, Who.CLOSER, Kind.CLOSE),
    ],
)
async def test_what_the_agent_made_for_its_pod_is_good_from_there_only(token: str, who: Who, kind: Kind) -> None:
    """Whoever carries a slot's credential away must not get the next task's environment by it."""
    for address in ("10.1.2.3", "fd00::3", "127.0.0.1", "127.0.0.6", "::1"):
        assert await kind_of(address, token, who) is kind
    for elsewhere in ("10.1.2.4", "fd00::4", "192.168.0.1", None):
        assert await kind_of(elsewhere, token, who) is ErrorCode.FORBIDDEN
    assert await kind_of("10.1.2.4", "pool", Who.POOL) is Kind.POOL
