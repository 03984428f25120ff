"""The kernels of the meter: events into the cells of windows, and what a connection that ends leaves there.

`actors.meter` says what figures, lanes, cells and marks are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from actors.events import KINDS
from actors.measures import Measure
from actors.messages import ABSENT, I1, I4, I8, U1, U8
from actors.presence import BEGAN, LEFT, NOTHING
from actors.window import UNCOUNTED

SUM, LEAST, MOST, TOTAL = range(4)  # how a figure folds
I64_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Tables:
    """Of every lane its length, depth and first mark; of every figure what it takes in, and where."""

    length: I8  # [lane]
    depth: I8
    first_mark: I8
    lane_of: I4  # [figure]
    counted: U1  # a bit for each kind of event
    fold: U1
    bit: I1
    negated: U1
    first_cell: I8

    @classmethod
    def of(
        cls, measures: Sequence[Measure], lengths: Sequence[int], depth: Sequence[int], lane_of: Sequence[int],
        folds: Sequence[tuple[int, int]],
    ) -> "Tables":  # fmt: skip
        """`folds`: of every figure its measure, and how it folds."""
        return cls(
            np.array(lengths, np.int64), np.array(depth, np.int64), np.array(starts(depth)[:-1], np.int64),
            np.array([lane_of[m] for m, _ in folds], np.int32),
            np.array([counted(measures[m]) for m, _ in folds], np.uint8),
            np.array([fold for _, fold in folds], np.uint8),
            np.array([measures[m].bit for m, _ in folds], np.int8),
            np.array([measures[m].is_negated for m, _ in folds], np.uint8),
            np.array(starts([depth[lane_of[m]] for m, _ in folds])[:-1], np.int64),
        )  # fmt: skip


def starts(sizes: Sequence[int]) -> list[int]:
    """Where each of some consecutive pieces starts, and the end of the last."""
    return [0, *np.cumsum(sizes, dtype=np.int64).tolist()]


def folds_of(measure: Measure) -> tuple[int, ...]:
    match measure.metric.kind:
        case "counter":
            return (SUM,)
        case "permessage":
            return LEAST, MOST, TOTAL
        case _:
            return ()


def counted(measure: Measure) -> int:
    """A bit for each kind of event that the measure is made of."""
    return sum(1 << code for code, kind in enumerate(KINDS) if kind in measure.metric.events)


@njit(
    "void(i8,i8,i8,i8[::1],i8[::1],i8[::1],i8[::1],u1[:,::1],i4[::1],i8[::1],i8[::1])",
    nogil=True,
    cache=True,
    **UNCOUNTED,
)
def turned(
    row: int, turn: int, time: int, length: I8, depth: I8, first_mark: I8, open_from: I8, marks: U1,
    connections: I4, since: I8, until: I8,
) -> None:  # fmt: skip
    """A connection of a thing began or ended. It was there in every window that is open and that it reached into."""
    if turn == BEGAN:
        if connections[row] == 0:
            since[row] = time
        connections[row] += 1
        return
    if turn == LEFT:
        if connections[row] == 0:
            until[row] = max(until[row], time)
        return
    if connections[row] == 0:
        return
    connections[row] -= 1
    if connections[row]:
        return
    until[row] = max(until[row], time)
    for lane in range(len(length)):
        first = max(since[row] // length[lane], open_from[lane] // length[lane])
        for window in range(first, time // length[lane] + 1):
            marks[row, first_mark[lane] + window % depth[lane]] = 1


@njit(
    "i8(i4[::1],i4[::1],u1[::1],i8[::1],i8[::1],i8[::1],i8[::1],i8[::1],u8[::1],i1[::1],"
    "i8[::1],i8[::1],i8[::1],i4[::1],u1[::1],u1[::1],i1[::1],u1[::1],i8[::1],i8[::1],"
    "i8[:,::1],u1[:,::1],i4[::1],i8[::1],i8[::1])",
    nogil=True,
    cache=True,
    **UNCOUNTED,
)
def observe(
    chosen: I4, rows: I4, kind: U1, time: I8, count: I8, least: I8, most: I8, total: I8, bits: U8, turn: I1,
    length: I8, depth: I8, first_mark: I8, lane_of: I4, counted: U1, fold: U1, bit: I1, negated: U1, first_cell: I8,
    open_from: I8, value: I8, marks: U1, connections: I4, since: I8, until: I8,
) -> int:  # fmt: skip
    """Add events to the windows that they lie in; how many were late for one at least."""
    late = 0
    for j in range(len(chosen)):
        event, row = chosen[j], rows[j]
        now, is_late = time[event], False
        for lane in range(len(length)):
            window = now // length[lane]
            if window * length[lane] < open_from[lane]:
                is_late = True
            else:
                marks[row, first_mark[lane] + window % depth[lane]] = 1
        if turn[event] != NOTHING:
            turned(row, turn[event], now, length, depth, first_mark, open_from, marks, connections, since, until)
        for figure in range(len(fold)):
            if not (counted[figure] >> kind[event]) & 1:
                continue
            if bit[figure] >= 0 and ((bits[event] >> np.uint64(bit[figure])) & np.uint64(1)) == negated[figure]:
                continue
            lane = lane_of[figure]
            window = now // length[lane]
            if window * length[lane] < open_from[lane]:
                continue
            cell = first_cell[figure] + window % depth[lane]
            old = value[row, cell]
            if fold[figure] == SUM:
                new = count[event]
            elif fold[figure] == LEAST:
                new = least[event]
            elif fold[figure] == MOST:
                new = most[event]
            else:
                new = total[event]
            if old == ABSENT:
                value[row, cell] = new
            elif fold[figure] == LEAST:
                value[row, cell] = min(old, new)
            elif fold[figure] == MOST:
                value[row, cell] = max(old, new)
            else:
                value[row, cell] = I64_MAX if old > I64_MAX - new else old + new
        late += count[event] if is_late else 0
    return late
