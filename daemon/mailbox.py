"""A bounded inbox of one actor. When it is full the sender waits: the log holds the rest, nothing is shed.

Buffered: yes. When full: `tell` waits. Senders: one (the pipeline). Receivers: one (the actor's task).
"""

import asyncio
from collections import deque
from typing import Generic, TypeVar

Message = TypeVar("Message")


class Mailbox(Generic[Message]):
    """At most `most` messages; each is a whole batch, so a small number is much work."""

    def __init__(self, most: int = 8) -> None:
        self._most = most
        self._messages: deque[Message] = deque()
        self._changed = asyncio.Event()
        self._busy = False

    def __len__(self) -> int:
        return len(self._messages) + self._busy

    async def tell(self, message: Message) -> None:
        """Put a message in; waits while the box is full."""
        while len(self._messages) >= self._most:
            await self._wait()
        self._messages.append(message)
        self._changed.set()

    async def take(self) -> Message:
        """The next message; the one before counts as done from here on."""
        self._busy = False
        self._changed.set()
        while not self._messages:
            await self._wait()
        self._busy = True
        message = self._messages.popleft()
        self._changed.set()
        return message

    async def drained(self) -> None:
        """Wait until every message told so far has been handled."""
        while len(self):
            await self._wait()

    def clear(self) -> list[Message]:
        """Take out what waits, for good: its receiver reads it again from the log."""
        taken = list(self._messages)
        self._messages.clear()
        self._busy = False
        self._changed.set()
        return taken

    async def _wait(self) -> None:
        # One event for both sides: each re-checks its own condition, so a wake-up too many costs a look.
        self._changed.clear()
        await self._changed.wait()
