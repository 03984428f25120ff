"""The bridge: one MQTT broker that is not ours, over TCP, TLS or WebSocket; reports in, replies out.

A message is acknowledged after the log has stored it, in the order of receipt; one that comes again because only the
acknowledgement was lost is recognised (same packet identifier, DUP, same content) and not stored twice.

**The backlog.** What a broker kept for us while we were away is marked `Detectd-Backlog: 1`, because its reports come in
a burst and must not be throttled (design.md §4). MQTT has no sign for the end of it. So after subscribing we publish a
message to ourselves: it queues behind what the broker kept, and all that comes before it is backlog. Where a broker
does not give it back, the backlog ends with the first QUIET_S without a message, or after BACKLOG_S. Only a session that
the broker kept has a backlog. The same message is the self-test: it goes to a reply topic under the prefix, so whether
it comes back tells whether this broker carries such topics and lets us reply.
"""

import asyncio
import contextlib
import re
import ssl
from collections import deque
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import aiomqtt
import structlog

from actors.numbers import bridge_token
from config.model import Bridge
from config.secret import read_secret
from daemon.brokers._base import Counts, Entry, Format, Kind, Source, Surroundings
from daemon.brokers._inbox import Inbox
from daemon.brokers._wire import REFUSED, Address, Arrived, ConnectFailed, Version, Wire
from daemon.clock import NS, sleep

BATCH_MAX: Final = 1024
RETRY_MIN_S: Final = 0.05
RETRY_S: Final = 1.0  # doubles with each failure, up to RETRY_MAX_S; the wait is a random part of it ("full jitter")
RETRY_MAX_S: Final = 60.0
STABLE_S: Final = 10.0  # a connection that lasted this long was a success; the next failure is the first again
QUIET_S: Final = 5.0
BACKLOG_S: Final = 60.0
KICKS_MAX: Final = 2  # connections lost right after our test message before it is taken for the cause
REPLIES_MAX: Final = 10_000
REPLIES_AT_ONCE: Final = 64
THING_CHARS_MAX: Final = 128  # AWS's limit (spec.md §2.6)
LAST_WORD_S: Final = 2.0

PORTS: Final = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}

log = structlog.get_logger(__name__)


class Verdict(Enum):
    """What the self-test found, in words that an operator can act on."""

    UNTRIED = "not tried yet"
    CARRIED = "the broker carries topics under the prefix and takes replies"
    MISSING = (
        "the broker took a message under the prefix but did not deliver it back: it takes no replies from us; "
        "if no reports come either, it does not carry such topics, and another `prefix` is needed"
    )
    REFUSED = "the broker refuses our replies: allow this user to publish them, or set `replies: off`"
    KICKED = (
        "the broker ends the connection when a reply is published (AWS IoT Core does): reports are read all the same"
    )
    UNHEARD = "we may not subscribe to our own test message, so whether replies arrive is not known: they are sent"


_TAKES_REPLIES: Final = frozenset({Verdict.CARRIED, Verdict.UNHEARD})


