"""Reading and writing the log on a real nats-server: once, in order, through kills, gaps and slow readers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from log_server import LogServer

from actors.messages import BACKLOG, COPIED, NAME_ENCODED, REPORT_CBOR, REPORT_JSON, Frames
from daemon.log import session as reading
from daemon.log import writer as writing
from daemon.log.reader import (
    Access,
    Entry,
    Gap,
    LogReader,
    LogWentBack,
    LogWriter,
    NotStored,
    Refused,
    RequestError,
    WireError,
)
from daemon.log.wire import Message, connect, publish

WITHIN_S = 20.0
REPORT = "$aws.things.p1.defender.metrics.json"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LogServer]:
    there = LogServer(tmp_path)
    try:
        await there.start()
        await there.create_log(max_msgs=1_000_000)
        yield there
    finally:
        there.stop()


@pytest.fixture
async def writer(server: LogServer) -> AsyncIterator[LogWriter]:
    async with LogWriter(server.access) as there:
        yield there


async def positions(reader: LogReader, after: int, last: int) -> tuple[list[int], list[Gap]]:
    """Read up to position `last`."""
    seqs: list[int] = []
    gaps: list[Gap] = []
    async with asyncio.timeout(WITHIN_S), aclosing(reader.batches(after)) as batches:
        async for item in batches:
            if isinstance(item, Gap):
                gaps.append(item)
            else:
                seqs += item.seq.tolist()
            if seqs and seqs[-1] >= last:
                break
    return seqs, gaps


async def until(claim) -> None:
    """Poll a claim about another process, with a deadline."""
    async with asyncio.timeout(WITHIN_S):
        while not claim():
            await asyncio.sleep(0.01)


def numbered(count: int, start: int = 0, size: int = 0) -> list[Entry]:
    return [Entry(REPORT, b"%d" % i + b" " * size) for i in range(start, start + count)]


async def payloads(reader: LogReader, first: int, last: int) -> list[bytes]:
    found: list[bytes] = []
    async with asyncio.timeout(WITHIN_S), aclosing(reader.read_range(first, last)) as batches:
        async for item in batches:
            assert isinstance(item, Frames)
            found += [item.payload(i).strip() for i in range(len(item))]
    return found


# Reading


async def test_a_hundred_thousand_entries_are_read_once_and_in_order(server, writer):
    count = 100_000
    assert await writer.append_many(numbered(count)) == list(range(1, count + 1))
    reader = LogReader(server.access)
    seqs, gaps = await positions(reader, 0, count)
    assert seqs == list(range(1, count + 1))
    assert gaps == []
    assert (reader.messages, reader.connections) == (count, 1)
    assert await payloads(reader, 1, count) == [b"%d" % i for i in range(count)]


async def test_no_batch_is_larger_than_asked(server, writer):
    await writer.append_many(numbered(3000))
    sizes = []
    async with aclosing(LogReader(server.access, most=100).read_range(1, 3000)) as batches:
        async for item in batches:
            sizes.append(len(item))
    assert max(sizes) <= 100
    assert sum(sizes) == 3000


async def test_at_rest_every_entry_comes_alone(server, writer):
    async with asyncio.timeout(WITHIN_S), aclosing(LogReader(server.access).batches(0)) as batches:
        for i in range(50):
            seq = await writer.append(REPORT, b"%d" % i)
            batch = await anext(batches)
            assert (batch.seq.tolist(), batch.payload(0)) == ([seq], b"%d" % i)


async def test_a_batch_stays_as_it_is_while_others_come(server, writer):
    """Frames are shared between actors, and some hold on to them."""
    await writer.append_many(numbered(5000, size=1500))
    kept: list[Frames] = []
    async with aclosing(LogReader(server.access).read_range(1, 5000)) as batches:
        async for item in batches:
            kept.append(item)
    assert [int(f.payload(i)) for f in kept for i in range(len(f))] == list(range(5000))


async def test_headers_and_subjects_say_what_an_entry_is(server, writer):
    await writer.append("$aws.things.a//b.defender.metrics.json", b"{}", {"Detectd-First-Time": "17"})
    await writer.append("detectd.log.report.plant.a%20b.cbor", b"\xa0", {"Detectd-Backlog": "1"})
    await writer.append("detectd.log.tick", b"")
    async with asyncio.timeout(WITHIN_S), aclosing(LogReader(server.access).read_range(1, 3)) as batches:
        found = [item async for item in batches]
    kinds = [(int(f.kind[i]), int(f.flags[i]), f.tokens()[i], f.subject(i)) for f in found for i in range(len(f))]
    assert kinds[0] == (REPORT_JSON, NAME_ENCODED | COPIED, b"a//b", "$aws.things.a//b.defender.metrics.json")
    assert kinds[1] == (REPORT_CBOR, 8 | NAME_ENCODED | BACKLOG, b"a%20b", "detectd.log.report.plant.a%20b.cbor")
    assert kinds[2][2:] == (b"", "detectd.log.tick")
    assert int(found[0].origin[0]) == 17
    assert all(abs(int(f.ts[0]) - int(found[0].ts[0])) < 60e9 for f in found)


async def test_an_entry_larger_than_a_sheet_is_read(server, writer):
    large = bytes(range(256)) * 3900  # just under the server's max_payload
    await writer.append(REPORT, b"before")
    await writer.append(REPORT, large)
    await writer.append(REPORT, b"after")
    assert await payloads(LogReader(server.access), 1, 3) == [b"before", large.strip(), b"after"]


async def test_a_slow_taker_makes_the_server_wait(server, writer):
    count, size = 60_000, 1000
    await writer.append_many(numbered(count, size=size))
    reader = LogReader(server.access)
    async with asyncio.timeout(60), aclosing(reader.batches(0)) as batches:
        first = await anext(batches)
        seqs = first.seq.tolist()
        held = batches.ag_frame.f_locals["source"]
        await until(lambda: quiet(held))
        # All that the server may send without an answer, and not all there is.
        assert 0 < held._held < 34 * 1024 * 1024 < count * size
        async for item in batches:
            seqs += item.seq.tolist()
            if seqs[-1] == count:
                break
        assert held._held == 0
    assert seqs == list(range(1, count + 1))
    assert reader.connections == 1


def quiet(session) -> bool:
    """Nothing has come since the last look."""
    before, session.seen = getattr(session, "seen", -1), session._held
    return before == session._held > 0


async def test_a_reader_that_holds_too_much_stops_the_socket_and_goes_on(server, writer, monkeypatch):
    """The bound of last resort, should the server's own window fail."""
    monkeypatch.setattr(reading, "HELD_MAX", 100_000)
    await writer.append_many(numbered(5000, size=1000))
    reader = LogReader(server.access, most=50)
    paused = False
    seqs: list[int] = []
    async with asyncio.timeout(WITHIN_S), aclosing(reader.batches(0)) as batches:
        async for item in batches:
            seqs += item.seq.tolist()
            paused |= batches.ag_frame.f_locals["source"]._paused
            if seqs[-1] == 5000:
                break
    assert paused
    assert seqs == list(range(1, 5001))


