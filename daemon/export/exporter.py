"""Exports metrics by MQTT: what reports say and actors form, gathered and published every five minutes (spec.md §9.4).

It listens like the history does, and holds nobody up: what waits to be turned into JSON and what waits to be published
are bounded, and what does not fit is dropped and counted. What is held is in memory only: after a crash it is lost, but
for what is read from the log again.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import structlog

from actors.effects import Formed
from actors.messages import U1, Events
from actors.presence import NOTHING
from actors.router import Routed
from actors.world import World
from config.model import NS
from daemon.clock import Clock, sleep
from daemon.export.entries import Batches, Entry, Message, entries_of_reports, entries_of_turns, entries_of_windows
from daemon.export.selection import Destination, Exports, exports_of
from daemon.formed import by_position
from daemon.held import Held
from daemon.in_force import InForce

EVERY_S: Final = 300.0
BETWEEN_S: Final = 0.05  # messages of 128 KiB: a large batch does not crowd out the answers to devices
HELD_BYTES_MAX: Final = 64 * 1024**2  # of JSON: about 450,000 datapoints
WAITING_MAX: Final = 1_000_000  # reports, events and windows' datapoints that are no JSON yet
WAITING_BYTES_MAX: Final = 64 * 1024**2  # of the batches that hold them
FLUSH_S: Final = 3.0
LINGER_S: Final = 0.25  # until the broker has it, and the sensor has passed it on to who is subscribed

NO_DATA: Final[U1] = np.zeros(0, np.uint8)

Send = Callable[[Destination, bytes], bool]
"""Publishes a message once, and does not wait; False where there is no way out."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Counters:
    """What the export counts; plain numbers for telemetry."""

    datapoints: int = 0  # published
    messages: int = 0
    passed_over: int = 0  # reports, events and windows' datapoints for which there was no room
    unsent: int = 0  # datapoints whose broker was away
    failed: int = 0  # batches that could not be spelled, because of a bug


@dataclass(frozen=True, slots=True)
class _Work:
    """Something that is no JSON yet: how to make it, how many datapoints about, and the bytes that it lies in."""

    make: Callable[[], Iterable[Entry]]
    size: int
    data: U1


