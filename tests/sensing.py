"""A sensor in front of a broker, in the test's own loop, and a log that remembers what it is given."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from actors.controls import RESUMED, Pause
from actors.events import CLIENT, COUNT, KIND, KINDS, SUBJECT, TOPIC, unpacked
from config.address import Address
from daemon.brokers._base import Entry
from daemon.clock import Clock, SystemClock
from daemon.log.parcel import Form, Parcel, Roll
from daemon.sensor.door import Anyone, Doorman, Hello, Pass, Refusal
from daemon.sensor.sensor import Sensor
from daemon.sensor.upstream import Upstream

DEADLINE_S = 30.0
ANYWHERE = Address("127.0.0.1", 0)


class OpenDoor:
    """A doorman who lets everybody in, and judges nobody."""

    revision = 0

    async def admit(self, hello: Hello) -> Pass | Refusal:
        return Anyone(hello.username or "")

    def still_good(self, hello: Hello, given: Any) -> bool:
        return True


class LogDouble:
    """Stores in memory; `away` makes it fail, `hung` makes it wait."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.form = Form()
        self.away = False
        self.hung = asyncio.Event()
        self.hung.set()
        self.refusals = 0

    async def append_many(self, entries: Sequence[Entry], /) -> Sequence[int]:
        await self.hung.wait()
        if self.away:
            self.refusals += 1
            raise OSError("the log is away")
        self.entries += entries
        return list(range(len(self.entries)))

    def parcel(self, roll: Roll, size: int) -> Parcel:
        return Parcel(self.form, roll.sheet(size), 1)

    async def append_parcel(self, parcel: Parcel) -> None:
        frames = parcel.frames()
        await self.append_many([Entry(frames.subject(i), frames.payload(i)) for i in range(len(frames))])

    def events(self) -> list[tuple[str, str, str, int]]:
        """(kind, client, topic, count), in the log's order."""
        found = []
        for entry in self.entries:
            if entry.subject.startswith(SUBJECT):
                read = unpacked(entry.payload)
                assert read is not None
                content, table = read
                for row in table.tolist():
                    topic = content.topics[row[TOPIC]] if row[TOPIC] >= 0 else ""
                    found.append((KINDS[row[KIND]], content.clients[row[CLIENT]], topic, row[COUNT]))
        return found

    def count(self, kind: str, client: str, topic: str | None = None) -> int:
        return sum(n for k, c, t, n in self.events() if (k, c) == (kind, client) and topic in (None, t))

    def cuts(self) -> list[Pause]:
        return [msgspec.json.decode(one.payload, type=Pause) for one in self.entries if one.subject == RESUMED]


class Seen:
    """A running sensor."""

    def __init__(self, sensor: Sensor, log: LogDouble, address: Address) -> None:
        self.sensor, self.log, self.address = sensor, log, address

    @property
    def counts(self) -> Any:
        return self.sensor.counts

    async def connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.address.host, self.address.port)

    async def noted(self, kind: str, client: str, topic: str | None = None, times: int = 1) -> None:
        """Waits until the log has it."""
        await until(
            lambda: self.log.count(kind, client, topic) >= times,
            lambda: f"{times} × {kind} of {client}: {self.log.events()} {self.counts}",
        )


@asynccontextmanager
async def sensing(
    port: int, *, door: Doorman | None = None, clock: Clock | None = None, log: LogDouble | None = None,
    name: str = "plant", upstream: Upstream | None = None, takes_reports: bool = False, **options: Any,
) -> AsyncIterator[Seen]:  # fmt: skip
    """In front of a broker on this port of loopback."""
    log = log or LogDouble()
    to = upstream or Upstream(lambda: Address("127.0.0.1", port))
    sensor = Sensor(
        name, to, door or OpenDoor(), log, clock or SystemClock(), reports=log if takes_reports else None, **options
    )
    address = await sensor.listen(ANYWHERE)
    task = asyncio.create_task(sensor.run())
    try:
        yield Seen(sensor, log, address)
    finally:
        task.cancel()
        await asyncio.wait([task])
        await sensor.stop()
        assert task.cancelled(), task.exception()


async def until(is_so: Callable[[], object], what: str | Callable[[], str] = "it") -> None:
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not is_so():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"never happened: {what if isinstance(what, str) else what()}") from None


async def eventually(is_so: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await is_so():
            await asyncio.sleep(0.01)
