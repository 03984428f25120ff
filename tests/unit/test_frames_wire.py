"""A connection's handling of its sheets: whatever the reads' sizes, nothing is lost, moved or overwritten."""

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.messages import Frames
from daemon.log import wire as wires
from daemon.log.frames import LOG_SID
from daemon.log.wire import Message, Wire, WireError, publish

SMALL = 4096


@pytest.fixture(autouse=True, scope="module")
def small_sheets() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wires, "SHEET_BYTES", SMALL)
        patch.setattr(wires, "READ_MIN", 64)
        yield


class Kept:
    """An inbox that keeps all it is told, in order; batches as views, as the reader does."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def entries(self, sheet, first, last) -> None:
        self.told.append(sheet.frames(first, last))

    def skipped(self, first, last) -> None:
        self.told.append((first, last))

    def message(self, message: Message) -> None:
        self.told.append(message)

    def stored(self, numbers, seqs, *, doubled) -> None:
        self.told += zip(numbers.tolist(), seqs.tolist(), strict=True)

    def refused(self, why: str) -> None:
        self.told.append(why)

    def lost(self, why: str) -> None:
        self.told.append(f"lost: {why}")

    def writable(self, *, yes: bool) -> None: ...

    def payloads(self) -> list[bytes]:
        """Read at the end: a sheet that was written again would show."""
        return [f.payload(i) for f in self.told if isinstance(f, Frames) for i in range(len(f))]


class Socket(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.sent = b""

    def write(self, data) -> None:
        self.sent += bytes(data)

    def abort(self) -> None: ...


def feed(wire: Wire, data: bytes, sizes: Iterator[int]) -> None:
    """As an event loop does: ask for room, fill some of it, say how much."""
    while data:
        room = wire.get_buffer(-1)
        assert len(room) >= 64
        count = min(len(room), len(data), next(sizes))
        room[:count] = data[:count]
        wire.buffer_updated(count)
        data = data[count:]


def entry(seq: int, payload: bytes) -> bytes:
    return b"MSG detectd.log.x %d $JS.ACK.LOG.c.1.%d.%d.5.0 %d\r\n%b\r\n" % (LOG_SID, seq, seq, len(payload), payload)


def story(data: bytes, sizes: list[int]) -> tuple[Kept, Socket]:
    async def run() -> tuple[Kept, Socket]:
        kept, socket = Kept(), Socket()
        wire = Wire(kept)
        wire.connection_made(socket)
        wire.follow(1)
        feed(wire, data, (sizes[i % len(sizes)] for i in range(10**9)))
        return kept, socket

    return asyncio.run(run())


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3 * SMALL), st.booleans()), min_size=1, max_size=30),
    st.lists(st.integers(1, 2 * SMALL), min_size=1, max_size=20),
)
def test_payloads_survive_every_change_of_sheet(lengths, sizes):
    payloads = [bytes([i % 251]) * length for i, (length, _) in enumerate(lengths)]
    data = b"".join(
        entry(i, payload) + (b"PING\r\n" if ping else b"")
        for i, (payload, (_, ping)) in enumerate(zip(payloads, lengths, strict=True), 1)
    )
    kept, socket = story(data, sizes)
    assert kept.payloads() == payloads
    assert socket.sent.count(b"PONG\r\n") == sum(ping for _, ping in lengths)


def test_more_entries_than_a_sheet_has_rows_are_read():
    count = 20_000
    wires_size = wires.SHEET_BYTES
    wires.SHEET_BYTES = 4 * 1024 * 1024
    try:
        kept, _ = story(b"".join(entry(i, b"") for i in range(1, count + 1)), [1 << 20])
    finally:
        wires.SHEET_BYTES = wires_size
    assert np.concatenate([f.seq for f in kept.told]).tolist() == list(range(1, count + 1))


def test_more_events_than_the_table_holds_are_told_in_order():
    acks = b"".join(b'MSG _INBOX.x.%d 1 28\r\n{"stream":"LOG","seq":%5d}\r\n' % (i, i + 7) for i in range(3000))
    kept, _ = story(acks, [1 << 16])
    assert kept.told == [(i, i + 7) for i in range(3000)]


def test_entries_and_messages_are_told_in_the_order_they_came():
    control = b"NATS/1.0 100 FlowControl Request\r\n\r\n"
    flow = b"HMSG _INBOX.a-log %d $JS.FC.LOG.c.%%d %d %d\r\n%b\r\n" % (LOG_SID, len(control), len(control), control)
    kept, _ = story(entry(1, b"a") + flow % 1 + entry(2, b"b") + entry(3, b"c") + flow % 2, [1 << 16])
    first, one, more, two = kept.told
    assert (first.seq.tolist(), more.seq.tolist()) == ([1], [2, 3])
    assert (one.status, one.reply, one.number) == (100, "$JS.FC.LOG.c.1", -1)
    assert two.reply == "$JS.FC.LOG.c.2"


def test_what_came_before_malformed_bytes_is_told_before_the_loss():
    kept, _ = story(entry(1, b"a") + b"GET / HTTP/1.1\r\n" + entry(2, b"b"), [1 << 16])
    assert kept.payloads() == [b"a"]
    assert kept.told[1:] == ["lost: malformed bytes from the server"]


def test_an_entry_that_is_missing_in_the_consumers_count_ends_the_connection():
    hole = b"MSG detectd.log.x 2 $JS.ACK.LOG.c.1.3.3.5.0 0\r\n\r\n"
    kept, _ = story(entry(1, b"a") + hole + entry(2, b"b"), [1 << 16])
    assert kept.payloads() == [b"a"]
    assert kept.told[1:] == ["lost: entry 3 came where 2 was expected"]


def test_entries_that_the_server_itself_skipped_are_stated():
    skip = b"MSG detectd.log.x 2 $JS.ACK.LOG.c.1.5.2.5.0 1\r\nb\r\n"
    kept, _ = story(entry(1, b"a") + skip, [7])
    assert kept.payloads() == [b"a", b"b"]
    assert kept.told[1] == (2, 4)


async def test_whoever_waits_is_told_when_the_connection_is_lost():
    kept = Kept()
    wire = Wire(kept)
    wire.connection_made(Socket())
    asked, pinged = (asyncio.ensure_future(what) for what in (wire.request("$JS.API.INFO"), wire.ping()))
    await asyncio.sleep(0)
    feed(wire, b"-ERR 'Stale Connection'\r\n", iter([1 << 16]))
    wire.connection_lost(None)
    wire.connection_lost(None)
    for future in (asked, pinged):
        with pytest.raises(WireError, match="Stale Connection"):
            await future
    assert kept.told == ["lost: the server says: Stale Connection"]


def test_a_publish_is_spelled_as_the_protocol_asks():
    assert publish("a.b", b"xyz") == b"PUB a.b 3\r\nxyz\r\n"
    assert publish("a.b", b"", reply="r") == b"PUB a.b r 0\r\n\r\n"
