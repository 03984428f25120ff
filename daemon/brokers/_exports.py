"""Messages of ours that go out through a bridge beside the replies: exported metrics, at most once."""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Final

import structlog

from daemon.brokers._base import Counts
from daemon.brokers._storing import LAST_WORD_S
from daemon.brokers._wire import Broken, Wire

BYTES_MAX: Final = 8 * 1024 * 1024  # that wait for the broker to read

log = structlog.get_logger(__name__)


class Exports:
    """What waits. `run` sends it while there is a connection; what waits at its end is dropped."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._bytes = 0
        self._stirred = asyncio.Event()

    def put(self, topic: str, payload: bytes) -> bool:
        """False, and counted, where there is no connection or no room."""
        if not self._counts.connected or self._bytes + len(payload) > BYTES_MAX:
            self._counts.exports_dropped += 1
            return False
        self._waiting.append((topic, payload))
        self._bytes += len(payload)
        self._stirred.set()
        return True

    async def run(self, wire: Wire) -> None:
        """Until cancelled, one after the other: a broker that reads slowly makes the next one wait."""
        try:
            while True:
                await self._stirred.wait()
                self._stirred.clear()
                await self._send_all(wire)
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORD_S):
                    await self._send_all(wire)
            self._counts.exports_dropped += len(self._waiting)
            self._waiting.clear()
            self._bytes = 0

    async def _send_all(self, wire: Wire) -> None:
        while self._waiting:
            topic, payload = self._waiting.popleft()
            self._bytes -= len(payload)
            await self._send(wire, topic, payload)

    async def _send(self, wire: Wire, topic: str, payload: bytes) -> None:
        is_sent = False
        try:
            await wire.send([(topic, payload)])
            is_sent = True
        except (Broken, ValueError):
            log.debug("bridge.export_dropped", topic=topic)
        finally:  # cancelled: it may be out, or not
            self._counts.exports_sent += is_sent
            self._counts.exports_dropped += not is_sent
