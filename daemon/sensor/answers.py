"""The packets that the sensor itself says to a client, where the broker must not hear of what was asked."""

import struct
from collections.abc import Iterator
from typing import Final

from daemon.sensor.connect import Malformed, packet, varint

NOT_AUTHORIZED: Final = 0x87  # MQTT 5
REFUSED: Final = 0x80  # MQTT 3.1.1's only word for a refused filter
_CONNACK_FIVE: Final = {3: 0x88, 4: 0x86, 5: NOT_AUTHORIZED}  # unavailable; bad user name or password; not authorized


def connack_refused(code: int, level: int) -> bytes:
    """`code`: MQTT 3.1.1's."""
    return bytes([0x20, 3, 0, _CONNACK_FIVE.get(code, REFUSED), 0]) if level == 5 else bytes([0x20, 2, 0, code])


def publish_refused(qos: int, packet_id: int, level: int) -> bytes:
    """MQTT 3.1.1 knows no refusal: the client is told that it was taken, or it would send it again for ever."""
    first = {0: 0, 1: 0x40, 2: 0x50}[qos]
    if not first:
        return b""
    body = struct.pack(">H", packet_id)
    return packet(first, body + bytes([NOT_AUTHORIZED]) if level == 5 else body)


def released(packet_id: int) -> bytes:
    """PUBCOMP: the end of a QoS 2 publish."""
    return packet(0x70, struct.pack(">H", packet_id))


def subscribe_refused(packet_id: int, filters: int, level: int) -> bytes:
    """All filters of a SUBSCRIBE at once."""
    if level == 5:
        return packet(0x90, struct.pack(">H", packet_id) + b"\0" + bytes([NOT_AUTHORIZED]) * filters)
    return packet(0x90, struct.pack(">H", packet_id) + bytes([REFUSED]) * filters)


def filters_of(body: bytes, level: int) -> list[str]:
    """The topic filters of a SUBSCRIBE. Raises Malformed."""
    try:
        found = list(_filters(body, level))
    except (struct.error, UnicodeDecodeError, IndexError) as problem:
        raise Malformed("the SUBSCRIBE packet can't be read") from problem
    if not found:
        raise Malformed("a SUBSCRIBE packet without filters")
    return found


def _filters(body: bytes, level: int) -> Iterator[str]:
    at = 2
    if level == 5:
        size, at = varint(body, at)
        at += size
    while at < len(body):
        size = struct.unpack_from(">H", body, at)[0]
        text = body[at + 2 : at + 2 + size]
        at += 2 + size + 1
        if at > len(body):
            raise IndexError
        yield text.decode()
