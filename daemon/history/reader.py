"""Answers from the history: one thing's values, newest first, and whole columns for training and charts.

A question sees the tail as it was when it was asked, and the chunks of one read transaction. Rows that were packed in
between are in both: what the chunks hold of the tail is left out.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from actors.messages import ABSENT, I8
from config.model import MS
from daemon.history import tables
from daemon.history.chunks import unpack_times, unpack_values
from daemon.history.codec import F8, floats_of
from daemon.history.points import Key, value_of
from daemon.history.tables import BLOCK_BITS, TIMES
from daemon.history.tail import Rows

Con = sqlite3.Connection


Natural = Annotated[int, msgspec.Meta(ge=0)]  # clients may make places up


class Place(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where a page ended: all before `ms` follow, and the `left` oldest of those at `ms` itself."""

    ms: Natural
    left: Natural


@dataclass(frozen=True, slots=True)
class Datum:
    """One datapoint. `value` is what a MetricValue holds under the metric's field."""

    time_ns: int
    value: Any


@dataclass(frozen=True, slots=True)
class Wanted:
    """Datapoints of one thing and series with since_ms <= time <= until_ms."""

    thing: int
    series: int
    since_ms: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class Columns:
    """A piece of a series over the fleet, in the order of things, then time. `things[who[i]]` is row i's thing."""

    things: tuple[str, ...]
    who: npt.NDArray[np.int64]  # [n]
    ts: I8  # [n] ns
    values: F8  # [n]


@dataclass(frozen=True, slots=True)
class _Piece:
    """What one chunk or tail has of the thing, in order; no ABSENT."""

    ms: I8
    values: I8
    words: Sequence[bytes]


def values(
    con: Con, tails: Sequence[Rows], key: Key, wanted: Wanted, before: Place | None, limit: int
) -> tuple[list[Datum], Place | None]:
    """The newest `limit` before a place, newest first, and the place where the page ends if there is more."""
    if before is not None and before.ms <= wanted.until_ms:
        wanted = Wanted(wanted.thing, wanted.series, wanted.since_ms, before.ms)
        skipped_ms, left = before.ms, before.left
    else:
        skipped_ms, left = -1, 0
    rows: list[tuple[int, int, Sequence[bytes]]] = []
    for rows in _growing(con, tails, wanted, limit + 1):
        at_edge = sum(ms == skipped_ms for ms, _, _ in rows)
        rows = rows[max(0, at_edge - left) :]
        if len(rows) > limit:
            break
    page, rest = rows[:limit], rows[limit:]
    data = [Datum(ms * MS, value_of(key.field, value, words)) for ms, value, words in page]
    return data, _place(page[-1][0], [ms for ms, _, _ in rest]) if rest else None


def _place(last_ms: int, rest: Sequence[int]) -> Place:
    """After a page whose last row is of `last_ms`, before the rows `rest`."""
    edge = last_ms if rest[0] == last_ms else rest[0]
    return Place(edge, rest.count(edge))


def _growing(
    con: Con, tails: Sequence[Rows], wanted: Wanted, enough: int
) -> Iterator[list[tuple[int, int, Sequence[bytes]]]]:
    """(ms, value, words), newest first, of more and more of the past; each list is complete as far as it goes."""
    con.execute("BEGIN")
    try:
        packed = tables.compacted(con)
        pieces = [_of_tail(tail, wanted) for tail in reversed(tails) if tail.last > packed]
        places = _places(con, wanted)
        for at, (run, _) in enumerate(places):
            pieces.append(_of_chunk(con, wanted, run))
            horizon = places[at + 1][1] if at + 1 < len(places) else -1
            rows = _sorted(pieces, horizon)
            if len(rows) >= enough:
                yield rows
        yield _sorted(pieces, -1)
    finally:
        con.execute("COMMIT")


def _sorted(pieces: Sequence[_Piece], horizon_ms: int) -> list[tuple[int, int, Sequence[bytes]]]:
    """Newest first; of one instant, the later one. Only what is after the horizon: there the past goes on."""
    rows = [
        (ms, value, piece.words)
        for piece in reversed(pieces)
        for ms, value in zip(piece.ms.tolist(), piece.values.tolist(), strict=True)
        if ms > horizon_ms
    ]
    rows.sort(key=lambda row: row[0])
    return rows[::-1]


