"""One client and its broker, without sockets: what goes through, what is held back, what is noted."""

import asyncio
import sys
from dataclasses import dataclass, field
from typing import Any

import naive_mqtt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_mqtt import packet, publish, subscribe

from daemon.sensor.asides import WAITING_MAX
from daemon.sensor.connect import parse
from daemon.sensor.counts import Counts
from daemon.sensor.door import Anyone, Hello
from daemon.sensor.judging import WITHHELD_MAX
from daemon.sensor.link import BrokerSide, Link
from daemon.sensor.packets import END, PACKET_ID, START, TEXT, TEXT_LEN
from daemon.sensor.packets import REPORT as REPORT_COLUMN
from daemon.sensor.packets import SIZE as PAYLOAD
from daemon.sensor.packing import Reports
from daemon.sensor.stream import Room
from daemon.sensor.sums import COUNT, SIZE

CONNACK = b"\x20\2\0\0"
CONNACK_FIVE = b"\x20\3\0\0\0"


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.7", 4)})
        self.out = bytearray()
        self.reads = True
        self.closed = self.aborted = False
        self.high = 0

    def write(self, data: Any) -> None:
        assert not self.closed
        self.out += data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high or 0

    def pause_reading(self) -> None:
        assert self.reads
        self.reads = False

    def resume_reading(self) -> None:
        assert not self.reads
        self.reads = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def said(self) -> bytes:
        out = bytes(self.out)
        self.out.clear()
        return out


class Taken:
    """The reports that were taken off a stream (`link.Intake`)."""

    def __init__(self) -> None:
        self.reports: list[tuple[bytes, bytes, int]] = []

    def take(self, link: Link, whole: bytes, packets: Reports) -> int:
        taken = 0
        for row in packets.tolist():
            if row[REPORT_COLUMN]:
                topic = whole[row[TEXT] : row[TEXT] + row[TEXT_LEN]]
                self.reports.append((topic, whole[row[END] - row[PAYLOAD] : row[END]], row[PACKET_ID]))
                taken += row[END] - row[START]
        return taken


@dataclass
class House:
    """What a link is told to tell (`link.Around`)."""

    counts: Counts = field(default_factory=Counts)
    room: Room = field(default_factory=Room)
    told: list[tuple[Any, ...]] = field(default_factory=list)
    full: bool = False
    now_s: int = 0
    intake: "Taken | None" = None

    @property
    def books(self) -> "House":
        return self

    def now_ns(self) -> int:
        return 7

    def refuses(self, topic: str) -> bool:
        return topic.startswith("$JS/")

    def arrived(self, link: Link) -> None:
        self.told.append(("arrived", link.ip))

    def greeted(self, link: Link) -> None:
        self.told.append(("greeted", link.client_id))

    def connected(self, link: Link) -> None:
        self.told.append(("connected",))

    def denied(self, link: Link, topic: str = "", count: int = 1) -> None:
        self.told.append(("denied", topic, count))

    def has_room(self, link: Link) -> bool:
        return not self.full

    def heard(self, link: Link) -> None:
        self.told.append(("heard",))

    def ended(self, link: Link, *, by_broker: bool) -> None:
        self.told.append(("ended", by_broker))


@dataclass
class Picky:
    """Lets pass what does not begin with "no"."""

    user: str = "bob"
    judges: bool = True
    word: str = "no"

    def may_publish(self, topic: str) -> bool:
        return not topic.startswith(self.word)

    def may_subscribe(self, topic_filter: str) -> bool:
        return self.may_publish(topic_filter)


class Pair:
    """A link that was let through, and both its wires."""

    def __init__(self, given_pass: Any = None, *, level: int = 4, early: bytes = b"", known: bool = True,
                 intake: Taken | None = None, keep_alive: int = 0) -> None:  # fmt: skip
        self.house = House(intake=intake)
        self.client, self.broker = Wire(), Wire()
        self.link = Link(self.house, "s-1")
        self.link.connection_made(self.client)
        greeting = naive_mqtt.connect("p1", level=level, keep_alive=keep_alive)
        self.link.data_received(greeting + early)
        assert self.link.connect is not None
        self.link.pass_through(
            self.broker, self.link.connect.whole, Hello("p1", None, None, None, ""), given_pass or Anyone("bob")
        )
        assert self.broker.said() == greeting + early if given_pass is None and intake is None else True
        if known:
            self.link.from_broker(CONNACK_FIVE if level == 5 else CONNACK)
            self.client.said()

    def denied(self) -> list[tuple[str, int]]:
        return [(one[1], one[2]) for one in self.house.told if one[0] == "denied"]


