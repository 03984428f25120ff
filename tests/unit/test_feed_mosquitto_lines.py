"""What each line of a Mosquitto's log becomes (the lines are 2.0.11's), and that no client speaks for another."""

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.events import Event, packed, unpacked
from daemon.brokers._log_file import FileTotals
from daemon.brokers._tally import Tally
from daemon.brokers.mosquitto_log import CONNECTED_MAX, LINE_BYTES_MAX, STRANGE_MAX, Knowledge, Lines

NS = 1_000_000_000
NOW_NS = 1_795_664_999 * NS
AT = 1_795_664_879
AT_NS = AT * NS


def read(*lines: str | bytes, totals: FileTotals | None = None) -> list[Event]:
    tally = Tally()
    content = [line if isinstance(line, bytes) else line.encode() for line in lines]
    Lines(totals or FileTotals()).take(content, NOW_NS, tally)
    return tally.taken()


def up(client: str, port: int = 44594, user: str = "") -> str:
    return f"{AT}: New client connected from 127.0.0.1:{port} as {client} (p2, c1, k60" + (
        f", u'{user}')." if user else ")."
    )


def message(client: str, topic: str = "ok/a", what: str = "Received PUBLISH from", size: int = 5) -> str:
    return f"{AT}: {what} {client} (d0, q1, r0, m1, '{topic}', ... ({size} bytes))"


def began(client: str, port: int = 44594, user: str = "") -> Event:
    session = f"127.0.0.1:{port}@{AT}"
    return Event(event="connected", client_id=client, time=AT_NS, ip="127.0.0.1", user=user, session=session)


def ended(client: str, port: int | None = None) -> Event:
    session = f"127.0.0.1:{port}@{AT}" if port else ""
    return Event(event="disconnected", client_id=client, time=AT_NS, session=session)


def sent(client: str, topic: str = "ok/a", kind: str = "published", size: int = 5) -> Event:
    return Event(event=kind, client_id=client, time=AT_NS, topic=topic, bytes=size, bytes_min=size, bytes_max=size)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (up("p1", user="good"), [began("p1", user="good")]),
        (up("p1"), [began("p1")]),
        (up("we ird as x"), [began("we ird as x")]),
        (up("a (p2, c1, k60)"), [began("a (p2, c1, k60)")]),
        (up("nouser' (p2, c1, k0, u'x"), [began("nouser' (p2, c1, k0, u'x")]),
        (f"{AT}: New client connected from ::1:44594 as p1 (p5, c0, k0).",
         [Event(event="connected", client_id="p1", time=AT_NS, ip="::1", session=f"::1:44594@{AT}")]),
        (f"{AT}: New client connected from ::ffff:192.0.2.7:1 as p1 (p5, c0, k0).",
         [Event(event="connected", client_id="p1", time=AT_NS, ip="192.0.2.7", session=f"::ffff:192.0.2.7:1@{AT}")]),
        (f"{AT}: Client p1 disconnected.", [ended("p1")]),
        (f"{AT}: Client p1 closed its connection.", [ended("p1")]),
        (f"{AT}: Client p1 has exceeded timeout, disconnecting.", [ended("p1")]),
        (f"{AT}: Client s1 already connected, closing old connection.", [ended("s1")]),
        (f"{AT}: Client p1 disconnected due to protocol error.", [ended("p1")]),
        (f"{AT}: Client p1 disconnected due to malformed packet.", [ended("p1")]),
        (f"{AT}: Client p1 disconnected: Connection reset by peer.", [ended("p1")]),
        (f"{AT}: Bad socket read/write on client p1: Unknown error.", [ended("p1")]),
        (f"{AT}: Bad socket read/write on client a: b: Unknown error.", [ended("a: b")]),
        (f"{AT}: Client x' as 'y closed its connection.", [ended("x' as 'y")]),
        (f"{AT}: Client a disconnected due to b disconnected.", [ended("a disconnected due to b")]),
        (f"{AT}: Client a disconnected: x disconnected due to protocol error.", [ended("a disconnected: x")]),
        (message("p1"), [sent("p1")]),
        (message("p1", what="Dropped too large PUBLISH from"), [sent("p1")]),
        (message("s1", what="Sending PUBLISH to"), [sent("s1", kind="delivered")]),
        (message("p2", what="Denied PUBLISH from"), [Event(event="denied", client_id="p2", time=AT_NS, topic="ok/a")]),
        (message("p1", "ok/it's"), [sent("p1", "ok/it's")]),
        (message("evil' x", "ok/ä', ... (7 bytes))"), [sent("evil' x", "ok/ä', ... (7 bytes))")]),
        (message("p1", "a(b)"), [sent("p1", "a(b)")]),
        (message("p (1)", "t"), [sent("p (1)", "t")]),
        (f"{AT}: New connection from 127.0.0.1:44566 on port 28831.", []),
        (f"{AT}: Sending CONNACK to 127.0.0.1 (0, 5)", []),
        (f"{AT}: Received SUBSCRIBE from s1", []),
        (f"{AT}: \tok/# (QoS 1)", []),
        (f"{AT}: s1 1 ok/#", []),
        ("", []),
    ],
)  # fmt: skip
def test_each_line_becomes_what_it_says(line: str, expected: list[Event]) -> None:
    totals = FileTotals()
    assert read(line, totals=totals) == expected
    assert (totals.lines, totals.unreadable, totals.ambiguous) == (1, 0, 0)


