"""Reports on the short way: off a client's stream into the log, and acknowledged when the log has stored them.

The long way leads through nats-server's own MQTT: it stores each message twice, for the guard and for the log, and
acknowledges before the log has it. Here a PUBACK is proof. What is not taken (QoS 2, a packet that is too long, a name
that AWS would not take) still goes the long way.

Order: the reports of one client are stored, and acknowledged, as they came. An acknowledgement of nats-server's for
something else that the client published may overtake one of ours; clients tell them apart by their packet ids.
"""

import asyncio
from collections import deque
from typing import Final, Protocol

import numpy as np
import structlog

from actors.messages import U1
from daemon.clock import Clock
from daemon.log.insist import Insistent
from daemon.log.parcel import WINDOW, Parcel, Roll
from daemon.log.window import Refused
from daemon.pace import Pace
from daemon.sensor.counts import Counts
from daemon.sensor.ledger import pause_s
from daemon.sensor.link import Link
from daemon.sensor.packing import PUBACK_BYTES, Reports, pack, room_for
from daemon.sensor.valve import FULL

BYTES_MAX: Final = 32 * 1024 * 1024  # taken and not stored; beyond it clients wait
COST: Final = 512  # bytes of memory that a report takes beside its own
LAST_S: Final = 2.0  # for the log to take what was taken last

log = structlog.get_logger(__name__)


class Parcels(Protocol):
    """The log's writer (daemon/log/writer.py)."""

    def parcel(self, roll: Roll, size: int) -> Parcel: ...
    async def append_parcel(self, parcel: Parcel) -> None: ...


class _Batch:
    """What is stored at once, and what is said to whom then."""

    __slots__ = ("answers", "parcel", "said", "size", "takes")

    def __init__(self, parcel: Parcel) -> None:
        self.parcel = parcel
        self.answers: U1 = np.empty(PUBACK_BYTES * WINDOW, np.uint8)
        self.said = 0  # bytes of them
        self.takes: list[tuple[Link, int]] = []  # whose reports, and where their answers end
        self.size = 0


class Intake:
    """Of one sensor. What comes while a batch is on its way to the log is the next one: batches grow with the load."""

    def __init__(self, source: str, writer: Parcels, clock: Clock, counts: Counts, bytes_max: int = BYTES_MAX) -> None:
        self._source, self._writer, self._counts = source, writer, counts
        logger = structlog.get_logger(__name__, source=source)
        self._log = Insistent(writer.append_parcel, clock, pause_s, logger, "sensor", but=(Refused,))
        self._bytes_max = bytes_max
        self._bytes = 0
        self._roll = Roll()
        self._waiting: deque[_Batch] = deque()  # the last one is being filled
        self._pace = Pace()
        self._is_due = False
        self._storing: asyncio.Task[None] | None = None
        self._crowd: dict[Link, None] = {}  # wait for room

    def take(self, link: Link, whole: bytes, packets: Reports) -> int:
        """The reports among these packets of a client; gives how many bytes of `whole` they were.

        When there is no room for more, the link is not read until there is.
        """
        taken = 0
        for first in range(0, len(packets), WINDOW):
            taken += self._take(link, whole, packets[first : first + WINDOW])
        if self._bytes >= self._bytes_max and link not in self._crowd:
            self._counts.report_waits += 1
            self._crowd[link] = None
            link.valve.close(FULL)
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._begin)
        return taken

    def _take(self, link: Link, whole: bytes, packets: Reports) -> int:
        size = room_for(whole, packets)
        if not self._waiting or not self._waiting[-1].parcel.has_room(len(packets), size):
            self._waiting.append(_Batch(self._writer.parcel(self._roll, size)))
        batch = self._waiting[-1]
        batch.said, count, taken = pack(batch.parcel, whole, packets, batch.answers, batch.said)
        batch.takes.append((link, batch.said))
        batch.size += taken + COST * count
        self._bytes += taken + COST * count
        return taken

    async def close(self) -> None:
        """Store and acknowledge what was taken, as far as the log answers at once. Nothing may be taken any more."""
        self._begin()
        if self._storing is not None:
            _, late = await asyncio.wait([self._storing], timeout=LAST_S)
            if late:
                log.warning("sensor.reports_unstored", sensor=self._source, why="the log did not answer")
                self._storing.cancel()
                await asyncio.wait(late)

    def _begin(self) -> None:
        """Store what waits, in a batch; what comes meanwhile is the next one."""
        if self._storing is None or self._storing.done():
            self._storing = asyncio.get_running_loop().create_task(
                self._store_all(), name=f"sensor {self._source} intake"
            )

    async def _store_all(self) -> None:
        try:
            await self._store_what_waits()
        finally:
            self._is_due = False

    async def _store_what_waits(self) -> None:
        while self._waiting:
            batch = self._waiting.popleft()
            try:
                # However long it takes: of QoS 0 there is no other copy.
                await self._log.store(batch.parcel)
                self._acknowledge(batch)
            except Exception as bug:  # isolation boundary: its clients come again
                log.error("sensor.reports_failed", sensor=self._source, reports=len(batch.parcel), exc_info=bug)
                for link, _ in batch.takes:
                    link.close()
            finally:
                self._bytes -= batch.size
                self._let_the_crowd_go()
            if (rest_s := self._pace.rest_s(len(batch.parcel))) > 0:
                await asyncio.sleep(rest_s)

    def _acknowledge(self, batch: _Batch) -> None:
        said, start = batch.answers[: batch.said].tobytes(), 0
        answers: dict[Link, bytes] = {}
        for link, end in batch.takes:
            answers[link] = answers.get(link, b"") + said[start:end]
            start = end
        for link, answer in answers.items():
            link.say(answer)
        self._counts.reports += len(batch.parcel)

    def _let_the_crowd_go(self) -> None:
        if self._crowd and self._bytes < self._bytes_max // 2:
            crowd, self._crowd = self._crowd, {}
            for link in crowd:
                link.valve.open(FULL)
