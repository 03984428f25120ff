"""The compiled splitter of NATS protocol bytes against its slow twin: any bytes, cut anywhere."""

from itertools import pairwise

import naive_frames
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from actors.entries import classify, frames_of
from actors.messages import BACKLOG, BRIDGED, CONTROL, COPIED, NAME_ENCODED, REPORT_CBOR, REPORT_JSON
from daemon.log import frames
from daemon.log.frames import (
    BODY_LEN,
    BODY_OFF,
    BROKEN,
    ERROR,
    EVENT_COLUMNS,
    EVENTS,
    EXPECTED,
    HEADERS_LEN,
    KIND,
    LINE,
    LINE_LEN,
    LINE_OFF,
    LOG_SID,
    MESSAGE,
    NEED,
    NEXT_CSEQ,
    NEXT_SEQ,
    READ,
    ROW,
    ROWS,
    SEQ,
    SID,
    SKIPPED,
    STATE,
    STATUS,
    STORED,
    TAIL,
    TIMED,
    split,
)
from daemon.log.sheet import Sheet

NAMES = {STATUS: "status", MESSAGE: "message"}


def compiled(chunks: list[bytes], seq: int, cseq: int, events_max: int = 7, *, timed: bool = False) -> list[tuple]:
    """What the kernel finds, chunk by chunk, in the twin's words. A small table of events makes it stop often."""
    sheet = Sheet(sum(map(len, chunks)) + 1)
    events = np.zeros((EVENT_COLUMNS, events_max), np.int64)
    state = np.zeros(STATE, np.int64)
    state[NEXT_SEQ], state[NEXT_CSEQ], state[TIMED] = seq, cseq, timed
    said: list[tuple] = []
    for chunk in chunks:
        sheet.data[sheet.fill : sheet.fill + len(chunk)] = np.frombuffer(chunk, np.uint8)
        sheet.fill += len(chunk)
        while True:
            first = int(state[ROWS])
            split(sheet.data, sheet.fill, LOG_SID, sheet.longs, sheet.places, sheet.bits, events, state)
            said += in_words(sheet, first, events[:, : state[EVENTS]].T.tolist(), int(state[ROWS]))
            if state[ERROR]:
                return [*said, ("malformed",)]
            if said and said[-1][0] == "broken":
                return said
            if state[EVENTS] < events_max:
                break
        assert state[NEED] == 0 or sheet.fill - state[READ] < state[NEED]
    return said


def in_words(sheet: Sheet, first: int, events: list[list[int]], rows: int) -> list[tuple]:
    said: list[tuple] = []
    for event in events:
        said += entries(sheet, first, event[ROW])
        first = event[ROW]
        text = sheet.data.tobytes()
        body = text[event[BODY_OFF] + event[HEADERS_LEN] : event[BODY_OFF] + event[BODY_LEN]]
        match event[KIND]:
            case k if k == LINE:
                said.append(("line", text[event[LINE_OFF] :][: event[LINE_LEN]]))
            case k if k in NAMES:
                said.append((NAMES[k], event[SID], body))
            case k if k == STORED:
                said.append(("stored", event[TAIL], event[SEQ], bool(event[EXPECTED])))
            case k if k == SKIPPED:
                said.append(("skipped", event[EXPECTED], event[SEQ] - 1))
            case k if k == BROKEN:
                said.append(("broken", event[SEQ], event[EXPECTED]))
    return said + entries(sheet, first, rows)


def entries(sheet: Sheet, first: int, last: int) -> list[tuple]:
    found = sheet.frames(first, last)
    columns = (found.seq, found.ts, found.origin, found.kind, found.flags)
    return [
        ("entry", *(int(column[i]) for column in columns), found.subjects()[i], found.tokens()[i], found.payload(i))
        for i in range(len(found))
    ]


# What a server may say

