"""Where packets begin and end in the bytes of an MQTT connection, and what its messages say; nothing of it waits.

Written for many messages per call, and for brokers that lie: what is kept of a packet is bounded, the rest of a
longer one is dropped as it comes, and what is no MQTT is said once.
"""

from typing import Final

from daemon.brokers._wire import PACKET_BYTES_MAX, Arrived

PUBLISH: Final = 3
HEADER_MAX: Final = 5


class Cutter:
    """`feed` it what was received. `problem`, once set: the stream makes no sense from here on."""

    def __init__(self, *, has_properties: bool, packet_bytes_max: int = PACKET_BYTES_MAX) -> None:
        """`has_properties`: MQTT 5."""
        self.problem: str | None = None
        self.cut = 0  # messages of which the end was dropped
        self._has_properties = has_properties
        self._most = packet_bytes_max
        self._parts: list[bytes] = []
        self._held = 0  # bytes in the parts
        self._needed = 0  # bytes before it is worth looking again
        self._dropping = 0  # bytes still to come of a message that was cut

    @property
    def held(self) -> int:
        """Bytes of a packet that is not complete."""
        return self._held

    def feed(self, data: bytes, received_ns: int) -> list[Arrived | bytes]:
        """The messages and the other packets (whole) that are complete now, in order."""
        if self._dropping:
            dropped = min(self._dropping, len(data))
            self._dropping -= dropped
            data = data[dropped:]
        if self._parts:
            self._parts.append(data)
            self._held += len(data)
            if self._held < self._needed:
                return []
            data = b"".join(self._parts)
        found: list[Arrived | bytes] = []
        at = 0
        while at < len(data) and self.problem is None:
            end = self._packet(data, at, received_ns, found)
            if end < 0:
                break
            at = end
        rest = data[at:]
        self._parts, self._held = [rest] if rest else [], len(rest)
        return found

    def _packet(self, data: bytes, at: int, received_ns: int, found: list[Arrived | bytes]) -> int:
        """Take the packet that begins at `at`; where the next one begins, or -1: it is not complete."""
        first = data[at]
        head = self._length(data, at)
        if head is None:
            self._needed = 0
            return -1
        length, body = head
        excess = length - self._most
        if excess > 0:
            if first >> 4 != PUBLISH:
                return self._nonsense("a packet that is too long")
            length = self._most
        end = body + length
        if end > len(data):
            self._needed = end - at
            return -1
        if first >> 4 != PUBLISH:
            found.append(data[at:end])
            return end
        message = self._message(data, first, body, end, received_ns)
        if message is None:
            return self._nonsense("a message that makes no sense")
        found.append(message)
        return self._drop(len(data), end, excess) if excess > 0 else end

    def _drop(self, available: int, end: int, excess: int) -> int:
        self.cut += 1
        here = min(available - end, excess)
        self._dropping = excess - here
        return end + here

    def _length(self, data: bytes, at: int) -> tuple[int, int] | None:
        """The length that a packet gives of itself, and where its body begins; None: more bytes are needed."""
        try:
            length = data[at + 1]
            if length < 0x80:
                return length, at + 2
            more = data[at + 2]
            if more < 0x80:  # of most messages
                return length & 0x7F | more << 7, at + 3
            return _varint(data, at + 1)
        except IndexError:
            if len(data) - at >= HEADER_MAX:
                self._nonsense("a length that never ends")
            return None

    def _message(self, data: bytes, first: int, at: int, end: int, received_ns: int) -> Arrived | None:
        qos, mid = first >> 1 & 3, 0
        if qos > 1 or end - at < 2:  # QoS 2 was not asked for
            return None
        body = at + 2 + (data[at] << 8 | data[at + 1])
        topic = data[at + 2 : body]
        try:
            if qos:
                mid = data[body] << 8 | data[body + 1]
                if mid == 0:
                    return None
                body += 2
            if self._has_properties:
                length = data[body]
                body += 1
                if length >= 0x80:
                    length, body = _varint(data, body - 1)
                body += length
        except IndexError:
            return None
        if body > end:
            return None
        try:
            text = topic.decode()
        except UnicodeDecodeError:
            text = ""
        return Arrived(text, data[body:end], qos, mid, first & 8 != 0, first & 1 != 0, received_ns)

    def _nonsense(self, what: str) -> int:
        self.problem = f"the broker sent what is not MQTT: {what}"
        return -1


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A variable byte integer of at most four bytes, and where it ends. Raises IndexError where it does not."""
    value = 0
    for place in range(4):
        byte = data[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise IndexError
