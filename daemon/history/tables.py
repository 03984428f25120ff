"""The file `history.sqlite`: things and series by number, the tail as it was committed, chunks, and log positions.

Rows and the position up to which they are complete are one transaction: what is read from the log again is known.
A chunk is one column of 256 things (a block) over a run, a stretch of time; series 0 is who and when.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec
import numpy as np

from actors.series import Series
from daemon.history.points import Key, Points
from daemon.history.tail import Rows

Con = sqlite3.Connection

APPLICATION_ID: Final = 0x64746368  # "dtch"
VERSION: Final = 2
TIMES: Final = 0  # the series of things and times
BLOCK_BITS: Final = 8

TABLES: Final = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    # Per source of datapoints: all up to here are in, or there were none.
    "CREATE TABLE positions (source TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID",
    # AUTOINCREMENT: a number is never given twice, so what is left of something that went is nobody's.
    "CREATE TABLE things (id INTEGER PRIMARY KEY AUTOINCREMENT, name BLOB NOT NULL UNIQUE, last_ms INTEGER NOT NULL)",
    "CREATE INDEX things_by_age ON things (last_ms)",
    """CREATE TABLE series (
         id INTEGER PRIMARY KEY AUTOINCREMENT, metric TEXT NOT NULL, dimension TEXT NOT NULL, operator TEXT NOT NULL,
         field TEXT NOT NULL, since_ms INTEGER NOT NULL, UNIQUE (metric, dimension, operator, field))""",
    "CREATE TABLE tail (id INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL)",
    """CREATE TABLE chunks (
         series INTEGER NOT NULL, block INTEGER NOT NULL, run INTEGER NOT NULL, level INTEGER NOT NULL,
         rows INTEGER NOT NULL, first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, body BLOB NOT NULL)""",
    "CREATE UNIQUE INDEX chunks_by_place ON chunks (series, block, run)",
    "CREATE INDEX chunks_by_run ON chunks (block, run)",
    "CREATE INDEX chunks_by_age ON chunks (last_ms)",
    "CREATE INDEX chunks_to_merge ON chunks (block, run) WHERE level = 0 AND series = 0",
)


class HistoryError(Exception):
    """The file can't be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of a batch of datapoints. `refused`: rows of things beyond the most that there may be."""

    rows: Sequence[Rows]
    things: Mapping[bytes, int]  # new ones
    series: Mapping[Key, int]  # new ones
    refused: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """Numbers of things and series of which rows wait to be packed."""

    things: set[int]
    series: set[int]


@dataclass(frozen=True, slots=True)
class Expired:
    """What was removed: `things` by name, `series` by number."""

    chunks: int
    things: Sequence[bytes]
    series: frozenset[int]


class _Body(msgspec.Struct, frozen=True, array_like=True):
    things: bytes
    ms: bytes
    series: tuple[int, ...]
    values: bytes  # [series, row]
    words: tuple[bytes, ...]


