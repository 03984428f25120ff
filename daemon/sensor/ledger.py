"""Writes what a sensor heard into the log: in order, again and again until it is there, and once."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Final, Protocol

import msgspec
import structlog

from actors.controls import RESUMED, Pause
from actors.events import SUBJECT, Event
from daemon.brokers._tally import payloads
from daemon.clock import NS, Clock, sleep
from daemon.sensor.counts import Counts

RETRY_S: Final = (0.1, 5.0)
AWAY_S: Final = 3.0  # an entry that takes longer says that the log is away

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    subject: str
    payload: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Log(Protocol):
    async def append_many(self, entries: Sequence[Entry], /) -> Sequence[int]: ...


class Ledger:
    """Of one source. What is handed over is held until it is stored: hand over no more before that."""

    def __init__(self, source: str, writer: Log, clock: Clock, counts: Counts) -> None:
        self._source, self._writer, self._clock, self._counts = source, writer, clock, counts
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
        return Entry(subject, payload, {"Nats-Msg-Id": f"{self._source}-{self._run}-{self._number:x}"})

    async def _store(self, entries: Sequence[Entry]) -> None:
        self._since_ns = self._clock.monotonic_ns()
        delay_s, failures = RETRY_S[0], 0
        try:
            while True:
                try:
                    await self._writer.append_many(entries)
                except Exception as why:  # noqa: BLE001  # the boundary to the log: whatever ails it, they must get there
                    failures += 1
                    tell = log.warning if failures == 1 else log.debug
                    tell("sensor.log_unreachable", source=self._source, entries=len(entries), why=str(why))
                    await sleep(self._clock, delay_s)
                    delay_s = min(2 * delay_s, RETRY_S[1])
                else:
                    break
        finally:
            self._since_ns = None
        if failures:
            log.info("sensor.log_reached", source=self._source, attempts=failures + 1)
