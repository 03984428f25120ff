"""What a message of another broker is: a report, news of its clients, both, our own test, or nothing for us."""

import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

import msgspec

from actors.events import Event
from actors.numbers import bridge_token
from config.model import Bridge
from daemon.brokers._base import Counts, Entry, Feed
from daemon.brokers._selftest import SelfTest
from daemon.brokers._tally import SUMMED, Tally
from daemon.brokers._wire import Arrived
from daemon.log.parcel import MSG_ID

THING_CHARS_MAX: Final = 128  # AWS's limit (spec.md §2.6)
KNOWN_MAX: Final = 65_536  # topics of which the subject is remembered
BACKLOG: Final = "Detectd-Backlog"


class Reading:
    """Reads in the order of receipt; what the feeds hear is `news`."""

    def __init__(
        self, options: Bridge, feeds: Sequence[Feed], test: SelfTest, counts: Counts, payload_bytes_max: int
    ) -> None:
        self._live, self._old = Tally(), Tally()  # apart, for a sum has one time
        self.in_backlog = False
        self.backlog_ns = 0
        """The wall time for news that has none of its own and came from the backlog: when the outage began. So it is
        late where the outage was long, and not a burst of this moment."""
        self._feeds, self._test, self._counts, self._most = feeds, test, counts, payload_bytes_max
        self._name = options.name
        self._subject = f"detectd.log.report.{options.name}."
        things = rf"{re.escape(options.prefix)}/things/([^/]+)/defender/metrics/(json|cbor)"
        self._report = re.compile(things, re.DOTALL) if options.reports else None
        self._answer = re.compile(rf"{things}/(accepted|rejected)", re.DOTALL)
        self._subjects: dict[str, str | None] = {}  # topic -> of its reports; None: no report's topic
        self._stored: dict[int, int] = {}  # packet id -> content, of this connection: at most 65 535
        self._stored_before: dict[int, int] = {}  # the same of the connection before this one

    def begin(self, *, session_present: bool, backlog_ns: int) -> None:
        """A new connection."""
        self._stored_before, self._stored = (self._stored if session_present else {}), {}
        self.in_backlog, self.backlog_ns = session_present, backlog_ns

    @property
    def has_news(self) -> bool:
        return len(self._live) + len(self._old) > 0

    @property
    def is_full(self) -> bool:
        return self._live.is_full or self._old.is_full

    def news(self) -> list[Event]:
        """All that was heard since the last call."""
        return [*self._old.taken(), *self._live.taken()]

    def is_report(self, topic: str) -> bool:
        return self._subject_of(topic) is not None

    def read(self, message: Arrived) -> Entry | None:
        """The log entry of a report; None for all else, which may have been added to the tally."""
        if message.topic == self._test.topic:
            if self._test.heard(message.payload):
                self.in_backlog = False
            return None
        if message.retain:
            self._counts.retained += 1
            return None
        if message.dup and self._stored_before.pop(message.mid, None) == _content(message):
            self._counts.repeated += 1
            return None
        subject = self._subject_of(message.topic)
        is_news = bool(self._feeds) and self._hear(message)
        if subject is None:
            self._counts.misnamed += not is_news
            return None
        self._counts.last_message_ns = message.received_ns
        payload = message.payload
        if len(payload) > self._most:
            self._counts.oversize += 1
            payload = self.within_limits(payload)
        headers = {MSG_ID: self._id(message)} if message.qos else {}
        if self.in_backlog:
            headers[BACKLOG] = "1"
        return Entry(subject, payload, headers)

    def _id(self, message: Arrived) -> str:
        """The same when the message is delivered again, to another process of ours too: the log stores it once.

        A broker may have thousands under way to us when we are killed, of one thing more than the core remembers ids
        of. The packet id keeps apart what a device sends twice. Within the log's `duplicate_window`, that is.
        """
        content = blake2b(message.topic.encode() + message.payload, digest_size=12)
        return f"{self._name}.{message.mid:x}.{content.hexdigest()}"

    def within_limits(self, payload: bytes) -> bytes:
        """One byte too many is enough: the core rejects it, and the device is told; the rest helps nobody."""
        return payload[: self._most + 1]

    def stored(self, messages: Sequence[Arrived]) -> None:
        """These QoS 1 messages are in the log and about to be acknowledged. Whether the broker hears it is not known:
        hence the note of what each was.
        """
        for message in messages:
            self._stored[message.mid] = _content(message)

    def _subject_of(self, topic: str) -> str | None:
        try:
            return self._subjects[topic]
        except KeyError:
            pass
        named = self._report.fullmatch(topic) if self._report else None
        fits = named is not None and len(named[1]) <= THING_CHARS_MAX
        subject = f"{self._subject}{bridge_token(named[1])}.{named[2]}" if named and fits else None
        if len(self._subjects) >= KNOWN_MAX:
            self._subjects.clear()
        self._subjects[topic] = subject
        return subject

    def _hear(self, message: Arrived) -> bool:
        if self._answer.fullmatch(message.topic):
            return True  # from us: a wide tap hears it, but no device has sent it
        tally = Tally() if self.in_backlog else self._live
        heard = [feed.hear(message.topic, message.payload, message.received_ns, tally) for feed in self._feeds]
        if self.in_backlog:
            self._date_back(tally, message.received_ns)
        self._counts.unreadable = sum(feed.unreadable for feed in self._feeds)
        if any(heard):
            # Unlike a report, a tapped message that comes again, after a crash, can't be known from a new one.
            self._counts.redelivered += message.dup
            self._counts.last_message_ns = message.received_ns
        return any(heard)

    def _date_back(self, news: Tally, received_ns: int) -> None:
        for event in news.taken():
            time_ns = self.backlog_ns if event.time == received_ns else event.time
            if event.event in SUMMED and event.count == 1:
                self._old.add(
                    event.event, event.client_id, time_ns, topic=event.topic, size=event.bytes, ip=event.ip,
                    user=event.user,
                )  # fmt: skip
            else:
                self._old.put(msgspec.structs.replace(event, time=time_ns))


def _content(message: Arrived) -> int:
    return hash((message.topic, message.payload))