class MqttBridge:
    """See `_base.Source` for the promises."""

    def __init__(self, options: Bridge, address: "Where", surroundings: Surroundings) -> None:
        self.name = options.name
        self.counts = Counts()
        self.verdict = Verdict.UNTRIED
        self._options, self._address, self._around = options, address, surroundings
        self._version: Version = "5"
        self._wire: Wire | None = None
        self._topic = re.compile(rf"{re.escape(options.prefix)}/things/([^/]+)/defender/metrics/(json|cbor)", re.DOTALL)
        self._probe = _probe_topic(options, address.client_id)
        self._nonce = b""
        self._probing = False
        self._kicks = 0
        self._in_backlog = False
        self._backlog_until_ns = 0
        self._last_stored: dict[int, int] = {}  # packet id -> hash, of this connection: at most 65 535
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
            why = await self._connection()
            lasted_s = (self._around.clock.monotonic_ns() - began_ns) / NS
            failures = 0 if lasted_s >= STABLE_S else failures + 1
            self._tell_down(why)
            await sleep(self._around.clock, self._pause_s(failures))

    async def reply(self, thing: str, fmt: Format, accepted: bool, payload: bytes) -> None:
        if not self.counts.connected or not self._may_reply(or_untried=True):
            self.counts.replies_dropped += 1
            return
        if len(self._replies) == REPLIES_MAX:  # the oldest goes: its device waits no longer
            self.counts.replies_dropped += 1
        answer = "accepted" if accepted else "rejected"
        self._replies.append((f"{self._options.prefix}/things/{thing}/defender/metrics/{fmt}/{answer}", payload))
        self._replies_stirred.set()

    def status(self) -> Mapping[str, Any]:
        return {
            "connected": self.counts.connected,
            "why": self._why_down,
            "broker": f"{self._address.scheme}://{self._address.host}:{self._address.port}",
            "mqtt": self._version,
            "self_test": "replies are off" if self._options.replies == "off" else self.verdict.value,
            "replies": self._may_reply(),
            "last_message_ns": self.counts.last_message_ns or None,
        }

    def _pause_s(self, failures: int) -> float:
        most_s = min(RETRY_MAX_S, RETRY_S * 2.0 ** min(failures, 16))
        return max(RETRY_MIN_S, self._around.random() * most_s)

    async def _connection(self) -> str:
        """One connection, from the attempt to its end; why it ended."""
        inbox = Inbox()
        try:
            wire = await self._open(inbox)
        except ConnectFailed as why:
            if why.speaks_otherwise:
                self._version = "3.1.1" if self._version == "5" else "5"
            return str(why)
        except (OSError, ValueError) as why:  # files: the password, certificates
            return str(why)
        self._wire = wire
        storing = asyncio.create_task(self._store_all(wire, inbox), name=f"bridge {self.name} store")
        try:
            return await self._while_connected(wire)
        finally:
            self.counts.connected = False
            self._wire = None
            inbox.close()
            await self._last_words(storing)
            await wire.close()
            self.counts.dropped += inbox.dropped

    async def _open(self, inbox: Inbox) -> Wire:
        address = await asyncio.to_thread(self._address.resolve, self._options)

        def arrived(message: Arrived) -> None:
            if not inbox.offer(self._within_limits(message)):
                self.counts.overruns += not wire.gone.done()
                wire.fail("more waits to be stored than memory allows: the broker is asked to send it again")

        wire = Wire(address, self._version, arrived)
        self._subscribed = asyncio.Event()
        await wire.open()
        self._begin(wire)
        return wire

    def _begin(self, wire: Wire) -> None:
        self._stored_before, self._last_stored = self._last_stored, {}
        if not wire.session_present:
            self._stored_before = {}
        self._in_backlog = wire.session_present
        self._backlog_until_ns = self._around.clock.monotonic_ns() + int(BACKLOG_S * NS)
        self._nonce = b"detectd %d" % self._around.clock.now_ns()

    async def _while_connected(self, wire: Wire) -> str:
        tasks: list[asyncio.Future[Any]] = [wire.gone]
        try:
            await self._subscribe(wire)
            await self._tell_up()
            self._subscribed.set()
            tasks += [
                asyncio.create_task(self._test_itself(wire), name=f"bridge {self.name} self-test"),
                asyncio.create_task(self._send_replies(wire), name=f"bridge {self.name} replies"),
            ]
            await wire.gone
        except (aiomqtt.MqttError, _SubscriptionRefused) as why:
            wire.fail(str(why))
        finally:
            for task in tasks[1:]:
                task.cancel()
            await asyncio.gather(*tasks[1:], return_exceptions=True)
        self._blame_the_test()
        return wire.gone.result()

    async def _subscribe(self, wire: Wire) -> None:
        """Always, the session may be new: a broker that has it already takes it for the same."""
        prefix = self._options.prefix
        reports = [f"{prefix}/things/+/defender/metrics/{fmt}" for fmt in ("json", "cbor")]
        json_code, cbor_code, probe_code = await wire.subscribe([*reports, self._probe])
        for topic, code in zip(reports, (json_code, cbor_code), strict=True):
            if code >= REFUSED:
                raise _SubscriptionRefused(
                    f"the broker refuses the subscription to {topic} (code {code}): allow this user to read it"
                )
        if min(json_code, cbor_code) < 1:
            log.warning("bridge.qos", bridge=self.name, text="the broker grants QoS 0 only: reports can be lost")
        if probe_code >= REFUSED:
            self._judge(Verdict.UNHEARD)

    async def _test_itself(self, wire: Wire) -> None:
        if self._kicks >= KICKS_MAX:
            return  # it has been learnt; without a test message the backlog ends by time
        self._probing = True
        try:
            await wire.publish(self._probe, self._nonce)
        except aiomqtt.MqttError:
            return  # lost (see _blame_the_test), or no acknowledgement: then it won't come back either
        if wire.publish_refused is not None:
            self._probing = False
            self._judge(Verdict.REFUSED)

    def _blame_the_test(self) -> None:
        if self._probing:
            self._probing = False
            self._kicks += 1
            if self._kicks >= KICKS_MAX:
                self._judge(Verdict.KICKED)

    def _judge(self, verdict: Verdict) -> None:
        if verdict is self.verdict or self._options.replies == "off":
            return
        self.verdict = verdict
        good = verdict in _TAKES_REPLIES
        (log.info if good else log.warning)(
            "bridge.self_test",
            bridge=self.name,
            prefix=self._options.prefix,
            text=verdict.value,
            replies=self._may_reply(),
        )
        self._replies_stirred.set()

    def _may_reply(self, *, or_untried: bool = False) -> bool:
        match self._options.replies:
            case "on":
                return True
            case "off":
                return False
            case "auto":
                return self.verdict in _TAKES_REPLIES or (or_untried and self.verdict is Verdict.UNTRIED)

    # Storing.

    async def _store_all(self, wire: Wire, inbox: Inbox) -> None:
        await self._subscribed.wait()  # what must stand in the log before the first report stands there now
        while batch := await self._take(inbox):
            entries: list[Entry] = []
            for message in batch:
                entry = self._entry(message)
                if entry is not None:
                    entries.append(entry)
            await self._append(entries)
            self._acknowledge(wire, batch)

    def _acknowledge(self, wire: Wire, batch: Sequence[Arrived]) -> None:
        """In the order of receipt. Whether the broker hears it is not known: hence the note of what it was."""
        for message in batch:
            if message.qos:
                self._last_stored[message.mid] = _content(message)
                wire.acknowledge(message.mid)

    async def _take(self, inbox: Inbox) -> list[Arrived]:
        while self._in_backlog or self._probing:
            try:
                async with asyncio.timeout(QUIET_S):
                    batch = await inbox.take(BATCH_MAX)
            except TimeoutError:
                self._give_up_waiting()
                continue
            if self._around.clock.monotonic_ns() >= self._backlog_until_ns:
                self._give_up_waiting()
            return batch
        return await inbox.take(BATCH_MAX)

    def _give_up_waiting(self) -> None:
        """Nothing came for a while, or something came for too long: the backlog is over, test message or not."""
        self._in_backlog = False
        if self._probing:
            self._probing = False
            self._judge(Verdict.MISSING)

    def _entry(self, message: Arrived) -> Entry | None:
        """The log entry for a message; None for one that needs an acknowledgement only."""
        if message.topic == self._probe:
            self._hear_itself(message)
            return None
        self.counts.received += 1
        named = self._topic.fullmatch(message.topic)
        if message.retain:
            self.counts.retained += 1
            return None
        if named is None or len(named[1]) > THING_CHARS_MAX:
            self.counts.misnamed += 1
            return None
        if message.qos and self._is_stored(message):
            self.counts.repeated += 1
            return None
        self.counts.last_message_ns = self._around.clock.now_ns()
        headers = {"Detectd-Backlog": "1"} if self._in_backlog else {}
        subject = f"detectd.log.report.{self.name}.{bridge_token(named[1])}.{named[2]}"
        return Entry(subject, message.payload, headers)

    def _hear_itself(self, message: Arrived) -> None:
        if message.payload != self._nonce:
            return  # that of an earlier connection
        self._in_backlog = False
        self._probing = False
        self._kicks = 0
        self._judge(Verdict.CARRIED)

    def _is_stored(self, message: Arrived) -> bool:
        return message.dup and self._stored_before.pop(message.mid, None) == _content(message)

    async def _append(self, entries: Sequence[Entry]) -> None:
        failures = 0
        while entries:
            try:
                await self._around.log.append_many(entries)
            except Exception as why:  # the boundary to the log: whatever ails it, these entries must get there
                failures += 1
                (log.warning if failures == 1 else log.debug)(
                    "bridge.log_unreachable", bridge=self.name, entries=len(entries), why=str(why)
                )
                await sleep(self._around.clock, self._pause_s(failures))
                continue
            if failures:
                log.info("bridge.log_reached", bridge=self.name, attempts=failures + 1)
            self.counts.stored += len(entries)
            return

    def _within_limits(self, message: Arrived) -> Arrived:
        most = self._around.payload_bytes_max
        if len(message.payload) <= most:
            return message
        self.counts.oversize += 1
        # One byte too many is enough for the core to reject it, and the device is told; the rest helps nobody.
        cut = message.payload[: most + 1]
        return Arrived(message.topic, cut, message.qos, message.mid, message.dup, message.retain)

    async def _last_words(self, storing: asyncio.Task[None]) -> None:
        """Store what had arrived: of QoS 0 there is no other copy; QoS 1 will come again and be recognised."""
        self._subscribed.set()
        _done, late = await asyncio.wait({storing}, timeout=LAST_WORD_S)
        for task in late:
            task.cancel()
        await asyncio.gather(storing, return_exceptions=True)

    # Replies.

    async def _send_replies(self, wire: Wire) -> None:
        while True:
            await self._replies_stirred.wait()
            self._replies_stirred.clear()
            while self._replies and self._may_reply():
                batch = [self._replies.popleft() for _ in range(min(REPLIES_AT_ONCE, len(self._replies)))]
                await self._send(wire, batch)
            if not self._may_reply(or_untried=True):
                self.counts.replies_dropped += len(self._replies)
                self._replies.clear()

    async def _send(self, wire: Wire, batch: Sequence[tuple[str, bytes]]) -> None:
        try:
            await wire.send(batch)
            self.counts.replies_sent += len(batch)
        except (aiomqtt.MqttError, ValueError) as why:
            self.counts.replies_dropped += len(batch)
            log.debug("bridge.reply_dropped", bridge=self.name, why=str(why))

    # Telling.

    async def _tell_up(self) -> None:
        again, self._been_up = self._been_up, True
        self.counts.reconnects += again
        await self._around.listener.up(self.name, self._away_since_ns)
        self._away_since_ns = None
        self.counts.connected = True
        self._why_down, self._told_down = None, False
        log.info("bridge.up", bridge=self.name, mqtt=self._version, again=again)

    def _tell_down(self, why: str) -> None:
        self._why_down = why
        self.counts.replies_dropped += len(self._replies)
        self._replies.clear()
        self._away_since_ns = self._away_since_ns or self._around.clock.now_ns()
        if self._told_down:
            log.debug("bridge.still_down", bridge=self.name, why=why)
            return
        self._told_down = True
        log.warning("bridge.down", bridge=self.name, why=why)
        self._around.listener.down(self.name, why)


