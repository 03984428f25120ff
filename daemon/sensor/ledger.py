"""Writes what a sensor heard into the log: in order, again and again until it is there, and once."""

import asyncio
from collections.abc import Sequence
from secrets import token_hex
from typing import Final

import msgspec
import structlog

from actors.controls import RESUMED, Pause
from actors.events import SUBJECT, Event
from daemon.brokers._base import Entry, Log
from daemon.brokers._tally import payloads
from daemon.clock import NS, Clock
from daemon.log.insist import Insistent
from daemon.log.parcel import MSG_ID
from daemon.sensor.counts import Counts

RETRY_S: Final = 0.1  # doubles with each failure, up to RETRY_MAX_S
RETRY_MAX_S: Final = 5.0
AWAY_S: Final = 3.0  # an entry that takes longer says that the log is away


class Ledger:
    """Of one source. What is handed over is held until it is stored: hand over no more before that."""

    def __init__(self, source: str, writer: Log, clock: Clock, counts: Counts) -> None:
        self._source, self._clock, self._counts = source, clock, counts
        self._log = Insistent(
            writer.append_many, clock, pause_s, structlog.get_logger(__name__, source=source), "sensor"
        )
        self._run, self._number = token_hex(6), 0
        self._since_ns: int | None = None
        self._turn = asyncio.Lock()

    @property
    def is_away(self) -> bool:
        """Whether the log has not taken something for a while."""
        return self._since_ns is not None and self._clock.monotonic_ns() - self._since_ns > AWAY_S * NS

    async def cut(self) -> None:
        """All connections that this source told of have ended."""
        entry = msgspec.json.encode(Pause(since=self._clock.now_ns(), source=self._source, cut=True))
        async with self._turn:
            await self._store([self._entry(RESUMED, entry)])

    async def store(self, events: list[Event]) -> None:
        async with self._turn:
            # Thousands of clients make a second's worth of JSON: not on the loop that their bytes go through.
            found = await asyncio.to_thread(lambda: list(payloads(events)))
            await self._store([self._entry(SUBJECT + self._source, payload) for payload in found])
            self._counts.stored += len(events)

    def _entry(self, subject: str, payload: bytes) -> Entry:
        # Named, so that one that is stored though nobody said so is recognised when it comes again.
        self._number += 1
        return Entry(subject, payload, {MSG_ID: f"{self._source}-{self._run}-{self._number:x}"})

    async def _store(self, entries: Sequence[Entry]) -> None:
        self._since_ns = self._clock.monotonic_ns()
        try:
            await self._log.store(entries)
        finally:
            self._since_ns = None


def pause_s(failures: int) -> float:
    return min(RETRY_MAX_S, RETRY_S * 2.0 ** min(failures - 1, 16))
