"""Who may report now: exact duplicates and reports that come too fast are turned away (design.md §4, spec.md §2.2).

Per thing: the time of its last accepted report, and the ids of its last 16. One row per name; a name that has not
reported for a week is forgotten. The row also has the name's mark: a position of the log at which it reported.
"""

from heapq import heappop, heappush
from typing import Any, Final

import numpy as np
from numba import njit

from actors.messages import ABSENT, BACKLOG, I4, I8, U1
from config.model import NS, Limits

ADMITTED: Final = 0
DUPLICATE: Final = 1
TOO_SOON: Final = 2
TABLE_FULL: Final = 3

IDS_KEPT: Final = 16
IDLE_NS: Final = 7 * 86_400 * NS
FIRST_GAP_NS: Final = 900 * NS  # three of AWS's reporting intervals: a report after more is a "first" one


class Gate:
    """The last reports of every thing that was heard lately."""

    def __init__(self, limits: Limits, interval_default_s: float) -> None:
        self.rows: dict[bytes, int] = {}
        self._names: list[bytes | None] = []
        self._free: list[int] = []
        self.last: I8 = np.zeros(0, np.int64)  # [row] ns of the last accepted report; 0 = the row is nobody's
        self.ids: I8 = np.zeros((0, IDS_KEPT), np.int64)  # [row, 16] a ring of accepted ids
        self.at: U1 = np.zeros(0, np.uint8)  # [row] where the next id goes
        self.marks: I8 = np.zeros(0, np.int64)  # [row] 0 = none since the row was taken, or since a `load`
        self._interval_default_s = interval_default_s
        self.configure(limits)

    def configure(self, limits: Limits) -> None:
        interval = limits.report_interval_s
        interval_s = self._interval_default_s if interval is None else interval
        self._floor_ns = int(interval_s * NS * 9) // 10
        self._things_max = limits.things_max

    def admit(self, names: list[bytes], positions: I8, ids: I8, times: I8, flags: U1) -> tuple[U1, U1, I8]:
        """Judge well-formed reports in order: ([k] ADMITTED | DUPLICATE | …, [k] 1 = first after a gap, [k] marks)."""
        rows = [self.rows.get(name) for name in names]
        if None in rows:
            rows = [self._row(name) for name in names]
        count = len(rows)
        verdicts, first, marks = np.zeros(count, np.uint8), np.zeros(count, np.uint8), np.zeros(count, np.int64)
        _admit(
            np.array(rows, np.int32), positions, ids, times, flags, self._floor_ns,
            self.last, self.ids, self.at, self.marks, verdicts, first, marks,
        )  # fmt: skip
        return verdicts, first, marks

    def forget_idle(self, now: int) -> None:
        """Forget the names whose last accepted report is a week old; called on full hours of the log's time."""
        idle = np.flatnonzero((self.last > 0) & (self.last < now - IDLE_NS))
        for row in idle.tolist():
            name = self._names[row]
            assert name is not None
            del self.rows[name]
            self._names[row] = None
            heappush(self._free, row)
        self.last[idle], self.ids[idle], self.at[idle], self.marks[idle] = 0, ABSENT, 0, 0

    def dump(self) -> dict[str, Any]:
        used = len(self._names)
        return {
            "names": b"\0".join(name or b"" for name in self._names),
            "last": self.last[:used],
            "ids": self.ids[:used],
            "at": self.at[:used],
        }

    def load(self, state: dict[str, Any]) -> None:
        self.last, self.ids, self.at = (state[name].copy() for name in ("last", "ids", "at"))
        self.marks = np.zeros(len(self.last), np.int64)
        names = state["names"].split(b"\0") if len(self.last) else []
        self._names = [name or None for name in names]
        self._free = [row for row, name in enumerate(self._names) if name is None]
        self.rows = {name: row for row, name in enumerate(self._names) if name is not None}

    def _row(self, name: bytes) -> int:
        row = self.rows.get(name)
        if row is None:
            if len(self.rows) >= self._things_max:
                return -1
            row = heappop(self._free) if self._free else len(self._names)
            if row == len(self._names):
                self._names.append(name)
            self._names[row] = name
            self.rows[name] = row
            if row >= len(self.last):
                self._grow(max(64, row + row // 2 + 1))
        return row

    def _grow(self, rows: int) -> None:
        more = rows - len(self.last)
        self.last = np.concatenate((self.last, np.zeros(more, np.int64)))
        self.ids = np.concatenate((self.ids, np.full((more, IDS_KEPT), ABSENT, np.int64)))
        self.at = np.concatenate((self.at, np.zeros(more, np.uint8)))
        self.marks = np.concatenate((self.marks, np.zeros(more, np.int64)))


@njit(
    "void(i4[::1],i8[::1],i8[::1],i8[::1],u1[::1],i8,i8[::1],i8[:,::1],u1[::1],i8[::1],u1[::1],u1[::1],i8[::1])",
    nogil=True,
    cache=True,
)
def _admit(
    rows: I4, positions: I8, new_ids: I8, times: I8, flags: U1, floor: int,
    last: I8, ids: I8, at: U1, marks: I8, verdicts: U1, first: U1, out_marks: I8,
) -> None:  # fmt: skip
    """A duplicate is called one even when it also comes too soon: that says more."""
    for k in range(len(rows)):
        row = rows[k]
        if row < 0:
            verdicts[k] = TABLE_FULL
            continue
        if marks[row] == 0:
            marks[row] = positions[k]
        out_marks[k] = marks[row]
        for i in range(IDS_KEPT):
            if ids[row, i] == new_ids[k]:
                verdicts[k] = DUPLICATE
        if verdicts[k] == ADMITTED and last[row] > 0 and times[k] - last[row] < floor and not flags[k] & BACKLOG:
            verdicts[k] = TOO_SOON
        if verdicts[k] == ADMITTED:
            first[k] = last[row] == 0 or times[k] - last[row] > FIRST_GAP_NS
            last[row] = max(last[row], times[k])
            ids[row, at[row]] = new_ids[k]
            at[row] = (at[row] + 1) % IDS_KEPT
