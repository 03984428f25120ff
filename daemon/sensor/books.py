"""The books of one sensor: what its clients did, summed for up to a second, then written into the log.

Bounded: twice `keys_max` facts and as many sums. Beyond half of that clients wait until the log has taken what there
is; where the log is away for long they go on, and what is not noted is counted.
"""

import asyncio
from typing import Final

import structlog

from actors.events import Event, Kind
from daemon.brokers._base import Log
from daemon.brokers._tally import KEYS_MAX, Tally
from daemon.clock import Clock
from daemon.sensor import sums
from daemon.sensor.counts import Counts
from daemon.sensor.ledger import Ledger
from daemon.sensor.link import Link

SLICE: Final = 1000  # connections looked at before others have their turn
LAST_S: Final = 2.0  # for the log to take what was heard last

log = structlog.get_logger(__name__)


class Books:
    """`run` writes whenever `hurry` was called, which somebody has to do once a second."""

    def __init__(self, source: str, writer: Log, clock: Clock, counts: Counts, keys_max: int = KEYS_MAX) -> None:
        self._source, self._clock, self._counts, self._keys_max = source, clock, counts, keys_max
        self._ledger = Ledger(source, writer, clock, counts)
        self._tally = Tally()
        self._heard: dict[Link, None] = {}  # have sums
        self._keys = 0  # sums that are not booked
        self._crowd: list[Link] = []  # made to wait
        self._doubtful: list[Event] = []  # ends that may turn out to be the broker's own end
        self._doubted: list[Event] = []  # the same, a collection ago
        self._due = asyncio.Event()
        self._turn = asyncio.Lock()
        self._storing: asyncio.Future[None] | None = None

    @property
    def is_away(self) -> bool:
        """Whether the log has not taken something for a while."""
        return self._ledger.is_away

    # What is told

    def connected(self, link: Link) -> None:
        self._counts.connected += 1
        if link.is_named:
            self._put(self._event("connected", link))
        else:
            self._counts.unnamed += 1

    def denied(self, link: Link, topic: str = "", count: int = 1) -> None:
        self._counts.denied += count
        if link.is_named and self._has_place():
            now = self._clock.now_ns()
            self._tally.add("denied", link.client_id, now, topic=topic, count=count, user=link.user)

    def failed(self, link: Link) -> None:
        """Its attempt to connect came to nothing."""
        self._counts.connect_failed += 1
        if link.is_named and self._has_place():
            self._tally.add("connect-failed", link.client_id, self._clock.now_ns(), ip=link.ip, user=link.user)

    def ended(self, link: Link, *, by_broker: bool) -> None:
        if link.is_named and self._has_place():
            event = self._event("disconnected", link)
            if by_broker:
                self._doubtful.append(event)
            else:
                self._tally.put(event)

    def has_room(self, link: Link) -> bool:
        if self._keys >= self._keys_max:
            self.hurry()
            if self.is_away or self._keys >= 2 * self._keys_max:
                self._counts.dropped += 1
                return False
            self._make_wait(link)
        elif link.has_many:
            self._make_wait(link)
        self._keys += 1
        return True

    def heard(self, link: Link) -> None:
        self._heard[link] = None

    def _make_wait(self, link: Link) -> None:
        if not link.is_crowded:
            self._counts.pauses += 1
            self._crowd.append(link)
            link.wait()

    def _event(self, kind: Kind, link: Link) -> Event:
        return Event(
            event=kind, client_id=link.client_id, time=self._clock.now_ns(), ip=link.ip, user=link.user,
            session=link.session,
        )  # fmt: skip

    def _put(self, event: Event) -> None:
        if self._has_place():
            self._tally.put(event)

    def _has_place(self) -> bool:
        if len(self._tally) + len(self._doubtful) < 2 * self._keys_max:
            return True
        self.hurry()
        self._counts.dropped += 1
        return False

    # Writing

    def hurry(self) -> None:
        self._due.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._due.wait()
            self._due.clear()
            await self.flush()

    async def flush(self) -> None:
        """Write what was heard until now."""
        async with self._turn:
            await self._store(await self._collected())

    async def cut(self) -> None:
        """All connections have ended: nothing of before may be written after this."""
        async with self._turn:
            await self._store(await self._collected())
            await self._ledger.cut()

    def forget_doubtful(self) -> None:
        """It was the broker's own end: a cut says so of all."""
        self._doubtful, self._doubted = [], []

    def let_the_crowd_go(self) -> None:
        """Nobody waits any longer, whatever became of the sums."""
        crowd, self._crowd = self._crowd, []
        for link in crowd:
            link.go_on()

    async def close(self) -> None:
        """Write what was heard last, as far as the log takes it at once."""
        try:
            async with asyncio.timeout(LAST_S):
                await self.flush()  # behind what is being stored already
        except TimeoutError:
            log.warning("sensor.unbooked", sensor=self._source, why="the log did not answer")
        if self._storing is not None:
            self._storing.cancel()
            await asyncio.gather(self._storing, return_exceptions=True)

    async def _store(self, events: list[Event]) -> None:
        if events:
            self._storing = asyncio.ensure_future(self._ledger.store(events))
            await asyncio.shield(self._storing)  # a second's events are not lost because the daemon stops just then

    async def _collected(self) -> list[Event]:
        heard, self._heard = self._heard, {}
        self._keys = 0
        events = [*self._tally.taken(), *self._doubted]
        self._doubted, self._doubtful = self._doubtful, []
        for at, link in enumerate(heard):
            events += self._of(link)
            if at % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        self.let_the_crowd_go()
        return sorted(events, key=_time)

    def _of(self, link: Link) -> list[Event]:
        """What a link published and received since it was last asked."""
        if not link.is_in:
            if not link.has_ended:  # it may be taken yet
                self._heard[link] = None
                self._keys += len(link.sums) + len(link.delivered)
            return []
        published, link.sums = link.sums, {}
        delivered, link.delivered = link.delivered, {}
        found = [event for each in (published, delivered) for event in sums.events(each, link.client_id, link.user)]
        for event in found:
            self._count(event)
        return found

    def _count(self, event: Event) -> None:
        match event.event:
            case "published":
                self._counts.published += event.count
            case "delivered":
                self._counts.delivered += event.count
            case _:
                self._counts.denied += event.count


def _time(event: Event) -> int:
    return event.time