def open_to_write(path: Path) -> Con:
    """Open or create the file. Raises `HistoryError`, and sqlite3.DatabaseError where it is damaged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    con = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0.2)
    try:
        con.execute("PRAGMA journal_mode = WAL")
        con.execute("PRAGMA synchronous = NORMAL")
        con.execute("PRAGMA wal_autocheckpoint = 0")  # the writer does it
        con.execute("PRAGMA journal_size_limit = 67108864")
        _make(con)
    except (HistoryError, sqlite3.Error):
        con.close()
        raise
    return con


def _make(con: Con) -> None:
    (version,) = con.execute("PRAGMA user_version").fetchone()
    (application,) = con.execute("PRAGMA application_id").fetchone()
    (tables,) = con.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if (application, version) == (APPLICATION_ID, 1):
        _add_since(con)
        version = VERSION
    if (tables or version) and (application, version) != (APPLICATION_ID, VERSION):
        raise HistoryError(f"not a history of this detectd: application {application:#x}, version {version}")
    if tables:
        return
    con.execute("BEGIN IMMEDIATE")
    for statement in TABLES:
        con.execute(statement)
    con.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    con.execute(f"PRAGMA user_version = {VERSION}")
    con.execute("COMMIT")


def _add_since(con: Con) -> None:
    """Version 1 did not note when a series began: its oldest chunk says, or what is newest of all."""
    con.execute("BEGIN IMMEDIATE")
    con.execute("ALTER TABLE series ADD COLUMN since_ms INTEGER NOT NULL DEFAULT 0")
    con.execute(
        """UPDATE series SET since_ms = coalesce(
             (SELECT min(first_ms) FROM chunks WHERE series = series.id), (SELECT max(last_ms) FROM things), 0)"""
    )
    con.execute(f"PRAGMA user_version = {VERSION}")
    con.execute("COMMIT")


# ---- numbers ----


def things(con: Con) -> dict[bytes, int]:
    return dict(con.execute("SELECT name, id FROM things"))


def series(con: Con) -> dict[Key, int]:
    rows = con.execute("SELECT id, metric, dimension, operator, field FROM series")
    return {Key(Series(*names), field): number for number, *names, field in rows}


def since_ms(con: Con, number: int) -> int | None:
    """When the first datapoint of a series was measured, though it may be gone; None: the series is."""
    row = con.execute("SELECT since_ms FROM series WHERE id = ?", (number,)).fetchone()
    return None if row is None else int(row[0])


def name_of(con: Con, thing: int) -> str:
    (name,) = con.execute("SELECT name FROM things WHERE id = ?", (thing,)).fetchone() or (b"",)
    return bytes(name).decode()


def _add_thing(con: Con, name: bytes, ms: int) -> int:
    return int(con.execute("INSERT INTO things (name, last_ms) VALUES (?, ?)", (name, ms)).lastrowid or 0)


def _add_series(con: Con, key: Key, ms: int) -> int:
    row = (key.series.metric, key.series.dimension, key.series.operator, key.field, ms)
    sql = "INSERT INTO series (metric, dimension, operator, field, since_ms) VALUES (?, ?, ?, ?, ?)"
    return int(con.execute(sql, row).lastrowid or 0)


# ---- positions ----


def positions(con: Con) -> dict[str, int]:
    return dict(con.execute("SELECT source, position FROM positions"))


def put_positions(con: Con, reached: Mapping[str, int]) -> None:
    sql = "INSERT INTO positions VALUES (?, ?) ON CONFLICT DO UPDATE SET position = max(position, excluded.position)"
    con.executemany(sql, reached.items())


def meta(con: Con, key: str, default: str = "") -> str:
    row = con.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return default if row is None else str(row[0])


def put_meta(con: Con, key: str, value: str) -> None:
    con.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def compacted(con: Con) -> int:
    """The last row of the tail that chunks hold."""
    return int(meta(con, "compacted", "0"))


# ---- the tail ----


def store(
    con: Con, batches: Sequence[Points], reached: Mapping[str, int], known: Mapping[bytes, int],
    numbers: Mapping[Key, int], things_max: int,
) -> Stored:  # fmt: skip
    """Commit datapoints, and that all of their sources' are in up to the positions `reached`."""
    new_things: dict[bytes, int] = {}
    new_series: dict[Key, int] = {}
    stored, refused = [], 0
    for points in batches:
        for key in points.keys:
            if key not in numbers and key not in new_series:
                new_series[key] = _add_series(con, key, int(points.ms.min()))
        ids = _numbered(con, points, known, new_things, things_max)
        columns = [numbers.get(key) or new_series[key] for key in points.keys]
        rows = _rows(points, ids, columns)
        refused += len(points) - len(rows)
        if len(rows):
            stored.append(_put(con, rows))
    put_positions(con, reached)
    return Stored(stored, new_things, new_series, refused)


def _numbered(
    con: Con, points: Points, known: Mapping[bytes, int], new: dict[bytes, int], things_max: int
) -> list[int | None]:
    found: list[int | None] = list(map(known.get, points.names))
    if None not in found:
        return found
    for row, name in enumerate(points.names):
        if found[row] is None:
            if name not in new and len(known) + len(new) < things_max:
                new[name] = _add_thing(con, name, int(points.ms[row]))
            found[row] = new.get(name)
    return found


def _rows(points: Points, ids: list[int | None], columns: list[int]) -> Rows:
    if None in ids:
        mine = np.array([row for row, thing in enumerate(ids) if thing is not None], np.int64)
        values, ms = points.values[mine], points.ms[mine]
    else:
        values, ms = points.values, points.ms
    things_: list[int] = [thing for thing in ids if thing is not None]
    by_series = dict(zip(columns, np.ascontiguousarray(values.T), strict=True))
    return Rows(np.array(things_, np.int32), ms, by_series, tuple(points.words), 0)


