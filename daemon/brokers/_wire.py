"""The seam between the bridge and what speaks MQTT: one connection, whichever library carries it.

Two do: `_mqtt5.py` (MQTT 5 over TCP and TLS, several times faster) and `_aiomqtt.py` (everything else).
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import msgspec

from config.secret import Secret

CONNECT_S: Final = 5.0  # for TCP and TLS
ANSWER_S: Final = 10.0  # for every answer of the broker
KEEPALIVE_S: Final = 30
SESSION_EXPIRY_S: Final = 24 * 3600  # how long a broker keeps what we missed (MQTT 5; others decide themselves)
RECEIVE_MAX: Final = 4096  # unacknowledged messages that an MQTT 5 broker may have under way to us
PACKET_BYTES_MAX: Final = 1024 * 1024  # an MQTT 5 broker drops longer ones itself; of others the rest is not kept
UNSENT_BYTES_MAX: Final = 4 * 1024 * 1024  # a broker that reads nothing of ours is given up
REFUSED: Final = 0x80
HUNG_UP: Final = "the broker closed the connection before it answered"

Version = Literal["5", "3.1.1"]


class ConnectFailed(Exception):
    """No connection; says why, in words.

    `speaks_otherwise`: the broker may speak another version of MQTT. `refused`: it answered, or hung up on us, and
    something that we asked for may be the reason: a will, for example.
    """

    def __init__(self, why: str, *, speaks_otherwise: bool = False, refused: bool = False) -> None:
        super().__init__(why)
        self.speaks_otherwise, self.refused = speaks_otherwise, refused


class Broken(Exception):
    """The connection is lost, or an answer did not come in time; says which, in words."""


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes for us, retained and at QoS 1, when we are gone without a word."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int
    transport: Literal["tcp", "websockets"]
    path: str | None  # of a WebSocket
    client_id: str
    username: str | None = None
    password: Secret | None = None
    tls: ssl.SSLContext | None = None


# A struct without garbage collection costs a fifth of a frozen dataclass to make, and one is made per message.
class Arrived(msgspec.Struct, frozen=True, gc=False):
    """A message as it came. `topic` is empty where it is not UTF-8; `received_ns` is wall time."""

    topic: str
    payload: bytes
    qos: int
    mid: int
    dup: bool
    retain: bool
    received_ns: int = 0


Arrivals = Callable[[Sequence[Arrived]], None]
"""Takes the messages that came together, in order. Called from the loop; must not block and must not raise."""


class Wire(Protocol):
    """One connection, used once: `open`, then messages come until `gone` is done, then `close`.

    A packet longer than PACKET_BYTES_MAX never is in memory: of a message the beginning is kept and counted in `cut`.
    """

    gone: asyncio.Future[str]
    session_present: bool
    publish_refused: str | None
    """What an MQTT 5 broker answered to our last QoS 1 publish, where that was no."""
    gave_up: bool
    """It was us who ended it: for what the broker sent, or did not read."""

    @property
    def cut(self) -> int: ...

    async def open(self) -> None:
        """Connect, keeping the session that the broker has of us.

        Raises:
            ConnectFailed: and nothing is left open.
        """
        ...

    async def subscribe(self, filters: Sequence[str], *, no_local: bool = False) -> list[int]:
        """Ask for QoS 1; the broker's answer per filter: the granted QoS, or 128 and above for a refusal.

        `no_local`: not what we publish ourselves (MQTT 5 only). Raises Broken.
        """
        ...

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """Raises Broken."""
        ...

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """At QoS 1; returns after the acknowledgement. Raises Broken."""
        ...

    async def send(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """At QoS 0; returns when the system can take more, so that nothing piles up here.

        Raises:
            Broken: the connection was lost.
            ValueError: a topic can't be published to; those before it are sent.
        """
        ...

    def acknowledge(self, mids: Sequence[int]) -> None:
        """PUBACKs. On a lost connection it does nothing: the broker sends the messages again on the next one."""
        ...

    def pause(self) -> None:
        """Read no more until `resume`: the broker fills the connection and waits. May be called by the arrivals."""
        ...

    def resume(self) -> None: ...

    def fail(self, why: str) -> None:
        """Give the connection up: it is `gone` from now on, and must be closed."""
        ...

    async def close(self) -> None:
        """Say goodbye if it is still there; the broker keeps the session."""
        ...


def is_publishable(topic: str) -> bool:
    return bool(topic) and not set(topic) & set("+#\0")
