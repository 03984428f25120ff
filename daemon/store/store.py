"""What detectd remembers in SQLite: violations, events, the outbox, positions, and what to say about the log.

One writer (`daemon.store.writer`), readers beside it, WAL. `commit` is one transaction: the events, what becomes of
their violations, one outbox row per receiver, and the positions of the actors that asked for them.

**Power loss.** `synchronous=NORMAL`: after a crash of the process nothing that was committed is missing; after a
loss of power the last commits may be (SQLite's WAL is then cut at a transaction, never torn). They are made again
from the log, with the same ids, because the record of a checkpoint is a later commit than the effects before it;
a notice that had gone out goes out once more under the same webhook-id.
`durable=True` (`synchronous=FULL`) costs one fsync per commit.

Instants are integer nanoseconds; `clock` gives the wall clock's.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from actors.delivery import State
from actors.effects import Transition
from actors.notice import Notice
from config.model import NS, MetricValue
from daemon.store import outbox, rule_pieces, violations
from daemon.store.database import Readers, StoreError, copy, open_to_write
from daemon.store.violations import Committed, Violation
from daemon.store.writer import Condition, Writer, backoff_s

__all__ = ["Counters", "Gap", "Poison", "Store", "StoreError", "Violation"]

T = TypeVar("T")
Con = sqlite3.Connection

TOUCH_EVERY_S: Final = 1.0
RETENTION_NS: Final = 30 * 86_400 * NS
POISON_MAX: Final = 10_000
STORED_STATES: Final = tuple(state for state in State if state is not State.SENDING)


class Poison(msgspec.Struct, frozen=True):
    """A log entry that crashed an actor twice."""

    actor: str
    seq: int
    subject: str
    entry: bytes
    error: str
    time_ns: int


class Gap(msgspec.Struct, frozen=True):
    """Positions [first, last] of `source` that nobody has judged, and why."""

    source: str
    first: int
    last: int
    time_ns: int
    reason: str


@dataclass(slots=True)
class Counters:
    """What the store counts; plain numbers for telemetry."""

    repeats: int = 0  # events that were stored already
    touches: int = 0
    expired: int = 0  # violations removed by retention
    poison_refused: int = 0  # beyond POISON_MAX


def _no_receivers(_: Transition) -> Sequence[str]:
    return ()


def _ignore(*_: object) -> None: ...


class Store:
    """Open with `await Store.open(…)`, close with `await close()`.

    `route` says which receivers hear of a transition; `on_notices` is handed every fresh outbox row right after
    its commit, in order; both are set by dispatch.
    """

    def __init__(self, path: Path, writer: Writer, readers: Readers, clock: Callable[[], int]) -> None:
        self.path = path
        self.writer = writer
        self.counters = Counters()
        self.route: Callable[[Transition], Sequence[str]] = _no_receivers
        self.on_notices: Callable[[Sequence[Notice]], None] = _ignore
        self._readers = readers
        self._clock = clock
        self._touched: dict[str, tuple[int, MetricValue | None]] = {}
        self._noted: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._flush: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        clock: Callable[[], int],
        on_condition: Callable[[Condition, str], None] = _ignore,
        backoff: Callable[[int], float] = backoff_s,
        durable: bool = False,
    ) -> "Store":
        """Open or create the database at `path`, and migrate it. `on_condition(condition, detail)` hears when
        writing starts to fail ("storage-full", …) and when it is "ok" again. Raises `StoreError`.
        """
        con = await asyncio.to_thread(open_to_write, path, durable)
        writer = Writer(con, on_condition=on_condition, backoff=backoff)
        return cls(path, writer, Readers(path), clock)

    async def close(self) -> None:
        """Write what is queued and let go of the file. On a full disk what can't be written is given up."""
        if self._timer is not None:
            self._timer.cancel()
        last = asyncio.create_task(self.flush(), name="store-last-flush")
        await asyncio.sleep(0)  # it is queued now, before the end mark
        await self.writer.close()
        await asyncio.gather(last, *([self._flush] if self._flush else []), return_exceptions=True)
        await self._readers.close()

    @property
    def condition(self) -> Condition:
        return self.writer.condition

    # Alarms

    async def commit(self, transitions: Sequence[Transition], positions: Mapping[str, int] | None = None) -> list[str]:
        """Store transitions, in order, and positions, in one transaction; the ids of the events that were new.

        An event that is stored already (the log was read again after a crash) is recognised by its id and
        dropped, outbox rows and all. While the disk is full this waits. Raises `StoreClosed`.
        """
        routed = [(t, self._receivers(t)) for t in transitions]
        at = dict(positions or {})
        now_ns = self._clock()
        done = await self.writer.submit(lambda con: violations.commit(con, routed, at, now_ns), self._committed)
        self.counters.repeats += len(transitions) - len(done.event_ids)
        return done.event_ids

    def _receivers(self, transition: Transition) -> Sequence[str]:
        return () if transition.behavior.suppress_alerts else tuple(self.route(transition))

    def _committed(self, done: Committed) -> None:
        if done.notices:
            self.on_notices(done.notices)

    def touch(self, violation_id: str, last_violation_ns: int, last_value: MetricValue | None) -> None:
        """An open alarm violated again. Written within about a second; only the latest counts."""
        self._touched[violation_id] = last_violation_ns, last_value
        self.counters.touches += 1
        self._arm()

    def note_positions(self, positions: Mapping[str, int]) -> None:
        """Positions that brought nothing about, and need not be durable at once. Written with the next touches."""
        self._noted.update(positions)
        self._arm()

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TOUCH_EVERY_S, self._start_flush)

    def _start_flush(self) -> None:
        self._timer = None
        if self._flush is None or self._flush.done():
            self._flush = asyncio.get_running_loop().create_task(self.flush(), name="store-touches")
        else:
            self._arm()  # the disk is full, or slow: keep collecting

    async def flush(self) -> None:
        """Write touches and noted positions now."""
        touched, self._touched = self._touched, {}
        noted, self._noted = self._noted, {}
        if touched or noted:
            await self.writer.submit(lambda con: violations.touch(con, touched, noted))

    async def active_violations(self) -> list[Violation]:
        """Every open alarm, oldest first: what the views are built from at the start."""
        return await self.read(violations.active)

    async def violation(self, violation_id: str) -> Violation | None:
        return await self.read(lambda con: violations.violation(con, violation_id))

    async def verify(self, violation_id: str, state: str, description: str | None) -> bool:
        """Someone judged a violation (spec.md §7.3); False where there is none of that id."""
        now_ns = self._clock()
        return await self.writer.submit(lambda con: violations.verify(con, violation_id, state, description, now_ns))

    async def expire(self, now_ns: int | None = None, *, older_than_ns: int = RETENTION_NS) -> int:
        """Remove violations that were closed longer ago, with their events and deliveries; how many.

        In small transactions, so that commits in between hardly wait.
        """
        before_ns = (self._clock() if now_ns is None else now_ns) - older_than_ns
        removed = 0
        while chunk := await self.writer.submit(lambda con: violations.expire(con, before_ns)):
            removed += chunk
            self.counters.expired += chunk
        return removed

    async def invalidate(self, violation_ids: AbstractSet[str], reason: str) -> list[str]:
        """End these alarms, as far as they are open: no actor knows of them any more. The ids of the events."""
        now_ns = self._clock()
        done = await self.writer.submit(
            lambda con: violations.invalidate_open(con, reason, now_ns, violation_ids), self._committed
        )
        return done.event_ids

    # The log, and where the actors are in it

    async def adopt_identity(self, identity: str) -> bool:
        """Remember which log this store belongs to. False: it belonged to another one. Then its positions and
        checkpoints, which mean nothing in this one, are dropped, its open alarms, which nothing in this one can
        clear, are invalidated and whoever heard of them is told; the caller records a gap.
        """
        now_ns = self._clock()
        done = await self.writer.submit(lambda con: _adopt_identity(con, identity, now_ns), self._adopted)
        return done is None

    def _adopted(self, done: Committed | None) -> None:
        if done is not None:
            self._committed(done)

    async def positions(self) -> dict[str, int]:
        return await self.read(lambda con: dict(con.execute("SELECT actor, position FROM positions")))

    async def drop_positions(self, actors: Iterable[str]) -> None:
        """These actors are gone: their positions go too."""
        names = [(name,) for name in actors]
        await self.writer.submit(lambda con: _drop_actors(con, names))

    async def put_checkpoint(self, position: int, manifest: str, keep: int) -> None:
        """Remember a checkpoint (`daemon.recovery.Manifest`); only the newest `keep` are."""
        await self.writer.submit(lambda con: _put_checkpoint(con, position, manifest, keep))

    async def checkpoints(self) -> list[str]:
        """Manifests, newest first."""
        rows = await self._rows("SELECT manifest FROM checkpoints ORDER BY position DESC")
        return [manifest for (manifest,) in rows]

    async def put_definition(self, digest: str, rules: bytes) -> None:
        """The content that a configuration entry of the log names by its digest."""
        pieces, now_ns = await asyncio.to_thread(rule_pieces.cut, rules), self._clock()
        await self.writer.submit(lambda con: rule_pieces.put(con, digest, pieces, now_ns))

    async def definition(self, digest: str) -> bytes | None:
        return await self.read(lambda con: rule_pieces.get(con, digest))

    async def drop_definitions(self, before_ns: int, keep: Iterable[str]) -> int:
        """Forget definitions stored before `before_ns`, which the log no longer names, except `keep`."""
        kept = tuple(keep)
        return await self.writer.submit(lambda con: rule_pieces.drop(con, before_ns, kept))

    async def put_gap(self, source: str, first: int, last: int, reason: str) -> bool:
        """Positions [first, last] were not judged. False: that was known already."""
        row = (source, first, last, self._clock(), reason)
        sql = "INSERT OR IGNORE INTO gaps (source, first, last, time_ns, reason) VALUES (?, ?, ?, ?, ?)"
        return await self._write(sql, row) > 0

    async def gaps(self, limit: int = 100) -> list[Gap]:
        """The latest, newest first."""
        sql = "SELECT source, first, last, time_ns, reason FROM gaps ORDER BY id DESC LIMIT ?"
        return [Gap(*row) for row in await self._rows(sql, (limit,))]

    async def put_poison(self, actor: str, seq: int, subject: str, entry: bytes, error: str) -> bool:
        """Set an entry aside. False: the table is full (`poison_refused` counts it)."""
        row = (actor, seq, subject, entry, error, self._clock())
        stored = await self.writer.submit(lambda con: _put_poison(con, row))
        self.counters.poison_refused += not stored
        return stored

    async def poison(self, limit: int = 1000) -> list[Poison]:
        sql = "SELECT actor, seq, subject, entry, error, time_ns FROM poison ORDER BY time_ns, seq LIMIT ?"
        return [Poison(*row) for row in await self._rows(sql, (limit,))]

    async def drop_poison(self, actor: str, seq: int) -> Poison | None:
        """Take an entry out of the table: to be dropped, or to be tried again. None where there is none."""
        return await self.writer.submit(lambda con: _drop_poison(con, actor, seq))

    async def get_meta(self, key: str) -> str | None:
        rows = await self._rows("SELECT value FROM meta WHERE key = ?", (key,))
        return rows[0][0] if rows else None

    async def put_meta(self, key: str, value: str) -> None:
        await self._write("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    # The outbox (rows are sent by daemon.delivery.dispatch)

    async def outbox_list(
        self,
        states: Sequence[State] = STORED_STATES,
        *,
        receiver: str | None = None,
        before_id: int = 2**62,
        limit: int = 250,
    ) -> list[outbox.Row]:
        """Rows in these states, newest first."""
        return await self.read(lambda con: outbox.listing(con, states, receiver, before_id, limit))

    async def outbox_resend(self, ids: Sequence[int]) -> list[Notice]:
        """Queue these again (`outbox.resend` says which can be); dispatch hears of them as of fresh ones."""
        now_ns = self._clock()
        return await self.writer.submit(lambda con: outbox.resend(con, ids, now_ns), self.on_notices)

    async def outbox_drop(self, ids: Sequence[int]) -> list[int]:
        """Never send these; the ids of those that could be dropped. Where a dispatch runs, use its `drop`."""
        now_ns = self._clock()
        return await self.writer.submit(lambda con: outbox.drop(con, ids, now_ns))

    async def backlogs(self) -> dict[str, outbox.Backlog]:
        """What waits, by receiver: depth and age for telemetry."""
        return await self.read(outbox.backlogs)

    # Anything else

    async def write(self, run: Callable[[Con], T]) -> T:
        """Run `run` in the next transaction. It may run more than once, and must do nothing but SQL."""
        return await self.writer.submit(run)

    async def read(self, run: Callable[[Con], T]) -> T:
        """Run `run` on a read-only connection, in a thread. At most `READERS` at a time; others wait.

        Raises `StoreClosed`.
        """
        return await self._readers.run(run)

    async def glance(self, run: Callable[[Con], T]) -> T:
        """As `read`, for what is short as a rule: read at once, and in a thread only if it turns out to be long."""
        return await self._readers.glance(run)

    @property
    def broken_off(self) -> int:
        """Glances that turned out to be long."""
        return self._readers.broken_off

    async def backup(self, path: Path) -> None:
        """A consistent copy of the database at `path`, made while everything goes on. Raises `StoreError`."""
        try:
            await self.read(lambda con: copy(con, path))
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"backing up to {path}: {error}") from error

    async def _write(self, sql: str, row: Sequence[Any]) -> int:
        return await self.writer.submit(lambda con: con.execute(sql, row).rowcount)

    async def _rows(self, sql: str, row: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return await self.read(lambda con: con.execute(sql, row).fetchall())


def _adopt_identity(con: Con, identity: str, now_ns: int) -> Committed | None:
    """None where the log is the one that is known; else what the change of logs brought about."""
    known = con.execute("SELECT value FROM meta WHERE key = 'log-identity'").fetchone()
    con.execute("INSERT OR REPLACE INTO meta VALUES ('log-identity', ?)", (identity,))
    if known is None or known[0] == identity:
        return None
    con.execute("DELETE FROM positions")
    con.execute("DELETE FROM checkpoints")
    return violations.invalidate_open(con, "the log that this alarm came from was replaced", now_ns)


def _put_checkpoint(con: Con, position: int, manifest: str, keep: int) -> None:
    con.execute("INSERT OR REPLACE INTO checkpoints VALUES (?, ?)", (position, manifest))
    con.execute(
        "DELETE FROM checkpoints WHERE position NOT IN "
        "(SELECT position FROM checkpoints ORDER BY position DESC LIMIT ?)",
        (keep,),
    )


def _drop_actors(con: Con, names: Sequence[tuple[str]]) -> None:
    con.executemany("DELETE FROM positions WHERE actor = ?", names)


def _put_poison(con: Con, row: tuple[Any, ...]) -> bool:
    (count,) = con.execute("SELECT count(*) FROM poison").fetchone()
    if count >= POISON_MAX:
        return False
    con.execute("INSERT OR REPLACE INTO poison VALUES (?, ?, ?, ?, ?, ?)", row)
    return True


def _drop_poison(con: Con, actor: str, seq: int) -> Poison | None:
    where = "FROM poison WHERE actor = ? AND seq = ?"
    row = con.execute(f"SELECT actor, seq, subject, entry, error, time_ns {where}", (actor, seq)).fetchone()
    con.execute(f"DELETE {where}", (actor, seq))
    return None if row is None else Poison(*row)
