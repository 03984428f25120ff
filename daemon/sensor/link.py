"""One client and its connection to the broker: bytes go through as they are, and what they say is noted on the way.

Two protocols of asyncio face each other. Whoever can't take more makes the other side wait; whoever ends takes the
other along. Where the doorman judges, packets are looked at before they go on, and a refused one is left out.
"""

import asyncio
from collections.abc import Iterable
from typing import Final, Protocol, cast

from actors.events import DELIVERED, DENIED, PUBLISHED, TEXT_BYTES_MAX
from daemon.sensor import answers, packets
from daemon.sensor.connect import Connect, Malformed, TooMuch, extent, parse
from daemon.sensor.counts import Counts
from daemon.sensor.door import Doorman, Hello, Pass
from daemon.sensor.packets import COUNT, DOWN, END, FIVE, JUDGED, KIND, PUBLISH, SINGLE, START
from daemon.sensor.stream import Room, Row, Stream
from daemon.sensor.sums import TOPICS_MAX, Sum, add, begun

WRITE_HIGH: Final = 64 * 1024  # bytes that a side has not taken: the other waits
ANSWERS_MAX: Final = 64 * 1024  # of ours, that wait for the end of a packet of the broker's
VERDICTS_MAX: Final = 1024
FILTERS_TOLD: Final = 16  # refused filters of one SUBSCRIBE that are named
WITHHELD_MAX: Final = 1024  # QoS 2 publishes refused and not yet released by the client

GREETING, WAITING, PASSING, ENDED = range(4)
STALLED, CROWDED = 1, 2  # why a side is not read: the other side is slow; the sums are full

PUBACK: Final = b"\x40\x02"


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


