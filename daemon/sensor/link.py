"""One client and its connection to the broker: bytes go through as they are, and what they say is noted on the way.

Two protocols of asyncio face each other. Whoever can't take more makes the other side wait; whoever ends takes the
other along.
"""

import asyncio
from typing import Final, Protocol, cast

from actors.events import DELIVERED, DENIED, PUBLISHED, TEXT_BYTES_MAX
from daemon.sensor import answers, judging, packets
from daemon.sensor.asides import Asides
from daemon.sensor.connect import Connect, Malformed, TooMuch
from daemon.sensor.counts import Counts
from daemon.sensor.door import Doorman, Hello, Pass, still_good
from daemon.sensor.greeting import Greeting
from daemon.sensor.packets import DOWN, END, FIVE, KIND, PUBLISH, REPORT, REPORTS, START
from daemon.sensor.packing import PUBACK, Reports
from daemon.sensor.stream import Room, Row, Span, Stream, table_of
from daemon.sensor.sums import TOPICS_MAX, Sum, add, begun
from daemon.sensor.valve import CROWDED, DEAF, EARLY, STALLED, Valve

WRITE_HIGH: Final = 64 * 1024  # bytes that a side has not taken: the other waits

GREETING, PASSING, ENDED = range(3)

SILENCE: Final = 1.5  # times the keep-alive (MQTT 3.1.1, 3.1.2.10)


class Books(Protocol):
    """Where it is noted (daemon/sensor/books.py)."""

    def connected(self, link: "Link") -> None: ...
    def denied(self, link: "Link", topic: str = "", count: int = 1) -> None: ...
    def has_room(self, link: "Link") -> bool:
        """For one more sum. Else it is dropped; or the link is made to wait, and its sum is kept all the same."""
        ...

    def heard(self, link: "Link") -> None:
        """It has a first sum since the last collection."""
        ...


class Intake(Protocol):
    """Who takes reports on the short way into the log (daemon/sensor/intake.py)."""

    def take(self, link: "Link", whole: bytes, packets: Reports) -> int:
        """The reports among these packets; how many bytes of `whole` they were."""
        ...


class Around(Protocol):
    """The sensor, as a link knows it."""

    counts: Counts
    room: Room
    now_s: int  # a clock that is looked at once a second

    @property
    def intake(self) -> Intake | None: ...

    @property
    def books(self) -> Books: ...
    def now_ns(self) -> int: ...
    def refuses(self, topic: str) -> bool:
        """Whether the broker refuses a publish there without a word."""
        ...

    def arrived(self, link: "Link") -> None: ...
    def greeted(self, link: "Link") -> None:
        """Its CONNECT is complete (`link.connect`): let it through, or close it."""
        ...

    def ended(self, link: "Link", *, by_broker: bool) -> None: ...


