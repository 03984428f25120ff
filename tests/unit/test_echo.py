"""What the writer has sent reaches the reader as the log has it, or not at all."""

import asyncio
from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.log.echo import Echo
from daemon.log.frames import STRANGE_SID
from daemon.log.parcel import Form, Parcel, Roll
from daemon.log.writer import Entry


class Wire:
    def __init__(self) -> None:
        self.said = b""

    def write(self, data: bytes) -> None:
        self.said += data


class Log:
    """A server and its log, our writer's side of it, and a reader that goes to the log where the echo is silent."""

    def __init__(self, held_max: int = 10_000_000) -> None:
        self.echo = Echo(lambda: 5, ("a.*", "b"), held_max)
        self.wire = Wire()
        self.echo.connected(self.wire)
        self.entries: list[bytes] = []  # [position - 1]
        self.flying: deque[tuple[int, bytes]] = deque()  # (number, payload), sent and not stored
        self.acks: deque[tuple[int, int]] = deque()
        self.doubled: set[int] = set()  # numbers whose acknowledgement says so
        self.first = 1  # what the reader wants next
        self._form, self._roll, self._window, self._made = Form(lambda: 5), Roll(), 0, 0
        self._last: Parcel | None = None

    def send(self, count: int) -> None:
        self._window += 1
        parcel = self._last = Parcel(self._form, self._roll.sheet(300 * count), self._window)
        payloads = [b"%d" % (self._made + i) for i in range(count)]
        self._made += count
        parcel.put([Entry("a.x", payload) for payload in payloads])
        self.echo.sent(parcel)
        parcel.was_sent = True
        self.flying += [(parcel.number + i, payload) for i, payload in enumerate(payloads)]

    def send_again(self) -> None:
        """Nobody knows that it was stored: it is recognised by its id, and acknowledged with its old place."""
        if self._last is not None:
            self.echo.sent(self._last)
            frames = self._last.frames()
            again = [(self._last.number + i, frames.payload(i)) for i in range(len(frames))]
            flying = {number for number, _ in self.flying}
            self.flying += [one for one in again if one[0] not in flying]

    def send_what_is_known(self, count: int) -> None:
        """New parcels with ids of the caller's, that the server has seen before: by a bridge after a restart, say."""
        known = [entry for entry in self.entries if not entry.startswith(b"strange")][-count:]
        if known:
            self._window += 1
            parcel = Parcel(Form(lambda: 6), self._roll.sheet(300 * count), self._window)  # later than the first time
            parcel.put([Entry("a.x", payload) for payload in known])
            self.echo.sent(parcel)
            parcel.was_sent = True
            self.flying += [(parcel.number + i, payload) for i, payload in enumerate(known)]

    def store(self, count: int) -> None:
        for _ in range(min(count, len(self.flying))):
            number, payload = self.flying.popleft()
            if payload in self.entries:
                self.doubled.add(number)
            else:
                self.entries.append(payload)
            self.acks.append((number, self.entries.index(payload) + 1))

    def somebody_else(self) -> None:
        self.entries.append(b"strange %d" % len(self.entries))

    def shed(self) -> None:
        """The server takes no notice of one."""
        if self.flying:
            self.flying.popleft()

    def acknowledge(self, count: int) -> None:
        some = [self.acks.popleft() for _ in range(min(count, len(self.acks)))]
        if some:
            numbers, seqs = zip(*some, strict=True)
            doubled = any(number in self.doubled for number in numbers)
            self.echo.stored(np.array(numbers, np.int64), np.array(seqs, np.int64), doubled=doubled)

    def lose(self, count: int) -> None:
        """Acknowledgements that never come."""
        for _ in range(min(count, len(self.acks))):
            self.acks.popleft()

    def reconnect(self) -> None:
        self.flying.clear()
        self.acks.clear()
        self.echo.lost()
        self.echo.connected(self.wire)

    async def read(self, most: int) -> None:
        """From the echo, or from the log."""
        before = self.first
        if self.echo.has(self.first):
            taking = asyncio.ensure_future(self.echo.take(self.first, most))
            await asyncio.sleep(0)
            if taking.done():
                frames = taking.result()
                assert frames is not None
                assert frames.seq.tolist() == list(range(before, before + len(frames)))
                assert [frames.payload(i) for i in range(len(frames))] == self.entries[before - 1 :][: len(frames)]
                assert set(frames.ts.tolist()) == {5}
                self.first += len(frames)
            else:
                taking.cancel()
                await asyncio.gather(taking, return_exceptions=True)
        else:
            self.first = min(len(self.entries), self.first + most - 1) + 1


steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 5)),
        st.tuples(st.just("send"), st.integers(1, 5)),
        st.tuples(st.just("store"), st.integers(1, 8)),
        st.tuples(st.just("store"), st.integers(1, 8)),
        st.tuples(st.just("acknowledge"), st.integers(1, 8)),
        st.tuples(st.just("acknowledge"), st.integers(1, 8)),
        st.tuples(st.just("read"), st.integers(1, 6)),
        st.tuples(st.just("read"), st.integers(1, 6)),
        st.tuples(st.sampled_from(["somebody_else", "shed", "send_again", "reconnect", "pause"])),
        st.tuples(st.just("lose"), st.integers(1, 3)),
        st.tuples(st.just("send_what_is_known"), st.integers(1, 3)),
    ),
    max_size=60,
)


@given(steps)
@settings(max_examples=500, deadline=None)
def test_whatever_happens_the_reader_gets_what_the_log_has_in_its_order(steps) -> None:
    async def live() -> None:
        log = Log()
        for step, *how in steps:
            if step == "read":
                await log.read(*how)
            elif step == "pause":
                log.echo._begin()  # as its timer would
            else:
                getattr(log, step)(*how)
        log.echo.lost()  # what is stored and was never acknowledged is not waited for
        for _ in log.entries:
            await log.read(3)
        assert log.first == len(log.entries) + 1

    asyncio.run(live())


async def test_at_rest_it_takes_over_and_the_log_is_not_asked_again() -> None:
    log = Log()
    log.somebody_else()
    await log.read(10)  # the log's
    for _ in range(5):
        log.send(3)
        log.store(3)
        log.acknowledge(3)
        await log.read(10)
    assert log.echo.taken == 15
    assert (log.first, log.echo.breaks) == (17, 0)


async def test_what_the_log_had_before_is_read_from_the_log() -> None:
    log = Log()
    log.send(2)
    log.store(2)
    log.reconnect()
    log.send_what_is_known(2)
    log.store(2)
    log.acknowledge(2)
    assert not log.echo.has(1)
    await log.read(10)
    assert log.first == 3


async def test_entries_of_several_parcels_are_one_batch() -> None:
    log = Log()
    for _ in range(4):
        log.send(2)
    log.store(8)
    log.acknowledge(8)
    frames = await log.echo.take(1, 100)
    assert frames is not None
    assert len(frames) == 8


async def test_it_listens_for_strangers_once_and_stops_when_it_heard_one() -> None:
    log = Log()
    subscribed = (
        f"SUB a.* {STRANGE_SID}\r\nUNSUB {STRANGE_SID} 1\r\nSUB b {STRANGE_SID + 1}\r\nUNSUB {STRANGE_SID + 1} 1\r\n"
    )
    assert log.wire.said == subscribed.encode()
    log.send(1)
    log.store(1)
    log.acknowledge(1)
    assert log.echo.has(1)
    log.echo.strange()
    assert not log.echo.has(1)
    assert log.echo.breaks == 1


async def test_a_reader_that_falls_behind_is_sent_to_the_log() -> None:
    log = Log(held_max=1000)
    log.send(1)
    log.store(1)
    log.acknowledge(1)
    assert log.echo.has(1)
    for _ in range(10):
        log.send(1)
    assert not log.echo.has(1)
    assert await log.echo.take(1, 10) is None


async def test_after_a_break_it_tries_again_and_waits_longer_each_time_that_comes_to_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "call_later", lambda delay, *_: waits.append(delay))
    log = Log()
    for _ in range(6):
        log.echo.strange()
        log.echo._begin()
    assert waits == [2.0, 4.0, 8.0, 16.0, 16.0, 16.0]
