"""What a source promises: a broker that is not ours, whose reports enter the log and whose devices get our replies."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import msgspec

from config.model import Bridge
from daemon.brokers._tally import Tally
from daemon.clock import Clock

Format = Literal["json", "cbor"]


# One is made per report: a struct that the collector does not follow costs a quarter of a frozen dataclass.
class Entry(msgspec.Struct, frozen=True, gc=False):
    """One report on its way into the log, as `daemon.log.reader` writes it."""

    subject: str  # detectd.log.report.{bridge}.{token}.{json|cbor}
    payload: bytes
    headers: Mapping[str, str] = {}


class Log(Protocol):
    async def append_many(self, entries: Sequence[Entry], /) -> Sequence[int]:
        """Store all, in order; their positions. Returns when all are stored, however long that takes.

        Raises: anything, when it is not known that all are: the source then hands over the same entries again.
        """
        ...


class Listener(Protocol):
    """Hears how the connection fares. Neither may raise."""

    async def up(self, bridge: str, since_ns: int | None) -> None:
        """In contact: subscribed, or the broker kept our session. Awaited before the first report of this connection
        goes to the log, so that what is written about the outage stands before it. `since_ns`: wall time of the loss of
        contact, or of the first attempt that failed; None: there was none.
        """
        ...

    def down(self, bridge: str, why: str) -> None:
        """Contact is lost, or could not be made the first time. Once per outage."""
        ...


@dataclass(slots=True)
class Counts:
    """Totals since the start; daemon/telemetry.py reads them (BRIDGE_TOTALS has the meanings)."""

    received: int = 0
    stored: int = 0
    retained: int = 0
    oversize: int = 0
    misnamed: int = 0
    repeated: int = 0
    pauses: int = 0
    reconnects: int = 0
    replies_sent: int = 0
    replies_dropped: int = 0
    exports_sent: int = 0
    exports_dropped: int = 0
    events: int = 0
    redelivered: int = 0
    unreadable: int = 0
    connected: bool = False
    silent: bool = False
    last_message_ns: int = 0  # wall time, 0: none yet


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a source is given: nothing else of the daemon is known to it."""

    log: Log
    listener: Listener
    clock: Clock
    random: Callable[[], float]  # uniform in [0, 1): the jitter between attempts
    payload_bytes_max: int
    waiting_bytes_max: int = 64 * 1024 * 1024  # held in memory until the log has stored it


class Feed(Protocol):
    """Understands what a broker tells of its clients on some topics: one per kind, in a file of its own."""

    topics: tuple[str, ...]
    """To subscribe to: filters."""
    unreadable: int
    """Messages that were this feed's and made no sense."""

    def hear(self, topic: str, payload: bytes, received_ns: int, tally: Tally) -> bool:
        """Add what a message says to the tally. False: the message is not this feed's. Never raises."""
        ...


class Source(Protocol):
    """A connection to one broker, made again whenever it is lost, until `run` is cancelled.

    At least once: a message that the broker expects an acknowledgement for is acknowledged after the log has stored
    it, never before, and in the order of receipt. While the log is slow the broker waits: memory is bounded.
    """

    name: str
    counts: Counts

    async def run(self) -> None:
        """Never returns and never raises but CancelledError. On cancellation what was received is stored first (as
        far as the log answers at once) and the session at the broker is kept for the next start.
        """
        ...

    async def reply(self, thing: str, fmt: Format, accepted: bool, payload: bytes) -> None:
        """Hand a reply to the broker, at most once; does not wait. Dropped and counted when there is no way out."""
        ...

    def publish(self, topic: str, payload: bytes) -> bool:
        """Hand a message to the broker, at most once; does not wait. False, and counted, when there is no way out."""
        ...

    def status(self) -> Mapping[str, Any]:
        """For `/-/status`: JSON, no secrets."""
        ...


@dataclass(frozen=True, slots=True)
class Kind:
    """A module's `BROKER`: the URL schemes that it serves, and how to build a source from the options.

    `build` raises ValueError where an option can't work, and touches neither network nor file.
    """

    schemes: tuple[str, ...]
    build: Callable[[Bridge, Surroundings], Source]