def _of_tail(tail: Rows, wanted: Wanted) -> _Piece:
    column = tail.columns.get(wanted.series)
    if column is None:
        return _Piece(tail.ms[:0], tail.ms[:0], ())
    mine = np.flatnonzero(tail.things == wanted.thing)
    return _piece(tail.ms[mine], column[mine], tail.words, wanted)


def _places(con: Con, wanted: Wanted) -> list[tuple[int, int]]:
    """(run, last_ms) of the chunks to look into, newest first."""
    sql = """SELECT run, last_ms FROM chunks WHERE series = ? AND block = ? AND last_ms >= ? AND first_ms <= ?
             ORDER BY last_ms DESC, run DESC"""
    where = (wanted.series, wanted.thing >> BLOCK_BITS, wanted.since_ms, wanted.until_ms)
    return con.execute(sql, where).fetchall()


def _of_chunk(con: Con, wanted: Wanted, run: int) -> _Piece:
    block = wanted.thing >> BLOCK_BITS
    who = unpack_times(_body(con, TIMES, block, run))
    mine = who.slice_of(wanted.thing)
    if mine.stop == mine.start:
        return _Piece(who.ms[:0], who.ms[:0], ())
    column, words = unpack_values(_body(con, wanted.series, block, run), len(who.ms))
    return _piece(who.ms[mine], column[mine], words, wanted)


def _body(con: Con, series: int, block: int, run: int) -> bytes:
    sql = "SELECT body FROM chunks WHERE series = ? AND block = ? AND run = ?"
    (body,) = con.execute(sql, (series, block, run)).fetchone()
    return bytes(body)


def _piece(ms: I8, column: I8, words: Sequence[bytes], wanted: Wanted) -> _Piece:
    mine = (column != ABSENT) & (ms >= wanted.since_ms) & (ms <= wanted.until_ms)
    return _Piece(ms[mine], column[mine], words)


# ---- whole columns ----


def columns(con: Con, tails: Sequence[Rows], key: Key, series: int, since_ms: int, until_ms: int) -> Iterator[Columns]:
    """Every datapoint of a scalar series with since_ms <= time < until_ms: block by block, the newest rows last."""
    assert not key.is_set, key
    con.execute("BEGIN")
    try:
        packed = tables.compacted(con)
        for things, ms, column in chain(_in_chunks(con, series, since_ms, until_ms), _in_tails(tails, series, packed)):
            mine = (column != ABSENT) & (ms >= since_ms) & (ms < until_ms)
            if mine.any():
                yield _named(con, things[mine], ms[mine], column[mine], is_number=key.field == "number")
    finally:
        con.execute("COMMIT")


def _in_chunks(con: Con, series: int, since_ms: int, until_ms: int) -> Iterator[tuple[I8, I8, I8]]:
    sql = """SELECT block, run, body FROM chunks WHERE series = ? AND last_ms >= ? AND first_ms < ?
             ORDER BY block, run"""
    for block, run, body in con.execute(sql, (series, since_ms, until_ms)):
        who = unpack_times(_body(con, TIMES, block, run))
        yield np.repeat(who.things, who.counts), who.ms, unpack_values(body, len(who.ms))[0]


def _in_tails(tails: Sequence[Rows], series: int, packed: int) -> Iterator[tuple[I8, I8, I8]]:
    for tail in tails:
        if tail.last > packed and series in tail.columns:
            order = np.argsort(tail.things, kind="stable")
            yield tail.things[order].astype(np.int64), tail.ms[order], tail.columns[series][order]


def _named(con: Con, things: I8, ms: I8, column: I8, *, is_number: bool) -> Columns:
    distinct, who = np.unique(things, return_inverse=True)
    names = tuple(tables.name_of(con, thing) for thing in distinct.tolist())
    return Columns(names, who, ms * MS, floats_of(column) if is_number else column.astype(np.float64))
