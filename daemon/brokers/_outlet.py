"""Hands a source's events to the log, again and again until they are stored."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog

from actors.events import SUBJECT
from daemon.brokers._base import Entry, Log
from daemon.clock import Clock
from daemon.log.insist import Insistent
from daemon.log.parcel import MSG_ID
from daemon.log.window import Refused

RETRY_S: Final = 0.5  # doubles with each failure, up to RETRY_MAX_S; the wait is a random part of it
RETRY_MAX_S: Final = 30.0

log = structlog.get_logger(__name__)


class StoreCounts(Protocol):
    """Totals of a source: entries stored, attempts repeated, entries that the log will never take."""

    stored: int
    repeated: int
    refused: int


class Outlet:
    """One source's way into the log; one call at a time."""

    def __init__(self, name: str, writer: Log, clock: Clock, random: Callable[[], float], counts: StoreCounts) -> None:
        self._name, self._random, self._counts = name, random, counts
        self._log = Insistent(
            writer.append_many, clock, self._pause_s, structlog.get_logger(__name__, source=name), "source",
            failed=self._failed, but=(Refused,),
        )  # fmt: skip

    async def hand_over(self, payloads: Sequence[bytes], token: str) -> None:
        """Returns when all are stored, however long that takes. `token` names them: what is handed over twice under
        one token within the log's `duplicate_window` is stored once.
        """
        subject = f"{SUBJECT}{self._name}"
        entries = [
            Entry(subject, payload, {MSG_ID: f"{self._name}-{token}-{number}"})
            for number, payload in enumerate(payloads)
        ]
        try:
            await self._log.store(entries)
        except Refused as why:
            await self._one_by_one(entries, token, why)
        else:
            self._counts.stored += len(entries)

    async def _one_by_one(self, entries: Sequence[Entry], token: str, why: Refused) -> None:
        """One of them is refused for good (a server that takes small messages only): the others must not suffer."""
        if len(entries) == 1:
            self._counts.refused += 1
            log.error("source.refused", source=self._name, bytes=len(entries[0].payload), why=str(why))
            return
        for number, entry in enumerate(entries):
            await self.hand_over([entry.payload], f"{token}-{number}")

    def _failed(self) -> None:
        self._counts.repeated += 1

    def _pause_s(self, failures: int) -> float:
        return self._random() * min(RETRY_MAX_S, RETRY_S * 2.0 ** min(failures, 16))
