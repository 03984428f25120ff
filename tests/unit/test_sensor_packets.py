"""The compiled reader of MQTT headers against its slow twin: any packets, cut anywhere."""

import struct
from itertools import pairwise

import naive_mqtt
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from naive_mqtt import Found, packet, publish, subscribe, text

from daemon.sensor.connect import Malformed, TooMuch
from daemon.sensor.packets import (
    ALIAS,
    CODE,
    COLUMNS,
    COUNT,
    DOWN,
    END,
    FIVE,
    HEAD_MAX,
    JUDGED,
    KIND,
    MALFORMED,
    PACKET_ID,
    PUBLISH,
    QOS,
    REPORT,
    REPORT_MAX,
    REPORTS,
    ROWS_MAX,
    SINGLE,
    SIZE,
    SIZE_MAX,
    SIZE_MIN,
    START,
    TEXT,
    TEXT_LEN,
    scan,
)
from daemon.sensor.stream import ALIASES_MAX, Room, Stream

topics = st.one_of(
    st.sampled_from([b"a", b"a/b", b"a/c", b"$aws/things/p1/defender/metrics/json", "é☂".encode()]),
    st.sampled_from([b"p:1_A-z", b"", b"p.1", b"a/b", b"n" * 128, b"n" * 129, "é".encode()]).map(
        lambda name: b"$aws/things/" + name + b"/defender/metrics/cbor"
    ),
    st.sampled_from([b"$aws/things/p1/defender/metrics/json/accepted", b"$aws/things/p1/defender/metrics/xml"]),
    st.binary(min_size=1, max_size=300),
)
payloads = st.one_of(st.binary(max_size=20), st.integers(0, 400).map(lambda size: b"\x30" * size))
numbers = st.integers(1, 65_535)
properties = st.lists(
    st.one_of(
        numbers.map(lambda n: b"\x23" + struct.pack(">H", n)),
        st.binary(max_size=200).map(lambda data: b"\x03" + text(data)),
        st.tuples(st.binary(max_size=9), st.binary(max_size=9)).map(lambda p: b"\x26" + text(p[0]) + text(p[1])),
        st.just(b"\x02\0\0\0\1"),
    ),
    max_size=3,
).map(b"".join)
codes = st.binary(min_size=1, max_size=4)


def publishes(mode: int) -> st.SearchStrategy[bytes]:
    more = properties if mode & FIVE else st.none()
    return st.builds(publish, topics, payloads, st.integers(0, 2), numbers, more)


def others(mode: int) -> st.SearchStrategy[bytes]:
    """What else goes over the line in this direction."""
    bare = numbers.map(lambda n: struct.pack(">H", n))
    acknowledged = st.tuples(st.sampled_from([0x40, 0x50, 0x62, 0x70]), bare).map(lambda p: packet(*p))
    pings = st.sampled_from([b"\xc0\0", b"\xd0\0"])
    if mode & DOWN:
        five = b"\0" if mode & FIVE else b""
        subacks = st.builds(lambda n, c: packet(0x90, n + five + c), bare, codes)
        connacks = st.integers(0, 255).map(lambda code: packet(0x20, bytes([0, code]) + five))
        refused = st.builds(lambda first, n, code: packet(first, n + bytes([code])),
                            st.sampled_from([0x40, 0x50]), bare, st.integers(0, 255))  # fmt: skip
        return st.one_of(pings, acknowledged, subacks, connacks, *([refused] if mode & FIVE else []))
    said = st.builds(subscribe, numbers, st.sampled_from(["a/#", "+"]), level=st.just(5 if mode & FIVE else 4))
    left = st.sampled_from([b"\xe0\0", *([b"\xe0\1\4", b"\xe0\2\0\0"] if mode & FIVE else [])])
    return st.one_of(pings, acknowledged, said, left)


