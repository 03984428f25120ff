"""The bridge: one MQTT broker that is not ours, over TCP, TLS or WebSocket; reports in, replies out.

A message is acknowledged after the log has stored it, in the order of receipt; one that comes again because only the
acknowledgement was lost is recognised (same packet identifier, DUP, same content) and not stored twice.

**The backlog.** What a broker kept for us while we were away is marked `Detectd-Backlog: 1`, because its reports come
in a burst and must not be throttled (design.md §4). MQTT has no sign for the end of it. So after subscribing we publish
a message to ourselves: it queues behind what the broker kept, and all that comes before it is backlog. Where a broker
does not give it back, the backlog ends with the first QUIET_S without a message, or after BACKLOG_S. Only a session
that the broker kept has a backlog. The same message is the self-test (daemon/brokers/_selftest.py).
"""

import asyncio
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import aiomqtt
import structlog

from actors.numbers import bridge_token
from config.model import Bridge
from config.problem import ConfigError
from daemon.brokers._base import Counts, Entry, Format, Kind, Source, Surroundings
from daemon.brokers._inbox import Inbox
from daemon.brokers._selftest import SelfTest
from daemon.brokers._where import PORTS, Where
from daemon.brokers._wire import REFUSED, Arrived, ConnectFailed, Version, Wire
from daemon.clock import NS, sleep

BATCH_MAX: Final = 1024
RETRY_MIN_S: Final = 0.05
RETRY_S: Final = 1.0  # doubles with each failure, up to RETRY_MAX_S; the wait is a random part of it ("full jitter")
RETRY_MAX_S: Final = 60.0
STABLE_S: Final = 10.0  # a connection that lasted this long was a success; the next failure is the first again
QUIET_S: Final = 5.0
BACKLOG_S: Final = 60.0
REPLIES_MAX: Final = 10_000
REPLIES_AT_ONCE: Final = 64
THING_CHARS_MAX: Final = 128  # AWS's limit (spec.md §2.6)
LAST_WORD_S: Final = 2.0

log = structlog.get_logger(__name__)


