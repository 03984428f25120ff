"""MQTT packets written and read in the plainest way: the twin of daemon/sensor/packets.py, and what its tests send."""

import re
import struct
from dataclasses import dataclass

DOWN, FIVE, JUDGED, REPORTS = 1, 2, 4, 16
REPORT_BYTES_MAX = 160 * 1024
report_topic = re.compile(rb"\$aws/things/[a-zA-Z0-9:_-]{1,128}/defender/metrics/(json|cbor)").fullmatch


@dataclass(frozen=True)
class Found:
    """A packet that matters, in plain values."""

    kind: int
    text: bytes = b""
    size: int = 0
    qos: int = 0
    packet_id: int = 0
    code: int = 0
    alias: int = 0
    report: bool = False


def varint(size: int) -> bytes:
    out = b""
    while size >= 128:
        out += bytes([size % 128 + 128])
        size //= 128
    return out + bytes([size])


def packet(first: int, body: bytes) -> bytes:
    return bytes([first]) + varint(len(body)) + body


def text(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def publish(topic: bytes, payload: bytes, qos: int = 0, packet_id: int = 1, properties: bytes | None = None) -> bytes:
    """`properties`: of MQTT 5."""
    number = struct.pack(">H", packet_id) if qos else b""
    more = b"" if properties is None else varint(len(properties)) + properties
    return packet(0x30 | qos << 1, text(topic) + number + more + payload)


def connect(client_id: str = "p1", *, level: int = 4, user: str | None = None, password: bytes | None = None,
            will: tuple[str, bytes] | None = None, properties: bytes = b"", keep_alive: int = 0) -> bytes:  # fmt: skip
    flags = 2 | (0x80 if user is not None else 0) | (0x40 if password is not None else 0) | (4 if will else 0)
    name = b"MQIsdp" if level == 3 else b"MQTT"
    body = text(name) + bytes([level, flags]) + struct.pack(">H", keep_alive)
    body += varint(len(properties)) + properties if level == 5 else b""
    body += text(client_id.encode())
    if will:
        body += (b"\0" if level == 5 else b"") + text(will[0].encode()) + text(will[1])
    body += text(user.encode()) if user is not None else b""
    body += text(password) if password is not None else b""
    return packet(0x10, body)


def subscribe(packet_id: int, *filters: str, level: int = 4) -> bytes:
    body = struct.pack(">H", packet_id) + (b"\0" if level == 5 else b"")
    return packet(0x82, body + b"".join(text(each.encode()) + b"\1" for each in filters))


def packets(stream: bytes) -> list[bytes]:
    """Whole packets; the stream must end with one."""
    found = []
    while stream:
        size, body = _varint(stream, 1)
        found.append(stream[: body + size])
        stream = stream[body + size :]
    return found


def seen(stream: bytes, mode: int) -> list[Found]:
    """What `scan` must find in a stream of whole, well-formed packets."""
    return [found for each in packets(stream) if (found := _seen(each, mode)) is not None]


def _seen(whole: bytes, mode: int) -> Found | None:
    kind = whole[0] >> 4
    _, at = _varint(whole, 1)
    body = whole[at:]
    if kind == 3:
        return _published(whole, body, mode)
    short = struct.unpack(">H", body[:2])[0] if len(body) >= 2 else 0
    if mode & DOWN:
        return _from_broker(kind, body, short, mode)
    if kind == 14:
        return Found(14, code=body[0] if body else 0)
    if mode & JUDGED and kind in (6, 8):
        return Found(kind, body, packet_id=short)
    return None


def _from_broker(kind: int, body: bytes, short: int, mode: int) -> Found | None:
    refused = {0x80, 0x83, 0x87}
    if kind == 2:
        return Found(2, code=body[1])
    if kind == 14:
        return Found(14, code=body[0] if body else 0)
    if kind in (4, 5) and mode & FIVE and len(body) > 2 and body[2] in refused:
        return Found(kind, packet_id=short, code=body[2])
    if kind == 9:
        at = 2
        if mode & FIVE:
            size, at = _varint(body, 2)
            at += size
        count = sum(code in refused if mode & FIVE else code >= 128 for code in body[at:])
        return Found(9, packet_id=short, code=count) if count else None
    return None


def _published(whole: bytes, body: bytes, mode: int) -> Found:
    qos = whole[0] >> 1 & 3
    size = struct.unpack(">H", body[:2])[0]
    topic, at = body[2 : 2 + size], 2 + size
    packet_id = struct.unpack(">H", body[at : at + 2])[0] if qos else 0
    at += 2 if qos else 0
    alias = 0
    if mode & FIVE:
        length, at = _varint(body, at)
        alias = _alias(body[at : at + length])
        at += length
    is_whole = len(whole) <= REPORT_BYTES_MAX and (packet_id > 0 if qos else True)
    report = bool(mode & REPORTS and qos < 2 and is_whole and report_topic(topic))
    return Found(3, topic, len(body) - at, qos, packet_id, alias=alias, report=report)


def _alias(properties: bytes) -> int:
    """Only of properties that the tests write: alias, content type, user property, expiry."""
    at, found = 0, 0
    while at < len(properties):
        kind = properties[at]
        at += 1
        if kind == 0x23:
            found = struct.unpack(">H", properties[at : at + 2])[0]
            at += 2
        elif kind == 0x02:
            at += 4
        elif kind == 0x03:
            at += 2 + struct.unpack(">H", properties[at : at + 2])[0]
        else:
            assert kind == 0x26
            for _ in range(2):
                at += 2 + struct.unpack(">H", properties[at : at + 2])[0]
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value += (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return value, at
