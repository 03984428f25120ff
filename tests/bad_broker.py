"""A broker that speaks just enough MQTT (5 and 3.1.1) to be believed, and then does what its test wants of it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from naive_mqtt import varint

CHUNK = b"\0" * 65_536


@dataclass
class Connection:
    """One client, after its CONNECT."""

    level: int  # 4 or 5
    client_id: str
    has_will: bool
    writer: asyncio.StreamWriter
    subscribed: asyncio.Event = field(default_factory=asyncio.Event)
    acknowledged: list[int] = field(default_factory=list)
    published: list[tuple[str, bytes]] = field(default_factory=list)  # by the client
    written: int = 0
    whole: asyncio.Lock = field(default_factory=asyncio.Lock)  # no packet inside another

    async def send(self, data: bytes) -> None:
        async with self.whole:
            await self._send(data)

    async def _send(self, data: bytes) -> None:
        self.writer.write(data)
        self.written += len(data)
        await self.writer.drain()

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, mid: int = 1, flags: int = 0) -> None:
        """`flags`: 8 for DUP, 1 for RETAIN."""
        await self.send(self.packet(topic.encode(), payload, qos=qos, mid=mid, flags=flags))

    def packet(self, topic: bytes, payload: bytes, *, qos: int = 1, mid: int = 1, flags: int = 0) -> bytes:
        properties = b"\0" if self.level == 5 else b""
        head = len(topic).to_bytes(2) + topic + (mid.to_bytes(2) if qos else b"") + properties
        return bytes([0x30 | qos << 1 | flags]) + varint(len(head) + len(payload)) + head + payload

    async def monster(self, topic: str, size: int, *, qos: int = 1, mid: int = 1, flags: int = 0) -> None:
        """A message whose payload has `size` bytes, sent without ever holding it."""
        start = self.packet(topic.encode(), b"", qos=qos, mid=mid, flags=flags)
        head = start[2:]  # an empty payload: the length is one byte
        async with self.whole:
            await self._send(start[:1] + varint(len(head) + size) + head)
            for _ in range(size // len(CHUNK)):
                await self._send(CHUNK)
            await self._send(CHUNK[: size % len(CHUNK)])

    def hang_up(self) -> None:
        self.writer.transport.abort()


Deed = Callable[[Connection], Awaitable[None]]


async def nothing(_connection: Connection) -> None:
    """It just listens."""


class BadBroker:
    """`deed` is done on each connection once the client has subscribed; what it answers can be replaced."""

    def __init__(self, deed: Deed = nothing) -> None:
        self.deed = deed
        self.port = 0
        self._clients: set[asyncio.Task[None]] = set()
        self.connections: list[Connection] = []
        self.connack: Callable[[Connection], int] = lambda _: 0
        self.suback: Callable[[str], int] = lambda _topic: 1
        self.on_publish: Callable[[Connection, str], bool] = lambda _connection, _topic: True
        """False: hang up on it."""
        self.filters: list[str] = []
        self.unsubscribed: list[str] = []

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator["BadBroker"]:
        server = await asyncio.start_server(self._client, "127.0.0.1", 0, ssl=tls, limit=2**20)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for connection in self.connections:
                connection.hang_up()
            await asyncio.gather(*self._clients, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        deed: asyncio.Task[None] | None = None
        self._clients.add(asyncio.current_task())  # type: ignore[arg-type]  # there is one
        try:
            connection = _connection((await _packet(reader))[1], writer)
            self.connections.append(connection)
            code = self.connack(connection)
            await connection.send(_connack(connection.level, code))
            deed = asyncio.create_task(self._do(connection))
            while not code:
                await self._answer(connection, *await _packet(reader))
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            if deed is not None:
                deed.cancel()
                await asyncio.gather(deed, return_exceptions=True)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _do(self, connection: Connection) -> None:
        await connection.subscribed.wait()
        with suppress(OSError):
            await self.deed(connection)

    async def _answer(self, connection: Connection, first: int, body: bytes) -> None:
        properties = b"\0" if connection.level == 5 else b""
        match first >> 4:
            case 3:
                topic, mid, payload = _publish(first, body, connection.level)
                connection.published.append((topic, payload))
                if not self.on_publish(connection, topic):
                    connection.hang_up()
                elif mid is not None:
                    await connection.send(b"\x40\x02" + mid)
            case 4:
                connection.acknowledged.append(int.from_bytes(body[:2]))
            case 8:
                filters = _filters(body, connection.level, options=1)
                self.filters += filters
                codes = bytes(self.suback(one) for one in filters)
                answer = body[:2] + properties + codes
                await connection.send(b"\x90" + varint(len(answer)) + answer)
                connection.subscribed.set()
            case 10:
                filters = _filters(body, connection.level, options=0)
                self.unsubscribed += filters
                answer = body[:2] + properties + (bytes(len(filters)) if properties else b"")
                await connection.send(b"\xb0" + varint(len(answer)) + answer)
            case 12:
                await connection.send(b"\xd0\0")


async def _packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    first = (await reader.readexactly(1))[0]
    size = place = 0
    while True:
        byte = (await reader.readexactly(1))[0]
        size |= (byte & 0x7F) << place
        place += 7
        if byte < 0x80:
            return first, await reader.readexactly(size)


def _connection(body: bytes, writer: asyncio.StreamWriter) -> Connection:
    level, flags, at = body[6], body[7], 10
    if level == 5:
        at += 1 + body[at]
    size = int.from_bytes(body[at : at + 2])
    return Connection(level, body[at + 2 : at + 2 + size].decode(), bool(flags & 4), writer)


def _connack(level: int, code: int) -> bytes:
    return b"\x20\x03\0" + bytes([code]) + b"\0" if level == 5 else b"\x20\x02\0" + bytes([code])


def _publish(first: int, body: bytes, level: int) -> tuple[str, bytes | None, bytes]:
    at = 2 + int.from_bytes(body[:2])
    topic, mid = body[2:at].decode(), None
    if first & 6:
        mid, at = body[at : at + 2], at + 2
    if level == 5:
        at += 1 + body[at]
    return topic, mid, body[at:]


def _filters(body: bytes, level: int, *, options: int) -> list[str]:
    at, found = 2, []
    if level == 5:
        at += 1 + body[at]
    while at < len(body):
        size = int.from_bytes(body[at : at + 2])
        found.append(body[at + 2 : at + 2 + size].decode())
        at += 2 + size + options
    return found
