"""The broker behind a sensor: where it is, what it is told of who comes, and which end of ours it is reached from."""

import asyncio
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from config.address import Address
from daemon.sensor.connect import Connect

UNTAMED: Final = re.compile(r"[ \t\n\r\f.*>%]")
PORTS: Final = 20_000  # connections from one address to one listener: it has 28 000 ports to offer


@dataclass(frozen=True, slots=True)
class Upstream:
    """`login`: takes the place of what clients say, where they must not get past the sensor."""

    address: Callable[[], Address]
    tls: ssl.SSLContext | None = None
    login: tuple[bytes, bytes] | None = None
    patience_s: float = 0.0  # for one that is not there

    def speaks(self, level: int) -> bool:
        """Whether it asks a client of this version who it is: nats-server refuses MQTT 5 before that."""
        return self.login is None or level != 5

    def greeting(self, connect: Connect) -> bytes:
        """The CONNECT that it gets; the client's own where it refuses that, in its own words."""
        if self.login is None or not self.speaks(connect.level):
            return connect.whole
        return connect.as_user(*self.login, tame(connect.client_id))

    async def connected(self, side: Callable[[], asyncio.Protocol], others: int) -> asyncio.Transport:
        """A connection to it, beside so many others. Raises OSError."""
        to = self.address()
        name = to.host if self.tls else None
        transport, _ = await asyncio.get_running_loop().create_connection(
            side, to.host, to.port, ssl=self.tls, server_hostname=name, local_addr=_from(to, others)
        )
        return transport


def tame(client_id: str) -> str:
    """One to one, a client id that nats-server takes: its sessions are subjects, where some characters mean something.

    AWS takes them: `pump.12` is a client id there.
    """
    return UNTAMED.sub(lambda found: f"%{ord(found[0]):02X}", client_id)


def _from(to: Address, others: int) -> tuple[str, int] | None:
    """Our own end: with very many clients one loopback address has not ports enough."""
    place = others // PORTS
    return (f"127.0.{place}.1", 0) if place and to.host.startswith("127.") else None