tokens = st.sampled_from(
    [b"p1", b"p//1", b"/", b"a%20b", b"p" * 200, "é".encode(), b"*", b">", b"a\rb", b"\xff", b"", b"a.b"]
)
formats = st.sampled_from([b"json", b"cbor", b"xml", b"", b"json.accepted", b"jsonx"])
subjects = st.one_of(
    st.builds(lambda t, f: b"$aws.things." + t + b".defender.metrics." + f, tokens, formats),
    st.builds(lambda b, t, f: b"detectd.log.report." + b + b"." + t + b"." + f, tokens, tokens, formats),
    st.sampled_from(
        [b"detectd.log.tick", b".json", b"json", b"$aws.things.json", b"$aws.things..cbor", b"detectd.log.report.json"]
    ),
)
payloads = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"\r\n", b"MSG a 2 1\r\nx\r\n", b"PING\r\n", b"{}", b'{"stream":"LOG","seq":7}']),
)
header_lines = st.lists(
    st.sampled_from(
        [
            b"Detectd-First-Time: 17",
            b"Detectd-First-Time:18",
            b"Detectd-First-Time: x",
            b"Detectd-First-Time: ",
            b"Detectd-First-Time: 99999999999999999999",
            b"Detectd-Time: 19",
            b"Detectd-Time: ",
            b"Detectd-Backlog: 1",
            b"Detectd-Backlog: 10",
            b"Detectd-Backlog: 0",
            b"Nmqtt-Pub:1",
            b"Detectd-Backlog",
            b"",
        ]
    ),
    max_size=3,
)
headers = st.one_of(
    st.none(), header_lines.map(lambda lines: b"NATS/1.0\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n")
)


@st.composite
def acks(draw, seqs=st.integers(0, 6), cseqs=st.integers(0, 6)):
    """A JetStream reply subject in one of its forms, or nearly."""
    before = draw(st.sampled_from([b"LOG.c", b"dom.acc.LOG.c", b"LOG", b"LOG.c.d"]))
    after = draw(st.sampled_from([b"", b".rnd"])) if before == b"dom.acc.LOG.c" else b""
    ts = draw(st.sampled_from([b"1795633982911550973", b"0", b"-1", b"9223372036854775808", b"12345678901234567890"]))
    return b"$JS.ACK.%b.1.%d.%d.%b.0%b" % (before, draw(seqs), draw(cseqs), ts, after)


def message(subject: bytes, sid: int, reply: bytes | None, head: bytes | None, payload: bytes) -> bytes:
    target = b" ".join([subject, b"%d" % sid] + ([reply] if reply is not None else []))
    if head is None:
        return b"MSG %b %d\r\n%b\r\n" % (target, len(payload), payload)
    return b"HMSG %b %d %d\r\n%b%b\r\n" % (target, len(head), len(head) + len(payload), head, payload)


sound = st.lists(
    st.one_of(
        st.tuples(st.just("entry"), subjects.filter(lambda s: b"\r\n" not in s), headers, payloads),
        st.sampled_from([(b"PING\r\n"), (b"PONG\r\n"), (b"+OK\r\n"), (b"-ERR 'no'\r\n"), (b'INFO {"a": "b c"} \r\n')]),
        st.builds(
            message,
            st.sampled_from([b"_INBOX.a.5", b"_INBOX.a.r.6", b"_INBOX.a", b"7"]),
            st.sampled_from([1, 2, 3]),
            st.sampled_from([None, b"$JS.FC.LOG.c.x"]),
            st.sampled_from(
                [None, b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Stream: 4\r\n\r\n", b"NATS/1.0\r\na: b\r\n\r\n"]
            ),
            st.sampled_from(
                [
                    b"",
                    b'{"stream":"LOG","seq":12}',
                    b'{"stream":"LOG", "seq": 12,"duplicate":true}',
                    b'{"error":{},"stream":"LOG","seq":0}',
                    b'{"stream":"',
                    b'{"stream":"LOG","seq":}',
                ]
            ),
        ),
    ),
    max_size=12,
)


def in_sequence(items) -> bytes:
    """Number the entries as a good server does."""
    data, seq = b"", 1
    for item in items:
        if isinstance(item, bytes):
            data += item
        else:
            _, subject, head, payload = item
            data += message(
                subject, LOG_SID, b"$JS.ACK.LOG.c.1.%d.%d.1795633982911550973.0" % (seq, seq), head, payload
            )
            seq += 1
    return data


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in pairwise(at)]


