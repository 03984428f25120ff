"""Entries in protocol bytes: made from Python objects and from MQTT bytes alike, and readable as rows."""

import naive_frames
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_mqtt import publish

from actors.messages import REPORT_JSON
from daemon.log.parcel import HEAD_BYTES, MSG_ID, WINDOW, WINDOW_BITS, Form, Parcel, Roll, size_of
from daemon.log.sheet import SHEET_BYTES
from daemon.log.writer import Entry
from daemon.sensor.packets import REPORTS
from daemon.sensor.packing import PUBACK_BYTES, pack, room_for
from daemon.sensor.stream import Room, Stream, table_of

NOW_NS = 1_795_633_982_911_550_973

forms = st.sampled_from([Form(), Form(lambda: NOW_NS)])
subjects = st.sampled_from(["detectd.log.tick", "$aws.things.p1.defender.metrics.json", "détectd.ß"])
headers = st.sampled_from([{}, {"Detectd-Backlog": "1"}, {MSG_ID: "mine"}, {"Detectd-First-Time": "17", MSG_ID: "a-1"}])
entries = st.builds(Entry, subjects, st.binary(max_size=40), headers)


def plain(form: Form, entry: Entry, number: int) -> bytes:
    """What is sent for an entry, by the description of the protocol."""
    own = dict(entry.headers)
    named = {} if MSG_ID in own else {MSG_ID: f"{form.named.decode().split(': ')[1]}{number:019}"}
    timed = {"Detectd-Time": f"{NOW_NS}"} if form.timed else {}
    head = "NATS/1.0\r\n" + "".join(f"{k}: {v}\r\n" for k, v in (named | own | timed).items()) + "\r\n"
    sizes = f"{len(head)} {len(head) + len(entry.payload)}"
    line = f"HPUB {entry.subject} _INBOX.{form.inbox}.{number:019} {sizes}\r\n{head}"
    return line.encode() + entry.payload + b"\r\n"


@given(forms, st.lists(st.lists(entries, max_size=4), max_size=4))
@settings(max_examples=100, deadline=None)
def test_what_is_sent_is_what_the_protocol_says_and_reads_as_if_it_had_come_from_the_log(form, batches) -> None:
    parcel = Parcel(form, Roll().sheet(1000), 5)
    sent = []
    for batch in batches:
        assert parcel.has_room(len(batch), sum(map(size_of, batch)))
        parcel.put(batch)
        sent += batch
    number = 5 << WINDOW_BITS
    pieces = [plain(form, entry, number + i) for i, entry in enumerate(sent)]
    assert parcel.number == number
    assert len(parcel) == len(sent)
    for i, piece in enumerate(pieces):
        assert bytes(parcel.publishes(i, i + 1)) == piece
        assert len(piece) <= size_of(sent[i]), "no more than was reckoned with"
    assert b"".join(pieces) == bytes(parcel.publishes(0, len(sent)))
    found = parcel.frames()
    for i, entry in enumerate(sent):
        head = "".join(f"{k}: {v}\r\n" for k, v in entry.headers.items()).encode()
        ts = NOW_NS if form.timed else 0
        told = naive_frames.entry(0, ts, entry.subject.encode(), head, entry.payload, False)
        mine = (int(found.seq[i]), int(found.ts[i]), int(found.origin[i]), int(found.kind[i]), int(found.flags[i]))
        assert told == ("entry", *mine, found.subjects()[i], found.tokens()[i], found.payload(i))


packets = st.one_of(
    st.builds(
        lambda name, fmt, payload, packet_id: publish(
            f"$aws/things/{name}/defender/metrics/{fmt}".encode(), payload, 1 if packet_id else 0, packet_id
        ),
        st.sampled_from(["p1", "a:b_c-d", "x" * 128]),
        st.sampled_from(["json", "cbor"]),
        st.binary(max_size=60),
        st.sampled_from([0, 1, 255, 256, 65_535]),
    ),
    st.just(publish(b"other/topic", b"x", 1, 9)),
)