modes = st.sampled_from([0, DOWN, FIVE, DOWN | FIVE, JUDGED, JUDGED | FIVE, REPORTS, REPORTS | JUDGED])
cases = modes.flatmap(
    lambda mode: st.tuples(
        st.just(mode),
        st.lists(st.one_of(publishes(mode), others(mode)), max_size=12),
        st.randoms(use_true_random=False),
    )
)


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(places), len(stream)]
    return [stream[a:b] for a, b in pairwise(edges) if b > a]


def read(stream: Stream, pieces: list[bytes]) -> list[Found]:
    found = []
    for piece in pieces:
        for row in stream.read(piece):
            whole = stream.whole[row[TEXT] : row[TEXT] + row[TEXT_LEN]] if row[KIND] in (3, 6, 8) else b""
            assert row[COUNT] == 1
            if row[REPORT]:
                assert row[END] <= len(stream.whole), "a report is there whole"
            values = row[KIND], whole, row[SIZE], row[QOS], row[PACKET_ID], row[CODE], row[ALIAS], bool(row[REPORT])
            found.append(Found(*values))
    return found


@given(cases)
@settings(max_examples=400, deadline=None)
def test_a_stream_cut_anywhere_shows_what_its_twin_sees(case) -> None:
    mode, sent, chance = case
    data = b"".join(sent)
    places = [chance.randrange(len(data) + 1) for _ in range(chance.randrange(8))] if data else []
    stream = Stream(mode | SINGLE, room := Room())
    assert read(stream, cut(data, places)) == naive_mqtt.seen(data, mode)
    assert stream.at_edge
    assert room.left == Room().left, "nothing is held behind a whole packet"


@given(cases)
@settings(max_examples=300, deadline=None)
def test_rows_that_share_a_topic_add_up_to_what_the_twin_sees(case) -> None:
    mode, sent, _ = case
    data = b"".join(sent)
    sums: dict[tuple[bytes, int], list[int]] = {}
    stream = Stream(mode, Room())
    for row in stream.read(data):
        if row[KIND] == PUBLISH:
            key = stream.whole[row[TEXT] : row[TEXT] + row[TEXT_LEN]], row[ALIAS]
            found = sums.setdefault(key, [0, 0, 2**62, 0])
            found[:2] = found[0] + row[COUNT], found[1] + row[SIZE]
            found[2:] = min(found[2], row[SIZE_MIN]), max(found[3], row[SIZE_MAX])
    expected: dict[tuple[bytes, int], list[int]] = {}
    for one in naive_mqtt.seen(data, mode):
        if one.kind == 3:
            found = expected.setdefault((one.text, one.alias), [0, 0, 2**62, 0])
            found[:2] = found[0] + 1, found[1] + one.size
            found[2:] = min(found[2], one.size), max(found[3], one.size)
    assert sums == expected


REPORT_TOPIC = b"$aws/things/p1/defender/metrics/json"


def test_a_report_has_its_row_for_itself() -> None:
    sent = [publish(REPORT_TOPIC, b"x", 1, 5), publish(REPORT_TOPIC, b"yy", 2, 6), publish(REPORT_TOPIC, b"z")]
    rows = Stream(REPORTS, Room()).read(b"".join(sent))
    assert [(row[REPORT], row[COUNT], row[SIZE], row[PACKET_ID]) for row in rows] == [
        (1, 1, 1, 5),
        (0, 1, 2, 6),
        (1, 1, 1, 0),
    ]


@pytest.mark.parametrize(
    ("data", "report"),
    [
        (publish(REPORT_TOPIC, b"x" * (REPORT_MAX - 100), 1), 1),
        (publish(REPORT_TOPIC, b"x" * REPORT_MAX, 1), 0),
        (publish(REPORT_TOPIC, b"x", 1, 0), 0),  # a packet without a number: the broker's to judge
    ],
    ids=["long", "too long", "unnumbered"],
)
def test_what_is_too_long_or_odd_for_a_report_is_any_publish(data: bytes, report: int) -> None:
    room = Room()
    stream = Stream(REPORTS, room)
    rows = [row for piece in cut(data, list(range(0, len(data), 30_000))) for row in stream.read(piece)]
    assert [row[REPORT] for row in rows] == [report]
    assert room.left == Room().left