class Around(Protocol):
    """The sensor, as a link knows it."""

    counts: Counts
    room: Room

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
        "_answers", "_around", "_broker", "_broker_stop", "_client", "_client_stop", "_down", "_early", "_five",
        "_judges", "_swallows", "_up", "_verdicts", "_withheld", "certificate", "client_id", "connect", "delivered",
        "given", "hello", "ip", "is_in", "is_known", "is_named", "said_bye", "session", "since_ns", "state", "sums",
        "user",
    )  # fmt: skip

    def __init__(self, around: Around, session: str, since_ns: int) -> None:
        self._around, self.session, self.since_ns = around, session, since_ns
        self.state = GREETING
        self.connect: Connect | None = None
        self.client_id = self.user = ""
        self.hello: Hello | None = None
        self.given: Pass | None = None
        self.ip = ""
        self.certificate: bytes | None = None
        self.is_in = False  # the broker took it
        self.is_known = False  # what became of its attempt is told
        self.is_named = False
        self.said_bye = False
        self.sums: dict[bytes, Sum] = {}
        self.delivered: dict[bytes, Sum] = {}
        self._client: asyncio.Transport | None = None
        self._broker: asyncio.Transport | None = None
        self._client_stop = self._broker_stop = 0
        self._early = bytearray()
        self._up: Stream | None = None
        self._down: Stream | None = None
        self._five = self._judges = self._swallows = False
        self._verdicts: dict[bytes, bool] | None = None
        self._withheld: set[int] | None = None
        self._answers: bytearray | None = None

    # The client's side (asyncio.Protocol)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._client = transport = cast("asyncio.Transport", transport)  # uvloop's is none by name
        if self.state == ENDED:  # during its handshake
            transport.abort()
            return
        transport.set_write_buffer_limits(high=WRITE_HIGH)
        peer = transport.get_extra_info("peername")
        self.ip = peer[0] if peer else ""
        ssl_object = transport.get_extra_info("ssl_object")
        if ssl_object is not None:
            self.certificate = ssl_object.getpeercert(binary_form=True)
        self._around.arrived(self)

    def data_received(self, data: bytes) -> None:
        try:
            if self.state == PASSING:
                self._forward(data)
            elif self.state == GREETING:
                self._greet(data)
            elif self.state == WAITING:
                self._keep(data)
        except Malformed as problem:
            self._give_up(problem)

    def pause_writing(self) -> None:
        self._stop_broker(STALLED)

    def resume_writing(self) -> None:
        self._go_on_broker(STALLED)

    def connection_lost(self, _error: Exception | None) -> None:
        self._end(by_broker=False)

    # Before it is let through

    def _greet(self, data: bytes) -> None:
        self._keep(data)
        places = extent(self._early)
        if places is None or len(self._early) < places[1]:
            return
        body, end = places
        self.connect = parse(bytes(self._early[body:end]))
        self.client_id, self.user = self.connect.client_id, self.connect.username or ""
        self.is_named = 0 < len(self.client_id.encode()) <= TEXT_BYTES_MAX
        self._drop_early(end)
        self.state = WAITING
        self.stop_reading(STALLED)
        self._around.greeted(self)

    def _keep(self, data: bytes) -> None:
        self._around.room.take(len(data))
        self._early += data

    def _drop_early(self, size: int) -> bytes:
        """The first `size` bytes of what came early; they are kept no longer."""
        self._around.room.give(size)
        gone = bytes(self._early[:size])
        del self._early[:size]
        return gone

    def turn_away(self, answer: bytes) -> None:
        """Say this, and close."""
        if self._client is not None and answer and not self._client.is_closing():
            self._client.write(answer)
        self.close()

    def pass_through(self, broker: asyncio.Transport, greeting: bytes, hello: Hello, given: Pass) -> None:
        """From now on its bytes go to the broker, `greeting` first."""
        assert self._client is not None
        assert self.connect is not None
        self._broker, self.hello, self.given = broker, hello, given
        self._five = self.connect.level == 5
        self.user = given.user or self.user
        self.connect = None  # its bytes are needed no more
        self._judges = given.judges
        mode = FIVE if self._five else 0
        # Aliases mean one thing now and another later, so that MQTT 5 can't be read again in another way.
        judging = (JUDGED | SINGLE if self._five else JUDGED) if self._judges else 0
        self._up = Stream(mode | judging, self._around.room)
        self._down = Stream(mode | DOWN, self._around.room)
        broker.set_write_buffer_limits(high=WRITE_HIGH)
        broker.write(greeting)
        self.state = PASSING
        early = self._drop_early(len(self._early))
        self._early = bytearray()
        if early:
            self.data_received(early)
        self.go_on_reading(STALLED)

    # From the client to the broker

    def _forward(self, data: bytes) -> None:
        up, broker = self._up, self._broker
        assert up is not None
        assert broker is not None
        skip = up.skip
        rows = up.read(data)
        if self._judges:
            self._forward_judged(up, broker, rows, skip)
            return
        for row in rows:
            if row[KIND] == PUBLISH:
                self._published(up.topic(row), row)
            else:
                self._other_up(row)
        broker.write(data)

    def _published(self, topic: bytes, row: Row) -> None:
        found = self.sums.get(topic) or self._begin(self.sums, topic, PUBLISHED)
        if found is not None:
            add(found, row)

    def _other_up(self, row: Row) -> None:
        if row[KIND] == packets.DISCONNECT:
            self.said_bye = True

    def _begin(self, into: dict[bytes, Sum], topic: bytes, kind: int) -> Sum | None:
        """A new sum, unless there is no room for it, or nobody that it would be of."""
        around = self._around
        if not (self.is_named and around.books.has_room(self)):
            return None
        if kind == PUBLISHED and around.refuses(topic.decode(errors="replace")):
            kind = DENIED
        if not self.sums and not self.delivered:
            around.books.heard(self)
        found = into[topic] = begun(around.now_ns(), kind)
        return found

    # The same, where it is judged

    def _forward_judged(self, up: Stream, broker: asyncio.Transport, rows: list[Row], skip: int) -> None:
        verdicts: Iterable[bool] = [self._judge(up, row) for row in rows]
        if not self._swallows and all(verdicts):
            broker.write(up.whole if up.done == len(up.whole) else up.whole[: up.done])
            return
        if not self._five:  # rows that stand for one packet each, judged one after the other: one may bear on the next
            rows = up.again(skip, SINGLE)
            verdicts = (self._may(up, row) for row in rows)
        broker.write(self._sifted(up, rows, verdicts, skip))

    def _judge(self, up: Stream, row: Row) -> bool:
        """Whether a row may pass; what comes of it is counted."""
        kind = row[KIND]
        if kind == PUBLISH:
            topic = up.topic(row)
            may = self._may_publish(topic)
            if may:
                self._published(topic, row)
            else:
                self._around.books.denied(self, topic.decode(errors="replace"), row[COUNT])
            return may
        if kind == packets.SUBSCRIBE:
            return self._judge_filters(self._filters(up, row))
        self._other_up(row)
        return self._may(up, row)

    def _judge_filters(self, filters: list[str]) -> bool:
        refused = [each for each in filters if not self._may_subscribe(each)]
        for each in refused[:FILTERS_TOLD]:
            self._around.books.denied(self, each)
        if len(refused) > FILTERS_TOLD:
            self._around.books.denied(self, "", len(refused) - FILTERS_TOLD)
        return not refused

    def _may(self, up: Stream, row: Row) -> bool:
        """As `_judge`, without a trace. A topic that an alias stands for is not asked for."""
        match row[KIND]:
            case packets.PUBLISH:
                return self._may_publish(up.topic(row))
            case packets.SUBSCRIBE:
                return all(map(self._may_subscribe, self._filters(up, row)))
            case packets.PUBREL:
                return self._withheld is None or row[packets.PACKET_ID] not in self._withheld
            case _:
                return True

    def _may_publish(self, topic: bytes) -> bool:
        verdicts = self._verdicts
        if verdicts is None or len(verdicts) > VERDICTS_MAX:
            verdicts = self._verdicts = {}
        may = verdicts.get(topic)
        if may is None:
            assert self.given is not None
            may = verdicts[topic] = self.given.may_publish(_text(topic))
        return may

    def _may_subscribe(self, topic_filter: str) -> bool:
        assert self.given is not None
        return self.given.may_subscribe(topic_filter)

    def _filters(self, up: Stream, row: Row) -> list[str]:
        body = up.whole[row[packets.TEXT] : row[packets.TEXT] + row[packets.TEXT_LEN]]
        return answers.filters_of(body, 5 if self._five else 4)

    def _sifted(self, up: Stream, rows: list[Row], verdicts: Iterable[bool], skip: int) -> bytes:
        """What may pass of the piece; the refused packets are answered."""
        whole, done = up.whole, up.done
        at = 0
        pieces = []
        if self._swallows:  # the piece begins inside of a refused packet
            at = min(skip, done)
            self._swallows = skip > done
        for row, may in zip(rows, verdicts, strict=True):
            if not may:
                pieces.append(whole[at : row[START]])
                at = min(row[END], done)
                self._swallows = row[END] > len(whole)
                self._refuse(up, row)
        return b"".join([*pieces, whole[at:done]])

    def _refuse(self, up: Stream, row: Row) -> None:
        packet_id, level = row[packets.PACKET_ID], 5 if self._five else 4
        match row[KIND]:
            case packets.PUBLISH:
                if row[packets.QOS] == 2 and not self._five:
                    self._withhold(packet_id)
                self._answer(answers.publish_refused(row[packets.QOS], packet_id, level))
            case packets.SUBSCRIBE:
                self._answer(answers.subscribe_refused(packet_id, len(self._filters(up, row)), level))
            case packets.PUBREL:
                assert self._withheld is not None
                self._withheld.discard(packet_id)
                self._answer(answers.released(packet_id))

    def _withhold(self, packet_id: int) -> None:
        self._withheld = self._withheld if self._withheld is not None else set()
        if len(self._withheld) >= WITHHELD_MAX:
            raise TooMuch("too many refused publishes that the client does not release")
        self._withheld.add(packet_id)

    # From the broker to the client

    def from_broker(self, data: bytes) -> None:
        down, client = self._down, self._client
        if down is None or client is None or self.state == ENDED:
            return
        if len(data) == 4 and not self._five and data[:2] == PUBACK and down.at_edge and not self._answers:
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
        if self._answers and self.is_known:  # CONNACK comes first
            data = self._with_answers(down, data)
        client.write(data)

    def _delivered(self, topic: bytes, row: Row) -> None:
        found = self.delivered.get(topic) or self._begin(self.delivered, topic, DELIVERED)
        if found is not None:
            add(found, row)

    def _other_down(self, row: Row) -> None:
        match row[KIND]:
            case packets.CONNACK:
                self._answered(row[packets.CODE])
            case packets.SUBACK:
                self._around.books.denied(self, "", row[packets.CODE])
            case packets.PUBACK | packets.PUBREC:
                self._around.books.denied(self)
            case packets.DISCONNECT if row[packets.CODE] == answers.NOT_AUTHORIZED:
                self._around.books.denied(self)

    def _answered(self, code: int) -> None:
        if self.is_known:
            raise Malformed("a second CONNACK")
        if code == 0:
            self.is_in = self.is_known = True
            self._around.books.connected(self)
        elif code in ({0x86, answers.NOT_AUTHORIZED, 0x8A} if self._five else {4, 5}):
            self._around.books.denied(self)

    def _answer(self, data: bytes) -> None:
        """Say something of our own, between two packets of the broker's."""
        down, client = self._down, self._client
        assert down is not None
        assert client is not None
        if down.at_edge and self.is_known and not self._answers:
            client.write(data)
            return
        if self._answers is None:
            self._answers = bytearray()
        if len(self._answers) + len(data) > ANSWERS_MAX:
            raise TooMuch("too many answers wait for the end of a packet")
        self._answers += data

    def _with_answers(self, down: Stream, data: bytes) -> bytes:
        """`data` with what waits to be said, where two packets meet; as it is, where none do."""
        at = down.edge - (len(down.whole) - len(data)) if down.edge >= 0 else -1
        if at < 0 or self._answers is None:
            return data
        waiting, self._answers = bytes(self._answers), None
        return data[:at] + waiting + data[at:]

    # Waiting

    def stop_reading(self, why: int) -> None:
        if not self._client_stop and self._client is not None and not self._client.is_closing():
            self._client.pause_reading()
        self._client_stop |= why

    def go_on_reading(self, why: int) -> None:
        stopped = self._client_stop
        self._client_stop &= ~why
        if stopped and not self._client_stop and self._client is not None and not self._client.is_closing():
            self._client.resume_reading()

    def _stop_broker(self, why: int) -> None:
        if not self._broker_stop and self._broker is not None and not self._broker.is_closing():
            self._broker.pause_reading()
        self._broker_stop |= why

    def _go_on_broker(self, why: int) -> None:
        stopped = self._broker_stop
        self._broker_stop &= ~why
        if stopped and not self._broker_stop and self._broker is not None and not self._broker.is_closing():
            self._broker.resume_reading()

    def wait(self) -> None:
        """The sums are full: nothing more is read for now."""
        self.stop_reading(CROWDED)
        self._stop_broker(CROWDED)

    def go_on(self) -> None:
        self.go_on_reading(CROWDED)
        self._go_on_broker(CROWDED)

    @property
    def has_greeted(self) -> bool:
        return self.connect is not None or self.hello is not None

    @property
    def has_ended(self) -> bool:
        return self.state == ENDED

    @property
    def has_unsent(self) -> bool:
        """Whether something that was written is not taken yet."""
        return any(side is not None and side.get_write_buffer_size() > 0 for side in (self._client, self._broker))

    @property
    def is_through(self) -> bool:
        return self.state == PASSING

    @property
    def is_crowded(self) -> bool:
        return bool(self._client_stop & CROWDED)

    @property
    def has_many(self) -> bool:
        return len(self.sums) + len(self.delivered) >= TOPICS_MAX

    # The end

    def recheck(self, doorman: Doorman) -> bool:
        """Whether it may stay, now that the rules are others."""
        self._verdicts = None
        return self.hello is None or self.given is None or doorman.still_good(self.hello, self.given)

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
        self._drop_early(len(self._early))
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
        self.link.stop_reading(STALLED)

    def resume_writing(self) -> None:
        self.link.go_on_reading(STALLED)

    def connection_lost(self, _error: Exception | None) -> None:
        self.link.broker_lost()


def _text(topic: bytes) -> str:
    """Raises Malformed: what is no text can't be judged."""
    try:
        return topic.decode()
    except UnicodeDecodeError as problem:
        raise Malformed("a topic that is no UTF-8") from problem
