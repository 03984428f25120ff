"""What the sensor itself says to a client: put between two packets of the broker's, and never before its CONNACK."""

import asyncio
from typing import Final

from daemon.sensor.connect import TooMuch
from daemon.sensor.stream import Stream

WAITING_MAX: Final = 64 * 1024  # bytes


class Asides:
    """To one client. `down` reads what its broker says."""

    __slots__ = ("_client", "_down", "_may_speak", "waiting")

    def __init__(self, client: asyncio.Transport, down: Stream) -> None:
        self.waiting: bytearray | None = None
        self._client, self._down = client, down
        self._may_speak = False

    def begin(self) -> None:
        """The broker took the client: its CONNACK is among what `between` is given next."""
        self._may_speak = True

    def say(self, data: bytes) -> None:
        """Now, or as soon as a packet of the broker's has ended. Raises TooMuch."""
        if not data:
            return
        if self._may_speak and not self.waiting and self._down.at_edge:
            self._client.write(data)
            return
        if self.waiting is None:
            self.waiting = bytearray()
        if len(self.waiting) + len(data) > WAITING_MAX:
            raise TooMuch("too many answers wait for the end of a packet")
        self.waiting += data

    def between(self, data: bytes) -> bytes:
        """The piece that `down` read last, with what waits where two packets meet; as it is, where none do."""
        waiting, down = self.waiting, self._down
        if not waiting or not self._may_speak or down.edge < 0:
            return data
        at = down.edge - (len(down.whole) - len(data))
        if at < 0:
            return data
        self.waiting = None
        return data[:at] + waiting + data[at:]
