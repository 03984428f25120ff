"""When rows are packed into chunks, and chunks of a few hours into chunks of a day.

Packing happens outside of transactions, writing in short ones: whoever commits new rows meanwhile waits for neither.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from config.kinds import ValueField
from daemon.history import tables
from daemon.history.chunks import ROWS_MAX, Chunk, chunks_of, merged
from daemon.history.tables import TIMES
from daemon.history.tail import Rows

Con = sqlite3.Connection

MERGED_FROM: Final = 12  # runs of one block
BLOCKS_A_TURN: Final = 64


@dataclass(frozen=True, slots=True)
class Merge:
    """Runs of one block that become one."""

    block: int
    runs: tuple[int, ...]


def pack_tail(rows: Rows, fields: Mapping[int, ValueField]) -> list[list[Chunk]]:
    return list(chunks_of(rows, fields, 0))


def put_tail(con: Con, rows: Rows, packed: Iterable[list[Chunk]]) -> None:
    """Chunks in the place of what the tail had; things were last heard when their last row says."""
    for chunks in packed:
        _put(con, chunks)
    things, last = _last_heard(rows)
    con.executemany("UPDATE things SET last_ms = max(last_ms, ?) WHERE id = ?", zip(last, things, strict=True))
    tables.drop_tail(con, rows.last)


def due_merges(con: Con) -> list[Merge]:
    """Blocks with many small runs, and of those the oldest that make one of a good size."""
    sql = """SELECT block FROM chunks INDEXED BY chunks_to_merge WHERE level = 0 AND series = 0
             GROUP BY block HAVING count(*) >= ? LIMIT ?"""
    blocks = [block for (block,) in con.execute(sql, (MERGED_FROM, BLOCKS_A_TURN)).fetchall()]
    return [_merge_of(con, block) for block in blocks]


def _merge_of(con: Con, block: int) -> Merge:
    sql = "SELECT run, rows FROM chunks WHERE level = 0 AND series = 0 AND block = ? ORDER BY run"
    taken: list[int] = []
    total = 0
    for run, rows in con.execute(sql, (block,)).fetchall():
        if taken and total + rows > ROWS_MAX:
            break
        taken.append(run)
        total += rows
    return Merge(block, tuple(taken))


def pack_merge(con: Con, merge: Merge, fields: Mapping[int, ValueField]) -> list[list[Chunk]]:
    """The chunks of a day; read in one transaction."""
    con.execute("BEGIN")
    try:
        runs = [_bodies(con, merge.block, run) for run in merge.runs]
    finally:
        con.execute("COMMIT")
    whole = [run for run in runs if TIMES in run]  # the oldest may have expired meanwhile
    return list(chunks_of(merged(whole), fields, 1)) if whole else []


def _bodies(con: Con, block: int, run: int) -> dict[int, bytes]:
    return dict(con.execute("SELECT series, body FROM chunks WHERE block = ? AND run = ?", (block, run)).fetchall())


def put_merge(con: Con, merge: Merge, packed: Iterable[list[Chunk]]) -> None:
    con.executemany("DELETE FROM chunks WHERE block = ? AND run = ?", [(merge.block, run) for run in merge.runs])
    for chunks in packed:
        _put(con, chunks)


def _put(con: Con, chunks: Sequence[Chunk]) -> None:
    run = int(tables.meta(con, "runs", "0")) + 1
    tables.put_meta(con, "runs", str(run))
    there = {TIMES, *(number for (number,) in con.execute("SELECT id FROM series"))}  # others went while we packed
    rows = [
        (c.series, c.block, run, c.level, c.rows, c.first_ms, c.last_ms, c.body) for c in chunks if c.series in there
    ]
    con.executemany("INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)


def _last_heard(rows: Rows) -> tuple[list[int], list[int]]:
    """(things, ms)"""
    things, at = np.unique(rows.things[::-1], return_index=True)
    return things.tolist(), rows.ms[::-1][at].tolist()