class MqttBridge:
    """See `_base.Source` for the promises."""

    def __init__(self, options: Bridge, where: Where, surroundings: Surroundings) -> None:
        self.name = options.name
        self.counts = Counts()
        self._options, self._where, self._around = options, where, surroundings
        self._test = SelfTest(options, where.client_id, self._tell_verdict)
        self._version: Version = "5"
        self._topic = re.compile(rf"{re.escape(options.prefix)}/things/([^/]+)/defender/metrics/(json|cbor)", re.DOTALL)
        self._in_backlog = False
        self._backlog_until_ns = 0
        self._stored: dict[int, int] = {}  # packet id -> content, of this connection: at most 65 535
        self._stored_before: dict[int, int] = {}  # the same of the connection before this one
        self._replies: deque[tuple[str, bytes]] = deque(maxlen=REPLIES_MAX)
        self._replies_stirred = asyncio.Event()
        self._why_down: str | None = "not connected yet"
        self._told_down = False
        self._away_since_ns: int | None = None  # wall time of the loss of contact, or of the first failed attempt
        self._been_up = False

    async def run(self) -> None:
        failures = 0
        while True:
            began_ns = self._around.clock.monotonic_ns()
            try:
                why = await self._connection()
            except Exception as problem:  # isolation boundary: one bridge's bug is not the daemon's end
                log.error("bridge.failed", bridge=self.name, exc_info=problem)
                why = f"internal error: {problem!r}"
            lasted_s = (self._around.clock.monotonic_ns() - began_ns) / NS
            failures = 0 if lasted_s >= STABLE_S else failures + 1
            self._tell_down(why)
            await sleep(self._around.clock, self._pause_s(failures))

    async def reply(self, thing: str, fmt: Format, accepted: bool, payload: bytes) -> None:
        if not (self.counts.connected and self._test.may_yet_reply()):
            self.counts.replies_dropped += 1
            return
        if len(self._replies) == REPLIES_MAX:  # the oldest goes: its device has waited longest, and may wait no more
            self.counts.replies_dropped += 1
        answer = "accepted" if accepted else "rejected"
        self._replies.append((f"{self._options.prefix}/things/{thing}/defender/metrics/{fmt}/{answer}", payload))
        self._replies_stirred.set()

    def status(self) -> Mapping[str, Any]:
        return {
            "connected": self.counts.connected,
            "why": self._why_down,
            "broker": f"{self._where.scheme}://{self._where.host}:{self._where.port}",
            "mqtt": self._version,
            "self_test": self._test.words,
            "replies": self._test.may_reply(),
            "last_message_ns": self.counts.last_message_ns or None,
        }

    def _pause_s(self, failures: int) -> float:
        most_s = min(RETRY_MAX_S, RETRY_S * 2.0 ** min(failures, 16))
        return max(RETRY_MIN_S, self._around.random() * most_s)

    # One connection.

    async def _connection(self) -> str:
        """From the attempt to the end of it; why it ended, in words."""
        inbox = Inbox(self._around.waiting_bytes_max)
        try:
            wire = await self._open(inbox)
        except ConnectFailed as why:
            if why.speaks_otherwise:
                self._version = "3.1.1" if self._version == "5" else "5"
            return str(why)
        except (OSError, ValueError, ConfigError) as why:  # the files: password, certificates
            return str(why)
        may_store = asyncio.Event()
        storing = asyncio.create_task(self._store_all(wire, inbox, may_store), name=f"bridge {self.name} store")
        try:
            return await self._while_connected(wire, may_store)
        finally:
            self.counts.connected = False
            inbox.close()
            may_store.set()
            await _last_words(storing)
            await wire.close()

    async def _open(self, inbox: Inbox) -> Wire:
        address = await asyncio.to_thread(self._where.resolve)

        def arrived(message: Arrived) -> None:
            self.counts.received += message.topic != self._test.topic
            inbox.put(self._within_limits(message))
            if inbox.is_full:
                self.counts.pauses += 1
                wire.pause()

        wire = Wire(address, self._version, arrived)
        await wire.open()
        self._stored_before, self._stored = (self._stored if wire.session_present else {}), {}
        self._in_backlog = wire.session_present
        self._backlog_until_ns = self._around.clock.monotonic_ns() + int(BACKLOG_S * NS)
        return wire

    async def _while_connected(self, wire: Wire, may_store: asyncio.Event) -> str:
        tasks: list[asyncio.Task[None]] = []
        try:
            if wire.session_present:
                # Reports come already, perhaps so many that the answer to a subscription would wait behind them.
                await self._let_in(may_store)
            await self._subscribe(wire)
            await self._let_in(may_store)
            self._tell_up()
            tasks += [
                asyncio.create_task(self._test_itself(wire), name=f"bridge {self.name} self-test"),
                asyncio.create_task(self._send_replies(wire), name=f"bridge {self.name} replies"),
            ]
            why = await asyncio.shield(wire.gone)
        except (aiomqtt.MqttError, _SubscriptionRefused) as problem:
            wire.fail(why := str(problem))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        self._test.cut_off()
        return why

    async def _let_in(self, may_store: asyncio.Event) -> None:
        """Begin to store, once the listener has heard: what is written about the outage stands before the reports."""
        if not may_store.is_set():
            await self._around.listener.up(self.name, self._away_since_ns)
            self._away_since_ns = None
            may_store.set()

    async def _subscribe(self, wire: Wire) -> None:
        """Always: the session may be new, and a broker that kept it takes it for the same subscription."""
        reports = [f"{self._options.prefix}/things/+/defender/metrics/{fmt}" for fmt in ("json", "cbor")]
        *codes, own = await wire.subscribe([*reports, self._test.topic])
        for topic, code in zip(reports, codes, strict=True):
            if code >= REFUSED:
                raise _SubscriptionRefused(
                    f"the broker refuses the subscription to {topic} (code {code}): allow this user to read it"
                )
        if min(codes) < 1:
            log.warning("bridge.qos", bridge=self.name, text="the broker grants QoS 0 only: reports can be lost")
        if own >= REFUSED:
            self._test.unheard()

    async def _test_itself(self, wire: Wire) -> None:
        payload = self._test.begin(self._around.clock.now_ns())
        if payload is None:
            return
        try:
            await wire.publish(self._test.topic, payload)
        except aiomqtt.MqttError:
            return  # lost (`cut_off` judges that), or not acknowledged: then it won't come back either
        if wire.publish_refused is not None:
            self._test.refused()

    # Reports, from the connection into the log.

    async def _store_all(self, wire: Wire, inbox: Inbox, may_store: asyncio.Event) -> None:
        await may_store.wait()
        while batch := await self._take(inbox):
            entries = [entry for message in batch if (entry := self._entry(message)) is not None]
            await self._append(entries)
            self._acknowledge(wire, batch)
            if not inbox.is_full:
                wire.resume()

    async def _take(self, inbox: Inbox) -> list[Arrived]:
        while self._in_backlog or self._test.is_under_way:
            try:
                async with asyncio.timeout(QUIET_S):
                    batch = await inbox.take(BATCH_MAX)
            except TimeoutError:
                self._end_backlog()
                continue
            if self._around.clock.monotonic_ns() >= self._backlog_until_ns:
                self._end_backlog()
            return batch
        return await inbox.take(BATCH_MAX)

    def _end_backlog(self) -> None:
        """Nothing came for a while, or something came for too long: the backlog is over without our own message."""
        self._in_backlog = False
        self._test.missed()

    def _entry(self, message: Arrived) -> Entry | None:
        """The log entry for a message; None for one that only wants an acknowledgement. In the order of receipt."""
        if message.topic == self._test.topic:
            if self._test.heard(message.payload):
                self._in_backlog = False
            return None
        if message.retain:
            self.counts.retained += 1
            return None
        named = self._topic.fullmatch(message.topic)
        if named is None or len(named[1]) > THING_CHARS_MAX:
            self.counts.misnamed += 1
            return None
        if message.dup and self._stored_before.pop(message.mid, None) == _content(message):
            self.counts.repeated += 1
            return None
        self.counts.last_message_ns = self._around.clock.now_ns()
        headers = {"Detectd-Backlog": "1"} if self._in_backlog else {}
        return Entry(f"detectd.log.report.{self.name}.{bridge_token(named[1])}.{named[2]}", message.payload, headers)

    async def _append(self, entries: Sequence[Entry]) -> None:
        failures = 0
        while entries:
            try:
                await self._around.log.append_many(entries)
            except Exception as why:  # noqa: BLE001  # the boundary to the log: whatever ails it, these entries must get there
                failures += 1
                tell = log.warning if failures == 1 else log.debug
                tell("bridge.log_unreachable", bridge=self.name, entries=len(entries), why=str(why))
                await sleep(self._around.clock, self._pause_s(failures))
                continue
            if failures:
                log.info("bridge.log_reached", bridge=self.name, attempts=failures + 1)
            self.counts.stored += len(entries)
            return

    def _acknowledge(self, wire: Wire, batch: Sequence[Arrived]) -> None:
        """In the order of receipt. Whether the broker hears it is not known: hence the note of what it was."""
        for message in batch:
            if message.qos:
                self._stored[message.mid] = _content(message)
                wire.acknowledge(message.mid)

    def _within_limits(self, message: Arrived) -> Arrived:
        most = self._around.payload_bytes_max
        if len(message.payload) <= most:
            return message
        self.counts.oversize += 1
        # One byte too many is enough for the core to reject it, and the device is told; the rest helps nobody.
        return replace(message, payload=message.payload[: most + 1])

    # Replies, from us to the devices.

    async def _send_replies(self, wire: Wire) -> None:
        while True:
            await self._replies_stirred.wait()
            self._replies_stirred.clear()
            while self._replies and self._test.may_reply():
                batch = [self._replies.popleft() for _ in range(min(REPLIES_AT_ONCE, len(self._replies)))]
                await self._send(wire, batch)
            if not self._test.may_yet_reply():
                self._drop_replies()

    async def _send(self, wire: Wire, batch: Sequence[tuple[str, bytes]]) -> None:
        try:
            await wire.send(batch)
            self.counts.replies_sent += len(batch)
        except (aiomqtt.MqttError, ValueError) as why:
            self.counts.replies_dropped += len(batch)
            log.debug("bridge.replies_dropped", bridge=self.name, why=str(why))

    def _drop_replies(self) -> None:
        self.counts.replies_dropped += len(self._replies)
        self._replies.clear()

    # What operators and the app hear.

    def _tell_up(self) -> None:
        again, self._been_up = self._been_up, True
        self.counts.reconnects += again
        self.counts.connected = True
        self._why_down, self._told_down = None, False
        log.info("bridge.up", bridge=self.name, mqtt=self._version, again=again)

    def _tell_down(self, why: str) -> None:
        self._why_down = why
        self._drop_replies()
        self._away_since_ns = self._away_since_ns or self._around.clock.now_ns()
        if self._told_down:
            log.debug("bridge.still_down", bridge=self.name, why=why)
            return
        self._told_down = True
        log.warning("bridge.down", bridge=self.name, why=why)
        self._around.listener.down(self.name, why)

    def _tell_verdict(self) -> None:
        self._replies_stirred.set()  # those that waited for it
        if self._options.replies != "off":
            tell = log.info if self._test.is_good else log.warning
            tell("bridge.self_test", bridge=self.name, prefix=self._options.prefix, text=self._test.words)


class _SubscriptionRefused(Exception):
    pass


async def _last_words(storing: asyncio.Task[None]) -> None:
    """Store what had arrived: of QoS 0 there is no other copy; QoS 1 comes again, and is recognised if stored."""
    _done, late = await asyncio.wait({storing}, timeout=LAST_WORD_S)
    for task in late:
        task.cancel()
    await asyncio.gather(storing, return_exceptions=True)


def _content(message: Arrived) -> int:
    return hash((message.topic, message.payload))


def build(options: Bridge, surroundings: Surroundings) -> Source:
    """A bridge that has not connected yet.

    Raises:
        ValueError: its name can't be part of a subject, its prefix has wildcards, or its URL can't be used.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", options.name):
        raise ValueError(f"bridge {options.name!r}: its name may have letters, digits, _ and -")
    if not options.prefix or re.search(r"[+#\0]", options.prefix) or options.prefix.endswith("/"):
        raise ValueError(f"bridge {options.name!r}: the prefix {options.prefix!r} is no topic")
    return MqttBridge(options, Where(options), surroundings)


BROKER: Final = Kind(schemes=tuple(PORTS), build=build)
