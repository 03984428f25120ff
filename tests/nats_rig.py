"""What the tests of the embedded nats-server stand on: a running one, its events, and devices that talk to it."""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import nats
import paho.mqtt.client as mqtt
from nats.aio.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from config.model import Embedded, Log
from daemon.log.stream_read import Entry, read
from daemon.nats.child import Endpoint
from daemon.nats.server import NatsServer, Pace

SMALL = Log(max_bytes=256 * 1024**2, guard_bytes=64 * 1024**2)
ANYWHERE = Embedded(mqtt="127.0.0.1:0", sensor=False)
QUICK = Pace(log_s=0.02, mark_s=0.3, retry_first_s=0.01)
DEADLINE_S = 30.0


class Rig:
    """A running server, watched, and a connection to it as the daemon has one."""

    def __init__(self, server: NatsServer, events: "Events") -> None:
        self.server = server
        self.events = events

    @property
    def endpoint(self) -> Endpoint:
        return self.server.endpoint

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Client]:
        nc = await connect(self.endpoint)
        try:
            yield nc
        finally:
            await nc.close()

    async def log(self) -> list[Entry]:
        """The reports in the log."""
        async with self.connection() as nc:
            return await entries(nc, SMALL.stream, ["$aws.things.>"])


class Events:
    """What the server was said to do; waited for with a deadline."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, object]]] = []

    def __call__(self, kind: str, fields: dict[str, object]) -> None:
        self.told.append((kind, fields))

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.told]

    def count(self, kind: str) -> int:
        return self.kinds().count(kind)

    def last(self, kind: str) -> dict[str, object]:
        return next(fields for told, fields in reversed(self.told) if told == kind)

    async def seen(self, kind: str, times: int = 1) -> dict[str, object]:
        await until(lambda: self.count(kind) >= times, f"{times} × {kind} in {self.told}")
        return self.last(kind)


@asynccontextmanager
async def running(
    folder: Path, settings: Embedded = ANYWHERE, log: Log = SMALL, pace: Pace = QUICK
) -> AsyncIterator[Rig]:
    events = Events()
    server = NatsServer(settings, log, folder, events, pace)
    await server.start()
    watch = asyncio.create_task(server.watch())
    try:
        yield Rig(server, events)
    finally:
        watch.cancel()
        await asyncio.wait([watch])
        await server.stop()
    assert watch.cancelled(), watch.exception()


async def connect(endpoint: Endpoint) -> Client:
    return await nats.connect(
        endpoint.url, user=endpoint.user, password=endpoint.password, allow_reconnect=False, error_cb=_ignore
    )


async def entries(nc: Client, stream: str, subjects: Sequence[str]) -> list[Entry]:
    found = []
    async with aclosing(read(nc, stream, subjects, after=0, since=None, last=2**62)) as batches:
        async for batch in batches:
            found += batch
    return found


async def until(is_so: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        try:
            while not is_so():
                await asyncio.sleep(0.01)
        except asyncio.CancelledError as error:
            raise AssertionError(f"never happened: {what}") from error


class Device:
    """A paho client on MQTT 3.1.1, its calls made awaitable."""

    def __init__(self, where: Endpoint | str, client_id: str, **options: Any) -> None:
        self._address = where if isinstance(where, str) else where.mqtt
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            clean_session=not options.get("keep", False),
            protocol=mqtt.MQTTv311,
            reconnect_on_failure=False,
        )
        self._client.on_connect = self._connected
        self._client.on_disconnect = self._disconnected
        self._client.on_message = lambda _client, _data, message: self.received.append(
            (message.topic, bytes(message.payload))
        )
        self._client.on_subscribe = lambda _client, _data, _mid, codes, _properties: self.granted.extend(codes)
        self.connack: str | None = None
        self.received: list[tuple[str, bytes]] = []
        self.granted: list[Any] = []
        self.is_connected = False
        if will := options.get("will"):
            self._client.will_set(will[0], will[1], qos=1)
        if user := options.get("user"):
            self._client.username_pw_set(user)
        if tls := options.get("tls"):
            assert isinstance(tls, ssl.SSLContext)
            self._client.tls_set_context(tls)

    def _connected(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self.connack, self.is_connected = str(reason), not reason.is_failure

    def _disconnected(self, _client: Any, _data: Any, _flags: Any, _reason: Any, _properties: Any) -> None:
        self.is_connected = False

    async def try_to_connect(self) -> str:
        """The word of the CONNACK."""
        host, _, port = self._address.rpartition(":")
        await asyncio.to_thread(self._client.connect, host, int(port))
        self._client.loop_start()
        await until(lambda: self.connack is not None, "CONNACK")
        assert self.connack is not None
        return self.connack

    async def publish(self, topic: str, payload: bytes, qos: int = 1, *, retain: bool = False) -> None:
        """Returns when it is acknowledged; QoS 0: handed to the socket."""
        info = self._client.publish(topic, payload, qos=qos, retain=retain)
        await until(info.is_published, f"PUBACK of {topic}")

    async def subscribe(self, topic: str, qos: int = 1) -> Any:
        """The code of the SUBACK."""
        before = len(self.granted)
        self._client.subscribe(topic, qos=qos)
        await until(lambda: len(self.granted) > before, f"SUBACK of {topic}")
        return self.granted[-1]

    def drop(self) -> None:
        """Lose the connection without a DISCONNECT, so that the will is published."""
        connection = self._client.socket()
        assert isinstance(connection, socket.socket)
        connection.shutdown(socket.SHUT_RDWR)

    async def close(self) -> None:
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)


@asynccontextmanager
async def device(where: Endpoint | str, client_id: str = "device-1", **options: Any) -> AsyncIterator[Device]:
    """A connected device; options: will=(topic, payload), user=NAME, tls=SSLContext, keep=its session."""
    client = Device(where, client_id, **options)
    try:
        assert await client.try_to_connect() == "Success"
        yield client
    finally:
        await client.close()


def topic(thing: str, form: str = "json") -> str:
    return f"$aws/things/{thing}/defender/metrics/{form}"


def body(number: int, size: int = 0) -> bytes:
    return json.dumps({"n": number, "pad": "x" * size}).encode()


def number_of(entry: Entry) -> int:
    n: int = msgspec.json.decode(entry.payload)["n"]
    return n


async def _ignore(error: Exception) -> None:
    """Errors reach the test as exceptions."""
