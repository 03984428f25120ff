"""Takes datapoints from the pipeline, makes them durable, and answers for them: the history of a running daemon.

**When the disk can't follow.** Batches wait in a bounded queue. When much waits and the disk is well, the pipeline
waits a moment (`room`): so a fast replay is held to what SQLite takes. When the disk is full, failing or hung, judging
goes on: the history stops taking (`behind`), and once it can write again it reads the log from where it stopped, with
a copy of the router as it was there, until it has caught up with the pipeline. Nothing is missing then, except what
the log itself has dropped meanwhile (`lost`).
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import structlog

from actors.retention import Retention, retention
from actors.router import Routed
from actors.series import Series
from actors.world import World
from config.kinds import ValueField
from config.model import MS, NS
from daemon.history import reader, tables
from daemon.history.behind import Behind, Definition, ReadRange, again, fallen
from daemon.history.packer import Packer
from daemon.history.points import REPORTS, Key, Points
from daemon.history.reader import Columns, Datum, Place, Wanted
from daemon.history.tables import Expired, HistoryError, Stored
from daemon.history.tail import Rows
from daemon.history.waiting import Defined, Item, Reports, Waiting, Windows, prepared
from daemon.store.database import Readers
from daemon.store.writer import Condition, StoreClosed, Writer, backoff_s

RETENTION_NS: Final = 14 * 86_400 * NS  # spec.md §11
GATHER_S: Final = 0.1  # reports of so long share a commit
ROOM_WAIT_S: Final = 1.0
SETTLE_WAIT_S: Final = 5.0
MS_MAX: Final = 2**60  # no instant is later
BROKEN: Final = ".broken"

State = Condition | Literal["failed"]

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Counters:
    """What the history counts; plain numbers for telemetry."""

    rows: int = 0  # committed: reports with at least one datapoint
    refused: int = 0  # rows of things beyond limits.things_max
    turned_away: int = 0  # datapoints of windows for which the queue had no room
    waits: int = 0  # of the pipeline, for room in the queue
    behind: int = 0  # times that the disk could not follow, and the log was read again
    lost: int = 0  # entries that the log had dropped before they were read again
    holes: int = 0  # starts of the pipeline behind the history's position: what is between is missing
    expired: int = 0  # chunks that became too old
    dropped: int = 0  # chunks that went before, to keep to the most bytes
    started_afresh: int = 0  # the file was damaged


def _ignore(*_: object) -> None: ...


class History:
    """Open with `await History.open(…)`, give it the log's identity (`adopt`), `run` it in a task, `close` it.

    `state` is the disk's; "failed": a bug or a damaged file, nothing is taken any more.
    """

    def __init__(self, path: Path, con: sqlite3.Connection, on_condition: Callable[[Condition, str], None],
                 backoff: Callable[[int], float]) -> None:  # fmt: skip
        self.path, self.counters = path, Counters()
        self.state: State = "ok"
        self._on_condition = on_condition
        self._things, self._series = tables.things(con), tables.series(con)
        self._reached, tail = tables.positions(con), list(tables.tail(con))
        self._writer = Writer(con, on_condition=self._heard, backoff=backoff)
        self._readers = Readers(path)
        self.packer = Packer(self._writer, self._readers, self._fields, self._dropped, self._fail)
        for rows in tail:
            self._append(rows)
        self._world: World | None = None
        self._kept: Retention | None = None
        self._things_max = 0
        self._waiting = Waiting()
        self._taken = 0  # the last position that the pipeline has told of
        self._behind: Behind | None = None
        self._is_hung = False
        self._turn = asyncio.Lock()  # numbers of things and series change under it
        self._wake, self._hurry, self._moved = asyncio.Event(), asyncio.Event(), asyncio.Condition()

    @classmethod
    async def open(
        cls, path: Path, *, on_condition: Callable[[Condition, str], None] = _ignore,
        backoff: Callable[[int], float] = backoff_s,
    ) -> "History":  # fmt: skip
        """Open or create `path`; a damaged file is set aside, and a new one begun. Raises OSError, `HistoryError`."""
        try:
            return await cls._opened(path, on_condition, backoff)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # busy, full, can't open: no damage
                raise HistoryError(f"opening {path}: {error}") from error
            log.error("history.damaged", path=str(path), error=str(error), set_aside=path.name + BROKEN)
            await asyncio.to_thread(_set_aside, path)
        history = await cls._opened(path, on_condition, backoff)
        history.counters.started_afresh = 1
        return history

    @classmethod
    async def _opened(
        cls, path: Path, on_condition: Callable[[Condition, str], None], backoff: Callable[[int], float]
    ) -> "History":
        con = await asyncio.to_thread(tables.open_to_write, path)
        try:
            return cls(path, con, on_condition, backoff)  # reads what is in it, and may find it damaged
        except BaseException:
            con.close()
            raise

    async def close(self) -> None:
        """Write what waits, as far as the disk lets us, and close the file."""
        if self.state != "failed":
            with contextlib.suppress(StoreClosed, TimeoutError, sqlite3.Error):
                async with asyncio.timeout(SETTLE_WAIT_S):
                    await self._writer.submit(_ignore)  # behind what `run` gave it, or that would be written again
                    await self._flush()
        await self.packer.close()
        await self._writer.close()
        await self._readers.close()

    # ---- what the pipeline tells; in the loop, and at once ----

    async def adopt(self, identity: str, log_last: int) -> int:
        """The log that there is; up to which position its reports are in."""
        self._reached = await self._writer.submit(lambda con: tables.adopt(con, identity, log_last))
        return self._reached.get(REPORTS, 0)

    def begin(self, position: int, world: World) -> None:
        """The pipeline starts behind `position`."""
        reached = self._reached.get(REPORTS, 0)
        if reached < position:
            self.counters.holes += bool(reached)
            log.warning("history.hole", first=reached + 1, last=position, why="a checkpoint is beyond the history")
        self._taken = max(reached, position)
        self._take_rules(world)

    def follow(self, position: int, world: World) -> None:
        """New rules are in force since `position`."""
        self._take_rules(world)
        assert self._kept is not None
        self._taken = position
        if self._behind is None and self.state != "failed":  # or its position would pass what it lost
            self._put(Defined(self._kept.vocabulary, position))

    def take(self, routed: Routed) -> None:
        """One batch, as it was routed."""
        self._taken = int(routed.batch.frames.seq[-1])
        if self._behind is not None or self.state == "failed":
            return
        assert self._kept is not None
        if len(routed.reports) and self._kept.kept:
            self._put(Reports(routed, self._kept, self._taken))
            if self._waiting.is_full():
                self._fall_behind()

    def put_later(self, source: str, make: Callable[[], Points], size: int, position: int) -> None:
        """Datapoints that another source than the reports has formed up to `position` (closed windows).

        `make` gives them, about `size`, in a thread. All that a source has at one position comes in one call: a second
        one is taken for a repeat.
        """
        if self.state == "failed" or not self._waiting.has_room_for(size):
            self.counters.turned_away += size
            return
        self._put(Windows(source, make, size, position))

    def passed(self, position: int) -> None:
        """An entry that brings no datapoints."""
        self._taken = max(self._taken, position)

    async def room(self) -> None:
        """Wait while much waits to be written and the disk is well; never for long."""
        if not self._waiting.is_crowded() or self.state != "ok" or self._is_hung or self._behind is not None:
            return
        self.counters.waits += 1
        self._hurry.set()
        try:
            async with asyncio.timeout(ROOM_WAIT_S), self._moved:
                await self._moved.wait_for(lambda: not self._waiting.is_crowded() or self.state != "ok")
        except TimeoutError:
            self._is_hung = True  # until the next commit: wait for no further batch

    async def settled(self) -> bool:
        """Whether all that was taken so far is durable, after waiting a little. A failed history holds nobody up."""
        if self.state == "failed":
            return True
        if self._behind is not None or self.state != "ok":
            return False
        wanted, queued = self._taken, self._waiting.put
        self._wake.set()
        self._hurry.set()
        try:
            # By their count, not by position: a window that an actor has closed comes later than reports behind it.
            async with asyncio.timeout(SETTLE_WAIT_S), self._moved:
                await self._moved.wait_for(lambda: self._waiting.written >= queued or self._behind is not None)
            if self._behind is None:
                await self._mark(wanted)
        except (TimeoutError, StoreClosed, sqlite3.Error):  # a full disk, say: there will be another checkpoint
            return False
        return self._behind is None

    async def _mark(self, position: int) -> None:
        """Note a position behind the last datapoint, and sync: a checkpoint is about to rely on it."""
        await self._writer.submit(lambda con: tables.put_positions(con, {REPORTS: position}))
        self._reached[REPORTS] = max(position, self._reached.get(REPORTS, 0))
        await self._readers.run(lambda con: con.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall())

    # ---- the task that writes ----

    async def run(self, read_range: ReadRange, definition: Definition) -> None:
        """Write what comes, for ever. `read_range` reads entries [first, last] of the log."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._gather()
                await self._flush()
                if self._behind is not None:
                    await self._catch_up(read_range, definition)
            except Exception as error:  # noqa: BLE001 - the boundary of the history: judging goes on without it
                self._fail(error)

    async def _gather(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHER_S):
                await self._hurry.wait()
        self._hurry.clear()

    async def _flush(self) -> None:
        async with self._turn:
            while items := self._waiting.next():
                await self._write(items)
                self._waiting.let_go(len(items))
                self._is_hung = False
                async with self._moved:
                    self._moved.notify_all()

    async def _write(self, items: Sequence[Item]) -> None:
        if isinstance(items[0], Defined):
            await self._end_series(items[0])
            return
        batches, reached = await asyncio.to_thread(prepared, items, self._reached)
        await self._store(batches, reached)

    async def _store(self, batches: Sequence[Points], reached: Mapping[str, int]) -> None:
        def run(con: sqlite3.Connection) -> Stored:
            return tables.store(con, batches, reached, self._things, self._series, self._things_max)

        def then(stored: Stored) -> None:
            self._things |= stored.things
            self._series |= stored.series
            self._reached |= reached
            self.counters.refused += stored.refused
            for rows in stored.rows:
                self.counters.rows += len(rows)
                self._append(rows)

        await self._writer.submit(run, then)
        await self.packer.keep_up()

    async def _end_series(self, defined: Defined) -> None:
        if defined.last <= self._reached.get(REPORTS, 0):
            return  # read from the log again: what came after it is here already
        gone = {
            key: number for key, number in self._series.items() if not defined.vocabulary.has(key.series, key.field)
        }
        reached = {REPORTS: defined.last}

        def run(con: sqlite3.Connection) -> None:
            tables.drop_series(con, gone.values())
            tables.put_positions(con, reached)

        def then(_: None) -> None:
            self._reached |= reached
            self._series = {key: number for key, number in self._series.items() if key not in gone}

        await self._writer.submit(run, then)

    def _put(self, item: Item) -> None:
        self._waiting.add(item)
        self._wake.set()

    def _append(self, rows: Rows) -> None:
        self.packer.tail.append(rows, frozenset(number for key, number in self._series.items() if key.is_set))

    def _take_rules(self, world: World) -> None:
        self._world, self._things_max = world, world.rules.limits.things_max
        self._kept = retention(world.rules, world.kinds, world.schema, world.router.registry)

    def _heard(self, condition: Condition, detail: str) -> None:
        if self.state != "failed":
            self.state = condition
        self._on_condition(condition, detail)

    def _fail(self, error: Exception) -> None:
        log.error("history.failed", error=repr(error), why="judging goes on; metric values are no longer kept")
        self.state, self._behind = "failed", None
        self._waiting.clear()

    # ---- behind ----

    def _fall_behind(self) -> None:
        assert self._world is not None
        self.counters.behind += 1
        log.warning("history.behind", position=self._taken, state=self.state, why="the log is read again later")
        self._behind = fallen(self._world, self._taken)

    async def _catch_up(self, read_range: ReadRange, definition: Definition) -> None:
        """Read the log again until the pipeline's place is reached: between the last look and the end nothing runs."""
        behind = self._behind
        assert behind is not None
        while behind.position < self._taken:
            async for item in again(behind, self._taken, read_range, definition):
                if self.state == "failed":  # in the packer
                    return
                self.counters.lost += item.lost
                async with self._turn:
                    if item.vocabulary is not None:
                        await self._end_series(Defined(item.vocabulary, behind.position))
                    elif item.routed is not None:
                        one = Reports(item.routed, behind.kept, behind.position)
                        await self._write([one])
        self._behind = None
        log.info("history.caught-up", position=behind.position)

    # ---- what becomes too old ----

    def _dropped(self, chunks: int) -> None:
        self.counters.dropped += chunks

    def _fields(self) -> dict[int, ValueField]:
        return {number: key.field for key, number in self._series.items()}

    async def expire(self, now_ns: int) -> None:
        """Forget what is older than 14 days; pack a tail that nothing has been added to for long."""
        await self.packer.keep_up_at(now_ns // MS)
        async with self._turn:
            # What waits to be packed is in no chunk yet, and a thing's or series' only word may be there.
            waiting = await asyncio.to_thread(tables.numbers_in, self.packer.seen())
            before_ms = (now_ns - RETENTION_NS) // MS
            try:
                await self._writer.submit(lambda con: tables.expire(con, before_ms, waiting), self._expired)
            except sqlite3.Error as error:  # the boundary of the history
                self._fail(error)

    def _expired(self, gone: Expired) -> None:
        self.counters.expired += gone.chunks
        for name in gone.things:
            self._things.pop(name, None)
        self._series = {key: number for key, number in self._series.items() if number not in gone.series}

    # ---- answers ----

    async def values(
        self, thing: str, series: Series, field: ValueField, since_ns: int, until_ns: int,
        before: Place | None, limit: int,
    ) -> tuple[list[Datum], Place | None]:  # fmt: skip
        """Datapoints of a thing with since_ns <= time <= until_ns, the newest first, at most `limit`.

        Returns:
            The datapoints, and the place to go on from (`before`), None at the end.
        """
        key = Key(series, field)
        number, thing_number = self._series.get(key), self._things.get(thing.encode())
        if number is None or thing_number is None or limit < 1:
            return [], None
        wanted = Wanted(thing_number, number, _up(since_ns), -_up(-until_ns))
        tails = self.packer.seen()
        return await self._readers.run(lambda con: reader.values(con, tails, key, wanted, before, limit))

    async def since_ns(self, series: Series, field: ValueField) -> int | None:
        """When the first datapoint of a series was measured, though it may be gone; None: there was none."""
        number = self._series.get(Key(series, field))
        if number is None:
            return None
        ms = await self._readers.run(lambda con: tables.since_ms(con, number))
        return None if ms is None else ms * MS

    def columns(self, series: Series, field: ValueField, since_ns: int, until_ns: int) -> Iterator[Columns]:
        """Every datapoint of a scalar series with since_ns <= time < until_ns, piece by piece; for a thread."""
        key = Key(series, field)
        number = self._series.get(key)
        return iter(()) if number is None else self._columns(key, number, since_ns, until_ns)

    def _columns(self, key: Key, number: int, since_ns: int, until_ns: int) -> Iterator[Columns]:
        with contextlib.closing(tables.open_to_read(self.path)) as con:
            yield from reader.columns(con, self.packer.seen(), key, number, _up(since_ns), _up(until_ns))


def _up(ns: int) -> int:
    """The first millisecond that is not before."""
    return max(-MS_MAX, min(-(-ns // MS), MS_MAX))


def _set_aside(path: Path) -> None:
    path.replace(path.with_name(path.name + BROKEN))
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
