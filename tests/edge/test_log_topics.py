"""Topics and subjects as a real nats-server's MQTT side spells them, and what it never lets into a subject."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from secrets import token_hex

import pytest
from log_server import LogServer

from actors.topics import subject_of_topic, topic_of_subject

TOPICS = [
    "$aws/things/p1/defender/metrics/json",
    "$aws/things/p.1/defender/metrics/json",
    "$aws/things/p..1/defender/metrics/cbor",
    "$aws/things/.p1./defender/metrics/json",
    "$aws/things//defender/metrics/json",
    "$aws/things////defender/metrics/json",
    "$aws/things/Pumpe-Süd:7%20_/defender/metrics/json",
    "$aws/things/>/defender/metrics/json",
    "$aws/things/*/defender/metrics/json",
    "$aws/things/日本/defender/metrics/json",
    "$aws/",
    "$aws//a",
    "$aws/a//",
    "$aws/./a",
]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LogServer]:
    there = LogServer(tmp_path)
    try:
        await there.start()
        yield there
    finally:
        there.stop()


async def mqtt_publish(server: LogServer, topic: bytes, payload: bytes) -> bytes:
    """Publish at QoS 1 as an anonymous device; gives what the server answered, b"" if it closed the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.mqtt_port)
    try:
        return await _publish(reader, writer, topic, payload)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def _publish(reader, writer, topic: bytes, payload: bytes) -> bytes:
    writer.write(packet(0x10, b"\0\4MQTT\4\2\0\x3c" + text(token_hex(8).encode())))
    assert (await reader.readexactly(4))[3] == 0
    writer.write(packet(0x32, text(topic) + b"\0\1" + payload))
    try:
        return await reader.read(4)
    except ConnectionResetError:
        return b""


def text(value: bytes) -> bytes:
    return struct.pack(">H", len(value)) + value


def packet(first: int, body: bytes) -> bytes:
    assert len(body) < 16_384
    length = bytes([len(body)]) if len(body) < 128 else bytes([len(body) % 128 | 128, len(body) // 128])
    return bytes([first]) + length + body


@asynccontextmanager
async def raw_subscriber(server: LogServer) -> AsyncIterator[asyncio.StreamReader]:
    """A plain NATS client that knows nothing of our splitter."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        await reader.readline()
        writer.write(b'CONNECT {"verbose":false,"user":"daemon","pass":"s3cret","headers":true}\r\nSUB > 1\r\nPING\r\n')
        while (await reader.readline()) != b"PONG\r\n":
            pass
        yield reader
    finally:
        writer.close()
        await writer.wait_closed()


async def subject_of(reader: asyncio.StreamReader, payload: bytes) -> str:
    """The subject of the one message with this payload that is not the server's own bookkeeping."""
    while True:
        fields = (await reader.readline()).split()
        if fields[0] in (b"MSG", b"HMSG"):
            body = await reader.readexactly(int(fields[-1]) + 2)
            if body.endswith(payload + b"\r\n") and not fields[1].startswith((b"$MQTT", b"$JS", b"_INBOX")):
                return fields[1].decode()


async def test_nats_server_spells_topics_as_we_do(server):
    found = {}
    async with asyncio.timeout(20), raw_subscriber(server) as reader:
        for i, topic in enumerate(TOPICS):
            payload = b"payload-%d-" % i
            assert await mqtt_publish(server, topic.encode(), payload) == b"\x40\x02\x00\x01"
            found[topic] = await subject_of(reader, payload)
    assert found == {topic: subject_of_topic(topic) for topic in TOPICS}


@pytest.mark.parametrize("topic", TOPICS)
def test_a_subject_gives_its_topic_back(topic):
    assert topic_of_subject(subject_of_topic(topic)) == topic


@pytest.mark.parametrize("odd", [b" ", b"\t", b"\r", b"\n", b"\r\n", b"\0", b"\xff", b"+", b"#"])
async def test_what_would_break_a_protocol_line_never_gets_into_a_subject(server, odd):
    """The splitter relies on it: a CR LF in a subject would let a device write protocol lines of its own."""
    async with asyncio.timeout(20):
        assert await mqtt_publish(server, b"$aws/things/a" + odd + b"b/defender/metrics/json", b"{}") == b""
