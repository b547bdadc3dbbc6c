"""Pod addresses: a /24 of 127.0.0.0/8 per cluster, and who has which of it.

The network is claimed by listening on its first address; the kernel lets go of that however we end. Two clusters on
one machine thus never share addresses.
"""

import random
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field

CLAIM_PORT = 8720
FIRST_HOST, LAST_HOST = 2, 254
# 127.0.x.x to 127.15.x.x hold what distributions put on loopback (127.0.0.1, 127.0.1.1, 127.0.0.53).
FIRST_NETWORK, LAST_NETWORK = 16, 254
TRIES = 200


class AddressesExhaustedError(Exception):
    """Every Pod address is in use."""


class NetworkTakenError(Exception):
    """The network belongs to another cluster that runs."""


@dataclass(frozen=True)
class Network:
    """127.A.B.0/24 as text "127.A.B"."""

    prefix: str

    @property
    def node_ip(self) -> str:
        """The node's own address."""
        return f"{self.prefix}.1"


def claim(network: Network) -> socket.socket:
    """Hold the network until the socket is closed. NetworkTakenError if another does."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.bind((network.node_ip, CLAIM_PORT))
        listener.listen(1)
    except OSError as error:
        listener.close()
        raise NetworkTakenError(f"the addresses {network.prefix}.0/24 are in use by another cluster") from error
    return listener


def claim_any(rng: random.Random) -> tuple[Network, socket.socket]:
    """Claim a network that nobody has."""
    for _ in range(TRIES):
        network = Network(f"127.{rng.randint(FIRST_NETWORK, LAST_NETWORK)}.{rng.randint(0, 255)}")
        try:
            return network, claim(network)
        except NetworkTakenError:
            continue
    raise NetworkTakenError("found no free network in 127.0.0.0/8")


@dataclass
class AddressPool:
    """Gives out a network's addresses in turn, so that one just freed is the last to be used again."""

    network: Network
    used: set[str] = field(default_factory=set)
    last: int = FIRST_HOST - 1

    def take(self) -> str:
        """The next free address."""
        for step in range(LAST_HOST - FIRST_HOST + 1):
            host = FIRST_HOST + (self.last - FIRST_HOST + 1 + step) % (LAST_HOST - FIRST_HOST + 1)
            address = f"{self.network.prefix}.{host}"
            if address not in self.used:
                self.used.add(address)
                self.last = host
                return address
        raise AddressesExhaustedError(f"all addresses of {self.network.prefix}.0/24 are in use")

    def adopt(self, addresses: Iterable[str]) -> None:
        """Mark addresses of Pods of an earlier run as used."""
        self.used.update(addresses)

    def free(self, address: str) -> None:
        """Give an address back."""
        self.used.discard(address)
