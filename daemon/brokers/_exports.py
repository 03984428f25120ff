"""Messages of ours that go out through a bridge beside the replies: exported metrics, at most once."""

import asyncio
from collections import deque
from typing import Final

from daemon.brokers._base import Counts
from daemon.brokers._wire import Broken, Wire

BYTES_MAX: Final = 8 * 1024 * 1024  # that wait for the broker to read


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
                while self._waiting:
                    await self._send(wire, self._waiting[0])
                    self._bytes -= len(self._waiting.popleft()[1])
        finally:
            self._counts.exports_dropped += len(self._waiting)
            self._waiting.clear()
            self._bytes = 0

    async def _send(self, wire: Wire, message: tuple[str, bytes]) -> None:
        try:
            await wire.send([message])
            self._counts.exports_sent += 1
        except (Broken, ValueError):
            self._counts.exports_dropped += 1