@pytest.mark.parametrize(
    ("before", "time_ns"),
    [
        (f"{AT}: ", AT_NS),
        ("2026-11-26T04:47:59+0100: ", AT_NS),
        ("2026-11-26T03:47:59Z: ", AT_NS),
        ("2026-11-26 03:47:59,123+00:00: ", AT_NS),
        ("", NOW_NS),
        ("26/Nov/2026 04.47.59: ", NOW_NS),
        ("2026-99-99T99:99:99: ", NOW_NS),
        (f"{NOW_NS // NS + 3600}: ", NOW_NS),  # the future
    ],
)
def test_time_is_the_lines_where_it_can_be_read_and_not_ahead_of_ours(before: str, time_ns: int) -> None:
    line = message("p1").partition(": ")[2]
    assert [event.time for event in read(before + line)] == [time_ns]


def test_a_local_time_without_an_offset_is_this_machines() -> None:
    local = datetime.fromtimestamp(AT, UTC).astimezone().strftime("%Y-%m-%dT%H:%M:%S")
    assert [event.time for event in read(f"{local}: Client p1 disconnected.")] == [AT_NS]


def test_a_connection_and_its_end_have_one_session() -> None:
    lines = [up("s1", 1), f"{AT}: Client s1 already connected, closing old connection.", up("s1", 2),
             f"{AT}: Client s1 disconnected."]  # fmt: skip
    assert read(*lines) == [began("s1", 1), ended("s1", 1), began("s1", 2), ended("s1", 2)]


def test_without_a_time_in_the_line_a_connection_has_no_session() -> None:
    assert [event.session for event in read("New client connected from 127.0.0.1:1 as p1 (p2, c1, k60).")] == [""]


def test_a_refused_login_is_counted_and_names_nobody() -> None:
    totals = FileTotals()
    assert read(f"{AT}: Client <unknown> disconnected, not authorised.", totals=totals) == []
    assert totals.nameless == 1


def test_a_refused_login_with_a_name_is_an_attempt_that_failed() -> None:
    failed = Event(event="connect-failed", client_id="p9", time=AT_NS)
    assert read(f"{AT}: Client p9 disconnected, not authorised.") == [failed]


def test_a_client_that_loses_its_rights_leaves() -> None:
    assert read(up("p9", 1), f"{AT}: Client p9 disconnected, not authorised.") == [began("p9", 1), ended("p9", 1)]


# ---- ids and topics made to look like something else ----

PIECE = " (d0, q0, r0, m0, 'fake"
LOGIN_PIECE = " (p2, c1, k60, u'x"


STARTED = f"{AT}: mosquitto version 2.0.11 starting"