def test_publishes_of_one_topic_share_a_row() -> None:
    rows = Stream(0, Room()).read(publish(b"a", b"xy", 1) * 100 + publish(b"b", b"") + publish(b"a", b"z"))
    assert [(row[TEXT_LEN], row[COUNT], row[SIZE], row[SIZE_MIN], row[SIZE_MAX]) for row in rows] == [
        (1, 101, 201, 1, 2),
        (1, 1, 0, 0, 0),
    ]


def test_more_packets_than_a_table_has_rows_are_all_found() -> None:
    sent = b"".join(publish(b"t%d" % n, b"x" * (n % 3)) for n in range(3 * ROWS_MAX + 5))
    stream = Stream(0, Room())
    rows = stream.read(sent)
    assert [stream.whole[row[TEXT] : row[TEXT] + row[TEXT_LEN]] for row in rows] == [
        b"t%d" % n for n in range(3 * ROWS_MAX + 5)
    ]


@given(st.lists(publishes(0), min_size=1, max_size=9), st.integers(0, 10_000))
@settings(deadline=None)
def test_an_edge_is_where_two_packets_meet(sent, place) -> None:
    data = b"".join(sent)
    ends = [0]
    for one in sent:
        ends.append(ends[-1] + len(one))
    first = data[: place % len(data)]
    stream = Stream(DOWN, Room())
    for piece, behind in ((first, 0), (data[len(first) :], len(first))):
        if piece:
            stream.read(piece)
            if stream.edge >= 0:
                assert behind + stream.edge - (len(stream.whole) - len(piece)) in ends
    assert stream.edge == len(stream.whole) == stream.done or stream.edge == -1


def test_a_payload_is_passed_over_and_never_kept() -> None:
    room = Room(left=100)
    stream = Stream(0, room)
    data = publish(b"a", b"x" * 1_000_000)
    rows = [row for piece in cut(data, list(range(0, len(data), 65_536))) for row in stream.read(piece)]
    assert [row[SIZE] for row in rows] == [1_000_000]
    assert room.left == 100