@given(forms, st.lists(st.lists(packets, min_size=1, max_size=5), min_size=1, max_size=4))
@settings(max_examples=200, deadline=None)
def test_reports_off_a_stream_make_the_same_bytes_as_the_same_entries_by_hand(form, pieces) -> None:
    mine, twin = Parcel(form, Roll().sheet(1000), 7), Parcel(form, Roll().sheet(1000), 7)
    answers, said = np.zeros(PUBACK_BYTES * WINDOW, np.uint8), 0
    acknowledged = b""
    for piece in pieces:
        whole = b"".join(piece)
        rows = Stream(REPORTS, Room()).read(whole)
        assert room_for(whole, table_of(rows)) >= len(whole)
        said, count, taken = pack(mine, whole, table_of(rows), answers, said)
        reports = [one for one in piece if b"other/topic" not in one]
        assert (count, taken) == (len(reports), sum(map(len, reports)))
        for packet in reports:
            topic, qos, packet_id, payload = parts(packet)
            twin.put([Entry(topic.decode().replace("/", "."), payload)])
            acknowledged += b"\x40\2" + packet_id.to_bytes(2) if qos else b""
    assert bytes(mine.publishes(0, len(mine))) == bytes(twin.publishes(0, len(twin)))
    assert answers[:said].tobytes() == acknowledged
    ours, theirs = mine.frames(), twin.frames()
    assert ours.tokens() == theirs.tokens()
    assert [ours.payload(i) for i in range(len(ours))] == [theirs.payload(i) for i in range(len(theirs))]
    assert ours.kind.tolist() == theirs.kind.tolist()
    assert ours.ts.tolist() == theirs.ts.tolist()


def parts(packet: bytes) -> tuple[bytes, int, int, bytes]:
    """(topic, QoS, packet id, payload) of an MQTT 3.1.1 PUBLISH."""
    qos, at = packet[0] >> 1 & 3, 1
    while packet[at] & 128:
        at += 1
    size = int.from_bytes(packet[at + 1 : at + 3])
    topic, rest = packet[at + 3 : at + 3 + size], packet[at + 3 + size :]
    return (topic, qos, int.from_bytes(rest[:2]), rest[2:]) if qos else (topic, 0, 0, rest)


def test_parcels_of_a_roll_lie_one_behind_the_other_until_a_sheet_is_full() -> None:
    roll, form = Roll(), Form()
    first = Parcel(form, roll.sheet(1000), 1)
    first.put([Entry("a", b"x" * 100)] * 3)
    second = Parcel(form, roll.sheet(1000), 2)
    second.put([Entry("a", b"y")])
    assert second.sheet is first.sheet
    assert (second.start, second.first) == (first.end, first.last)
    assert bytes(second.publishes(0, 1)).endswith(b"y\r\n")
    assert first.sheet.extent(first.first, second.last) == second.end - first.start
    large = Parcel(form, roll.sheet(SHEET_BYTES + 1), 3)
    assert large.sheet is not first.sheet
    assert large.has_room(1, SHEET_BYTES + 1)


def test_a_parcel_holds_so_many_entries_and_no_more() -> None:
    parcel = Parcel(Form(), Roll().sheet(HEAD_BYTES * WINDOW), 1)
    parcel.put([Entry("a", b"")] * (WINDOW - 1))
    assert parcel.has_room(1, HEAD_BYTES)
    assert not parcel.has_room(2, 2 * HEAD_BYTES)
    assert not parcel.has_room(1, SHEET_BYTES)


@pytest.mark.parametrize("size", [0, 1, 9, 10, 99, 100, 101, 131_072])
def test_sizes_of_any_length_are_written_right(size: int) -> None:
    form = Form(lambda: 1)
    whole = publish(b"$aws/things/p/defender/metrics/json", b"z" * size, 1, 3)
    parcel = Parcel(form, Roll().sheet(len(whole) + HEAD_BYTES), 1)
    pack(parcel, whole, table_of(Stream(REPORTS, Room()).read(whole)), np.zeros(4, np.uint8), 0)
    frames = parcel.frames()
    assert (len(frames), int(frames.kind[0]), frames.token(0)) == (1, REPORT_JSON, b"p")
    assert frames.payload(0) == b"z" * size
    assert frames.ts.tolist() == [1]