def test_a_client_that_greets_is_announced_and_not_read_until_it_is_let_through() -> None:
    house, wire = House(), Wire()
    link = Link(house, "s")
    link.connection_made(wire)
    greeting = naive_mqtt.connect("p1")
    for at in range(len(greeting)):
        assert ("greeted", "p1") not in house.told
        link.data_received(greeting[at : at + 1])
    assert house.told == [("arrived", "192.0.2.7"), ("greeted", "p1")]
    assert not wire.reads


def test_what_comes_behind_the_greeting_goes_through_behind_it() -> None:
    pair = Pair(early=publish(b"a", b"xy", 1), known=False)
    assert pair.client.reads
    assert pair.link.sums[b"a"][COUNT] == 1


@pytest.mark.parametrize(
    ("data", "counter"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "malformed"),
        (b"\x10\xff\xff\xff\x7f", "oversize"),
        (b"\x10\x02\0\0", "malformed"),
        (b"\xc0\0", "malformed"),
    ],
)
def test_what_is_no_greeting_costs_the_connection(data: bytes, counter: str) -> None:
    house, wire = House(), Wire()
    link = Link(house, "s")
    link.connection_made(wire)
    link.data_received(data)
    assert wire.closed
    assert getattr(house.counts, counter) == 1
    assert house.room.left == Room().left


def test_bytes_go_through_as_they_are_and_are_counted() -> None:
    pair = Pair()
    up = publish(b"a", b"xyz", 1) * 3 + publish(b"$JS/API", b"q") + b"\xc0\0"
    down = publish(b"b", b"12345") + b"\x40\2\0\1" + b"\xd0\0"
    pair.link.data_received(up)
    pair.link.from_broker(down)
    assert pair.broker.said() == up
    assert pair.client.said() == down
    assert {topic: (one[1], one[COUNT], one[SIZE]) for topic, one in pair.link.sums.items()} == {
        b"a": (3, 3, 9),
        b"$JS/API": (5, 1, 1),  # refused by the broker without a word
    }
    assert {topic: (one[COUNT], one[SIZE]) for topic, one in pair.link.delivered.items()} == {b"b": (1, 5)}


def test_a_client_without_a_name_is_passed_through_unnoted() -> None:
    house, client, broker = House(), Wire(), Wire()
    link = Link(house, "s")
    link.connection_made(client)
    link.data_received(naive_mqtt.connect(""))
    assert link.connect is not None
    link.pass_through(broker, link.connect.whole, Hello("", None, None, None, ""), Anyone(""))
    link.from_broker(CONNACK)
    link.data_received(publish(b"a", b"b"))
    assert (link.sums, link.is_named) == ({}, False)


@pytest.mark.parametrize(
    ("level", "data", "expected"),
    [
        (4, b"\x90\4\0\1\x80\x01", [("", 1)]),
        (5, b"\x90\5\0\1\0\x87\x8f", [("", 1)]),
        (5, b"\x40\3\0\1\x87", [("", 1)]),
        (5, b"\x50\3\0\1\x80", [("", 1)]),
        (5, b"\x50\3\0\1\x91", []),
        (5, b"\xe0\1\x87", [("", 1)]),
        (4, b"\x40\2\0\1", []),
    ],
)
def test_refusals_of_the_broker_are_noted(level: int, data: bytes, expected: list[tuple[str, int]]) -> None:
    pair = Pair(level=level)
    pair.link.from_broker(data)
    assert pair.denied() == expected
    assert pair.client.said() == data


@pytest.mark.parametrize(
    ("level", "data", "denied"),
    [
        (4, b"\x20\2\0\5", 1),
        (4, b"\x20\2\0\4", 1),
        (4, b"\x20\2\0\2", 0),
        (5, b"\x20\3\0\x87\0", 1),
        (5, b"\x20\2\0\1", 0),
    ],
)
def test_a_client_that_the_broker_does_not_take_was_never_connected(level: int, data: bytes, denied: int) -> None:
    pair = Pair(level=level, known=False)
    pair.link.from_broker(data)
    assert len(pair.denied()) == denied
    assert not pair.link.is_in
    assert ("connected",) not in pair.house.told


def test_each_side_waits_for_the_other() -> None:
    pair = Pair()
    pair.link.pause_writing()
    assert not pair.broker.reads
    pair.link.resume_writing()
    assert pair.broker.reads
    BrokerSide(pair.link).pause_writing()
    pair.link.wait()
    BrokerSide(pair.link).resume_writing()
    assert not pair.client.reads, "the sums are still full"
    pair.link.go_on()
    assert (pair.client.reads, pair.broker.reads) == (True, True)
    assert pair.client.high == pair.broker.high > 0


