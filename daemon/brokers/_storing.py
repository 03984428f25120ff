"""From the messages that wait into the log, in batches; and after that, in the order of receipt, the acknowledgements.

While some batches are on their way to the log the next is made: the log's answer takes longer than its work.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import structlog

from actors.events import SUBJECT
from daemon.brokers._base import Counts, Entry, Surroundings
from daemon.brokers._gather import GATHER_MAX, Gather
from daemon.brokers._inbox import Inbox
from daemon.brokers._reading import Reading
from daemon.brokers._selftest import SelfTest
from daemon.brokers._tally import payloads
from daemon.brokers._wire import Arrived, Wire
from daemon.clock import NS
from daemon.log.insist import Insistent

BATCH_MAX: Final = GATHER_MAX
UNDER_WAY_MAX: Final = 3  # batches on their way to the log
QUIET_S: Final = 5.0
BACKLOG_S: Final = 60.0
LAST_WORD_S: Final = 2.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Batch:
    """What is written into the log at once, and then acknowledged."""

    entries: list[Entry] = field(default_factory=list)
    asked: list[Arrived] = field(default_factory=list)  # that want an acknowledgement, in the order of receipt
    reports: int = 0
    events: int = 0
    size: int = 0  # bytes of the messages


class Store:
    """What outlives a connection: how a bridge's messages are read, gathered and counted."""

    def __init__(
        self,
        name: str,
        around: Surroundings,
        counts: Counts,
        reading: Reading,
        test: SelfTest,
        pause_s: Callable[[int], float],
    ) -> None:
        """`pause_s`: how long to wait after so many failures."""
        self.name, self.around, self.counts = name, around, counts
        self.reading, self.test, self.pause_s = reading, test, pause_s
        self.gather = Gather()


class Storing:
    """Of one connection, from `begin` until `end`."""

    def __init__(self, store: Store, wire: Wire, inbox: Inbox) -> None:
        self._store, self._wire, self._inbox = store, wire, inbox
        self._around, self._counts, self._reading = store.around, store.counts, store.reading
        logger = structlog.get_logger(__name__, bridge=store.name)
        self._log = Insistent(self._around.log.append_many, self._around.clock, store.pause_s, logger, "bridge")
        self._backlog_until_ns = self._around.clock.monotonic_ns() + int(BACKLOG_S * NS)
        self._may_begin = asyncio.Event()
        self._places = asyncio.Semaphore(UNDER_WAY_MAX)
        self._last: asyncio.Task[None] | None = None  # the batch that was sent last: it ends after those before it
        self._task = asyncio.create_task(self._run(), name=f"bridge {store.name} store")

    @property
    def has_begun(self) -> bool:
        return self._may_begin.is_set()

    def begin(self) -> None:
        """Messages that came before wait in the inbox."""
        self._may_begin.set()

    async def end(self) -> None:
        """Store what had arrived, as far as the log answers at once: of QoS 0 there is no other copy; QoS 1 comes
        again, and is recognised if stored.
        """
        self._inbox.close()
        self.begin()
        _done, late = await asyncio.wait({self._task}, timeout=LAST_WORD_S)
        for task in late:
            task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        await self._may_begin.wait()
        sending: set[asyncio.Task[None]] = set()
        try:
            while (batch := await self._batch()) is not None:
                await self._places.acquire()
                self._last = asyncio.create_task(self._send(batch, self._last), name=f"bridge {self._store.name} batch")
                sending.add(self._last)
                self._last.add_done_callback(sending.discard)
            if sending:
                await asyncio.wait(sending)
        except Exception as bug:  # noqa: BLE001  # isolation boundary: what nobody stores must not come in for ever
            self._fail(bug)
        finally:
            for task in sending:
                task.cancel()
            await asyncio.gather(*sending, return_exceptions=True)

    async def _send(self, batch: Batch, before: asyncio.Task[None] | None) -> None:
        try:
            await self._append(batch)
            if before is not None:
                await asyncio.wait({before})
            self._acknowledge(batch)
        except Exception as bug:  # noqa: BLE001  # isolation boundary, as above
            self._fail(bug)
        finally:
            self._places.release()

    def _fail(self, bug: Exception) -> None:
        log.error("bridge.failed", bridge=self._store.name, exc_info=bug)
        self._wire.fail(f"internal error: {bug!r}")

    # A batch.

    async def _batch(self) -> Batch | None:
        """What is to be stored next; None: nothing will come any more. A report makes no one wait, news may."""
        batch = Batch()
        gather = self._store.gather
        gather.begin()
        messages = await self._take()
        if not messages:
            return None
        while messages:
            gather.came(len(messages), self._around.clock.monotonic_ns())
            self._read(messages, batch)
            messages = await self._more(batch)
        events = self._reading.news()
        batch.reports, batch.events = len(batch.entries), len(events)
        batch.entries[:0] = [Entry(f"{SUBJECT}{self._store.name}", payload) for payload in payloads(events)]
        return batch

    async def _take(self) -> list[Arrived]:
        while self._reading.in_backlog or self._store.test.is_under_way:
            try:
                async with asyncio.timeout(QUIET_S):
                    messages = await self._inbox.take(BATCH_MAX)
            except TimeoutError:
                self._end_backlog()
                continue
            if self._around.clock.monotonic_ns() >= self._backlog_until_ns:
                self._end_backlog()
            return messages
        return await self._inbox.take(BATCH_MAX)

    def _end_backlog(self) -> None:
        """Nothing came for a while, or something came for too long: the backlog is over without our own message."""
        self._reading.in_backlog = False
        self._store.test.missed()

    def _read(self, messages: Sequence[Arrived], batch: Batch) -> None:
        for message in messages:
            entry = self._reading.read(message)
            if entry is not None:
                batch.entries.append(entry)
            if message.qos:
                batch.asked.append(message)
            batch.size += len(message.payload)

    async def _more(self, batch: Batch) -> list[Arrived]:
        """What comes while news may still be gathered; [] when it is time to write."""
        gather, reading = self._store.gather, self._reading
        while reading.has_news and not (batch.entries or reading.is_full or self._inbox.is_full):
            left_ns = gather.left_ns(self._around.clock.monotonic_ns())
            if left_ns <= 0:
                break
            with suppress(TimeoutError):
                async with asyncio.timeout(left_ns / NS):
                    return await self._inbox.take(BATCH_MAX - gather.count)
        return []

    # Into the log.

    async def _append(self, batch: Batch) -> None:
        """However long it takes. A batch behind one that fails may be stored before it."""
        await self._log.store(batch.entries)
        self._counts.stored += batch.reports
        self._counts.events += batch.events

    def _acknowledge(self, batch: Batch) -> None:
        if batch.asked:
            self._reading.stored(batch.asked)
            self._wire.acknowledge([message.mid for message in batch.asked])
        self._inbox.settled(batch.size)
        if not self._inbox.is_full:
            self._wire.resume()