class _SubscriptionRefused(Exception):
    pass


def _probe_topic(options: Bridge, client_id: str) -> str:
    if options.replies == "off":  # nothing of a device's is touched; it only marks the end of the backlog
        return f"detectd/{client_id}/probe"
    return f"{options.prefix}/things/{client_id}/defender/metrics/json/accepted"


def _content(message: Arrived) -> int:
    return hash((message.topic, message.payload))


class Where:
    """Where the broker is, by its URL; `resolve` adds what must be read from files."""

    def __init__(self, options: Bridge) -> None:
        url = urlsplit(options.url)
        self.scheme = url.scheme
        self.host, self.port = _host_and_port(options, url)
        self.client_id = options.client_id or f"detectd-{options.name}"
        self.path = (url.path or "/mqtt") if url.scheme in ("ws", "wss") else None

    def resolve(self, options: Bridge) -> Address:
        """Reads password and certificates: at every attempt, so that a renewed one is used. Blocks.

        Raises:
            OSError, ValueError: a file can't be read, or holds no such thing.
        """
        return Address(
            host=self.host,
            port=self.port,
            transport="websockets" if self.path else "tcp",
            path=self.path,
            client_id=self.client_id,
            username=options.username,
            password=read_secret(options.password_file).reveal() if options.password_file else None,
            tls=_tls(options) if self.scheme in ("mqtts", "wss") else None,
        )


def _host_and_port(options: Bridge, url: SplitResult) -> tuple[str, int]:
    if url.username is not None or url.password is not None:
        raise ValueError(f"bridge {options.name!r}: no user or password in the URL: use `username` and `password_file`")
    try:
        port = url.port
    except ValueError:
        port = 0
    if not url.hostname or port == 0:
        raise ValueError(f"bridge {options.name!r}: the URL names no host, or no possible port")
    return url.hostname, port or PORTS[url.scheme]


def _tls(options: Bridge) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.ca)
    if options.cert is not None:
        context.load_cert_chain(options.cert, options.key)
    return context


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