class Exporter:
    """A tap of the pipeline, and told of what actors form (`supervisor.OnFormed`); `run` it in a task.

    `told_before`: what the log has up to there was judged by the run before, and old parts of it are not told again.
    """

    def __init__(self, send: Send, clock: Clock, every_s: float = EVERY_S, between_s: float = BETWEEN_S) -> None:
        self.counters, self.batches = Counters(), Batches(HELD_BYTES_MAX)
        self.told_before = 0
        self._send, self._clock, self._every_s, self._between_s = send, clock, every_s, between_s
        self._since_ns = clock.now_ns() - int(every_s * NS)
        self._exports = InForce[Exports]()
        self._reached: dict[str, int] = {}  # actor -> position up to which it has told what it formed
        self._work: deque[_Work] = deque()
        self._waiting, self._held = 0, Held()
        self._wake, self._turn, self._publishing = asyncio.Event(), asyncio.Lock(), asyncio.Lock()
        self._cut_off: set[Destination] = set()

    # ---- what is heard; in the loop, and at once ----

    def begin(self, position: int, world: World) -> None:
        self.follow(position, world)

    def follow(self, position: int, world: World) -> None:
        exports = exports_of(world)
        self._exports.follow(position, exports)
        self._reached = {key: reached for key, reached in self._reached.items() if key in world.actors}
        self._cut_off &= exports.destinations
        for name, topic in exports.refused:
            log.warning("export.refused", profile=name, topic=topic, why="a topic of the server's or of detectd's own")

    def take(self, routed: Routed) -> None:
        exports, ts = self._exports.latest, routed.batch.ts
        after = self.told_before if len(ts) and int(ts[0]) < self._since_ns else 0
        if int(routed.batch.frames.seq[-1]) <= after:
            return
        if exports.reported and len(routed.reports):
            self._put(lambda: entries_of_reports(routed, exports, after), len(routed.reports), routed.batch.frames.data)
        events = routed.batch.events
        if exports.presence and events is not None and (events.turn != NOTHING).any():
            self._put(lambda: entries_of_turns(_behind(events, routed, after), exports), len(events.turn))

    def passed(self, position: int) -> None: ...
    async def room(self) -> None: ...

    def __call__(self, key: str, formed: Sequence[Formed]) -> None:
        """What an actor formed; after a rebuild some comes again."""
        for position, pieces in by_position(formed):
            exports = self._exports.at(position)
            if key in exports.formed and position > self._reached.get(key, 0):
                self._form(key, [piece for piece in pieces if self._is_new(piece)], exports)
            self._reached[key] = max(position, self._reached.get(key, 0))

    def _form(self, key: str, formed: Sequence[Formed], exports: Exports) -> None:
        wanted = exports.formed[key]
        mine = [piece for piece in formed if piece.series in wanted and exports.is_due(piece.series, piece.end)]
        if mine:
            self._put(lambda: entries_of_windows(key, mine, exports), sum(len(piece.things) for piece in mine))

    def _is_new(self, piece: Formed) -> bool:
        return piece.position > self.told_before or piece.end >= self._since_ns

    def _put(self, make: Callable[[], Iterable[Entry]], size: int, data: U1 = NO_DATA) -> None:
        if self._work and (self._waiting + size > WAITING_MAX or self._held.size > WAITING_BYTES_MAX):
            self.counters.passed_over += size
            return
        self._work.append(_Work(make, size, data))
        self._waiting += size
        self._held.take(data)
        self._wake.set()

    # ---- the tasks ----

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._spell_what_comes(), name="export-spelling")
            tasks.create_task(self._publish_in_time(), name="export-publishing")

    async def flush(self) -> None:
        """Publish what is held, before an end; never for long."""
        before = self.counters.messages
        try:
            async with asyncio.timeout(FLUSH_S):
                await self._spell()
                await self.publish()
            if self.counters.messages > before:
                await asyncio.sleep(LINGER_S)
        except TimeoutError:
            log.warning("export.unfinished", after_s=FLUSH_S, why="what was not published is lost")

    async def publish(self) -> None:
        """Publish what is held, now."""
        async with self._publishing:
            async with self._turn:
                messages = self.batches.taken()
            for at, (place, message) in enumerate(messages):
                if at:
                    await sleep(self._clock, self._between_s)
                self._publish(place, message)

    async def _publish_in_time(self) -> None:
        while True:
            await sleep(self._clock, self._every_s)
            await self.publish()

    async def _spell_what_comes(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._spell()

    async def _spell(self) -> None:
        async with self._turn:
            while self._work:
                work = self._work[0]
                try:
                    await asyncio.to_thread(self._add, work)
                except Exception as problem:  # isolation boundary: a bug here is not the daemon's end
                    self.counters.failed += 1
                    log.error("export.failed", exc_info=problem)
                self._work.popleft()
                self._waiting -= work.size
                self._held.give(work.data)

    def _add(self, work: _Work) -> None:
        for place, entry in work.make():
            self.batches.add(place, entry)

    def _publish(self, place: Destination, message: Message) -> None:
        is_out = self._send(place, message.closed())
        if is_out:
            self.counters.messages += 1
            self.counters.datapoints += message.count
        else:
            self.counters.unsent += message.count
        if is_out == (place in self._cut_off):  # it was otherwise
            self._cut_off ^= {place}
            tell = log.info if is_out else log.warning
            tell("export.sent" if is_out else "export.unsent", topic=place.topic, bridge=place.bridge or None)


def _behind(events: Events, routed: Routed, after: int) -> Events:
    """Events without what they change, where they were told before."""
    old = routed.batch.frames.seq[events.entry] <= after
    if not old.any():
        return events
    turn = events.turn.copy()
    turn[old] = NOTHING
    return replace(events, turn=turn)