# Outages


async def test_reading_goes_on_where_it_was_after_a_kill(server, writer):
    states: list[str] = []
    reader = LogReader(server.access, on_state=lambda state, _: states.append(state))
    await writer.append_many(numbered(20_000, size=500))
    seqs: list[int] = []
    async with asyncio.timeout(60), aclosing(reader.batches(0)) as batches:
        async for item in batches:
            assert not isinstance(item, Gap)
            seqs += item.seq.tolist()
            if len(states) < 6 and len(seqs) > 1000 * len(states):  # three kills in mid-flight
                server.kill()
                await server.start()
            if seqs[-1] == 20_000:
                break
    assert seqs == list(range(1, 20_001))
    assert states == ["connected", "disconnected"] * ((len(states) - 1) // 2) + ["connected"]
    assert len(states) >= 5


async def test_an_idle_reader_hears_of_new_entries_within_a_second_of_the_server_being_back(server, writer):
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(60), aclosing(LogReader(server.access).batches(0)) as batches:
        await writer.append(REPORT, b"before")
        assert (await anext(batches)).payload(0) == b"before"
        after = asyncio.ensure_future(anext(batches))
        server.kill()
        await server.start()
        up_s = loop.time()
        await writer.append(REPORT, b"after")
        assert (await after).payload(0) == b"after"
        assert loop.time() - up_s < 5.0  # 1 s on a machine of its own; nats-py takes 18


async def test_what_the_log_dropped_is_a_stated_gap(server, writer):
    await server.create_log("SMALL", subjects=["small"], max_msgs=100)
    for i in range(250):
        await writer.append("small", b"%d" % i)
    seqs, gaps = await positions(LogReader(server.access, "SMALL"), 20, 250)
    assert gaps == [Gap(21, 150)]
    assert seqs == list(range(151, 251))


async def test_what_the_log_drops_while_it_is_read_is_a_stated_gap(server, writer):
    await server.create_log("SMALL", subjects=["small"], max_bytes=200_000)
    entries = [Entry("small", b"%d" % i + b" " * 1000) for i in range(100)]
    await writer.append_many(entries)
    reader = LogReader(server.access, "SMALL", most=10)
    seen: list[tuple[int, int]] = []
    async with asyncio.timeout(WITHIN_S), aclosing(reader.batches(0)) as batches:
        async for item in batches:
            gap = isinstance(item, Gap)
            seen.append((item.first, item.last) if gap else (int(item.seq[0]), int(item.seq[-1])))
            if len(seen) == 1:
                server.stop()  # the reader has at most a few; the rest is dropped behind its back
                await server.start()
                for _ in range(50):
                    await writer.append_many(entries)
            if seen[-1][1] == 5100:
                break
    assert [first for first, _ in seen] == [1, *(last + 1 for _, last in seen[:-1])]
    assert reader.gaps >= 1


async def test_an_emptied_log_is_a_gap_and_then_goes_on(server, writer):
    await writer.append_many(numbered(10))
    await server.ask("STREAM.PURGE.LOG")
    reader = LogReader(server.access)
    async with asyncio.timeout(WITHIN_S), aclosing(reader.batches(4)) as batches:
        assert await anext(batches) == Gap(5, 10)
        await writer.append(REPORT, b"x")
        assert (await anext(batches)).seq.tolist() == [11]
    assert await reader.last_seq() == 11


async def test_single_entries_that_were_deleted_are_gaps(server, writer):
    await writer.append_many(numbered(10))
    for seq in (3, 4, 7, 10):
        await server.ask("STREAM.MSG.DELETE.LOG", {"seq": seq})
    found = []
    async with asyncio.timeout(WITHIN_S), aclosing(LogReader(server.access).read_range(2, 10)) as batches:
        async for item in batches:
            found.append((item.first, item.last) if isinstance(item, Gap) else item.seq.tolist())
    assert found == [[2], (3, 4), [5, 6], (7, 7), [8, 9], (10, 10)]


async def test_a_log_that_went_back_is_said_to_have(server, writer):
    await writer.append_many(numbered(5))
    with pytest.raises(LogWentBack, match="ends at 5, but 9 was read"):
        await positions(LogReader(server.access), 9, 10)


async def test_a_reader_waits_for_a_stream_that_does_not_exist_yet(server, writer):
    heard = []
    reader = LogReader(server.access, "LATE", on_state=lambda *what: heard.append(what))
    task = asyncio.ensure_future(positions(reader, 0, 1))
    await until(lambda: heard)
    await server.create_log("LATE", subjects=["late"])
    await writer.append("late", b"x")
    assert await task == ([1], [])
    assert heard[0][0] == "disconnected"
    assert "stream not found" in heard[0][1]


async def test_a_deleted_consumer_is_replaced(server, writer):
    reader = LogReader(server.access)
    async with asyncio.timeout(WITHIN_S), aclosing(reader.batches(0)) as batches:
        await writer.append(REPORT, b"1")
        await anext(batches)
        for name in (await server.ask("CONSUMER.NAMES.LOG"))["consumers"]:
            await server.ask(f"CONSUMER.DELETE.LOG.{name}")
        await writer.append(REPORT, b"2")
        assert (await anext(batches)).payload(0) == b"2"
    assert reader.connections == 2


async def test_a_silent_connection_is_given_up(server, writer, monkeypatch):
    """A server that hangs sends no heartbeats: the connection looks alive, and is not."""
    monkeypatch.setattr(reading, "HEARTBEAT_S", 0.1)
    heard = []
    reader = LogReader(server.access, on_state=lambda *what: heard.append(what))
    async with asyncio.timeout(WITHIN_S), aclosing(reader.batches(0)) as batches:
        await writer.append(REPORT, b"1")
        await anext(batches)
        with server.frozen():
            after = asyncio.ensure_future(anext(batches))
            await until(lambda: len(heard) > 1)
        assert heard[1][0] == "disconnected"
        assert "no sign of life" in heard[1][1]
        await writer.append(REPORT, b"2")
        assert (await after).payload(0) == b"2"


async def test_a_heartbeat_that_counts_more_entries_than_came_ends_the_session():
    ended: list[str] = []

    class Line:
        followed = (7, 7)
        closed = False
        abort = ended.append

    session = reading.Session(lambda *_: None)
    session.wire = Line
    beat = "NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: %d\r\nNats-Last-Stream: 7\r\n\r\n"
    session.message(Message(2, -1, 100, "", beat % 7, b""))
    assert ended == []
    session.message(Message(2, -1, 100, "", beat % 8, b""))
    assert ended == ["the server sent 8 entries, 7 came"]


async def test_no_consumer_is_left_behind(server, writer):
    await writer.append_many(numbered(10))
    await payloads(LogReader(server.access), 1, 10)
    async with asyncio.timeout(WITHIN_S):
        while (await server.ask("CONSUMER.NAMES.LOG"))["total"]:
            await asyncio.sleep(0.01)


# Finite reads


async def test_a_range_ends_with_the_log(server, writer):
    await writer.append_many(numbered(10))
    reader = LogReader(server.access)
    assert await payloads(reader, 4, 6) == [b"3", b"4", b"5"]
    assert await payloads(reader, 9, 99) == [b"8", b"9"]
    assert await payloads(reader, 11, 99) == []
    assert await payloads(reader, 7, 6) == []


async def test_info_says_what_the_stream_is(server, writer):
    reader = LogReader(server.access)
    empty = await reader.info()
    assert (empty.first, empty.last, empty.messages) == (1, 0, 0)
    await server.create_log("NAMED", subjects=["named"], metadata={"detectd_identity": "abc"})
    await writer.append("named", b"x")
    named = await LogReader(server.access, "NAMED").info()
    assert (named.first, named.last, named.messages, named.identity) == (1, 1, 1, "abc")
    with pytest.raises(RequestError, match="stream not found"):
        await LogReader(server.access, "NONE").info()


# Writing


async def test_a_repeated_id_is_stored_once(server, writer):
    first = await writer.append(REPORT, b"x", msg_id="same")
    assert await writer.append(REPORT, b"x", msg_id="same") == first
    async with LogWriter(server.access) as other:
        assert await other.append(REPORT, b"x", msg_id="same") == first
    assert await LogReader(server.access).last_seq() == first


async def test_the_same_content_is_stored_as_often_as_it_is_appended(server, writer):
    assert await writer.append_many([Entry(REPORT, b"x")] * 3) == [1, 2, 3]


async def test_concurrent_callers_get_their_own_positions(server, writer):
    results = await asyncio.gather(*(writer.append_many(numbered(100, start=100 * k)) for k in range(20)))
    stored = await payloads(LogReader(server.access), 1, 2000)
    assert sorted(seq for seqs in results for seq in seqs) == list(range(1, 2001))
    for k, seqs in enumerate(results):
        assert [stored[seq - 1] for seq in seqs] == [b"%d" % i for i in range(100 * k, 100 * k + 100)]


async def test_nothing_is_lost_doubled_or_out_of_order_when_the_server_is_killed_in_the_middle(server, writer):
    count = 30_000
    task = asyncio.ensure_future(writer.append_many(numbered(count, size=300)))
    for kills in range(1, 4):
        await until(lambda mark=kills: known(writer) > 4000 * mark or task.done())
        server.kill()
        await server.start()
    async with asyncio.timeout(60):
        seqs = await task
    assert writer.resent > 0
    stored = await payloads(LogReader(server.access), 1, count + 1)
    assert stored == [b"%d" % i for i in range(count)]
    assert seqs == list(range(1, count + 1))


def known(writer: LogWriter) -> int:
    return sum(len(window.seqs) - window.left for window in writer._windows.values())


async def test_an_append_waits_for_the_server_to_come_back(server, writer):
    await writer.append(REPORT, b"1")
    server.kill()
    task = asyncio.ensure_future(writer.append(REPORT, b"2"))
    await server.start()
    assert await task == 2


async def test_an_append_gives_up_at_its_deadline(server):
    server.kill()
    async with LogWriter(server.access, deadline_s=0.2) as writer:
        with pytest.raises(
            NotStored, match=r"1 of 1 entries not stored within 0\.2 s: .*(refused|Connect call failed)"
        ):
            await writer.append(REPORT, b"x")
    assert writer._windows == {}


async def test_a_subject_without_a_stream_is_tried_until_the_deadline(server):
    async with LogWriter(server.access, deadline_s=0.5) as writer:
        with pytest.raises(NotStored, match="no stream takes this subject"):
            await writer.append("nowhere", b"x")


async def test_a_stream_that_takes_no_more_is_named_as_the_reason(server):
    await server.create_log("FULL", subjects=["full"], max_msgs=1, discard="new")
    async with LogWriter(server.access, deadline_s=0.5) as writer:
        await writer.append("full", b"x")
        with pytest.raises(NotStored, match="maximum messages exceeded"):
            await writer.append("full", b"y")


@pytest.mark.parametrize(
    ("subject", "payload", "headers"),
    [
        ("a b", b"", {}),
        ("a\r\nPUB x 0", b"", {}),
        ("", b"", {}),
        (REPORT, b"", {"a": "x\r\nb: c"}),
        (REPORT, bytes(2 * 1024 * 1024), {}),
    ],
)
async def test_what_could_never_be_stored_is_refused_at_once(server, writer, subject, payload, headers):
    await writer.append(REPORT, b"connected")
    with pytest.raises(Refused):
        await writer.append(subject, payload, headers)
    assert writer._windows == {}
    assert await writer.append(REPORT, b"still good") == 2


async def test_the_unconfirmed_are_bounded(server, writer, monkeypatch):
    monkeypatch.setattr(writing, "FLYING_MAX", 300)
    most = 0
    send = writer._send

    def watched(wire, window):
        nonlocal most
        send(wire, window)
        most = max(most, writer._flying)

    monkeypatch.setattr(writer, "_send", watched)
    results = await asyncio.gather(*(writer.append_many(numbered(100)) for _ in range(20)))
    assert sum(map(len, results)) == 2000
    assert 0 < most <= 300
    assert writer._flying == 0


async def test_a_closed_writer_says_so(server):
    writer = LogWriter(server.access)
    await writer.start()
    await writer.append(REPORT, b"x")
    await writer.close()
    with pytest.raises(NotStored, match="closed"):
        await writer.append(REPORT, b"y")


async def test_nothing_to_append_is_nothing(writer):
    assert await writer.append_many([]) == []


# Replies


class Heard:
    """An inbox that keeps messages."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def message(self, message: Message) -> None:
        self.bodies.append(message.body)

    def __getattr__(self, name: str):
        return lambda *_, **__: None


async def listening(server: LogServer, subject: str):
    heard = Heard()
    wire = await connect(server.access, heard, "listener")
    wire.write(f"SUB {subject} 2\r\n".encode())
    await wire.ping()
    return wire, heard


async def test_replies_arrive_in_order(server, writer):
    wire, heard = await listening(server, "$aws.things.*.defender.metrics.json.accepted")
    await writer.append(REPORT, b"connected")
    for i in range(100):
        writer.reply(f"{REPORT}.accepted", b"%d" % i)
    writer.replies(publish(f"{REPORT}.accepted", b"100") + publish(f"{REPORT}.accepted", b"101"), 2)
    await until(lambda: len(heard.bodies) == 102)
    assert heard.bodies == [b"%d" % i for i in range(102)]
    assert (writer.replied, writer.dropped) == (102, 0)
    wire.close()


async def test_replies_said_before_closing_are_sent(server):
    wire, heard = await listening(server, "replies")
    async with LogWriter(server.access) as writer:
        await writer.append(REPORT, b"connected")
        writer.reply("replies", b"last words")
    await until(lambda: heard.bodies == [b"last words"])
    wire.close()


async def test_replies_that_nobody_can_take_are_counted_and_dropped(server, writer, monkeypatch):
    await writer.append(REPORT, b"connected")
    monkeypatch.setattr(writing, "UNSENT_MAX", 10_000)
    for _ in range(100):
        writer.reply("replies", bytes(1000))
    assert 0 < writer.replied < 20
    assert writer.dropped == 100 - writer.replied
    writer.reply("a b", b"")
    assert writer.dropped == 101 - writer.replied


async def test_replies_without_a_server_are_dropped(server):
    writer = LogWriter(server.access)
    writer.reply("replies", b"x")
    assert writer.dropped == 1


# Access


async def test_a_wrong_password_is_told_in_words_and_not_shown(server):
    stranger = Access(server.access.urls, "daemon", "wr0ng")
    assert "wr0ng" not in repr(stranger)
    with pytest.raises(WireError, match="Authorization Violation") as caught:
        await LogReader(stranger).info()
    assert "wr0ng" not in str(caught.value)


async def test_the_next_server_is_tried(server):
    several = Access(("nats://127.0.0.1:1", *server.access.urls), "daemon", "s3cret")
    assert (await LogReader(several).info()).last == 0


async def test_a_permission_that_is_missing_is_counted(server):
    async with LogWriter(Access(server.access.urls, "device", "x"), deadline_s=0.5) as writer:
        with pytest.raises(NotStored, match="Permissions Violation"):
            await writer.append("detectd.log.tick", b"")
    assert writer.refusals > 0
