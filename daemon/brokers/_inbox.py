"""Messages of one connection that wait to be stored: in order, bounded, taken in batches."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from daemon.brokers._wire import Arrived

WAITING_MAX: Final = 65_536  # messages; an empty one costs memory too


class Inbox:
    """Buffered: yes. When full: it says so, and the sender stops reading, so that the broker waits; what comes all the
    same is taken, which may be what one turn of the connection brings. What was taken counts until it is `settled`.
    Senders: one (the connection). Receivers: one (the store loop).
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0  # that wait, or were taken and not settled
        self._waiting: deque[Arrived] = deque()
        self._stirred = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        return self._bytes >= self._bytes_max or len(self._waiting) >= WAITING_MAX

    def put(self, messages: Sequence[Arrived]) -> None:
        self._waiting.extend(messages)
        self._bytes += sum(len(message.payload) for message in messages)
        self._stirred.set()

    async def take(self, most: int) -> list[Arrived]:
        """What waits, at most `most`, at least one; [] when closed and empty. Waits without limit: cancel to stop."""
        while not self._waiting and not self._closed:
            self._stirred.clear()
            await self._stirred.wait()
        return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]

    def settled(self, size: int) -> None:
        """So many bytes of what was taken have been stored."""
        self._bytes -= size

    def close(self) -> None:
        """Nothing more will come: `take` hands out what is left, then nothing."""
        self._closed = True
        self._stirred.set()