@pytest.mark.parametrize("side", ["client", "broker"])
def test_an_end_takes_the_other_side_along_and_is_told_once(side: str) -> None:
    pair = Pair()
    pair.link.data_received(b"\x30\xff")  # something is held
    if side == "client":
        pair.link.connection_lost(None)
    else:
        BrokerSide(pair.link).connection_lost(None)
    pair.link.close()
    assert [one for one in pair.house.told if one[0] == "ended"] == [("ended", side == "broker")]
    assert pair.client.closed or pair.broker.closed
    assert pair.house.room.left == Room().left


def test_a_goodbye_is_noted_and_passed_on() -> None:
    pair = Pair()
    pair.link.data_received(b"\xe0\0")
    assert pair.link.said_bye
    assert pair.broker.said() == b"\xe0\0"


# Where it is judged

topics = st.sampled_from([b"a", b"b", b"no", b"no/way", b"no/" + b"x" * 200])
up_packets = st.one_of(
    st.builds(publish, topics, st.binary(max_size=40), st.integers(0, 2), st.integers(1, 9)),
    st.builds(subscribe, st.integers(1, 9), st.sampled_from(["a", "no"]), st.sampled_from(["b", "no/b"])),
    st.integers(1, 9).map(lambda n: packet(0x62, bytes([0, n]))),
    st.just(b"\xc0\0"),
)


def judged(sent: list[bytes], word: bytes = b"no") -> tuple[bytes, bytes]:
    """(what reaches the broker, what the client is told), packet by packet: topics with this word are refused."""
    through, answers, withheld = b"", b"", set()
    for each in sent:
        (found, *_) = naive_mqtt.seen(each, naive_mqtt.JUDGED) or [naive_mqtt.Found(0)]
        number = bytes([0, found.packet_id])
        if found.kind == 3 and word in found.text:
            answers += {0: b"", 1: packet(0x40, number), 2: packet(0x50, number)}[found.qos]
            withheld |= {found.packet_id} if found.qos == 2 else set()
        elif found.kind == 8 and b"no" in found.text:
            answers += packet(0x90, number + b"\x80\x80")
        elif found.kind == 6 and found.packet_id in withheld:
            answers += packet(0x70, number)
            withheld.discard(found.packet_id)
        else:
            through += each
    return through, answers


def send_in_pieces(pair: Pair, data: bytes, chance: Any) -> None:
    while data:
        size = chance.choice([1, 2, 5, 60, 1000])
        pair.link.data_received(data[:size])
        data = data[size:]


@given(st.lists(up_packets, max_size=12), st.randoms(use_true_random=False))
@settings(max_examples=400, deadline=None)
def test_refused_packets_are_left_out_and_answered_wherever_the_stream_is_cut(sent, chance) -> None:
    pair = Pair(Picky())
    pair.broker.said()
    send_in_pieces(pair, b"".join(sent), chance)
    assert (pair.broker.said(), pair.client.said()) == judged(sent)
    published = sum(one[COUNT] for one in pair.link.sums.values())
    assert published == sum(f.kind == 3 and not f.text.startswith(b"no") for f in naive_mqtt.seen(b"".join(sent), 0))
    refused = sum(f.kind == 3 and f.text.startswith(b"no") for f in naive_mqtt.seen(b"".join(sent), 0))
    assert sum(count for topic, count in pair.denied() if topic == "no" or topic.startswith("no/")) >= refused


@given(
    st.lists(up_packets, max_size=6), st.lists(st.binary(max_size=30), max_size=6), st.randoms(use_true_random=False)
)
@settings(max_examples=300, deadline=None)
def test_our_answers_never_tear_a_packet_of_the_broker(sent, payloads, chance) -> None:
    pair = Pair(Picky())
    up, down = b"".join(sent), b"".join(publish(b"d", payload) for payload in payloads)
    while up or down:
        if chance.random() < 0.5:
            size = chance.choice([1, 3, 100])
            pair.link.data_received(up[:size]) if up else None
            up = up[size:]
        else:
            size = chance.choice([1, 3, 20])
            pair.link.from_broker(down[:size]) if down else None
            down = down[size:]
    pair.link.from_broker(b"\xd0\0")  # whatever waited may be said now
    told = naive_mqtt.packets(pair.client.said())
    expected = [publish(b"d", payload) for payload in payloads]
    assert [one for one in told if one[0] == 0x30] == expected
    assert b"".join(one for one in told if one[0] not in (0x30, 0xD0)) == judged(sent)[1]


