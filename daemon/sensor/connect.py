"""The CONNECT packet: who wants in, what it leaves behind, and the same packet with another login and client id."""

import struct
from dataclasses import dataclass, field
from typing import Final

CONNECT_MAX: Final = 64 * 1024
WILL, USER, PASSWORD = 0x04, 0x80, 0x40
NAMES: Final = {b"MQTT": frozenset({4, 5}), b"MQIsdp": frozenset({3})}


class Malformed(Exception):
    """Bytes that are no MQTT."""


class TooMuch(Malformed):
    """More bytes than there may be, or than there is room for."""


@dataclass(frozen=True, slots=True)
class Connect:
    """What a CONNECT says, and its bytes."""

    level: int  # 3, 4: MQTT 3.1 and 3.1.1; 5
    keep_alive_s: int  # 0: it may be silent for ever
    client_id: str
    will_topic: str | None
    username: str | None
    password: bytes | None = field(repr=False)
    body: bytes = field(repr=False)
    flags_at: int  # places in the body
    client_at: int
    will_at: int
    login_at: int

    @property
    def whole(self) -> bytes:
        """The packet as it came."""
        return packet(0x10, self.body)

    def as_user(self, username: bytes, password: bytes, client_id: str) -> bytes:
        """The packet, with this login and client id in the place of its own, and with leave to be silent.

        Not all that the client says gets to the broker, so that the broker can't tell who has fallen silent.
        """
        flags = bytes([self.body[self.flags_at] | USER | PASSWORD])
        before, properties = self.body[: self.flags_at], self.body[self.flags_at + 3 : self.client_at]
        named, will = _text(client_id.encode()), self.body[self.will_at : self.login_at]
        login = _text(username) + _text(password)
        return packet(0x10, before + flags + b"\0\0" + properties + named + will + login)


def parse(body: bytes) -> Connect:
    """Read the packet's body. Raises Malformed."""
    try:
        return _parsed(_Cursor(body))
    except (IndexError, struct.error, UnicodeDecodeError) as problem:
        raise Malformed("the CONNECT packet can't be read") from problem


def extent(data: bytes | bytearray) -> tuple[int, int] | None:
    """(where the body begins, where the packet ends) of the CONNECT that `data` begins with; None: not known yet.

    Raises Malformed where it begins with anything else, TooMuch where the packet is longer than CONNECT_MAX.
    """
    if data[0] != 0x10:
        raise Malformed("the first packet is no CONNECT")
    try:
        size, body = varint(data, 1)
    except IndexError:
        return None
    if size > CONNECT_MAX:
        raise TooMuch("a CONNECT packet that is too long")
    return body, body + size


def packet(first: int, body: bytes) -> bytes:
    """A whole packet: its first byte, its length, its body."""
    return bytes([first]) + length(len(body)) + body


def length(size: int) -> bytes:
    """A number as MQTT writes its lengths."""
    out = bytearray()
    while True:
        size, low = divmod(size, 128)
        out.append(low | (0x80 if size else 0))
        if not size:
            return bytes(out)


def varint(data: bytes | bytearray, at: int) -> tuple[int, int]:
    """Such a number, and where it ends. Raises IndexError where it is cut off, Malformed where it never ends."""
    value = 0
    for place in range(4):
        byte = data[at + place]
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise Malformed("a length of more than four bytes")


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def short(self) -> int:
        self.at += 2
        value: int = struct.unpack_from(">H", self.data, self.at - 2)[0]
        return value

    def blob(self) -> bytes:
        size = self.short()
        self.at += size
        if self.at > len(self.data):
            raise IndexError
        return self.data[self.at - size : self.at]

    def text(self) -> str:
        text = self.blob().decode()
        if "\0" in text:
            raise Malformed("a text of the CONNECT packet holds a NUL")
        return text

    def skip_properties(self) -> None:
        size, self.at = varint(self.data, self.at)
        self.at += size
        if self.at > len(self.data):
            raise IndexError


def _parsed(cursor: _Cursor) -> Connect:
    levels = NAMES.get(cursor.blob())
    level = cursor.byte()
    # The top bit marks a bridge of Mosquitto.
    if levels is None or level & 0x7F not in levels:
        raise Malformed("not a version of MQTT that is known")
    flags_at = cursor.at
    flags = cursor.byte()
    keep_alive_s = cursor.short()
    if level & 0x7F == 5:
        cursor.skip_properties()
    client_at = cursor.at
    client_id = cursor.text()
    will_at = cursor.at
    will_topic = _will(cursor, level) if flags & WILL else None
    login_at = cursor.at
    username = cursor.text() if flags & USER else None
    password = cursor.blob() if flags & PASSWORD else None
    if cursor.at != len(cursor.data):
        raise Malformed("bytes behind the end of the CONNECT packet")
    places = flags_at, client_at, will_at, login_at
    return Connect(level & 0x7F, keep_alive_s, client_id, will_topic, username, password, cursor.data, *places)


def _will(cursor: _Cursor, level: int) -> str:
    if level & 0x7F == 5:
        cursor.skip_properties()
    topic = cursor.text()
    cursor.blob()  # its payload
    return topic


def _text(text: bytes) -> bytes:
    return struct.pack(">H", len(text)) + text
