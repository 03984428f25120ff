"""The one place that knows the insides of aiomqtt and paho: acknowledging by hand, making the broker wait, ending.

aiomqtt 2.5 acknowledges a message when it arrives, discards what its queue can't hold, and hides whether the broker
kept our session. paho, inside it, can do all this properly; so its callbacks and its socket come here first. Nothing
else in the daemon may touch `_client`, `_connected` or `_disconnected`; an upgrade of aiomqtt is checked by
tests/edge/test_bridge.py.
"""
# ruff: noqa: SLF001  (reaching inside is what this file is for)

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import aiomqtt
import paho.mqtt.client as paho
from aiomqtt.exceptions import MqttConnectError
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from daemon.brokers._wire import (
    ANSWER_S,
    CONNECT_S,
    HUNG_UP,
    KEEPALIVE_S,
    PACKET_BYTES_MAX,
    RECEIVE_MAX,
    REFUSED,
    SESSION_EXPIRY_S,
    Address,
    Arrivals,
    Arrived,
    Broken,
    ConnectFailed,
    Version,
    Will,
    is_publishable,
)

READS_AT_ONCE: Final = 64
RECEIVE_BYTES: Final = 65_536  # asked of the system at a time: a broker's claim of length allocates nothing
UNSENT_MAX: Final = 100_000  # packets, most of them acknowledgements


