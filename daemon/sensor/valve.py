"""Whether one side of a connection is read: not as long as there is any reason not to."""

import asyncio
from typing import Final

STALLED: Final = 1  # the other side is slow
CROWDED: Final = 2  # the sums are full
FULL: Final = 4  # the log is slow
DEAF: Final = 8  # it takes no answers
LEAVING: Final = 16  # all must end
EARLY: Final = 32  # it is not let through yet


class Valve:
    """Of one side. `shut` is the sum of the reasons."""

    __slots__ = ("_transport", "shut")

    def __init__(self) -> None:
        self.shut = 0
        self._transport: asyncio.Transport | None = None

    def attach(self, transport: asyncio.Transport) -> None:
        """The side is there; it is being read."""
        self._transport = transport
        if self.shut and not transport.is_closing():
            transport.pause_reading()

    def close(self, why: int) -> None:
        if not self.shut and self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
        self.shut |= why

    def open(self, why: int) -> None:
        """This reason is over."""
        was_shut = self.shut
        self.shut &= ~why
        if was_shut and not self.shut and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