@settings(max_examples=300, deadline=None)
@given(sound, st.lists(st.integers(0, 10_000), max_size=8), st.booleans())
def test_what_a_good_server_says_is_read_whatever_the_chunks(items, places, timed):
    data = in_sequence(items)
    found = compiled(cut(data, places), 1, 1, timed=timed)
    assert found == naive_frames.read(data, 1, 1, timed)
    assert sum(what[0] == "entry" for what in found) == sum(not isinstance(item, bytes) for item in items)


def test_every_single_cut_gives_the_same():
    head = b"NATS/1.0\r\nDetectd-First-Time: 17\r\nDetectd-Backlog: 1\r\n\r\n"
    items = [
        ("entry", b"$aws.things.p//1.defender.metrics.json", None, b"{\r\n}"),
        b'INFO {"x":1}\r\n',
        ("entry", b"detectd.log.report.plant.a%20b.cbor", head, b"\x00"),
        b"PING\r\n",
        ("entry", b"detectd.log.tick", None, b""),
    ]
    data = in_sequence(items)
    whole = naive_frames.read(data, 1, 1)
    assert len(whole) == len(items)
    for place in range(len(data) + 1):
        assert compiled([data[:place], data[place:]], 1, 1) == whole
    assert compiled([data[i : i + 1] for i in range(len(data))], 1, 1) == whole


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.builds(message, subjects, st.sampled_from([1, 2, 3]), acks(), headers, payloads), max_size=6),
    st.integers(0, 3),
    st.lists(st.integers(0, 10_000), max_size=4),
)
def test_entries_out_of_order_are_found_as_the_twin_finds_them(messages, seq, places):
    data = b"".join(messages)
    assert compiled(cut(data, places), seq, 1) == naive_frames.read(data, seq, 1)


@settings(max_examples=500, deadline=None)
@given(
    sound,
    st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=3)), min_size=1, max_size=3),
    st.integers(0, 10_000),
)
@example([b"PING\r\n"], [(0, b"MSG \r\n")], 0)
@example([b"PING\r\n"], [(0, b"HMSG a 2 \r\n")], 0)
def test_spoilt_bytes_are_judged_as_the_twin_judges_them(items, spoils, place):
    data = in_sequence(items)
    for at, what in spoils:
        at %= len(data) + 1
        data = data[:at] + what + data[at + len(what) :]
    assert compiled(cut(data, [place]), 1, 1) == naive_frames.read(data, 1, 1)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [b"MSG", b"HMSG", b" ", b"\r\n", b"\r", b"\n", b"1", b"-1", b"a", b"2", b"0", b"+OK", b"$JS.ACK."]
        ),
        max_size=20,
    ),
    st.integers(0, 99),
)
def test_any_bytes_give_an_answer(pieces, place):
    data = b"".join(pieces)
    assert compiled(cut(data, [place]), 1, 1) == naive_frames.read(data, 1, 1)


def test_a_line_without_an_end_is_given_up():
    assert compiled([b"MSG " + b"a" * frames.LINE_MAX, b"a"], 1, 1) == [("malformed",)]


def test_a_size_beyond_all_measure_is_malformed():
    assert compiled([b"MSG a 2 9999999999999\r\n"], 1, 1) == [("malformed",)]