BAD = {
    "no kind": b"\x00\x00",
    "length of five bytes": b"\x30\xff\xff\xff\xff\x01",
    "topic longer than the packet": b"\x30\x04\x00\x05ab",
    "no room for a topic": b"\x30\x01\x00",
    "no room for a packet id": b"\x32\x03\x00\x01a",
    "QoS 3": b"\x36\x05\x00\x01a\x00\x01",
    "an empty topic": b"\x30\x02\x00\x00",
    "a second CONNECT": naive_mqtt.connect(),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_what_is_no_mqtt_is_recognised(data: bytes) -> None:
    for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
        with pytest.raises(Malformed):
            read(Stream(SINGLE, Room()), [publish(b"a", b"b"), *pieces])


@pytest.mark.parametrize(
    "properties", [b"\x23\0\0", b"\x23\0", b"\x7f", b"\x03\0\5ab", b"\x26\0\1a", b"\x0b\x80"],
)  # fmt: skip
def test_properties_that_cannot_be_read_are_recognised(properties: bytes) -> None:
    with pytest.raises(Malformed):
        Stream(FIVE, Room()).read(publish(b"a", b"", properties=properties))


@pytest.mark.parametrize(
    ("properties", "alias"),
    [(b"\x0b\x81\1\x23\0\7", 7), (b"\x23\0\1\x23\0\2", 2), (b"\x01\1\x02\0\0\0\1\x08\0\1r\x09\0\1c", 0)],
)
def test_the_alias_is_found_among_properties_of_all_kinds(properties: bytes, alias: int) -> None:
    assert Stream(FIVE, Room()).read(publish(b"a", b"", properties=properties))[0][ALIAS] == alias


def test_what_an_alias_stands_for_is_remembered_and_changes() -> None:
    stream = Stream(FIVE | SINGLE, Room())

    def said(topic: bytes) -> bytes:
        return publish(topic, b"", properties=b"\x23\0\5")

    rows = stream.read(said(b"one") + said(b"") + said(b"two") + said(b"") + publish(b"three", b"", properties=b""))
    assert [stream.topic(row) for row in rows] == [b"one", b"one", b"two", b"two", b"three"]


def test_an_alias_that_stands_for_nothing_is_malformed() -> None:
    stream = Stream(FIVE, Room())
    rows = stream.read(publish(b"", b"", properties=b"\x23\0\5"))
    with pytest.raises(Malformed):
        stream.topic(rows[0])


def test_aliases_are_bounded_in_number_and_in_bytes_and_given_back() -> None:
    room = Room(left=ALIASES_MAX)
    stream = Stream(FIVE, room)

    def learn(alias: int) -> None:
        for row in stream.read(publish(b"t", b"", properties=b"\x23" + struct.pack(">H", alias))):
            stream.topic(row)

    for alias in range(1, ALIASES_MAX + 1):
        learn(alias)
    with pytest.raises(TooMuch):
        learn(ALIASES_MAX + 1)
    assert room.left == 0
    stream.close()
    assert room.left == ALIASES_MAX


def test_a_header_that_is_cut_off_needs_room() -> None:
    room = Room(left=1000)
    stream = Stream(0, room)
    piece = publish(b"x" * 60_000, b"")[:900]
    stream.read(piece)
    assert room.left == 100
    with pytest.raises(TooMuch):
        stream.read(b"x" * 101)
    stream.close()
    assert room.left == 1000


def test_a_header_of_many_small_pieces_is_read_only_when_it_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def counting(*args: object) -> object:
        nonlocal calls
        calls += 1
        return scan(*args)

    monkeypatch.setattr("daemon.sensor.stream.scan", counting)
    stream = Stream(0, Room())
    data = publish(b"x" * 60_000, b"end")
    rows = [row for i in range(len(data)) for row in stream.read(data[i : i + 1])]
    assert [row[SIZE] for row in rows] == [3]
    assert calls < 15


@pytest.mark.parametrize(
    ("data", "mode"),
    [
        (b"\x82" + naive_mqtt.varint(HEAD_MAX + 1), JUDGED),
        (b"\x30" + naive_mqtt.varint(400_000) + b"\0\1a" + naive_mqtt.varint(HEAD_MAX), FIVE),
    ],
    ids=["subscribe", "properties"],
)
def test_a_header_that_is_too_long_is_refused_before_it_comes(data: bytes, mode: int) -> None:
    with pytest.raises(TooMuch):
        Stream(mode, Room()).read(data)


def test_a_suback_that_is_too_long_is_passed_on_unread() -> None:
    data = packet(0x90, b"\0\1" + b"\x80" * 100_000)
    stream = Stream(DOWN, Room())
    assert [row for piece in cut(data, [10, 50_000]) for row in stream.read(piece)] == []
    assert stream.at_edge


@given(st.binary(max_size=300), st.integers(0, 31))
@example(b"\x30\x80", 0)
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_read_without_a_step_outside(data: bytes, mode: int) -> None:
    rows = np.zeros((ROWS_MAX, COLUMNS), np.int64)
    done, skip, count, need, edge = scan(np.frombuffer(data, np.uint8), 0, 0, mode, rows)
    assert 0 <= done <= len(data)
    assert -1 <= edge <= len(data)
    assert skip >= 0
    assert need >= MALFORMED - 1
    for row in rows[:count].tolist():
        assert 0 <= row[START] < row[END]
        assert row[TEXT] + row[TEXT_LEN] <= len(data)
        assert row[SIZE] >= row[SIZE_MIN] >= 0
