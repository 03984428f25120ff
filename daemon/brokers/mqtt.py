"""The bridge: one MQTT broker that is not ours, over TCP, TLS or WebSocket; reports and news in, replies out.

A message is acknowledged after the log has stored it, in the order of receipt; one that comes again because only the
acknowledgement was lost is recognised (same packet identifier, DUP, same content) and not stored twice; by another
process of ours, after a kill, the log recognises it by the id that it was given. What the broker
tells of its clients (`Bridge.events`, `Bridge.tap`) is summed for a moment first (_gather.py). _reading.py says what a
message is, _storing.py gets it into the log.

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
from contextlib import suppress
from typing import Any, Final

import msgspec
import structlog

from config.model import Bridge
from config.problem import ConfigError
from daemon import cancellation
from daemon.brokers._aiomqtt import AiomqttWire
from daemon.brokers._base import Counts, Feed, Format, Kind, Source, Surroundings
from daemon.brokers._birth import OFFLINE, ONLINE, Birth
from daemon.brokers._exports import Exports
from daemon.brokers._feeds import feeds, report_filters, unwanted_filters
from daemon.brokers._inbox import Inbox
from daemon.brokers._mqtt5 import Mqtt5Wire
from daemon.brokers._reading import Reading
from daemon.brokers._selftest import SelfTest
from daemon.brokers._storing import LAST_WORD_S, Store, Storing
from daemon.brokers._where import PORTS, Where
from daemon.brokers._wire import REFUSED, Address, Arrivals, Arrived, Broken, ConnectFailed, Version, Wire
from daemon.clock import NS, sleep

RETRY_MIN_S: Final = 0.05
RETRY_S: Final = 1.0  # doubles with each failure, up to RETRY_MAX_S; the wait is a random part of it ("full jitter")
RETRY_MAX_S: Final = 60.0
STABLE_S: Final = 10.0  # a connection that lasted this long was a success; the next failure is the first again
REPLIES_MAX: Final = 10_000
REPLIES_AT_ONCE: Final = 64
ASK_AGAIN_S: Final = 60.0  # for what the broker did not let us subscribe to
UNKNOWN_OUTAGE_NS: Final = 7200 * NS  # longer than any window: how old the backlog of an earlier process is taken to be

log = structlog.get_logger(__name__)


class MqttBridge:
    """See `_base.Source` for the promises."""

    def __init__(self, options: Bridge, where: Where, surroundings: Surroundings, listens_to: Sequence[Feed]) -> None:
        self.name = options.name
        self.counts = Counts()
        self._options, self._where, self._around = options, where, surroundings
        self._feeds = listens_to
        self._test = SelfTest(options, where.client_id, self._tell_verdict)
        self._birth = Birth(where.client_id)
        self._reading = Reading(options, listens_to, self._test, self.counts, surroundings.payload_bytes_max)
        self._store = Store(self.name, surroundings, self.counts, self._reading, self._test, self._pause_s)
        self._version: Version = "5"
        self._replies: deque[tuple[str, bytes]] = deque(maxlen=REPLIES_MAX)
        self._replies_stirred = asyncio.Event()
        self._exports = Exports(self.counts)
        self._why_down: str | None = "not connected yet"
        self._told_down = False
        self._away_since_ns: int | None = None  # wall time of the loss of contact, or of the first failed attempt
        self._been_up = False
        self._heard_ns = 0  # monotonic; of the last message, or of the connection since
        self._not_heard: list[str] = []  # what the broker won't let us subscribe to

    async def run(self) -> None:
        failures = 0
        while True:
            began_ns = self._around.clock.monotonic_ns()
            try:
                why = await self._connection()
            except Exception as problem:  # isolation boundary: one bridge's bug is not the daemon's end
                log.error("bridge.failed", bridge=self.name, exc_info=problem)
                why = f"internal error: {problem!r}"
            cancellation.heed()
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

    def publish(self, topic: str, payload: bytes) -> bool:
        return self._exports.put(topic, payload)

    def status(self) -> Mapping[str, Any]:
        return {
            "connected": self.counts.connected,
            "why": self._why_down,
            "broker": f"{self._where.scheme}://{self._where.host}:{self._where.port}",
            "mqtt": self._version,
            "self_test": self._test.words,
            "replies": self._test.may_reply(),
            "last_message_ns": self.counts.last_message_ns or None,
            "silent": self.counts.silent,
            "refused_topics": list(self._not_heard),
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
            if why.refused:
                self._birth.refused()
            return str(why)
        except (OSError, ValueError, ConfigError) as why:  # the files: password, certificates
            return str(why)
        storing = Storing(self._store, wire, inbox)
        try:
            return await self._while_connected(wire, storing)
        finally:
            self.counts.connected = False
            await storing.end()
            await self._farewell(wire)
            await wire.close()
            self.counts.oversize += wire.cut

    async def _open(self, inbox: Inbox) -> Wire:
        address = await asyncio.to_thread(self._where.resolve)

        def arrived(messages: Sequence[Arrived]) -> None:
            own, most = self._test.topic, self._around.payload_bytes_max
            if any(len(message.payload) > most for message in messages):
                messages = [self._within_limits(message) for message in messages]
            news = sum(message.topic != own for message in messages)
            if news:
                self.counts.received += news
                self._heard()
            inbox.put(messages)
            if inbox.is_full:
                self.counts.pauses += 1
                wire.pause()

        wire = self._wire(address, arrived)
        await wire.open()
        self._birth.opened()
        since_ns = self._away_since_ns or self._around.clock.now_ns() - UNKNOWN_OUTAGE_NS
        self._reading.begin(session_present=wire.session_present, backlog_ns=since_ns)
        return wire

    def _wire(self, address: Address, arrived: Arrivals) -> Wire:
        will, now_ns = self._birth.will(), self._around.clock.now_ns
        if self._version == "5" and address.transport == "tcp":
            return Mqtt5Wire(address, will, arrived, now_ns)
        return AiomqttWire(address, self._version, will, arrived, now_ns)

    async def _while_connected(self, wire: Wire, storing: Storing) -> str:
        tasks: list[asyncio.Task[None]] = []
        try:
            if wire.session_present:
                # Reports come already, perhaps so many that the answer to a subscription would wait behind them.
                await self._let_in(storing)
            await self._subscribe(wire)
            await self._let_in(storing)
            is_first = not self._been_up
            self._tell_up()
            tasks += [
                asyncio.create_task(self._introduce_itself(wire), name=f"bridge {self.name} self-test"),
                asyncio.create_task(self._send_replies(wire), name=f"bridge {self.name} replies"),
                asyncio.create_task(self._exports.run(wire), name=f"bridge {self.name} exports"),
                asyncio.create_task(self._watch_silence(), name=f"bridge {self.name} silence"),
                asyncio.create_task(
                    self._mind_subscriptions(wire, is_first=is_first), name=f"bridge {self.name} subscriptions"
                ),
            ]
            why = await asyncio.shield(wire.gone)
            # Of two that may have cost the connection the later one is the first suspect.
            self._test.cut_off(is_suspect=not (wire.gave_up or self._birth.is_under_way))
            self._birth.cut_off(is_suspect=not wire.gave_up)
        except (Broken, _SubscriptionRefused) as problem:
            wire.fail(why := str(problem))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return why

    async def _let_in(self, storing: Storing) -> None:
        """Begin to store, once the listener has heard: what is written about the outage stands before the reports."""
        if not storing.has_begun:
            await self._around.listener.up(self.name, self._away_since_ns)
            self._away_since_ns = None
            storing.begin()

    async def _subscribe(self, wire: Wire) -> None:
        """Always: the session may be new, and a broker that kept it takes it for the same subscription."""
        reports = report_filters(self._options) if self._options.reports else []
        *codes, own = await wire.subscribe([*reports, self._test.topic])
        for topic, code in zip(reports, codes, strict=True):
            if code >= REFUSED:
                raise _SubscriptionRefused(
                    f"the broker refuses the subscription to {topic} (code {code}): allow this user to read it"
                )
        if own >= REFUSED:
            self._test.unheard()
        topics = [topic for feed in self._feeds for topic in feed.topics]
        codes += await self._subscribe_to_news(wire, topics)
        if topics and len(self._not_heard) == len(topics) and not reports:
            raise _SubscriptionRefused(
                f"the broker refuses the subscription to {topics[0]}: allow this user to read it"
            )
        if 0 in codes:
            log.warning("bridge.qos", bridge=self.name, text="the broker grants QoS 0 only: messages can be lost")

    async def _subscribe_to_news(self, wire: Wire, topics: Sequence[str]) -> list[int]:
        """Where reports are read, a broker that keeps its news to itself is told of, and is no failure."""
        codes = await wire.subscribe(topics, no_local=True) if topics else []
        refused = [topic for topic, code in zip(topics, codes, strict=True) if code >= REFUSED]
        if refused != self._not_heard:
            tell = log.warning if refused else log.info
            tell("bridge.refused_topics", bridge=self.name, topics=refused)
        self._not_heard = refused
        return codes

    async def _mind_subscriptions(self, wire: Wire, *, is_first: bool) -> None:
        """Give up what an earlier configuration left; ask again for what was refused: permissions change unsaid."""
        with suppress(Broken):
            if wire.session_present and is_first and (left := unwanted_filters(self._options)):
                await wire.unsubscribe(left)
            await self._ask_again(wire)

    async def _ask_again(self, wire: Wire) -> None:
        while True:
            await sleep(self._around.clock, ASK_AGAIN_S)
            if self._not_heard:
                await self._subscribe_to_news(wire, self._not_heard)

    async def _introduce_itself(self, wire: Wire) -> None:
        """One after the other: a broker that hangs up shows by when it does which of the two it will not have."""
        try:
            await self._test_itself(wire)
            if self._birth.begin():
                await wire.publish(self._birth.topic, ONLINE, retain=True)
                self._birth.took(well=wire.publish_refused is None)
        except Broken:
            return  # lost (`cut_off` judges that), or not acknowledged: then it won't come back either

    async def _test_itself(self, wire: Wire) -> None:
        payload = self._test.begin(self._around.clock.now_ns())
        if payload is None:
            return
        await wire.publish(self._test.topic, payload)
        if wire.publish_refused is not None:
            self._test.refused()

    async def _farewell(self, wire: Wire) -> None:
        """A clean end is no case for the will: we say ourselves that we are gone."""
        if self._birth.is_out and not wire.gone.done():
            try:
                async with asyncio.timeout(LAST_WORD_S):
                    await wire.publish(self._birth.topic, OFFLINE, retain=True)
            except (Broken, TimeoutError):
                log.debug("bridge.no_farewell", bridge=self.name)
        self._birth.is_out = False

    def _within_limits(self, message: Arrived) -> Arrived:
        """A long report waits in as little memory as it needs. Feeds count the whole."""
        if self._feeds or not self._reading.is_report(message.topic):
            return message
        return msgspec.structs.replace(message, payload=self._reading.within_limits(message.payload))

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
        except (Broken, ValueError) as why:
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
        self._heard_ns = self._around.clock.monotonic_ns()
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

    def _heard(self) -> None:
        self._heard_ns = self._around.clock.monotonic_ns()
        if self.counts.silent:
            self.counts.silent = False
            log.info("bridge.heard_again", bridge=self.name)

    async def _watch_silence(self) -> None:
        silent_s = self._options.silent_s
        while silent_s is not None:
            left_s = silent_s - (self._around.clock.monotonic_ns() - self._heard_ns) / NS
            if left_s <= 0 and not self.counts.silent:
                self.counts.silent = True
                log.warning("bridge.silent", bridge=self.name, silent_s=silent_s)
            await sleep(self._around.clock, left_s if left_s > 0 else silent_s)

    def _tell_verdict(self) -> None:
        self._replies_stirred.set()  # those that waited for it
        if self._options.replies != "off":
            tell = log.info if self._test.is_good else log.warning
            tell("bridge.self_test", bridge=self.name, prefix=self._options.prefix, text=self._test.words)


class _SubscriptionRefused(Exception):
    pass


def build(options: Bridge, surroundings: Surroundings) -> Source:
    """A bridge that has not connected yet.

    Raises:
        ValueError: its name can't be part of a subject, its prefix has wildcards, its URL can't be used, or a feed is
            not known.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", options.name):
        raise ValueError(f"bridge {options.name!r}: its name may have letters, digits, _ and -")
    if not options.prefix or re.search(r"[+#\0]", options.prefix) or options.prefix.endswith("/"):
        raise ValueError(f"bridge {options.name!r}: the prefix {options.prefix!r} is no topic")
    return MqttBridge(options, Where(options), surroundings, feeds(options))


BROKER: Final = Kind(schemes=tuple(PORTS), build=build)
