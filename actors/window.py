"""Sliding sums: the values of each thing's recent reports, kept as small rings in one pool.

A ring belongs to a (row, window) pair; `window` numbers the delta metrics that some behavior sums. With the usual
floor between reports a ring holds two or three values, so it starts with room for two and doubles on demand: a thing
that reports every second costs its own memory only. At RING_MAX values the two oldest are merged, which is counted.

Arrays: [r, w] = rows × windows; pool arrays are [p].
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import njit

from actors.messages import I4, I8

RING_START: Final = 2
RING_MAX: Final = 4096
I64_MAX: Final = 2**63 - 1

Rows = npt.NDArray[np.intp]
"""Indices of rows."""
UNCOUNTED: Final[dict[str, Any]] = {"_nrt": False}
"""For kernels that allocate nothing: numba else counts arrays' users at every inner call, four fifths of the time.

Indices in kernels are unsigned where it counts, for a third of the time: numba asks of signed ones whether they are
negative.
"""


class Windows:
    """The rings of one group actor. `horizons_ns[w]` is the longest age that any behavior looks back."""

    def __init__(self, horizons_ns: I8) -> None:
        self.horizons_ns = horizons_ns
        self.merged = 0
        self.offset: I4 = np.zeros((0, len(horizons_ns)), np.int32)
        self.room: I4 = np.zeros((0, len(horizons_ns)), np.int32)
        self.head: I4 = np.zeros((0, len(horizons_ns)), np.int32)
        self.length: I4 = np.zeros((0, len(horizons_ns)), np.int32)
        self.pool_ts: I8 = np.zeros(0, np.int64)
        self.pool_value: I8 = np.zeros(0, np.int64)
        self._used = 0
        self._free: dict[int, list[int]] = {}  # room -> offsets of rings given back

    def grow(self, rows: int) -> None:
        """Make room for `rows` rows; the new ones get their first, smallest ring."""
        old, windows = self.offset.shape
        fresh = (rows - old) * windows
        start = self._take(fresh * RING_START)
        offsets = (start + RING_START * np.arange(fresh, dtype=np.int32)).reshape(rows - old, windows).astype(np.int32)
        self.offset = np.concatenate((self.offset, offsets))
        self.room = np.concatenate((self.room, np.full((rows - old, windows), RING_START, np.int32)))
        self.head = np.concatenate((self.head, np.zeros((rows - old, windows), np.int32)))
        self.length = np.concatenate((self.length, np.zeros((rows - old, windows), np.int32)))

    def enlarge(self, rows: I4, times: I8, first: int) -> None:
        """Make room in the full ring at place `first` (k × windows + window) of these reports, and in all that would
        stop one of the next reports, too: many are full at once, and each stop has its price.

        They are doubled; in one that may not grow the two oldest values are merged.
        """
        windows = len(self.horizons_ns)
        k, window = divmod(first, windows)
        if self.room[rows[k], window] >= RING_MAX:
            self._merge_oldest(int(rows[k]), window)
        found = np.empty(windows * (len(rows) - k), np.int64)
        count = find_full(
            rows, times, k, self.horizons_ns, self.offset, self.room, self.head, self.length, self.pool_ts, found
        )
        at, of = np.divmod(np.unique(found[:count]), windows)
        rooms = self.room[at, of]
        for room in np.unique(rooms).tolist():
            if room < RING_MAX:
                chosen = rooms == room
                self._double(at[chosen], of[chosen], room)

    def values(self, row: int, window: int) -> list[tuple[int, int]]:
        """(ts ns, value), oldest first."""
        offset, room, head = (int(a[row, window]) for a in (self.offset, self.room, self.head))
        places = [offset + (head + i) % room for i in range(int(self.length[row, window]))]
        return [(int(self.pool_ts[p]), int(self.pool_value[p])) for p in places]

    def put(self, row: int, window: int, values: list[tuple[int, int]]) -> None:
        """Replace a ring's content; enlarges it as needed."""
        values = values[-RING_MAX:]
        self.length[row, window] = 0
        while self.room[row, window] < len(values):
            self._double(np.array([row]), np.array([window]), int(self.room[row, window]))
        offset = int(self.offset[row, window])
        self.head[row, window], self.length[row, window] = 0, len(values)
        for i, (ts, value) in enumerate(values):
            self.pool_ts[offset + i], self.pool_value[offset + i] = ts, value

    def forget(self, rows: Rows) -> None:
        """Empty the rings of rows, an index array, that are given up; large ones go back to the pool."""
        self.length[rows] = 0
        self.head[rows] = 0
        for at, window in np.argwhere(self.room[rows] > RING_START).tolist():
            row = rows[at]
            self._release(int(self.offset[row, window]), int(self.room[row, window]))
            self.offset[row, window], self.room[row, window] = self._allocate(RING_START), RING_START

    def adopt(self, window: int, other: "Windows", theirs: int, sources: Rows, rows: Rows) -> None:
        """Take over rings: of two that hold the latest of the same reports, the longer."""
        counts = other.length[sources, theirs]
        longer = counts > self.length[rows, window]
        large = longer & (counts > RING_START)
        for row_from, row_to in zip(sources[large].tolist(), rows[large].tolist(), strict=True):
            self.put(row_to, window, other.values(row_from, theirs))
        small = longer & ~large  # nearly all: no room need be made for them
        sources, rows, counts = sources[small], rows[small], counts[small]
        self.head[rows, window], self.length[rows, window] = 0, counts
        for i in range(RING_START):
            some = counts > i
            take, put = sources[some], rows[some]
            at = other.offset[take, theirs] + (other.head[take, theirs] + i) % other.room[take, theirs]
            to = self.offset[put, window] + i
            self.pool_ts[to], self.pool_value[to] = other.pool_ts[at], other.pool_value[at]

    def dump(self) -> dict[str, Any]:
        names = ("offset", "room", "head", "length")
        state: dict[str, Any] = {name: getattr(self, name) for name in names}
        state["pool_ts"], state["pool_value"] = self.pool_ts[: self._used], self.pool_value[: self._used]
        return state | {"free": {str(k): v for k, v in self._free.items()}, "merged": self.merged}

    def load(self, state: dict[str, Any]) -> None:
        for name in ("offset", "room", "head", "length", "pool_ts", "pool_value"):
            setattr(self, name, state[name].copy())
        self._used = len(self.pool_ts)
        self._free = {int(k): list(v) for k, v in state["free"].items()}
        self.merged = state["merged"]

    def _double(self, rows: I8, windows: I8, room: int) -> None:
        """Give rings of this size another place, twice as large; their values lie there from the start on."""
        spare = self._free.get(2 * room, [])
        reused = [spare.pop() for _ in range(min(len(spare), len(rows)))]
        fresh = len(rows) - len(reused)
        start = self._take(2 * room * fresh)
        new = np.concatenate((np.array(reused, np.int64), start + 2 * room * np.arange(fresh)))
        self._free.setdefault(room, []).extend(self.offset[rows, windows].tolist())
        move_rings(
            rows, windows, new, 2 * room, self.offset, self.room, self.head, self.length, self.pool_ts, self.pool_value
        )

    def _merge_oldest(self, row: int, window: int) -> None:
        """The oldest value joins the second oldest, and leaves with it: a little late, and counted."""
        offset, room, head = (int(a[row, window]) for a in (self.offset, self.room, self.head))
        first, second = offset + head, offset + (head + 1) % room
        self.pool_value[second] = min(int(self.pool_value[first]) + int(self.pool_value[second]), I64_MAX)
        self.head[row, window] = (head + 1) % room
        self.length[row, window] -= 1
        self.merged += 1

    def _allocate(self, room: int) -> int:
        spare = self._free.get(room)
        return spare.pop() if spare else self._take(room)

    def _release(self, offset: int, room: int) -> None:
        self._free.setdefault(room, []).append(offset)

    def _take(self, size: int) -> int:
        start = self._used
        self._used += size
        if self._used > len(self.pool_ts):
            more = max(self._used, len(self.pool_ts) + len(self.pool_ts) // 2) - len(self.pool_ts)
            self.pool_ts = np.concatenate((self.pool_ts, np.zeros(more, np.int64)))
            self.pool_value = np.concatenate((self.pool_value, np.zeros(more, np.int64)))
        return start


@njit("void(i8,i8,i8,i8,i8,i8[::1],i8[::1])", nogil=True, cache=True, **UNCOUNTED)
def copy_ring(old: int, size: int, head: int, length: int, new: int, pool_ts: I8, pool_value: I8) -> None:
    """The values of the ring of `size` slots at `old`, oldest first, to the slots from `new` on."""
    for i in range(length):
        place = old + (head + i) % size
        pool_ts[new + i] = pool_ts[place]
        pool_value[new + i] = pool_value[place]


@njit(
    "void(i8[::1],i8[::1],i8[::1],i8,i4[:,::1],i4[:,::1],i4[:,::1],i4[:,::1],i8[::1],i8[::1])",
    nogil=True, cache=True, **UNCOUNTED,
)  # fmt: skip
def move_rings(
    rows: I8, windows: I8, new: I8, size: int,
    offset: I4, room: I4, head: I4, length: I4, pool_ts: I8, pool_value: I8,
) -> None:  # fmt: skip
    """Give each of these rings a new place of `size` slots."""
    for i in range(len(rows)):
        row, window = rows[i], windows[i]
        copy_ring(
            offset[row, window], room[row, window], head[row, window], length[row, window], new[i], pool_ts, pool_value
        )
        offset[row, window], room[row, window], head[row, window] = new[i], size, 0


@njit(
    "i8(i4[::1],i8[::1],i8,i8[::1],i4[:,::1],i4[:,::1],i4[:,::1],i4[:,::1],i8[::1],i8[::1])",
    nogil=True, cache=True, **UNCOUNTED,
)  # fmt: skip
def find_full(
    rows: I4, times: I8, k: int, horizon: I8,
    offset: I4, room: I4, head: I4, length: I4, pool_ts: I8, found: I8,
) -> int:  # fmt: skip
    """The rings (row × windows + window) that reports from `k` on find full of values still young; how many."""
    windows = len(horizon)
    count = 0
    for i in range(k, len(rows)):
        row = rows[i]
        for window in range(windows):
            full = length[row, window] == room[row, window]
            if full and times[i] - pool_ts[offset[row, window] + head[row, window]] < horizon[window]:
                found[count] = row * windows + window
                count += 1
    return count


@njit(
    "b1(u8,u8,i8,i8,i8,i4[:,::1],i4[:,::1],i4[:,::1],i4[:,::1],i8[::1],i8[::1])",
    nogil=True,
    cache=True,
    forceinline=True,
    **UNCOUNTED,
)
def push(
    row: int, window: int, ts: int, value: int, horizon: int,
    offset: I4, room: I4, head: I4, length: I4, pool_ts: I8, pool_value: I8,
) -> bool:  # fmt: skip
    """Drop what is older than the horizon, add a value. False: the ring is full, `enlarge` it and come again."""
    base, size = offset[row, window], room[row, window]
    first, count = head[row, window], length[row, window]
    while count > 0 and ts - pool_ts[np.uint64(base + first)] >= horizon:
        first += 1
        if first == size:  # not `%`: a division costs more than all the rest
            first = 0
        count -= 1
    head[row, window] = first
    length[row, window] = count
    if count == size:
        return False
    place = base + first + count
    if first + count >= size:
        place -= size
    pool_ts[np.uint64(place)] = ts
    pool_value[np.uint64(place)] = value
    length[row, window] = count + 1
    return True


@njit(
    "i8(u8,u8,i8,i8,i8,i4[:,::1],i4[:,::1],i4[:,::1],i4[:,::1],i8[::1],i8[::1])",
    nogil=True,
    cache=True,
    forceinline=True,
    **UNCOUNTED,
)
def total(
    row: int, window: int, ts: int, horizon: int, since: int,
    offset: I4, room: I4, head: I4, length: I4, pool_ts: I8, pool_value: I8,
) -> int:  # fmt: skip
    """The sum of the values younger than `horizon` and not before `since`; saturates at the largest int64."""
    base, size = offset[row, window], room[row, window]
    first = base + head[row, window]
    found = 0
    for i in range(length[row, window] - 1, -1, -1):
        place = first + i
        if place >= base + size:
            place -= size
        heard = pool_ts[np.uint64(place)]
        if ts - heard >= horizon or heard < since:
            break
        value = pool_value[np.uint64(place)]
        if found > I64_MAX - value:
            return I64_MAX
        found += value
    return found
