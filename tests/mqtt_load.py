"""A device that publishes QoS 1 with many messages in flight, and knows exactly which were acknowledged.

Raw MQTT 3.1.1 on a socket: a client library would hide the one thing that the tests are about. After a lost
connection it comes back and sends what is unacknowledged again, in order, as the standard says.
"""

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from naive_mqtt import varint


class Publisher:
    """Publishes messages 0, 1, 2 … to `topic` until `count` are acknowledged or `stop` is called."""

    def __init__(
        self,
        address: str,
        client_id: str,
        topic: str,
        payload: Callable[[int], bytes],
        *,
        count: int = 2**31,
        window: int = 64,
    ) -> None:
        self.acked: list[int] = []  # numbers of the messages that were acknowledged, in that order
        self.connects = 0
        self.in_flight: deque[int] = deque()
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._client_id = client_id
        self._topic = topic
        self._payload = payload
        self._count = count
        self._window = window
        self._next = 0
        self._is_stopping = False

    async def run(self) -> None:
        while not self._is_done():
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._session()
            await asyncio.sleep(0.02)

    def stop(self) -> None:
        """Send nothing new; `run` returns when what is in flight has been acknowledged."""
        self._is_stopping = True

    def _is_done(self) -> bool:
        return not self.in_flight and (self._is_stopping or self._next >= self._count)

    async def _session(self) -> None:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            writer.write(connect_packet(self._client_id))
            answer = await reader.readexactly(4)
            if answer[3] != 0:
                return
            self.connects += 1
            for number in self.in_flight:
                writer.write(self._packet(number, again=True))
            while not self._is_done():
                self._fill(writer)
                await writer.drain()
                await self._take_acknowledgements(reader)
            writer.write(b"\xe0\x00")
            await writer.drain()
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def _fill(self, writer: asyncio.StreamWriter) -> None:
        while len(self.in_flight) < self._window and self._next < self._count and not self._is_stopping:
            writer.write(self._packet(self._next, again=False))
            self.in_flight.append(self._next)
            self._next += 1

    async def _take_acknowledgements(self, reader: asyncio.StreamReader) -> None:
        packets = await reader.readexactly(4)
        while True:
            self._acknowledge(packets)
            # What has come already is taken at once; waiting for each alone would leave little in flight.
            if len(reader._buffer) < 4:  # type: ignore[attr-defined]  # no public way to ask what is there
                return
            packets = await reader.readexactly(4)

    def _acknowledge(self, packet: bytes) -> None:
        assert packet[:2] == b"\x40\x02", packet
        packet_id = int.from_bytes(packet[2:])
        number = next(number for number in self.in_flight if _packet_id(number) == packet_id)
        self.in_flight.remove(number)
        self.acked.append(number)

    def _packet(self, number: int, *, again: bool) -> bytes:
        return publish_packet(self._topic, self._payload(number), qos=1, packet_id=_packet_id(number), again=again)


class Gated(Publisher):
    """Sends something new only while `gate` is open: so that a pause of the others leaves no mountain behind."""

    gate: asyncio.Event

    def _fill(self, writer: asyncio.StreamWriter) -> None:
        if self.gate.is_set():
            super()._fill(writer)

    async def _take_acknowledgements(self, reader: asyncio.StreamReader) -> None:
        if self.in_flight:
            await super()._take_acknowledgements(reader)
        else:
            await asyncio.sleep(0.005)
            if reader.at_eof():
                raise ConnectionResetError("the broker is gone")


def connect_packet(client_id: str, *, level: int = 4, keep_alive_s: int = 60) -> bytes:
    """A CONNECT with a clean session. Level 5 is MQTT 5."""
    properties = b"\x00" if level == 5 else b""
    body = _string("MQTT") + bytes([level, 2]) + struct.pack(">H", keep_alive_s) + properties + _string(client_id)
    return b"\x10" + varint(len(body)) + body


def publish_packet(topic: str, payload: bytes, *, qos: int = 0, packet_id: int = 1, again: bool = False) -> bytes:
    head = _string(topic) + (struct.pack(">H", packet_id) if qos else b"")
    flags = 0x30 | (0x08 if again else 0) | (qos << 1)
    return bytes([flags]) + varint(len(head) + len(payload)) + head + payload


def _packet_id(number: int) -> int:
    return number % 65535 + 1


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">H", len(data)) + data