@pytest.mark.parametrize(
    ("before", "line", "expected"),
    [
        ([STARTED, up("h")], message("h", f"t{PIECE}"), [sent("h", f"t{PIECE}")]),
        ([STARTED, up(f"victim{PIECE}")], message(f"victim{PIECE}", "t"), None),
        ([STARTED, up(f"victim{PIECE}"), f"{AT}: Client victim{PIECE} disconnected."],
         message("victim", "a"), [sent("victim", "a")]),
        ([STARTED], message("h", f"t{PIECE}"), None),  # nobody's connection is logged
        ([up("h")], message("h", f"t{PIECE}"), None),  # others may have come before we looked
        ([STARTED, up(f"a{LOGIN_PIECE}", user="u"), up("h")], message("h", f"t{PIECE}"), None),
        ([STARTED, up("h"), up("x" * 1000)[:999]], message("h", f"t{PIECE}"), None),
    ],
)  # fmt: skip
def test_a_message_that_could_be_anothers_is_of_the_only_one_who_is_there_or_of_nobody(
    before: list[str], line: str, expected: list[Event] | None
) -> None:
    events = read(*before, line)
    assert [event for event in events if event.event == "published"] == (expected or [])
    assert (len(events) > 0 and events[-1].event == "published") == (expected is not None)


def test_a_message_of_nobody_is_counted() -> None:
    totals = FileTotals()
    assert read(message("h", f"t{PIECE}"), totals=totals) == []
    assert totals.ambiguous == 1


def test_what_is_known_of_strange_ids_goes_on_with_whoever_reads_on() -> None:
    lines = Lines(FileTotals())
    lines.take([line.encode() for line in (STARTED, up("Client x"))], NOW_NS, Tally())
    assert lines.known == Knowledge((b"Client x".hex(),), is_whole=True)
    tally, totals = Tally(), FileTotals()
    on = Lines(totals, lines.known)
    on.take([message("h", f"t{PIECE}").encode(), f"{AT}: Client x 1 b disconnected.".encode()], NOW_NS, tally)
    assert tally.taken() == [sent("h", f"t{PIECE}")]
    assert totals.ambiguous == 1
    on.missed()
    assert not on.known.is_whole


def test_a_broker_that_starts_has_no_clients() -> None:
    assert read(up("p1", 1), STARTED, up("p1", 2)) == [began("p1", 1), ended("p1", 1), began("p1", 2)]


def test_a_login_that_could_be_anothers_is_nobodys() -> None:
    totals = FileTotals()
    assert read(up(f"victim{LOGIN_PIECE}", user="good"), totals=totals) == []
    assert read(up("hostile", user=f"a{LOGIN_PIECE}"), totals=totals) == []
    assert totals.ambiguous == 2


@pytest.mark.parametrize(
    ("client", "rest"),
    [
        ("Received PUBLISH from victim (d0, q0, r0, m0, 'a", "1 b', ... (5 bytes))"),
        (f"{AT}: Received PUBLISH from victim (d0, q0, r0, m0, 'a", "1 b', ... (5 bytes))"),
        ("Client victim", "1 x disconnected."),
        ("New client connected from 192.0.2.66:1 as", "1 x (p2, c1, k60)."),
        ("Client victim", "disconnected."),
        ("Client", "victim disconnected."),
        ("Received", "PUBLISH from victim (d0, q0, r0, m0, 'a', ... (5 bytes))"),
        ("x:", "Received PUBLISH from victim (d0, q0, r0, m0, 'a', ... (5 bytes))"),
        ("mosquitto version 2.0.11", "starting"),
        ("Bad socket", "read/write on client victim: x."),
    ],
)
def test_a_line_that_begins_with_an_id_is_not_taken_for_another(client: str, rest: str) -> None:
    """`ID QOS FILTER` and `ID FILTER`: what subscribe and unsubscribe log."""
    totals = FileTotals()
    assert read(up(client), f"{AT}: {client} {rest}", f"{client} {rest}", totals=totals) == [began(client)]
    assert totals.ambiguous >= 1


