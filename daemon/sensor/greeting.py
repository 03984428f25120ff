"""What a client says before it is let through: its CONNECT, and what comes behind it, kept until then."""

from daemon.sensor.connect import Connect, extent, parse
from daemon.sensor.stream import Room


class Greeting:
    """Of one client. Until `connect` is there nobody knows who comes."""

    __slots__ = ("_heard", "_room", "connect")

    def __init__(self, room: Room) -> None:
        self.connect: Connect | None = None
        self._heard, self._room = bytearray(), room

    def hear(self, data: bytes) -> Connect | None:
        """The CONNECT, when this completes it. Raises Malformed, TooMuch."""
        self._room.take(len(data))
        self._heard += data
        if self.connect is not None:
            return None
        places = extent(self._heard)
        if places is None or len(self._heard) < places[1]:
            return None
        body, end = places
        self.connect = parse(bytes(self._heard[body:end]))
        self._drop(end)
        return self.connect

    def rest(self) -> bytes:
        """What came behind the CONNECT; it is kept no longer."""
        return self._drop(len(self._heard))

    def _drop(self, size: int) -> bytes:
        self._room.give(size)
        gone = bytes(self._heard[:size])
        del self._heard[:size]
        return gone
