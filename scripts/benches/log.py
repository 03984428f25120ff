"""The log against nats-py on the same stream: reading (ordered push, counting callback) and writing, under uvloop.

Prints ratios of one run, medians of a few.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import machine
import nats
import uvloop
from log_server import LogServer
from nats.aio.client import Client

from daemon.log.reader import Entry, Gap, LogReader, LogWriter

PAYLOAD_BYTES = 1000
THINGS = 10_000


@dataclass(frozen=True)
class Run:
    """One way to do `count` things: wall and own CPU seconds."""

    count: int
    wall_s: float
    cpu_s: float

    def __str__(self) -> str:
        return f"{self.count / self.wall_s:>9,.0f}/s  {1e6 * self.cpu_s / self.count:>6.2f} µs CPU each"


async def timed(count: int, work: Callable[[], Awaitable[int]]) -> Run:
    wall, cpu = time.perf_counter(), time.process_time()
    done = await work()
    run = Run(count, time.perf_counter() - wall, time.process_time() - cpu)
    if done != count:
        raise SystemExit(f"{done} instead of {count}")
    return run


async def ours_read(server: LogServer, count: int) -> int:
    seen = 0
    async with aclosing(LogReader(server.access).batches(0)) as batches:
        async for item in batches:
            if isinstance(item, Gap):
                raise SystemExit(f"a gap: {item}")
            seen += len(item)
            if seen >= count:
                break
    return seen


async def theirs_read(server: LogServer, count: int) -> int:
    """What nats-py does alone: an ordered push consumer with a callback that counts."""
    nc = await client(server)
    done = asyncio.Event()
    seen = 0

    async def counting(_message: object) -> None:
        nonlocal seen
        seen += 1
        if seen >= count:
            done.set()

    subscription = await nc.jetstream().subscribe(">", stream="LOG", cb=counting, ordered_consumer=True)
    await done.wait()
    await subscription.unsubscribe()
    await nc.close()
    return seen


async def ours_written(server: LogServer, count: int) -> int:
    async with LogWriter(server.access) as writer:
        await writer.append("detectd.log.tick", b"")
        return len(await writer.append_many(entries(count)))


async def theirs_written(server: LogServer, count: int) -> int:
    """What nats-py does alone: publish_async, at most 4 000 unacknowledged as ours."""
    nc = await client(server)
    stream = nc.jetstream(publish_async_max_pending=4000)
    for entry in entries(count):
        await stream.publish_async(entry.subject, entry.payload, wait_stall=60)
    await stream.publish_async_completed()
    await nc.close()
    return count


async def one_at_a_time(server: LogServer, rounds: int) -> list[float]:
    """Seconds from an append to its batch, each alone: two trips to the server and its write."""
    found = []
    async with LogWriter(server.access) as writer, aclosing(LogReader(server.access).batches(0)) as batches:
        await writer.append("detectd.log.tick", b"")
        await anext(batches)
        for _ in range(rounds):
            began = time.perf_counter()
            await asyncio.gather(writer.append("detectd.log.tick", b""), anext(batches))
            found.append(time.perf_counter() - began)
    return found


async def client(server: LogServer) -> Client:
    return await nats.connect(server.access.urls[0], user=server.access.user, password=server.access.password)


def entries(count: int) -> list[Entry]:
    payload = b"x" * PAYLOAD_BYTES
    return [Entry(f"$aws.things.thing-{i % THINGS}.defender.metrics.json", payload) for i in range(count)]


def compare(what: str, ours: list[Run], theirs: list[Run]) -> None:
    mine, other = median(ours), median(theirs)
    rate = (mine.count / mine.wall_s) / (other.count / other.wall_s)
    cpu = (other.cpu_s / other.count) / (mine.cpu_s / mine.count)
    print(f"{what:<8} LogReader/Writer {mine}")
    print(f"{'':<8} nats-py          {other}")
    print(f"{'':<8} ratio            {rate:>9.2f}    {cpu:>6.2f} × less CPU")


def median(runs: list[Run]) -> Run:
    return sorted(runs, key=lambda run: run.wall_s / run.count)[len(runs) // 2]


async def main(count: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        server = LogServer(Path(folder))
        try:
            await server.start()
            await measure(server, count, rounds)
        finally:
            server.stop()


async def measure(server: LogServer, count: int, rounds: int) -> None:
    print(f"# {count} entries of {PAYLOAD_BYTES} bytes, {THINGS} things, medians of {rounds}")
    await server.create_log()
    alone = await one_at_a_time(server, 500)
    written: tuple[list[Run], list[Run]] = ([], [])
    read: tuple[list[Run], list[Run]] = ([], [])
    fewer = count // 10  # nats-py takes its time
    for _ in range(rounds):
        await server.ask("STREAM.PURGE.LOG")
        written[1].append(await timed(fewer, lambda: theirs_written(server, fewer)))
        await server.ask("STREAM.DELETE.LOG")
        await server.create_log()
        written[0].append(await timed(count, lambda: ours_written(server, count)))
        read[0].append(await timed(count + 1, lambda: ours_read(server, count + 1)))
        read[1].append(await timed(count + 1, lambda: theirs_read(server, count + 1)))
    compare("reading", *read)
    compare("writing", *written)
    print(f"alone    append → stored → read: median {1e6 * statistics.median(alone):.0f} µs")


if __name__ == "__main__":
    quick = machine.is_quick()
    uvloop.run(main(20_000 if quick else 200_000, 1 if quick else 3))