@given(
    st.lists(st.tuples(st.sampled_from([b"", b"", b"a", b"no"]), st.integers(1, 2), st.integers(0, 2)), max_size=10),
    st.integers(1, 50),
)
@settings(max_examples=200, deadline=None)
def test_aliases_are_judged_by_what_they_stand_for_then(said, size) -> None:
    sent, known = [], {}
    for topic, alias, qos in said:
        if topic or alias in known:
            known[alias] = topic or known[alias]
            sent.append((known[alias], publish(topic, b"p", qos, 3, b"\x23\0" + bytes([alias]))))
    pair = Pair(Picky(), level=5)
    pair.broker.said()
    data = b"".join(each for _, each in sent)
    for at in range(0, len(data), size):
        pair.link.data_received(data[at : at + size])
    assert pair.broker.said() == b"".join(each for topic, each in sent if topic != b"no")
    assert sum(count for _, count in pair.denied()) == sum(topic == b"no" for topic, _ in sent)


def test_an_answer_waits_for_the_broker_to_take_the_client() -> None:
    pair = Pair(Picky(), early=publish(b"no", b"x", 1, 5), known=False)
    assert pair.client.said() == b""
    for at in range(4):
        pair.link.from_broker(CONNACK[at : at + 1])
    pair.link.from_broker(b"\xd0\0")
    assert pair.client.said() in (CONNACK + b"\x40\2\0\5\xd0\0", CONNACK + b"\xd0\0\x40\2\0\5")


def test_a_refused_payload_of_many_pieces_is_swallowed_whole() -> None:
    pair = Pair(Picky())
    pair.broker.said()
    data = publish(b"no", b"x" * 500_000, 1, 5) + publish(b"a", b"y")
    for at in range(0, len(data), 65_536):
        pair.link.data_received(data[at : at + 65_536])
    assert pair.broker.said() == publish(b"a", b"y")
    assert pair.client.said() == b"\x40\2\0\5"


def test_other_rules_are_asked_anew() -> None:
    rules = Picky()
    pair = Pair(rules)
    pair.broker.said()
    pair.link.data_received(publish(b"no", b"x"))
    assert pair.broker.said() == b""
    rules.word = "yes"

    class Door:
        def still_good(self, _hello: Hello, _given: Any) -> bool:
            return True

    assert pair.link.recheck(Door())  # type: ignore[arg-type]
    pair.link.data_received(publish(b"no", b"x"))
    assert pair.broker.said() == publish(b"no", b"x")


