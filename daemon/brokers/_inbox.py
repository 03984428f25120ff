"""Messages of one connection that wait to be stored: in order, bounded, taken in batches."""

import asyncio
from collections import deque
from typing import Final

from daemon.brokers._wire import Arrived

QOS0_MAX: Final = 10_000  # waiting messages beyond which a QoS 0 one, which nobody promised to keep, is dropped
WAITING_MAX: Final = 65_535  # there are no more packet identifiers: a broker can't have more QoS 1 messages under way


class Inbox:
    """Buffered: yes. When full: QoS 0 is dropped and counted; QoS 1 is refused, and the connection must be given up:
    the broker keeps what we did not acknowledge. Senders: one (the connection). Receivers: one (the store loop).
    """

    def __init__(self, bytes_max: int) -> None:
        self.dropped = 0
        self._bytes_max = bytes_max
        self._bytes = 0
        self._waiting: deque[Arrived] = deque()
        self._stirred = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def offer(self, message: Arrived) -> bool:
        """Take a message in, or drop one of QoS 0; False: full, and the message must come again."""
        full = len(self._waiting) >= WAITING_MAX or self._bytes + len(message.payload) > self._bytes_max
        if message.qos == 0 and (full or len(self._waiting) >= QOS0_MAX):
            self.dropped += 1
            return True
        if full:
            return False
        self._waiting.append(message)
        self._bytes += len(message.payload)
        self._stirred.set()
        return True

    async def take(self, most: int) -> list[Arrived]:
        """What waits, at most `most`, at least one; [] when closed and empty. Waits without limit: cancel to stop."""
        while not self._waiting and not self._closed:
            self._stirred.clear()
            await self._stirred.wait()
        batch = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        self._bytes -= sum(len(message.payload) for message in batch)
        return batch

    def close(self) -> None:
        """Nothing more will come: `take` hands out what is left, then nothing."""
        self._closed = True
        self._stirred.set()