def _put(con: Con, rows: Rows) -> Rows:
    values = b"".join(column.tobytes() for column in rows.columns.values())
    parts = _Body(rows.things.tobytes(), rows.ms.tobytes(), tuple(rows.columns), values, tuple(rows.words))
    # Not deflated: it stays for two hours, and that would be half of what a report costs here.
    number = con.execute("INSERT INTO tail (body) VALUES (?)", (msgspec.msgpack.encode(parts),)).lastrowid
    return Rows(rows.things, rows.ms, rows.columns, rows.words, int(number or 0))


def tail(con: Con) -> Iterable[Rows]:
    """What was committed and not packed yet, in order."""
    for number, body in con.execute("SELECT id, body FROM tail ORDER BY id"):
        parts = msgspec.msgpack.decode(body, type=_Body)
        ms = np.frombuffer(parts.ms, np.int64)
        values = np.frombuffer(parts.values, np.int64).reshape(len(parts.series), len(ms))
        columns = dict(zip(parts.series, values, strict=True))
        yield Rows(np.frombuffer(parts.things, np.int32), ms, columns, parts.words, number)


def drop_tail(con: Con, last: int) -> None:
    con.execute("DELETE FROM tail WHERE id <= ?", (last,))
    put_meta(con, "compacted", str(last))


# ---- going ----


def drop_series(con: Con, gone: Iterable[int]) -> None:
    for number in gone:
        con.execute("DELETE FROM chunks WHERE series = ?", (number,))
        con.execute("DELETE FROM series WHERE id = ?", (number,))


def numbers_in(tails: Iterable[Rows]) -> Waiting:
    """The things and series that rows outside of chunks refer to."""
    waiting = Waiting(set(), set())
    for rows in tails:
        waiting.things.update(np.unique(rows.things).tolist())
        waiting.series.update(rows.columns)
    return waiting


def expire(con: Con, before_ms: int, waiting: Waiting) -> Expired:
    """Remove chunks that end before, things that were last heard before, and series that nothing is left of."""
    chunks = con.execute("DELETE FROM chunks WHERE last_ms < ?", (before_ms,)).rowcount
    silent = con.execute("SELECT id, name FROM things WHERE last_ms < ?", (before_ms,)).fetchall()
    gone = {number: bytes(name) for number, name in silent if number not in waiting.things}
    con.executemany("DELETE FROM things WHERE id = ?", ((number,) for number in gone))
    empty = con.execute("SELECT id FROM series s WHERE NOT EXISTS (SELECT 1 FROM chunks WHERE series = s.id)")
    series = {number for (number,) in empty.fetchall()} - waiting.series
    con.executemany("DELETE FROM series WHERE id = ?", ((number,) for number in series))
    return Expired(chunks, list(gone.values()), frozenset(series))


def used_bytes(con: Con) -> int:
    """What the file's rows take: pages that are free will be used again."""
    names = ("page_count", "freelist_count", "page_size")
    pages, free, size = (con.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
    return int((pages - free) * size)


def drop_oldest(con: Con, bytes_max: int) -> int:
    """Remove the oldest chunks until the rest fits; how many went."""
    dropped = 0
    while (excess := used_bytes(con) - bytes_max) > 0:
        oldest = con.execute("SELECT last_ms, length(body) FROM chunks ORDER BY last_ms LIMIT 4096").fetchall()
        if not oldest:
            break
        horizon = oldest[-1][0]
        for last_ms, size in oldest:
            excess -= size
            if excess <= 0:
                horizon = last_ms
                break
        dropped += con.execute("DELETE FROM chunks WHERE last_ms <= ?", (horizon,)).rowcount
    return dropped


def adopt(con: Con, identity: str, log_last: int) -> dict[str, int]:
    """The positions that hold for this log: none of another one's, none beyond its end (a power cut)."""
    if meta(con, "identity") != identity:
        con.execute("DELETE FROM positions")
        put_meta(con, "identity", identity)
    con.execute("UPDATE positions SET position = min(position, ?)", (log_last,))
    return positions(con)


def open_to_read(path: Path) -> Con:
    con = sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, isolation_level=None, check_same_thread=False)
    con.execute("PRAGMA query_only = ON")
    return con
