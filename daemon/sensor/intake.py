"""Reports on the short way: off a client's stream into the log, and acknowledged when the log has stored them.

The long way leads through nats-server's own MQTT: it stores each message twice, for the guard and for the log, and
acknowledges before the log has it. Here a PUBACK is proof. What is not taken (QoS 2, a packet that is too long, a name
that AWS would not take) still goes the long way.

Order: the reports of one client are stored, and acknowledged, as they came. An acknowledgement of nats-server's for
something else that the client published may overtake one of ours; clients tell them apart by their packet ids.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Final

import structlog

from daemon.brokers._base import Entry, Log
from daemon.clock import Clock
from daemon.insist import Insistent
from daemon.log_writer import Refused
from daemon.sensor.counts import Counts
from daemon.sensor.ledger import pause_s
from daemon.sensor.link import FULL, PUBACK, Link

BYTES_MAX: Final = 32 * 1024 * 1024  # taken and not stored; beyond it clients wait
COST: Final = 512  # bytes of memory that a report takes beside its own
LAST_S: Final = 2.0  # for the log to take what was taken last

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Batch:
    """What is stored at once, and then said to whom."""

    entries: list[Entry] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)  # of each entry
    packet_ids: list[int] = field(default_factory=list)  # 0: nobody waits for an answer
    size: int = 0


class Intake:
    """Of one sensor. What comes while a batch is on its way to the log is the next one: batches grow with the load."""

    def __init__(self, source: str, writer: Log, clock: Clock, counts: Counts, bytes_max: int = BYTES_MAX) -> None:
        self._source, self._counts = source, counts
        logger = structlog.get_logger(__name__, source=source)
        self._log = Insistent(writer, clock, pause_s, logger, "sensor", but=(Refused,))
        self._bytes_max = bytes_max
        self._bytes = 0
        self._next = _Batch()
        self._is_due = False
        self._storing: asyncio.Task[None] | None = None
        self._crowd: dict[Link, None] = {}  # wait for room

    def take(self, link: Link, topic: bytes, payload: bytes, packet_id: int) -> None:
        """A report of QoS 1 (`packet_id`) or 0. When there is no room for more, the link is not read until there is."""
        batch = self._next
        batch.entries.append(Entry(topic.replace(b"/", b".").decode(), payload))
        batch.links.append(link)
        batch.packet_ids.append(packet_id)
        batch.size += len(payload) + COST
        self._bytes += len(payload) + COST
        if self._bytes >= self._bytes_max and link not in self._crowd:
            self._counts.report_waits += 1
            self._crowd[link] = None
            link.stop_reading(FULL)
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._begin)

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
        while self._next.entries:
            batch, self._next = self._next, _Batch()
            try:
                await self._log.append_many(batch.entries)  # however long it takes: of QoS 0 there is no other copy
                self._acknowledge(batch)
            except Exception as bug:  # isolation boundary: its clients come again
                log.error("sensor.reports_failed", sensor=self._source, reports=len(batch.entries), exc_info=bug)
                for link in batch.links:
                    link.close()
            finally:
                self._bytes -= batch.size
                self._let_the_crowd_go()
        self._is_due = False

    def _acknowledge(self, batch: _Batch) -> None:
        answers: dict[Link, bytearray] = {}
        for link, packet_id in zip(batch.links, batch.packet_ids, strict=True):
            if packet_id:
                answers.setdefault(link, bytearray()).extend(PUBACK + packet_id.to_bytes(2))
        for link, said in answers.items():
            link.say(bytes(said))
        self._counts.reports += len(batch.entries)

    def _let_the_crowd_go(self) -> None:
        if self._crowd and self._bytes < self._bytes_max // 2:
            crowd, self._crowd = self._crowd, {}
            for link in crowd:
                link.go_on_reading(FULL)
