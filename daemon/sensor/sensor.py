"""One sensor: passes clients on to a broker, sees to them while they are there, and books what it hears.

A slow or hostile client costs only itself: connections, those that have not greeted, those that wait to be let through,
bytes held and topics summed are all bounded, and what a bound turns away is counted.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass
from secrets import token_hex
from typing import Any, Final, Protocol

import structlog

from config.address import Address
from daemon.brokers._base import Log
from daemon.brokers._tally import KEYS_MAX
from daemon.clock import NS, Clock, sleep
from daemon.logs import RateLimited
from daemon.sensor.books import Books
from daemon.sensor.counts import Counts
from daemon.sensor.denied import OwnRefusals, nothing_refused
from daemon.sensor.door import Doorman
from daemon.sensor.entrance import Entrance
from daemon.sensor.intake import Intake, Parcels
from daemon.sensor.link import Link
from daemon.sensor.listener import LINKS_MAX, Listener, keep_alive, links_max
from daemon.sensor.newcomers import Newcomers
from daemon.sensor.stream import Room
from daemon.sensor.upstream import Upstream
from daemon.sensor.valve import LEAVING

UNGREETED_MAX: Final = 10_000
WAITING_MAX: Final = 20_000
LEAVING_S: Final = 10.0  # for what was written last to be taken
FLUSH_S: Final = 1.0
SLICE: Final = 1000  # connections looked at before others have their turn

log = structlog.get_logger(__name__)


class Gate(Protocol):
    """Whether the broker is ready for clients; waited for by one task."""

    async def opened(self) -> None: ...
    async def shut(self) -> None: ...


class AlwaysOpen:
    """A broker that is not ours: whether it is there shows when somebody wants to go there."""

    async def opened(self) -> None:
        return

    async def shut(self) -> None:
        await asyncio.Event().wait()


@dataclass(frozen=True, slots=True)
class Bounds:
    connections: int = LINKS_MAX
    ungreeted: int = UNGREETED_MAX
    waiting: int = WAITING_MAX
    keys: int = KEYS_MAX


class Sensor:
    """Call `listen`, then run `run` as a task; cancel that, and `stop`."""

    def __init__(
        self, name: str, upstream: Upstream, doorman: Doorman, writer: Log, clock: Clock, *,
        tls: ssl.SSLContext | None = None, gate: Gate | None = None, refuses: OwnRefusals = nothing_refused,
        reports: Parcels | None = None, bounds: Bounds | None = None,
    ) -> None:  # fmt: skip
        """`reports`: where they go at once, and not to the broker, which must know of no keep-alive then."""
        self.name = name
        self.counts = Counts()
        self.room = Room()
        self.refuses = refuses
        self._doorman, self._clock = doorman, clock
        self._gate: Gate = gate or AlwaysOpen()
        self._bounds = bounds = bounds or Bounds()
        self.books = Books(name, writer, clock, self.counts, bounds.keys)
        self.intake = Intake(name, reports, clock, self.counts) if reports is not None else None
        self.now_s = clock.monotonic_ns() // NS
        self._is_open = asyncio.Event()
        self._run, self._number = token_hex(4), 0
        self._links: set[Link] = set()
        self._leaving: dict[Link, int] = {}  # until when
        self._revision = doorman.revision
        self._warnings = RateLimited(per_s=1)
        self._stopping = False
        self._listener = Listener(self._take_in, lambda why: self._warn("sensor.accept_failed", why=str(why)))
        self._newcomers = Newcomers(tls, bounds.ungreeted, self._links, self.counts, clock)
        self._entrance = Entrance(
            upstream, doorman, self.books, self.counts, clock, opens=self._is_open, most=bounds.waiting, warn=self._warn
        )

    async def listen(self, address: Address) -> Address:
        """Bind; clients that come wait until `run` lets them through. Raises OSError, with the address."""
        return await self._listener.listen(address)

    def status(self) -> Mapping[str, Any]:
        """For `/-/status`: JSON, no secrets."""
        return {"open": self._is_open.is_set(), "log": "away" if self.books.is_away else "ok", **asdict(self.counts)}

    # Who comes and goes (daemon.sensor.link.Around)

    def _take_in(self, client: socket.socket) -> None:
        self.counts.accepted += 1
        here, files_for = self.counts.connections + self._newcomers.handshakes, links_max()
        if here >= min(self._bounds.connections, files_for):
            self.counts.crowded += 1
            client.close()
            limit = "open files (ulimit -n, LimitNOFILE)" if files_for < self._bounds.connections else "clients"
            self._warn("sensor.crowded", clients=here, why=f"the limit of {limit}")
            return
        client.setblocking(False)
        keep_alive(client)
        self._number += 1
        self._newcomers.come(Link(self, f"{self._run}-{self._number:x}"), client)

    def now_ns(self) -> int:
        return self._clock.now_ns()

    def arrived(self, link: Link) -> None:
        self._links.add(link)
        self._newcomers.arrived(link)
        self.counts.connections = len(self._links)
        if self._stopping:
            link.abort()

    def greeted(self, link: Link) -> None:
        self._newcomers.forget(link)
        self._entrance.let_in(link)

    def ended(self, link: Link, *, by_broker: bool) -> None:
        self._links.discard(link)
        self.counts.connections = len(self._links)
        self._newcomers.forget(link)
        if link.has_unsent:
            self._leaving[link] = self._clock.monotonic_ns() + int(LEAVING_S * NS)
        # What ends with the daemon or its broker is no doing of the device: the next start writes that all have ended.
        by_itself = not self._stopping and self._is_open.is_set()
        if link.is_in:
            self.counts.disconnected += 1
            self.counts.left += link.said_bye
            if by_itself:
                self.books.ended(link, by_broker=by_broker)
        elif link.has_greeted and not self._stopping:
            self.books.failed(link)

    # Looking after

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._mind_the_gate(), name=f"sensor {self.name} gate")
            tasks.create_task(self.books.run(), name=f"sensor {self.name} books")
            tasks.create_task(self._sweep(), name=f"sensor {self.name} sweep")

    async def _mind_the_gate(self) -> None:
        while True:
            await self._gate.opened()
            await self.books.cut()
            self._is_open.set()
            await self._gate.shut()
            self._is_open.clear()
            self.books.forget_doubtful()
            for link in [link for link in self._links if link.is_through]:
                link.abort()

    async def _sweep(self) -> None:
        while True:
            await sleep(self._clock, FLUSH_S)
            self.books.hurry()
            now = self._clock.monotonic_ns()
            self.now_s = now // NS
            self._newcomers.end_silent(now)
            self._see_off(now)
            if self.intake is not None:
                await self._end_lapsed()
            if self.books.is_away:  # better that its events are incomplete than that the broker is
                self.books.let_the_crowd_go()
            if self._revision != self._doorman.revision:
                await self._recheck()
            self._listener.go_on()

    def _see_off(self, now: int) -> None:
        """Those that are gone, and those that don't take what was said to them last."""
        for link, until in list(self._leaving.items()):
            if now >= until or not link.has_unsent:
                del self._leaving[link]
                link.abort()

    async def _end_lapsed(self) -> None:
        """Those that keep silent for longer than they said: behind an intake the broker can't tell."""
        async for link in self._everyone():
            if link.has_lapsed(self.now_s):
                self.counts.lapsed += 1
                link.close()

    async def _recheck(self) -> None:
        self._revision = self._doorman.revision
        async for link in self._everyone():
            if not link.recheck(self._doorman):
                self.counts.revoked += 1
                link.close()

    async def _everyone(self) -> AsyncIterator[Link]:
        """Those that are there; others have their turn in between."""
        for at, link in enumerate(list(self._links)):
            if not link.has_ended:
                yield link
            if at % SLICE == SLICE - 1:
                await asyncio.sleep(0)

    def _warn(self, event: str, **fields: Any) -> None:
        self._warnings.warning(log, event, self._clock.monotonic_ns(), sensor=self.name, **fields)

    # The end

    async def stop(self) -> None:
        """End all connections, and book what was heard. `run` must have been cancelled before."""
        self._stopping = True
        self._listener.close()
        await self._newcomers.stop()
        await self._entrance.stop()
        links = list(self._links)
        if self.intake is not None:
            for link in links:
                link.valve.close(LEAVING)
            await self.intake.close()
        for link in links:
            link.close()
        await self.books.close()
        for link in [*links, *self._leaving]:
            link.abort()
