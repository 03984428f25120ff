"""MQTT 5 over TCP and TLS, on the codec `mqtt5` and a plain asyncio protocol: a wire for many messages per turn.

Messages, which are nearly all that comes, are cut out by `_cutter.py`, because the codec panics at a topic that is no
UTF-8, which some brokers pass on. All else is written and read by the codec.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import mqtt5

from daemon.brokers._cutter import Cutter
from daemon.brokers._wire import (
    ANSWER_S,
    CONNECT_S,
    HUNG_UP,
    KEEPALIVE_S,
    PACKET_BYTES_MAX,
    RECEIVE_MAX,
    REFUSED,
    SESSION_EXPIRY_S,
    UNSENT_BYTES_MAX,
    Address,
    Arrivals,
    Arrived,
    Broken,
    ConnectFailed,
    Will,
    is_publishable,
)

DEAD_S: Final = 1.5 * KEEPALIVE_S  # without a byte from the broker, whose answers to our pings would be some
PATIENCE_S: Final = 60.0  # for an answer of a broker that sends other things meanwhile
MID_MAX: Final = 65_535
LOST: Final = "the connection was lost"
UNANSWERED: Final = "the broker does not answer"

_SPEAKS_OTHERWISE: Final = frozenset({0x81, 0x82, 0x84})  # malformed, protocol error, unsupported version
_UNACCEPTABLE_VERSION: Final = 1  # as a broker of MQTT 3.1.1 says it


class Mqtt5Wire(asyncio.Protocol):
    """See `_wire.Wire`."""

    def __init__(self, address: Address, will: Will | None, arrived: Arrivals, now_ns: Callable[[], int]) -> None:
        self._loop = asyncio.get_running_loop()
        self.gone: asyncio.Future[str] = self._loop.create_future()
        self.session_present = False
        self.publish_refused: str | None = None
        self.gave_up = False
        self._address, self._will, self._arrived, self._now_ns = address, will, arrived, now_ns
        self._transport: asyncio.Transport | None = None
        self._cutter = Cutter(has_properties=True)
        self._last_words = LOST
        self._connack: asyncio.Future[bytes] = self._loop.create_future()
        self._waiting: dict[int, asyncio.Future[mqtt5.Packet]] = {}  # packet id -> who waits for its answer
        self._mid = 0
        self._server_bytes_max: int | None = None
        self._may_ask = True  # for acknowledgements: the broker takes QoS 1
        self._keepalive_s = float(KEEPALIVE_S)
        self._pinging: asyncio.Task[None] | None = None
        self._heard_s = 0.0  # of the loop's clock
        self._is_paused = False
        self._may_write = asyncio.Event()
        self._may_write.set()

    @property
    def cut(self) -> int:
        return self._cutter.cut

    async def open(self) -> None:
        try:
            await self._connect()
            self._welcome(await self._first_answer())
        except BaseException:
            self._abandon()
            raise
        self._pinging = asyncio.create_task(self._ping(), name="bridge keep-alive")

    async def subscribe(self, filters: Sequence[str], *, no_local: bool = False) -> list[int]:
        mid = self._next_mid()
        # Retained messages only for a subscription that is new: they are not wanted, and may be a million. The flag
        # tells only them: a live message that is also kept for others is a message of now.
        wanted = [
            mqtt5.TopicFilter(
                each,
                max_qos=mqtt5.QoS.AT_LEAST_ONCE,
                no_local=no_local,
                retain_as_published=False,
                retain_handling=mqtt5.RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS,
            )
            for each in filters
        ]
        answer = await self._ask(mid, mqtt5.SubscribePacket(mid, wanted).write())
        if not isinstance(answer, mqtt5.SubAckPacket) or len(answer.reason_codes) != len(filters):
            raise Broken("the broker's answer to a subscription makes no sense")
        return [int(code) for code in answer.reason_codes]

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        mid = self._next_mid()
        await self._ask(mid, mqtt5.UnsubscribePacket(mid, list(filters)).write())

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self.publish_refused = None
        mid = self._next_mid()
        if not self._may_ask:
            self._write(mqtt5.PublishPacket(topic, payload, retain=retain).write())
            return
        packet = mqtt5.PublishPacket(topic, payload, qos=mqtt5.QoS.AT_LEAST_ONCE, retain=retain, packet_id=mid)
        answer = await self._ask(mid, packet.write())
        if isinstance(answer, mqtt5.PubAckPacket) and int(answer.reason_code) >= REFUSED:
            self.publish_refused = _words(answer.reason_code)

    async def send(self, messages: Sequence[tuple[str, bytes]]) -> None:
        packets: list[bytes] = []
        for topic, payload in messages:
            if not is_publishable(topic):
                self._write(b"".join(packets))
                raise ValueError("no topic to publish to")
            packet = mqtt5.PublishPacket(topic, payload).write()
            if self._server_bytes_max is None or len(packet) <= self._server_bytes_max:
                packets.append(packet)
        self._write(b"".join(packets))
        await self._may_write.wait()
        if self.gone.done():
            raise Broken(self.gone.result())

    def acknowledge(self, mids: Sequence[int]) -> None:
        self._write(b"".join([b"\x40\x02" + mid.to_bytes(2) for mid in mids]))

    def pause(self) -> None:
        if self._transport is not None and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._is_paused and self._transport is not None and not self.gone.done():
            self._is_paused = False
            self._heard_s = self._loop.time()
            self._transport.resume_reading()

    def fail(self, why: str) -> None:
        if not self.gone.done():
            self.gone.set_result(why)
            self._may_write.set()

    async def close(self) -> None:
        if not self.gone.done():
            self._write(mqtt5.DisconnectPacket().write())
        self.fail("closed")
        if self._pinging is not None:
            self._pinging.cancel()
            await asyncio.gather(self._pinging, return_exceptions=True)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()  # once what was written is sent; who does not read it is cut off below
            await asyncio.sleep(0)
            if self._transport.get_write_buffer_size():
                self._transport.abort()

    # What the transport tells (asyncio.Protocol).

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._heard_s = self._loop.time()
        messages: list[Arrived] = []
        for one in self._cutter.feed(data, self._now_ns()):
            if isinstance(one, bytes):
                self._control(one)
            else:
                messages.append(one)
        if messages and not self.gone.done():
            self._arrived(messages)
        if self._cutter.problem is not None:
            self._give_up(self._cutter.problem)

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, ssl.SSLError):
            self._last_words = str(exc)
        self.fail(self._last_words)

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    # Connecting.

    async def _connect(self) -> None:
        at = self._address
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._loop.create_connection(
                    lambda: self, at.host, at.port, ssl=at.tls, server_hostname=at.host if at.tls else None
                )
        except TimeoutError as why:
            raise ConnectFailed(f"no connection within {CONNECT_S:g} s") from why
        except (OSError, ValueError) as why:  # ssl.SSLError is an OSError; a host name can be no host name
            raise ConnectFailed(str(why) or type(why).__name__) from why

    async def _first_answer(self) -> bytes:
        self._write(_connect_packet(self._address, self._will))
        await self._or_gone(self._connack)
        if self._connack.done():
            return self._connack.result()
        if not self.gone.done():
            raise ConnectFailed(UNANSWERED, speaks_otherwise=True)
        if (why := self.gone.result()) != LOST:
            raise ConnectFailed(why)
        raise ConnectFailed(HUNG_UP, speaks_otherwise=True, refused=True)

    def _welcome(self, answer: bytes) -> None:
        if answer[:2] == b"\x20\x02" and len(answer) == 4 and answer[3]:
            # MQTT 3.1.1: no properties, other codes.
            words = f"the broker speaks MQTT 3.1.1, and says no (code {answer[3]})"
            raise ConnectFailed(words, speaks_otherwise=answer[3] == _UNACCEPTABLE_VERSION)
        packet = _read(answer)
        if not isinstance(packet, mqtt5.ConnAckPacket):
            raise ConnectFailed("the broker's first answer makes no sense", speaks_otherwise=True)
        if code := int(packet.reason_code):
            words = f"the broker says: {_words(packet.reason_code)}"
            raise ConnectFailed(words, speaks_otherwise=code in _SPEAKS_OTHERWISE, refused=True)
        self.session_present = packet.session_present
        self._server_bytes_max = packet.max_packet_size
        self._may_ask = int(packet.max_qos) > 0
        if packet.server_keep_alive:
            self._keepalive_s = min(self._keepalive_s, packet.server_keep_alive)

    def _abandon(self) -> None:
        self.fail("closed")
        if self._transport is not None:
            self._transport.abort()

    # Packets.

    def _control(self, raw: bytes) -> None:
        if not self._connack.done():
            self._connack.set_result(raw)
            return
        match packet := _read(raw):
            case mqtt5.PubAckPacket() | mqtt5.SubAckPacket() | mqtt5.UnsubAckPacket():
                waiting = self._waiting.pop(packet.packet_id, None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(packet)
            case mqtt5.PingRespPacket():
                pass
            case mqtt5.DisconnectPacket():
                self._end(f"the broker ended the connection: {_words(packet.reason_code)}")
            case _:
                self._give_up("the broker sent what is not MQTT: an unexpected packet")

    def _give_up(self, why: str) -> None:
        self.gave_up = True
        self._end(why)

    def _end(self, why: str) -> None:
        self._last_words = why
        self.fail(why)
        if self._transport is not None:
            self._transport.abort()

    async def _ask(self, mid: int, packet: bytes) -> mqtt5.Packet:
        waiting: asyncio.Future[mqtt5.Packet] = self._loop.create_future()
        self._waiting[mid] = waiting
        try:
            self._write(packet)
            await self._or_gone(waiting)
        finally:
            self._waiting.pop(mid, None)
        if waiting.done():
            return waiting.result()
        raise Broken(self.gone.result() if self.gone.done() else UNANSWERED)

    async def _or_gone(self, waiting: asyncio.Future[Any]) -> None:
        """Until it is done, the connection is gone, or the broker is silent: an answer may come behind many messages,
        of which we may be what holds them up.
        """
        either: list[asyncio.Future[Any]] = [waiting, self.gone]
        last_s = self._loop.time() + PATIENCE_S
        while not (waiting.done() or self.gone.done()):
            await asyncio.wait(either, timeout=ANSWER_S, return_when=asyncio.FIRST_COMPLETED)
            now_s = self._loop.time()
            if not self._is_paused and (now_s - self._heard_s >= ANSWER_S or now_s >= last_s):
                return

    def _write(self, data: bytes) -> None:
        if self._transport is None or self.gone.done() or self._transport.is_closing():
            return
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > UNSENT_BYTES_MAX:
            self._give_up("the broker does not read what we send")

    def _next_mid(self) -> int:
        self._mid = self._mid % MID_MAX + 1
        return self._mid

    async def _ping(self) -> None:
        """A ping per half keep-alive, whatever else goes out: its answer shows that somebody is there."""
        self._heard_s = self._loop.time()
        while not self.gone.done():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._keepalive_s / 2):
                    await asyncio.shield(self.gone)
            if not self._is_paused and self._loop.time() - self._heard_s > DEAD_S:
                self._give_up("no sign of life from the broker")
            self._write(b"\xc0\x00")


def _connect_packet(address: Address, will: Will | None) -> bytes:
    return mqtt5.ConnectPacket(
        address.client_id,
        username=address.username,
        password=address.password.reveal().encode() if address.password else None,
        clean_start=False,
        will=mqtt5.Will(will.topic, payload=will.payload, qos=mqtt5.QoS.AT_LEAST_ONCE, retain=True) if will else None,
        keep_alive=KEEPALIVE_S,
        session_expiry_interval=SESSION_EXPIRY_S,
        receive_max=RECEIVE_MAX,
        max_packet_size=PACKET_BYTES_MAX,
    ).write()


def _read(raw: bytes) -> mqtt5.Packet | None:
    """None where the codec makes nothing of it."""
    try:
        return mqtt5.read(memoryview(raw))[0]
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001  # the codec panics at text that is no UTF-8, and a panic is no Exception
        return None


def _words(code: object) -> str:
    """A reason code in words. The codec's enums are no Python enums, whatever its stubs say: they have no `name`."""
    return repr(code).partition(".")[2].partition(":")[0].replace("_", " ").capitalize()