def test_what_waits_on_a_client_is_bounded() -> None:
    pair = Pair(Picky())
    pair.link.from_broker(publish(b"d", b"x" * 100)[:50])  # an unfinished packet: nothing can be said
    for _ in range(WAITING_MAX // 4 + 1):
        pair.link.data_received(publish(b"no", b"", 1, 5))
    assert pair.client.closed
    assert pair.house.counts.oversize == 1
    pair = Pair(Picky())
    for number in range(1, WITHHELD_MAX + 2):
        pair.link.data_received(publish(b"no", b"", 2, number))
    assert pair.client.closed


@pytest.mark.parametrize("topic", [b"\xff", b"\xc3"])
def test_a_topic_that_is_no_text_cannot_be_judged_and_is_not_let_through(topic: bytes) -> None:
    pair = Pair(Picky())
    pair.broker.said()
    pair.link.data_received(publish(topic, b"x"))
    assert pair.broker.said() == b""
    assert pair.client.closed


@pytest.mark.parametrize("rules", [None, Picky()], ids=["unread", "judged"])
def test_nothing_that_went_through_is_kept(rules: Any) -> None:
    pair = Pair(rules)
    up, down = publish(b"a", b"x") + publish(b"no", b"x"), publish(b"b", b"x")
    before = sys.getrefcount(up), sys.getrefcount(down)
    pair.link.data_received(up)
    pair.link.from_broker(down)
    assert (sys.getrefcount(up), sys.getrefcount(down)) == before


def test_without_room_a_topic_is_not_noted_and_goes_through() -> None:
    pair = Pair()
    pair.house.full = True
    pair.link.data_received(publish(b"a", b"x"))
    assert pair.broker.said() == publish(b"a", b"x")
    assert pair.link.sums == {}


def test_the_parsed_greeting_is_the_one_that_came() -> None:
    greeting = naive_mqtt.connect("p1", user="u", password=b"p", will=("w", b"gone"))
    assert parse(greeting[2:]).whole == greeting


# Where reports are taken off

REPORT = b"$aws/things/p1/defender/metrics/json"
OTHERS = b"$aws/things/no/defender/metrics/cbor"


class Own(Picky):
    """Refuses the reports of another, too."""

    def may_publish(self, topic: str) -> bool:
        return self.word not in topic


reported = st.builds(publish, st.sampled_from([REPORT, OTHERS]), st.binary(max_size=90), st.integers(0, 2),
                     st.integers(1, 9))  # fmt: skip


@pytest.mark.parametrize("rules", [None, Own()], ids=["open", "judged"])
@given(st.lists(st.one_of(up_packets, reported), max_size=12), st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None)
def test_reports_are_taken_off_and_all_else_goes_on_wherever_the_stream_is_cut(rules, sent, chance) -> None:
    pair = Pair(rules, intake=(intake := Taken()))
    pair.broker.said()
    send_in_pieces(pair, b"".join(sent), chance)
    found = [naive_mqtt.seen(each, naive_mqtt.REPORTS) for each in sent]
    is_report = [bool(one) and one[0].report and (rules is None or one[0].text == REPORT) for one in found]
    rest = [each for each, mine in zip(sent, is_report, strict=True) if not mine]
    expected, answers = judged(rest) if rules is not None else (b"".join(rest), b"")
    assert (pair.broker.said(), pair.client.said()) == (expected, answers)
    assert intake.reports == [
        (one[0].text, each[len(each) - one[0].size :], one[0].packet_id)
        for each, one, mine in zip(sent, found, is_report, strict=True)
        if mine
    ]
    published = sum(one[COUNT] for one in pair.link.sums.values())
    passed = sum(f.kind == 3 for f in naive_mqtt.seen(expected, 0))
    assert published == passed + len(intake.reports), "a report is a message that was published, too"


def test_nothing_is_taken_before_the_broker_has_taken_the_client() -> None:
    early = publish(REPORT, b"{}", 1, 5) + publish(b"a", b"x")
    pair = Pair(early=early, known=False, intake=(intake := Taken()))
    assert pair.broker.said() == naive_mqtt.connect("p1")
    assert not pair.client.reads
    pair.link.data_received(publish(b"b", b"y"))  # TLS may hand over what it has, though it is not to be read
    assert intake.reports == []
    pair.link.from_broker(CONNACK)
    assert pair.client.reads
    assert intake.reports == [(REPORT, b"{}", 5)]
    assert pair.broker.said() == publish(b"a", b"x") + publish(b"b", b"y")
    assert pair.house.room.left == Room().left


def test_a_client_that_the_broker_refuses_has_reported_nothing() -> None:
    pair = Pair(early=publish(REPORT, b"{}", 1, 5), known=False, intake=(intake := Taken()))
    pair.link.from_broker(b"\x20\2\0\2")
    pair.link.broker_lost()
    assert intake.reports == []
    assert pair.house.room.left == Room().left


def test_a_client_that_takes_no_answers_is_not_read() -> None:
    pair = Pair(intake=Taken())
    pair.link.pause_writing()
    assert (pair.client.reads, pair.broker.reads) == (False, False)
    pair.link.resume_writing()
    assert (pair.client.reads, pair.broker.reads) == (True, True)


def test_an_answer_is_said_between_packets_and_not_to_who_is_gone() -> None:
    pair = Pair(intake=Taken())
    down = publish(b"d", b"x" * 50)
    pair.link.from_broker(down[:20])
    pair.link.say(b"\x40\2\0\5")
    pair.link.from_broker(down[20:])
    assert pair.client.said() == down + b"\x40\2\0\5"
    pair.link.close()
    pair.link.say(b"\x40\2\0\6")
    assert pair.client.said() == b""


def test_who_is_silent_for_longer_than_it_said_has_lapsed() -> None:
    pair = Pair(intake=Taken(), keep_alive=10)
    assert not pair.link.has_lapsed(15)
    assert pair.link.has_lapsed(16)
    pair.house.now_s = 16
    pair.link.data_received(b"\xc0\0")
    assert not pair.link.has_lapsed(31)
    pair.link.wait()
    assert not pair.link.has_lapsed(60), "while it is not read nobody knows"
    pair.link.go_on()
    assert not pair.link.has_lapsed(75)
    assert pair.link.has_lapsed(76)
    assert not Pair(intake=Taken()).link.has_lapsed(10**6), "it may be silent for ever"
    assert not Pair(keep_alive=10).link.has_lapsed(10**6), "its broker sees to that"