class AiomqttWire:
    """See `_wire.Wire`."""

    def __init__(
        self, address: Address, version: Version, will: Will | None, arrived: Arrivals, now_ns: Callable[[], int]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._now_ns = now_ns
        self.session_present = False
        self.gone: asyncio.Future[str] = self._loop.create_future()
        self.publish_refused: str | None = None
        self.gave_up = False
        self.cut = 0
        self._excess = 0  # bytes to drop behind the message that is being read
        self._arrived = arrived
        self._last_words = "the connection was lost"
        self._client = _client(address, version, will)
        self._inner = self._client._client
        self._watch: asyncio.Task[None] | None = None
        self._thread_done = asyncio.Event()
        self._heard = 0
        self._paused = False
        self._take_over(self._inner)

    async def open(self) -> None:
        entering = asyncio.ensure_future(self._client.__aenter__())
        try:
            await asyncio.shield(entering)
        except asyncio.CancelledError:
            # paho connects in a thread, which nobody can interrupt; left alone it would come back to a closed loop.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CONNECT_S + 1.0):
                    await self._thread_done.wait()
            entering.cancel()
            await asyncio.gather(entering, return_exceptions=True)
            self._abandon()
            raise
        except aiomqtt.MqttError as why:
            self._abandon()
            raise _failure(why) from why
        self._watch = asyncio.create_task(self._see_it_go(), name="bridge connection")

    async def subscribe(self, filters: Sequence[str], *, no_local: bool = False) -> list[int]:
        # Retained messages only for a subscription that is new: they are not wanted, and may be a million.
        options = SubscribeOptions(qos=1, noLocal=no_local, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
        topics: Any = [(topic, options if self._is_5 else 1) for topic in filters]
        with _told():
            codes = await self._client.subscribe(topics)
        if len(codes) != len(filters):
            raise Broken("the broker's answer to a subscription makes no sense")
        return [code.value if isinstance(code, ReasonCode) else int(code) for code in codes]

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        with _told():
            await self._client.unsubscribe(list(filters))

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self.publish_refused = None
        with _told():
            await self._client.publish(topic, payload, qos=1, retain=retain)

    async def send(self, messages: Sequence[tuple[str, bytes]]) -> None:
        with _told():
            for topic, payload in messages[:-1]:
                if not is_publishable(topic):
                    raise ValueError("no topic to publish to")
                self._inner.publish(topic, payload, qos=0)
            for topic, payload in messages[-1:]:
                await self._client.publish(topic, payload, qos=0)

    def acknowledge(self, mids: Sequence[int]) -> None:
        for mid in mids:
            if not self.gone.done():
                self._inner.ack(mid, 1)
        if len(self._inner._out_packet) > UNSENT_MAX:
            self._give_up("the broker does not read what we send")

    def pause(self) -> None:
        self._paused = True
        if (sock := self._inner.socket()) is not None:
            self._loop.remove_reader(sock.fileno())

    def resume(self) -> None:
        if self._paused and not self.gone.done() and (sock := self._inner.socket()) is not None:
            self._paused = False
            self._loop.add_reader(sock.fileno(), self._read)
            self._loop.call_soon(self._read)  # TLS may hold what the socket does not show any more

    def fail(self, why: str) -> None:
        if not self.gone.done():
            self.gone.set_result(why)

    async def close(self) -> None:
        polite = not self.gone.done()
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        if polite:
            with contextlib.suppress(aiomqtt.MqttError):
                await self._client.__aexit__(None, None, None)
        self.fail("closed")
        await asyncio.sleep(0)  # a writer that aiomqtt is about to register would find its file number reused
        self._abandon()

    async def _see_it_go(self) -> None:
        try:
            async for _ in self._client.messages:  # none ever comes this way: it is how aiomqtt tells of the end
                continue
        except aiomqtt.MqttError:
            self.fail(self._last_words)

    def _abandon(self) -> None:
        # aiomqtt leaves the socket open, and a task that polls it, when a connection fails half way.
        self._inner._sock_close()

    def _take_over(self, inner: paho.Client) -> None:
        on_connect, on_disconnect, on_publish = inner.on_connect, inner.on_disconnect, inner.on_publish
        on_socket_open = inner.on_socket_open

        def connected(client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
            self.session_present = bool(flags.session_present)
            on_connect(client, data, flags, reason, properties)  # type: ignore[misc, call-arg]  # aiomqtt's own

        def disconnected(client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
            if flags.is_disconnect_packet_from_server:
                self._last_words = f"the broker ended the connection: {reason}"
            on_disconnect(client, data, flags, reason, properties)  # type: ignore[misc, call-arg]
            self._hung_up()

        def published(client: Any, data: Any, mid: int, reason: Any, properties: Any) -> None:
            if reason.value >= REFUSED:
                self.publish_refused = str(reason)
            on_publish(client, data, mid, reason, properties)  # type: ignore[misc, call-arg]

        def opened(client: Any, data: Any, sock: Any) -> None:
            on_socket_open(client, data, sock)  # type: ignore[misc]
            # Called in the connecting thread. Ours comes after aiomqtt's own and takes its place.
            self._loop.call_soon_threadsafe(self._loop.add_reader, sock.fileno(), self._read)

        connect = self._client._client_connect

        def connect_in_thread() -> None:
            try:
                connect()
            finally:
                self._loop.call_soon_threadsafe(self._thread_done.set)

        self._client._client_connect = connect_in_thread  # type: ignore[method-assign]
        inner.on_socket_open = opened
        inner.on_connect, inner.on_disconnect, inner.on_publish = connected, disconnected, published
        inner.on_message = self._on_message
        self._close_what_fails(inner)
        receive = inner._sock_recv
        inner._sock_recv = lambda bufsize: self._receive(receive, bufsize)  # type: ignore[method-assign]
        inner.manual_ack_set(True)
        inner.connect_timeout = CONNECT_S

    def _close_what_fails(self, inner: paho.Client) -> None:
        """Paho forgets the socket of a WebSocket that did not come about; it would stay open until collected."""
        create, connect, wrap = inner._create_socket, inner._create_socket_connection, inner._ssl_wrap_socket
        made: list[socket.socket] = []

        def noted(sock: socket.socket) -> socket.socket:
            made.append(sock)
            return sock

        def create_or_close() -> Any:
            made.clear()
            try:
                return create()
            except BaseException:
                for sock in made:
                    sock.close()
                raise

        inner._create_socket_connection = lambda: noted(connect())  # type: ignore[method-assign]
        inner._ssl_wrap_socket = lambda tcp_sock: noted(wrap(tcp_sock))  # type: ignore[method-assign,assignment,return-value]
        inner._create_socket = create_or_close  # type: ignore[method-assign]

    def _read(self) -> None:
        """Read packets while each brings a message, up to READS_AT_ONCE: one turn of the loop for many."""
        for _ in range(READS_AT_ONCE):
            if self._paused or self._inner.socket() is None:
                return
            heard = self._heard
            try:
                self._inner.loop_read()
            except Exception as why:  # noqa: BLE001  # paho raises whatever it stumbles over in a packet
                self._give_up(f"the broker sent what is not MQTT: {why!r}")
                return
            if self._heard == heard and not self._is_pending():
                return
        if self._is_pending():
            self._loop.call_soon(self._read)

    def _receive(self, read: Callable[[int], bytes], most: int) -> bytes:
        """In place of paho's own: what a packet claims to be long is neither believed nor kept.

        Raises:
            OSError: to paho, a connection that is lost; BlockingIOError, which is one: no more for now.
        """
        packet = self._inner._in_packet
        if self._excess and packet["command"] == 0:
            dropped = len(read(min(self._excess, RECEIVE_BYTES)))
            self._excess = self._excess - dropped if dropped else 0
            raise BlockingIOError if dropped else ConnectionError("lost")
        if packet["have_remaining"]:
            self._judge(packet)
        return read(min(most, RECEIVE_BYTES))

    def _judge(self, packet: Any) -> None:
        """Of a message that is too long the beginning is taken for the whole; all else that is odd ends it."""
        kind, qos = packet["command"] >> 4, packet["command"] >> 1 & 3
        excess = packet["remaining_length"] - PACKET_BYTES_MAX
        # A WebSocket's frame is kept by paho until all of it is there.
        frame = getattr(self._inner._sock, "_readbuffer", b"")
        if (
            (kind == paho.PUBLISH >> 4 and qos > 1)
            or (kind != paho.PUBLISH >> 4 and excess > 0)
            or (len(frame) > 2 * PACKET_BYTES_MAX)
        ):
            self._last_words = "the broker sent what nobody asked for: a packet that is too long, or of QoS 2"
            self.gave_up = True
            raise ConnectionError(self._last_words)
        if excess > 0:
            self.cut += 1
            self._excess = excess
            packet["remaining_length"] = PACKET_BYTES_MAX
            packet["to_process"] -= excess

    def _give_up(self, why: str) -> None:
        self._last_words, self.gave_up = why, True
        self._inner._sock_close()
        self._hung_up()

    def _is_pending(self) -> bool:
        pending = getattr(self._inner.socket(), "pending", None)  # TLS and WebSocket have it
        return bool(pending and pending())

    def _hung_up(self) -> None:
        # aiomqtt would wait the whole ANSWER_S for a broker that hung up without a word.
        if not self._client._connected.done():
            self._client._connected.set_exception(aiomqtt.MqttError(HUNG_UP))
        self.fail(self._last_words)

    def _on_message(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        self._heard += 1
        one = Arrived(
            topic, bytes(message.payload), message.qos, message.mid, message.dup, message.retain, self._now_ns()
        )
        self._arrived([one])

    @property
    def _is_5(self) -> bool:
        return self._inner.protocol == paho.MQTTv5


# CONNACK: unacceptable version (3.1.1), malformed, protocol error, unsupported version (5).
_SPEAKS_OTHERWISE: Final = frozenset({0x01, 0x81, 0x82, 0x84})


# Its errors and ours are the same events; we tell them once, in words.
_SILENT: Final = logging.getLogger("daemon.brokers.aiomqtt")
_SILENT.setLevel(logging.CRITICAL)


def _client(address: Address, version: Version, will: Will | None) -> aiomqtt.Client:
    is_5 = version == "5"
    return aiomqtt.Client(
        address.host,
        address.port,
        logger=_SILENT,
        username=address.username,
        password=address.password.reveal() if address.password else None,
        identifier=address.client_id,
        protocol=aiomqtt.ProtocolVersion.V5 if is_5 else aiomqtt.ProtocolVersion.V311,
        clean_session=None if is_5 else False,
        clean_start=False if is_5 else paho.MQTT_CLEAN_START_FIRST_ONLY,
        properties=_connect_properties() if is_5 else None,
        transport=address.transport,
        websocket_path=address.path,
        tls_context=address.tls,
        timeout=ANSWER_S,
        will=aiomqtt.Will(will.topic, will.payload, qos=1, retain=True) if will else None,
        keepalive=KEEPALIVE_S,
    )


def _connect_properties() -> Properties:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = SESSION_EXPIRY_S
    properties.ReceiveMaximum = RECEIVE_MAX
    properties.MaximumPacketSize = PACKET_BYTES_MAX
    return properties


def _failure(why: aiomqtt.MqttError) -> ConnectFailed:
    if isinstance(why, MqttConnectError):
        code = why.rc.value if isinstance(why.rc, ReasonCode) else why.rc
        return ConnectFailed(_in_words(why), speaks_otherwise=code in _SPEAKS_OTHERWISE, refused=True)
    unanswered = str(why) in (HUNG_UP, "Operation timed out")
    return ConnectFailed(_in_words(why), speaks_otherwise=unanswered, refused=str(why) == HUNG_UP)


@contextmanager
def _told() -> Iterator[None]:
    """The library's errors in the seam's terms; and a cancellation that it has swallowed.

    It waits by `asyncio.wait_for`, which up to Python 3.11 forgets a cancellation that comes in the moment of the
    answer: its caller would go on, perhaps for ever.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        yield
    except aiomqtt.MqttError as why:
        raise Broken(str(why)) from why
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError


def _in_words(why: BaseException) -> str:
    if isinstance(why, aiomqtt.MqttCodeError) and isinstance(why.rc, ReasonCode):
        return f"the broker says: {why.rc}"
    return str(why) or type(why).__name__
