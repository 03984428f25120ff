"""What the bridge's tests share: a log that can be held up, a listener that remembers, a wait for a condition."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from config.model import Bridge
from daemon import brokers
from daemon.brokers._base import Entry, Source, Surroundings
from daemon.clock import SystemClock

DEADLINE_S = 30.0


class LogDouble:
    """Stores in memory. `gate` closed: a write waits; `failing`: it raises, without having stored anything."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = 0  # entries handed over and not stored yet
        self.failing = 0  # how many writes will raise
        self.batches: list[int] = []

    async def append_many(self, entries: Sequence[Entry], /) -> Sequence[int]:
        self.waiting = len(entries)
        await self.gate.wait()
        if self.failing:
            self.failing -= 1
            raise ConnectionError("the log is away")
        first = len(self.entries) + 1
        self.entries += entries
        self.batches.append(len(entries))
        self.waiting = 0
        return range(first, first + len(entries))

    @property
    def payloads(self) -> list[bytes]:
        return [entry.payload for entry in self.entries]


class ListenerDouble:
    def __init__(self) -> None:
        self.ups: list[int | None] = []
        self.downs: list[str] = []
        self.before_up: Callable[[], None] = lambda: None

    async def up(self, bridge: str, since_ns: int | None) -> None:
        self.before_up()
        self.ups.append(since_ns)

    def down(self, bridge: str, why: str) -> None:
        self.downs.append(why)


def source(options: Bridge, log: LogDouble, listener: ListenerDouble | None = None, **limits: int) -> Source:
    jitter = random.Random(4)
    around = Surroundings(
        log=log,
        listener=listener or ListenerDouble(),
        clock=SystemClock(),
        random=lambda: jitter.random() * 0.1,  # attempts come quickly: nobody waits for a backoff here
        **{"payload_bytes_max": 131_072, **limits},
    )
    return brokers.build(options, around)


@asynccontextmanager
async def running(bridge: Source, *, connected: bool = True) -> AsyncIterator[Source]:
    task = asyncio.create_task(bridge.run(), name="bridge under test")
    try:
        if connected:
            await until(lambda: bridge.counts.connected)
        yield bridge
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(claim: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
    """Wait until `claim` holds."""
    async with asyncio.timeout(deadline_s):
        while not claim():
            await asyncio.sleep(0.01)
