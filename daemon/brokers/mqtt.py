"""The bridge: one MQTT broker that is not ours, over TCP, TLS or WebSocket; reports and news in, replies out.

A message is acknowledged after the log has stored it, in the order of receipt; one that comes again because only the
acknowledgement was lost is recognised (same packet identifier, DUP, same content) and not stored twice. What the broker
tells of its clients (`Bridge.events`, `Bridge.tap`) is summed for a moment first: see daemon/brokers/_gather.py.

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
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import structlog

from actors.events import SUBJECT
from config.model import Bridge
from config.problem import ConfigError
from daemon.brokers._aiomqtt import AiomqttWire
from daemon.brokers._base import Counts, Entry, Feed, Format, Kind, Source, Surroundings
from daemon.brokers._birth import OFFLINE, ONLINE, Birth
from daemon.brokers._feeds import feeds, report_filters, unwanted_filters
from daemon.brokers._gather import GATHER_MAX, Gather
from daemon.brokers._inbox import Inbox
from daemon.brokers._mqtt5 import Mqtt5Wire
from daemon.brokers._reading import Reading
from daemon.brokers._selftest import SelfTest
from daemon.brokers._tally import payloads
from daemon.brokers._where import PORTS, Where
from daemon.brokers._wire import REFUSED, Address, Arrivals, Arrived, Broken, ConnectFailed, Version, Wire
from daemon.clock import NS, sleep

BATCH_MAX: Final = GATHER_MAX
RETRY_MIN_S: Final = 0.05
RETRY_S: Final = 1.0  # doubles with each failure, up to RETRY_MAX_S; the wait is a random part of it ("full jitter")
RETRY_MAX_S: Final = 60.0
STABLE_S: Final = 10.0  # a connection that lasted this long was a success; the next failure is the first again
QUIET_S: Final = 5.0
BACKLOG_S: Final = 60.0
REPLIES_MAX: Final = 10_000
REPLIES_AT_ONCE: Final = 64
LAST_WORD_S: Final = 2.0
ASK_AGAIN_S: Final = 60.0  # for what the broker did not let us subscribe to
UNKNOWN_OUTAGE_NS: Final = 7200 * NS  # longer than any window: how old the backlog of an earlier process is taken to be

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Batch:
    """What is written into the log at once, and then acknowledged."""

    entries: list[Entry] = field(default_factory=list)
    asked: list[Arrived] = field(default_factory=list)  # that want an acknowledgement, in the order of receipt
    events: int = 0


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
        self._gather = Gather()
        self._version: Version = "5"
        self._backlog_until_ns = 0
        self._replies: deque[tuple[str, bytes]] = deque(maxlen=REPLIES_MAX)
        self._replies_stirred = asyncio.Event()
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
        may_store = asyncio.Event()
        storing = asyncio.create_task(self._store_all(wire, inbox, may_store), name=f"bridge {self.name} store")
        try:
            return await self._while_connected(wire, may_store)
        finally:
            self.counts.connected = False
            inbox.close()
            may_store.set()
            await _last_words(storing)
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
        clock = self._around.clock
        since_ns = self._away_since_ns or clock.now_ns() - UNKNOWN_OUTAGE_NS
        self._reading.begin(session_present=wire.session_present, backlog_ns=since_ns)
        self._backlog_until_ns = clock.monotonic_ns() + int(BACKLOG_S * NS)
        return wire

    def _wire(self, address: Address, arrived: Arrivals) -> Wire:
        will, now_ns = self._birth.will(), self._around.clock.now_ns
        if self._version == "5" and address.transport == "tcp":
            return Mqtt5Wire(address, will, arrived, now_ns)
        return AiomqttWire(address, self._version, will, arrived, now_ns)

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
                asyncio.create_task(self._introduce_itself(wire), name=f"bridge {self.name} self-test"),
                asyncio.create_task(self._send_replies(wire), name=f"bridge {self.name} replies"),
                asyncio.create_task(self._watch_silence(), name=f"bridge {self.name} silence"),
                asyncio.create_task(self._ask_again(wire), name=f"bridge {self.name} subscriptions"),
            ]
            why = await asyncio.shield(wire.gone)
            if not wire.gave_up:  # else it is known what ended it
                self._test.cut_off()
                self._birth.cut_off()
        except (Broken, _SubscriptionRefused) as problem:
            wire.fail(why := str(problem))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return why

    async def _let_in(self, may_store: asyncio.Event) -> None:
        """Begin to store, once the listener has heard: what is written about the outage stands before the reports."""
        if not may_store.is_set():
            await self._around.listener.up(self.name, self._away_since_ns)
            self._away_since_ns = None
            may_store.set()

    async def _subscribe(self, wire: Wire) -> None:
        """Always: the session may be new, and a broker that kept it takes it for the same subscription."""
        if wire.session_present and not self._been_up and (left := unwanted_filters(self._options)):
            await wire.unsubscribe(left)
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

    async def _ask_again(self, wire: Wire) -> None:
        """Permissions change, and nobody tells us."""
        while True:
            await sleep(self._around.clock, ASK_AGAIN_S)
            if self._not_heard:
                try:
                    await self._subscribe_to_news(wire, self._not_heard)
                except Broken:
                    return

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

    # Reports and news, from the connection into the log.

    async def _store_all(self, wire: Wire, inbox: Inbox, may_store: asyncio.Event) -> None:
        await may_store.wait()
        while (batch := await self._batch(inbox)) is not None:
            await self._append(batch)
            self._acknowledge(wire, batch.asked)
            inbox.settled()
            if not inbox.is_full:
                wire.resume()

    async def _batch(self, inbox: Inbox) -> Batch | None:
        """What is to be stored next; None: nothing will come any more. A report makes no one wait, news may."""
        batch = Batch()
        self._gather.begin()
        messages = await self._take(inbox)
        if not messages:
            return None
        while messages:
            self._gather.came(len(messages), self._around.clock.monotonic_ns())
            self._read(messages, batch)
            messages = await self._more(inbox, batch)
        events = self._reading.tally.taken()
        batch.events = len(events)
        news = [Entry(f"{SUBJECT}{self.name}", payload) for payload in payloads(events)]
        batch.entries[:0] = news
        return batch

    def _read(self, messages: Sequence[Arrived], batch: Batch) -> None:
        for message in messages:
            entry = self._reading.read(message)
            if entry is not None:
                batch.entries.append(entry)
            if message.qos:
                batch.asked.append(message)
        self.counts.unreadable = sum(feed.unreadable for feed in self._feeds)

    async def _more(self, inbox: Inbox, batch: Batch) -> list[Arrived]:
        """What comes while news may still be gathered; [] when it is time to write."""
        if batch.entries or not len(self._reading.tally) or self._reading.tally.is_full or inbox.is_full:
            return []
        left_ns = self._gather.left_ns(self._around.clock.monotonic_ns())
        if left_ns <= 0:
            return []
        try:
            async with asyncio.timeout(left_ns / NS):
                return await inbox.take(BATCH_MAX - self._gather.count)
        except TimeoutError:
            return await self._more(inbox, batch)  # a pause may have ended it, which is learnt by asking again

    async def _take(self, inbox: Inbox) -> list[Arrived]:
        while self._reading.in_backlog or self._test.is_under_way:
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
        self._reading.in_backlog = False
        self._test.missed()

    async def _append(self, batch: Batch) -> None:
        entries, failures = batch.entries, 0
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
            self.counts.stored += sum(not entry.subject.startswith(SUBJECT) for entry in entries)
            self.counts.events += batch.events
            return

    def _acknowledge(self, wire: Wire, asked: Sequence[Arrived]) -> None:
        if asked:
            self._reading.stored(asked)
            wire.acknowledge([message.mid for message in asked])

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


async def _last_words(storing: asyncio.Task[None]) -> None:
    """Store what had arrived: of QoS 0 there is no other copy; QoS 1 comes again, and is recognised if stored."""
    _done, late = await asyncio.wait({storing}, timeout=LAST_WORD_S)
    for task in late:
        task.cancel()
    await asyncio.gather(storing, return_exceptions=True)


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