@pytest.mark.parametrize(
    ("subject", "kind", "flags", "token"),
    [
        (b"$aws.things.p1.defender.metrics.json", REPORT_JSON, 0, b"p1"),
        (b"$aws.things.p//1.defender.metrics.cbor", REPORT_CBOR, NAME_ENCODED, b"p//1"),
        (b"detectd.log.report.plant.p1.json", REPORT_JSON, BRIDGED, b"p1"),
        (b"detectd.log.report.plant.a%2Eb.cbor", REPORT_CBOR, BRIDGED | NAME_ENCODED, b"a%2Eb"),
        (b"$aws.things.p1.defender.metrics.json.accepted", CONTROL, 0, b""),
        (b"$aws.things.p1.x.defender.metrics.json", CONTROL, 0, b""),
        (b"$aws.things..defender.metrics.json", CONTROL, 0, b""),
        (b"detectd.log.report.plant.json", CONTROL, 0, b""),
        (b"detectd.log.report..p1.json", CONTROL, 0, b""),
        (b"detectd.log.tick", CONTROL, 0, b""),
    ],
)
def test_a_subject_says_what_an_entry_is(subject, kind, flags, token):
    found = classify(subject)
    assert (found.kind, found.flags, subject[found.name_off :][: found.name_len]) == (kind, flags, token)
    data = message(subject, LOG_SID, b"$JS.ACK.LOG.c.1.1.1.5.0", None, b"x")
    assert compiled([data], 1, 1) == [("entry", 1, 5, 5, kind, flags, subject, token, b"x")]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            subjects.filter(lambda s: b"\xff" not in s),
            st.one_of(st.none(), st.integers(1, 2**62)),
            st.booleans(),
            payloads,
        ),
        max_size=8,
    )
)
def test_a_batch_made_by_hand_is_the_batch_that_came_over_the_wire(items):
    data = b""
    by_hand = []
    for seq, (subject, origin, backlog, payload) in enumerate(items, 1):
        lines = ([b"Detectd-First-Time: %d\r\n" % origin] if origin is not None else []) + (
            [b"Detectd-Backlog: 1\r\n"] if backlog else []
        )
        head = b"NATS/1.0\r\n" + b"".join(lines) + b"\r\n" if lines else None
        data += message(subject, LOG_SID, b"$JS.ACK.LOG.c.1.%d.%d.%d.0" % (seq, seq, seq * 10), head, payload)
        by_hand.append((seq, seq * 10, subject.decode(), payload, origin, BACKLOG if backlog else 0))
    built = frames_of(by_hand)
    made = [
        (
            "entry",
            *(int(c[i]) for c in (built.seq, built.ts, built.origin, built.kind, built.flags)),
            built.subjects()[i],
            built.tokens()[i],
            built.payload(i),
        )
        for i in range(len(built))
    ]
    assert made == compiled([data], 1, 1)
    assert all((bool(row[5] & COPIED)) == (item[1] is not None) for row, item in zip(made, items, strict=True))


def test_a_batch_made_by_hand_can_be_given_to_kernels():
    built = frames_of([(1, 2, "detectd.log.tick", b"", None, 0)])
    assert built.data.flags.writeable
    assert all(column.flags.c_contiguous for column in (built.seq, built.ts, built.kind, built.payload_off))


def test_a_sheets_batches_are_contiguous_columns():
    data = in_sequence([("entry", b"detectd.log.tick", None, b"x")] * 5)
    sheet = Sheet(len(data))
    sheet.data[:] = np.frombuffer(data, np.uint8)
    state = np.zeros(STATE, np.int64)
    state[NEXT_SEQ] = state[NEXT_CSEQ] = 1
    split(
        sheet.data,
        len(data),
        LOG_SID,
        sheet.longs,
        sheet.places,
        sheet.bits,
        np.zeros((EVENT_COLUMNS, 4), np.int64),
        state,
    )
    batch = sheet.frames(1, 4)
    assert batch.seq.tolist() == [2, 3, 4]
    assert all(column.flags.c_contiguous for column in (batch.seq, batch.kind, batch.flags, batch.name_off))