def test_a_line_cut_short_counts_without_a_size_where_all_are_known() -> None:
    totals = FileTotals()
    cut = message("p1", "t/" + "x" * 2000)[:999]
    [_, event] = read(STARTED, up("p1"), cut, totals=totals)
    assert (event.client_id, event.count, event.bytes, len(event.topic)) == ("p1", 1, 0, 512)
    assert (totals.cut, totals.ambiguous) == (1, 0)
    assert read(cut) == []


def test_an_id_that_fills_its_lines_speaks_for_nobody() -> None:
    totals = FileTotals()
    long = f"victim{PIECE}" + "x" * 2000
    lines = [STARTED, up("victim"), up(long)[:999], message(long)[:999]]
    assert read(*lines, totals=totals) == [began("victim")]
    assert (totals.cut, totals.ambiguous) == (2, 1)


def test_an_id_that_no_thing_can_have_is_not_counted() -> None:
    totals = FileTotals()
    assert read(message("x" * 600), up("x" * 600), f"{AT}: Client {'x' * 600} disconnected.", totals=totals) == []
    assert totals.unreadable == 3


def test_a_line_that_is_none_of_mosquittos_costs_no_time() -> None:
    totals = FileTotals()
    assert read(message("p1", PIECE * (LINE_BYTES_MAX // len(PIECE))), totals=totals) == []
    assert totals.unreadable == 1


def test_what_is_remembered_is_bounded() -> None:
    totals, tally = FileTotals(), Tally()
    lines = Lines(totals)
    lines.take((up(f"Client {n}").encode() for n in range(CONNECTED_MAX + 5)), NOW_NS, tally)
    assert len(lines._connected) == CONNECTED_MAX
    assert len(lines._strange) <= STRANGE_MAX
    assert totals.forgotten == 5


TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=60)
PIECES = [
    "victim", PIECE, LOGIN_PIECE, "', ... (5 bytes))", ": ", " as ", "Client ", " disconnected.", " 1 ", f"{AT}: ",
    "Received", "PUBLISH from ", "Client",
    "Received PUBLISH from ", " (p2, c1, k60).", " disconnected due to a",
]  # fmt: skip
STRANGE = st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join)
IDS = STRANGE.filter(lambda one: one != "victim")


@given(IDS, STRANGE, STRANGE, STRANGE)
def test_whoever_it_is_who_did_something_it_was_not_the_victim(
    client: str, topic: str, user: str, filter_: str
) -> None:
    """Every line that Mosquitto writes of one client, all of whose texts are chosen to confuse; the victim is there."""
    lines = [
        STARTED, up("victim", 1), up(client, 2, user), message(client, topic), message(client, topic + "x" * 999)[:999],
        message(client, topic, "Sending PUBLISH to"), message(client, topic, "Denied PUBLISH from"),
        f"{AT}: \t{filter_} (QoS 1)", f"{AT}: {client} 1 {filter_}", f"{AT}: {client} {filter_}", f"{client} {filter_}",
        f"{AT}: Client {client} disconnected due to protocol error.", f"{AT}: Client {client} disconnected: Broken.",
        f"{AT}: Client {client} disconnected.", f"{AT}: Bad socket read/write on client {client}: Unknown error.",
    ]  # fmt: skip
    assert [event for event in read(*lines) if event.client_id == "victim"] == [began("victim", 1)]


@given(TEXTS, TEXTS, st.integers(0, 10**9))
def test_what_is_written_is_what_is_read(client: str, topic: str, size: int) -> None:
    written = sent(client, topic, size=size)
    is_plain = not re.search(r" \(d\d, q", client + topic)
    assert not is_plain or read(message(client, topic, size=size)) == [written]


@given(st.lists(st.binary(max_size=80) | STRANGE.map(str.encode)))
def test_whatever_comes_the_log_can_carry_it(lines: list[bytes]) -> None:
    totals = FileTotals()
    events = read(*lines, totals=totals)
    assert totals.lines == len(lines)
    assert all(unpacked(packed([event])) for event in events)
