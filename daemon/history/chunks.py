"""What a chunk's body holds, and how rows become chunks and chunks rows again.

Rows are ordered by thing, and by time within it. The times' chunk says whose each row is; a value chunk says which
rows have a datapoint (where not all have) and packs these. Chunks of one run and block belong together.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from actors.messages import ABSENT, I4, I8
from config.kinds import ValueField
from daemon.history.codec import LEVEL, Packed, as_decimals, from_decimals, pack, unpack
from daemon.history.points import SETS
from daemon.history.tables import BLOCK_BITS, TIMES
from daemon.history.tail import Rows, Words, renumbered

ROWS_MAX: Final = 131_072  # of a run and block: a MB that one reader unpacks
MERGED_WORDS_BYTES: Final = 4 * 1024**2  # a run with more in its sets stays alone: a dozen would fill the memory
WORDS_LEVEL: Final = 1  # addresses hardly deflate, and a higher level takes three times as long over them

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A row of the table `chunks`, all but its run."""

    series: int
    block: int
    level: int
    rows: int
    first_ms: int
    last_ms: int
    body: bytes


class _Times(msgspec.Struct, frozen=True, array_like=True):
    things: Packed  # [t] ascending
    counts: Packed  # [t] rows of each
    firsts: Packed  # [t] ms
    steps: Packed  # [rows - t] ms since the row before


class _Values(msgspec.Struct, frozen=True, array_like=True):
    present: bytes  # a deflated bit per row; b"" = all
    decimals: int  # of a number: packed × 10 ** decimals; -1 = as it is
    numbers: Packed
    words: bytes  # deflated msgpack of what a set's numbers refer to


@dataclass(frozen=True, slots=True)
class Who:
    """The rows of one run and block: things ascending, each with its rows [starts, starts + counts)."""

    things: I8
    counts: I8
    starts: I8
    ms: I8

    def slice_of(self, thing: int) -> slice:
        at = int(np.searchsorted(self.things, thing))
        if at == len(self.things) or self.things[at] != thing:
            return slice(0, 0)
        return slice(int(self.starts[at]), int(self.starts[at] + self.counts[at]))


def chunks_of(rows: Rows, fields: Mapping[int, ValueField], level: int) -> Iterator[list[Chunk]]:
    """Pack rows: for every block (and part of one that is large) the chunks of a run. Series without field are gone."""
    order = np.argsort(rows.things >> BLOCK_BITS, kind="stable")
    blocks = rows.things[order] >> BLOCK_BITS
    for piece in np.split(order, np.flatnonzero(np.diff(blocks)) + 1):
        for at in range(0, len(piece), ROWS_MAX):
            if packed := _run(rows, piece[at : at + ROWS_MAX], fields, level):
                yield packed


def _run(rows: Rows, mine: npt.NDArray[np.intp], fields: Mapping[int, ValueField], level: int) -> list[Chunk]:
    mine = mine[np.argsort(rows.things[mine], kind="stable")]
    things, ms = rows.things[mine], rows.ms[mine]
    block, first, last = int(things[0]) >> BLOCK_BITS, int(ms.min()), int(ms.max())
    bodies, words_bytes = {TIMES: _pack_times(things, ms)}, 0
    for series, field in fields.items():
        column = rows.columns.get(series)
        if column is not None and (packed := _pack_values(column[mine], field, rows.words)):
            bodies[series] = packed[0]
            words_bytes += packed[1]
    if len(bodies) == 1:
        return []
    if words_bytes > MERGED_WORDS_BYTES:
        level = 1
    return [Chunk(series, block, level, len(mine), first, last, body) for series, body in bodies.items()]


def _pack_times(things: I4, ms: I8) -> bytes:
    distinct, starts, counts = np.unique(things, return_index=True, return_counts=True)
    steps = np.delete(np.diff(ms, prepend=ms[:1]), starts)
    columns = (distinct.astype(np.int64), counts.astype(np.int64), ms[starts], steps)
    return msgspec.msgpack.encode(_Times(*map(pack, columns)))


def unpack_times(body: bytes) -> Who:
    times = msgspec.msgpack.decode(body, type=_Times)
    things, counts, firsts = unpack(times.things), unpack(times.counts), unpack(times.firsts)
    starts = np.cumsum(counts) - counts
    steps = np.zeros(int(counts.sum()), np.int64)
    is_step = np.ones(len(steps), bool)
    is_step[starts] = False
    steps[is_step] = unpack(times.steps)
    passed = np.cumsum(steps)
    return Who(things, counts, starts, passed + np.repeat(firsts - passed[starts], counts))


def _pack_values(column: I8, field: ValueField, words: Sequence[bytes]) -> tuple[bytes, int] | None:
    """(body, bytes of the sets in it); None without a datapoint."""
    present: Mask = column != ABSENT
    values = column if present.all() else column[present]
    if not len(values):
        return None
    decimals, spelled, words_bytes = -1, b"", 0
    if field in SETS:
        used, values = np.unique(values, return_inverse=True)
        text = msgspec.msgpack.encode([words[number] for number in used.tolist()])
        spelled, words_bytes = zlib.compress(text, WORDS_LEVEL), len(text)
    elif field == "number" and (scaled := as_decimals(values)) is not None:
        decimals, values = scaled
    bits = b"" if len(values) == len(column) else zlib.compress(np.packbits(present).tobytes(), LEVEL)
    return msgspec.msgpack.encode(_Values(bits, decimals, pack(values.astype(np.int64)), spelled)), words_bytes


def unpack_values(body: bytes, count: int) -> tuple[I8, Sequence[bytes]]:
    """(the column of `count` rows, what a set's numbers refer to)"""
    packed = msgspec.msgpack.decode(body, type=_Values)
    values = unpack(packed.numbers)
    if packed.decimals >= 0:
        values = from_decimals(packed.decimals, values)
    words = msgspec.msgpack.decode(zlib.decompress(packed.words), type=list[bytes]) if packed.words else ()
    if not packed.present:
        return values, words
    column = np.full(count, ABSENT, np.int64)
    bits = np.frombuffer(zlib.decompress(packed.present), np.uint8)
    column[np.unpackbits(bits, count=count).astype(bool)] = values
    return column, words


def merged(runs: Sequence[Mapping[int, bytes]]) -> Rows:
    """The rows of several runs of one block, oldest run first; each is series -> body."""
    whos = [unpack_times(run[TIMES]) for run in runs]
    things = np.concatenate([np.repeat(who.things, who.counts) for who in whos]).astype(np.int32)
    words = Words()
    columns: dict[int, I8] = {}
    at = 0
    for run, who in zip(runs, whos, strict=True):
        for series in run.keys() - {TIMES}:
            column, spelled = unpack_values(run[series], len(who.ms))
            if series not in columns:
                columns[series] = np.full(len(things), ABSENT, np.int64)
            if spelled:
                column = renumbered(column, words.numbers_of(spelled))
            columns[series][at : at + len(column)] = column
        at += len(who.ms)
    return Rows(things, np.concatenate([who.ms for who in whos]), columns, words.all, 0)
