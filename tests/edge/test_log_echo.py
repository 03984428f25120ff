"""The short way round: what our writer wrote reaches our reader without being sent back, and it is the same."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from log_server import LogServer

from actors.messages import Frames
from daemon.log.echo import Echo
from daemon.log.parcel import MSG_ID
from daemon.log.reader import Gap, LogReader
from daemon.log.streams import REPORTS
from daemon.log.writer import Entry, LogWriter

REPORT = "$aws.things.p1.defender.metrics.json"
WITHIN_S = 30.0

Row = tuple[int, int, int, int, int, str, bytes]


class Rig:
    """A server, a writer and a reader that share an echo, and a reader that has none."""

    def __init__(self, server: LogServer) -> None:
        self.server, self.access = server, replace(server.access, timed=True)
        self.echo = Echo(time.time_ns, REPORTS)
        self.writer = LogWriter(self.access, echo=self.echo)
        self.rows: list[Row] = []
        self.gaps: list[Gap] = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async with aclosing(LogReader(self.access, echo=self.echo, most=50).batches(0)) as batches:
            async for item in batches:
                if isinstance(item, Gap):
                    self.gaps.append(item)
                else:
                    self.rows += rows(item)

    async def has_read(self, count: int) -> None:
        async with asyncio.timeout(WITHIN_S):
            while len(self.rows) < count:
                assert not self._reading.done(), self._reading.result()
                await asyncio.sleep(0.01)

    async def in_log(self) -> list[Row]:
        reader = LogReader(self.access)
        found: list[Row] = []
        async with aclosing(reader.read_range(1, await reader.last_seq())) as batches:
            async for item in batches:
                assert isinstance(item, Frames)
                found += rows(item)
        return found

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.wait([self._reading])
        await self.writer.close()


def rows(frames: Frames) -> list[Row]:
    columns = [column.tolist() for column in (frames.seq, frames.ts, frames.origin, frames.kind, frames.flags)]
    return [
        (seq, ts, origin, kind, flags, frames.subject(i), frames.payload(i))
        for i, (seq, ts, origin, kind, flags) in enumerate(zip(*columns, strict=True))
    ]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    server = LogServer(tmp_path)
    try:
        await server.start()
        await server.create_log(max_msgs=1_000_000)
        rig = Rig(server)
        await rig.writer.start()
        yield rig
        await rig.close()
    finally:
        server.stop()


async def write(rig: Rig, count: int, batch: int = 10) -> None:
    for first in range(0, count, batch):
        await rig.writer.append_many([Entry(REPORT, b"%d" % i) for i in range(first, min(count, first + batch))])


async def test_what_comes_the_short_way_is_what_the_log_has(rig: Rig) -> None:
    await write(rig, 1)
    await rig.has_read(1)  # this one the log's
    await write(rig, 500)
    await rig.writer.append("detectd.log.report.plant.p%2F1.cbor", b"x", {"Detectd-First-Time": "17"})
    await rig.writer.append("detectd.log.tick", b"", {"Detectd-Backlog": "1"}, msg_id="mine")
    await rig.has_read(503)
    assert rig.rows == await rig.in_log()
    assert rig.echo.taken > 400
    assert (rig.echo.breaks, rig.gaps) == (0, [])
    times = [row[1] for row in rig.rows]
    assert times == sorted(times), "by our own clock, as the entries themselves say"


async def test_a_strangers_report_is_heard_of_though_we_write_nothing(rig: Rig) -> None:
    await write(rig, 50)
    await rig.has_read(50)
    await write(rig, 50)
    async with LogWriter(rig.server.access) as stranger:
        await stranger.append(REPORT, b"a stranger's")
        await rig.has_read(101)
    assert rig.rows[-1][-1] == b"a stranger's"
    assert rig.echo.breaks == 1
    assert rig.rows == await rig.in_log()


async def test_a_strangers_other_entry_is_found_with_our_next_one(rig: Rig) -> None:
    await write(rig, 50)
    await rig.has_read(50)
    await write(rig, 50)
    async with LogWriter(rig.server.access) as stranger:
        await stranger.append("detectd.log.mark", b"")
    await write(rig, 1)
    await rig.has_read(102)
    assert rig.rows == await rig.in_log()


async def test_strangers_and_kills_in_between_lose_and_double_nothing(rig: Rig) -> None:
    async def strangers() -> None:
        async with LogWriter(rig.server.access) as stranger:
            for i in range(20):
                await stranger.append_many([Entry(REPORT, b"strange %d" % i)] * 3)
                await asyncio.sleep(0.02)

    async def kills() -> None:
        for _ in range(2):
            await asyncio.sleep(0.3)
            rig.server.kill()
            await rig.server.start()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write(rig, 6000, batch=7))
        tasks.create_task(strangers())
        tasks.create_task(kills())
    await write(rig, 1)
    found = await rig.in_log()
    await rig.has_read(len(found))
    assert rig.rows == found
    assert rig.gaps == []
    own = [row[-1] for row in found if not row[-1].startswith(b"strange")]
    assert own == [*(b"%d" % i for i in range(6000)), b"0"]


async def test_where_others_may_write_with_headers_their_word_on_the_time_is_not_taken(rig: Rig) -> None:
    before = time.time_ns()
    await rig.writer.append(REPORT, b"x", {"Detectd-Time": "5"})  # ours comes last, and counts
    async with LogWriter(rig.server.access) as stranger:
        await stranger.append(REPORT, b"y", {"Detectd-Time": "5"})
    reader = LogReader(rig.server.access)  # as on a cluster that is not ours
    async with aclosing(reader.read_range(1, 2)) as batches:
        times = [int(ts) async for item in batches if isinstance(item, Frames) for ts in item.ts]
    assert all(before <= ts <= time.time_ns() for ts in times)


async def test_what_the_log_had_before_keeps_its_place_and_its_time(rig: Rig) -> None:
    """Ids of the caller's: a bridge whose broker delivers again after a restart."""
    known = [Entry(REPORT, b"%d" % i, {MSG_ID: f"bridge-{i}"}) for i in range(5)]
    async with LogWriter(rig.access, echo=Echo(time.time_ns)) as before:
        first = await before.append_many(known)
    again = [Entry(entry.subject, entry.payload, {**entry.headers, "Detectd-Backlog": "1"}) for entry in known]
    assert await rig.writer.append_many(again) == first
    await write(rig, 20)
    await rig.has_read(25)
    assert rig.rows == await rig.in_log()


async def test_acknowledgements_may_come_in_any_mixture(rig: Rig) -> None:
    """Those of a connection that is gone come among those of the one that took its place."""
    writer, sent = rig.writer, []
    await write(rig, 1)
    send = writer._send
    writer._send = lambda wire, window: sent.append(window) or window.begin()  # type: ignore[method-assign]
    tasks = [
        asyncio.create_task(writer.append_many([Entry(REPORT, b"x")] * 2)),
        asyncio.create_task(writer.append_many([Entry(REPORT, b"y")] * 3)),
    ]
    while len(sent) < 2:
        await asyncio.sleep(0)
    one, other = (window.parcel.number for window in sent)
    numbers = np.array([one, other + 1, other + 2, one], np.int64)
    writer.stored(numbers, np.array([10, 12, 13, 10], np.int64), doubled=False)
    assert [window.seqs.tolist() for window in sent] == [[10, 0], [0, 12, 13]]
    writer._send = send  # type: ignore[method-assign]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