class Link(asyncio.Protocol):
    """The client's side. `session` names it; `connect` is there from its greeting until it is let through."""

    __slots__ = (
        "_around", "_asides", "_broker", "_broker_valve", "_client", "_down", "_five", "_greeting",
        "_intake", "_judge", "_up", "certificate", "client_id", "delivered", "given", "heard_s", "hello", "ip", "is_in",
        "is_known", "is_named", "said_bye", "session", "silence_s", "state", "sums", "user", "valve",
    )  # fmt: skip

    def __init__(self, around: Around, session: str) -> None:
        self._around, self.session = around, session
        self.state = GREETING
        self.client_id = self.user = ""
        self.hello: Hello | None = None
        self.given: Pass | None = None
        self.ip = ""
        self.certificate: bytes | None = None
        self.is_in = False  # the broker took it
        self.is_known = False  # what became of its attempt is told
        self.is_named = False
        self.said_bye = False
        self.heard_s = 0  # by `now_s`, when something came from it last
        self.silence_s = 0.0  # that it may keep; 0: for ever, or that is the broker's to judge
        self.sums: dict[bytes, Sum] = {}
        self.delivered: dict[bytes, Sum] = {}
        self._client: asyncio.Transport | None = None
        self._broker: asyncio.Transport | None = None
        self.valve, self._broker_valve = Valve(), Valve()  # the client's, the broker's side
        self._greeting: Greeting | None = Greeting(around.room)
        self._five = False
        self._up: Stream | None = None
        self._down: Stream | None = None
        self._judge: judging.Judge | None = None
        self._intake: Intake | None = None
        self._asides: Asides | None = None

    # The client's side (asyncio.Protocol)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._client = transport = cast("asyncio.Transport", transport)  # uvloop's is none by name
        if self.state == ENDED:  # during its handshake
            transport.abort()
            return
        transport.set_write_buffer_limits(high=WRITE_HIGH)
        self.valve.attach(transport)
        peer = transport.get_extra_info("peername")
        self.ip = peer[0] if peer else ""
        ssl_object = transport.get_extra_info("ssl_object")
        if ssl_object is not None:
            self.certificate = ssl_object.getpeercert(binary_form=True)
        self._around.arrived(self)

    def data_received(self, data: bytes) -> None:
        self.heard_s = self._around.now_s
        try:
            if self.state == PASSING:
                self._forward(data)
            elif self.state == GREETING:
                self._greet(data)
        except Malformed as problem:
            self._give_up(problem)

    def pause_writing(self) -> None:
        self._broker_valve.close(STALLED)
        if self._asides is not None:
            self.valve.close(DEAF)

    def resume_writing(self) -> None:
        self._broker_valve.open(STALLED)
        self.valve.open(DEAF)

    def connection_lost(self, _error: Exception | None) -> None:
        self._end(by_broker=False)

    # Before it is let through

    @property
    def connect(self) -> Connect | None:
        """What it said of itself, from then on until it is let through."""
        return self._greeting.connect if self._greeting is not None else None

    @property
    def has_greeted(self) -> bool:
        return self.connect is not None or self.hello is not None

    def _greet(self, data: bytes) -> None:
        assert self._greeting is not None
        connect = self._greeting.hear(data)
        if connect is None:
            return
        self.client_id, self.user = connect.client_id, connect.username or ""
        self.is_named = 0 < len(self.client_id.encode()) <= TEXT_BYTES_MAX
        self.valve.close(EARLY)
        self._around.greeted(self)

    def turn_away(self, answer: bytes) -> None:
        """Say this, and close."""
        if self._client is not None and answer and not self._client.is_closing():
            self._client.write(answer)
        self.close()

    def pass_through(self, broker: asyncio.Transport, greeting: bytes, hello: Hello, given: Pass) -> None:
        """From now on its bytes go to the broker, `greeting` first."""
        connect = self.connect
        assert connect is not None
        self._broker, self.hello, self.given = broker, hello, given
        self.user = given.user or self.user
        self._read_both(connect, given)
        broker.set_write_buffer_limits(high=WRITE_HIGH)
        self._broker_valve.attach(broker)
        broker.write(greeting)
        if self._intake is None:
            self._read_on()
        # Else when the broker has taken it: until then no report is anyone's.

    def _read_both(self, connect: Connect, given: Pass) -> None:
        assert self._client is not None
        self._five = connect.level == 5
        mode = FIVE if self._five else 0
        up = mode | (judging.mode(connect.level) if given.judges else 0)
        if not self._five and self._around.intake is not None:
            self._intake, self.silence_s = self._around.intake, SILENCE * connect.keep_alive_s
            up |= REPORTS
        self._up = Stream(up, self._around.room)
        self._down = Stream(mode | DOWN, self._around.room)
        if given.judges or self._intake is not None:
            self._asides = Asides(self._client, self._down)
            if given.judges:
                self._judge = judging.Judge(given, connect.level, self, self._asides)

    def _read_on(self) -> None:
        """What came behind its greeting, and what comes."""
        assert self._greeting is not None
        self.state = PASSING
        early, self._greeting = self._greeting.rest(), None
        if early:
            self.data_received(early)
        self.valve.open(EARLY)

    # From the client to the broker

    def _forward(self, data: bytes) -> None:
        up, broker = self._up, self._broker
        assert up is not None
        assert broker is not None
        skip = up.skip
        rows = up.read(data)
        left_out: list[Span] = []
        if self._judge is None:
            self._note(up, rows)
        else:
            left_out = self._judge.refused(up, rows, skip)
        if self._intake is not None and rows:
            left_out = self._take_reports(self._intake, up, rows, left_out)
        if self._asides is not None:  # else it goes through as it came
            data = up.without(left_out)
        up.whole = b""  # or an idle client would cost what it said last
        if data:
            broker.write(data)

    def _take_reports(self, intake: Intake, up: Stream, rows: list[Row], refused: list[Span]) -> list[Span]:
        """Hand over the reports that are not refused; both, in order: what does not go to the broker."""
        if refused:
            starts = {start for start, _ in refused}
            rows = [row for row in rows if row[START] not in starts]
        taken = [(row[START], row[END]) for row in rows if row[REPORT]]
        if not taken:
            return refused
        if intake.take(self, up.whole, table_of(rows)) == up.done:
            return [(0, up.done)]
        return sorted(refused + taken) if refused else taken

    def _note(self, up: Stream, rows: list[Row]) -> None:
        for row in rows:
            if row[KIND] == PUBLISH:
                self.published(up.topic(row), row)
            else:
                self.said(row)

    def published(self, topic: bytes, row: Row) -> None:
        found = self.sums.get(topic) or self._begin(self.sums, topic, PUBLISHED, may_be_refused=not row[REPORT])
        if found is not None:
            add(found, row)

    def said(self, row: Row) -> None:
        """Anything that is no publish."""
        if row[KIND] == packets.DISCONNECT:
            self.said_bye = True

    def denied(self, topic: str = "", count: int = 1) -> None:
        self._around.books.denied(self, topic, count)

    def _begin(self, into: dict[bytes, Sum], topic: bytes, kind: int, *, may_be_refused: bool = False) -> Sum | None:
        """A new sum, unless there is no room for it, or nobody that it would be of."""
        around = self._around
        if not (self.is_named and around.books.has_room(self)):
            return None
        if may_be_refused and around.refuses(topic.decode(errors="replace")):
            kind = DENIED
        if not self.sums and not self.delivered:
            around.books.heard(self)
        found = into[topic] = begun(around.now_ns(), kind)
        return found

    # From the broker to the client

    def from_broker(self, data: bytes) -> None:
        down, client, asides = self._down, self._client, self._asides
        if down is None or client is None or self.state == ENDED:
            return
        is_plain = len(data) == 4 and not self._five and data[:2] == PUBACK and down.at_edge
        if is_plain and (asides is None or not asides.waiting):
            client.write(data)  # says nothing, and is what comes most
            return
        try:
            for row in down.read(data):
                if row[KIND] == PUBLISH:
                    self._delivered(down.topic(row), row)
                else:
                    self._other_down(row)
        except Malformed as problem:
            self._give_up(problem)
            return
        if asides is not None:
            data = asides.between(data)
        down.whole = b""
        client.write(data)
        if self._greeting is not None and self.is_in:
            self._read_on()

    def say(self, answer: bytes) -> None:
        """Whole packets, to the client, where it is still there."""
        if self._asides is None:
            return
        try:
            self._asides.say(answer)
        except Malformed as problem:
            self._give_up(problem)

    def _delivered(self, topic: bytes, row: Row) -> None:
        found = self.delivered.get(topic) or self._begin(self.delivered, topic, DELIVERED)
        if found is not None:
            add(found, row)

    def _other_down(self, row: Row) -> None:
        match row[KIND]:
            case packets.CONNACK:
                self._answered(row[packets.CODE])
            case packets.SUBACK:
                self.denied("", row[packets.CODE])
            case packets.PUBACK | packets.PUBREC:
                self.denied()
            case packets.DISCONNECT if row[packets.CODE] == answers.NOT_AUTHORIZED:
                self.denied()

    def _answered(self, code: int) -> None:
        if self.is_known:
            raise Malformed("a second CONNACK")
        if code == 0:
            self.is_in = self.is_known = True
            self._around.books.connected(self)
            if self._asides is not None:
                self._asides.begin()
        elif code in ({0x86, answers.NOT_AUTHORIZED, 0x8A} if self._five else {4, 5}):
            self.denied()

    # Waiting

    def wait(self) -> None:
        """The sums are full: nothing more is read for now."""
        self.valve.close(CROWDED)
        self._broker_valve.close(CROWDED)

    def go_on(self) -> None:
        self.valve.open(CROWDED)
        self._broker_valve.open(CROWDED)

    @property
    def has_ended(self) -> bool:
        return self.state == ENDED

    @property
    def has_unsent(self) -> bool:
        """Whether something that was written is not taken yet."""
        return any(side is not None and side.get_write_buffer_size() > 0 for side in (self._client, self._broker))

    @property
    def is_through(self) -> bool:
        return self._broker is not None and self.state != ENDED

    def has_lapsed(self, now_s: int) -> bool:
        """Whether it has been silent for longer than it said it would. While it is not read nobody knows."""
        if self.valve.shut:
            self.heard_s = now_s
        return 0 < self.silence_s < now_s - self.heard_s

    @property
    def is_crowded(self) -> bool:
        return bool(self.valve.shut & CROWDED)

    @property
    def has_many(self) -> bool:
        return len(self.sums) + len(self.delivered) >= TOPICS_MAX

    # The end

    def recheck(self, doorman: Doorman) -> bool:
        """Whether it may stay, now that the rules are others."""
        if self._judge is not None:
            self._judge.forget_verdicts()
        return self.hello is None or self.given is None or still_good(doorman, self.hello, self.given)

    def close(self) -> None:
        """Close both sides, when what was written is sent."""
        for side in (self._client, self._broker):
            if side is not None and not side.is_closing():
                side.close()
        self._end(by_broker=False)

    def abort(self) -> None:
        """Close both sides now."""
        for side in (self._client, self._broker):
            if side is not None:
                side.abort()
        self._end(by_broker=False)

    def broker_lost(self) -> None:
        self._end(by_broker=True)

    def _give_up(self, problem: Malformed) -> None:
        if isinstance(problem, TooMuch):
            self._around.counts.oversize += 1
        else:
            self._around.counts.malformed += 1
        self.close()

    def _end(self, *, by_broker: bool) -> None:
        if self.state == ENDED:
            return
        self.state = ENDED
        for stream in (self._up, self._down):
            if stream is not None:
                stream.close()
        if self._greeting is not None:
            self._greeting.rest()
        self._judge = self._asides = self._intake = None  # they know this link: a circle
        self._around.ended(self, by_broker=by_broker)
        for side in (self._client, self._broker):
            if side is not None and not side.is_closing():
                side.close()


class BrokerSide(asyncio.Protocol):
    """The connection to the broker."""

    __slots__ = ("link",)

    def __init__(self, link: Link) -> None:
        self.link = link

    def data_received(self, data: bytes) -> None:
        self.link.from_broker(data)

    def pause_writing(self) -> None:
        self.link.valve.close(STALLED)

    def resume_writing(self) -> None:
        self.link.valve.open(STALLED)

    def connection_lost(self, _error: Exception | None) -> None:
        self.link.broker_lost()
