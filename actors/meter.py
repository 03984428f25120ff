"""What broker events add up to: tumbling windows, aligned to the epoch, held open a while for late events.

A window [a, b) is closed at the first log entry at or after b + grace. An event counts in the window of its own time;
where that is closed it is late, dropped and counted. A thing that was connected, or did anything, in a window has a
count in it, 0 where there was nothing to count; of a thing that was away there is none (spec.md §1.3, §12 #5).

Arrays by row (thing). A figure (a sum, or a least, largest or total size) has `depth` cells, one for each window that
can be open at a time: window k = start // length lies in cell k mod depth. A lane is a length of windows; it has marks
(whether a thing did anything) in cells of the same kind.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from actors.criteria._base import FAR, Points
from actors.events import CONNECTED, PUBLISHED
from actors.measures import Measure
from actors.messages import ABSENT, I4, I8, U1, Events
from actors.meter_kernels import Tables, folds_of, observe, starts, turned
from actors.presence import ENDED, Standing
from actors.window import Rows
from config.model import NS

Flags = npt.NDArray[np.bool_]

ABSENCE_NS: Final = 30 * 86_400 * NS
ADDRESSES_MAX: Final = 256  # of one thing in one window
SOURCES: Final = 256


class Meter:
    """The windows of one group actor's measures."""

    def __init__(self, measures: Sequence[Measure], grace_s: float) -> None:
        self.measures = tuple(measures)
        self.late = 0  # events, dropped from at least one window
        self.crowded = 0  # addresses beyond ADDRESSES_MAX
        self._grace_ns = int(grace_s * NS)
        self.lengths = sorted({measure.window_ns for measure in measures})  # [lane] ns
        self._depth = [-(-self._grace_ns // length) + 1 for length in self.lengths]
        self._lane_of = [self.lengths.index(measure.window_ns) for measure in measures]
        self._first_mark = starts(self._depth)  # [lane] its first cell of `marks`
        self._figures = [folds_of(measure) for measure in measures]
        folds = [(m, fold) for m, kinds in enumerate(self._figures) for fold in kinds]
        self._first_cell = starts([self._depth[self._lane_of[m]] for m, _ in folds])  # [figure]
        self._figure_of = starts([len(kinds) for kinds in self._figures])  # [measure] its first figure
        self._kernel = Tables.of(self.measures, self.lengths, self._depth, self._lane_of, folds)
        self.open: I8 = np.zeros(
            len(self.lengths), np.int64
        )  # [lane] the start of the first open window; 0 = not begun
        self.begun: I8 = np.zeros(len(measures), np.int64)  # [measure] what came before does not count for it
        self.unheard: I8 = np.zeros((SOURCES, 2), np.int64)  # [source] the last time that nothing could be heard
        self.value: I8 = np.full((0, self._first_cell[-1]), ABSENT, np.int64)
        self.marks: U1 = np.zeros((0, self._first_mark[-1]), np.uint8)
        self.connections: I4 = np.zeros(0, np.int32)  # [row] that are open
        self.since: I8 = np.zeros(0, np.int64)  # [row] when the first of those began; 0 = never connected
        self.until: I8 = np.zeros(0, np.int64)  # [row] when the last one ended; 0 = none was seen to end
        self._origins: dict[tuple[int, int], dict[int, dict[str, None]]] = {}  # (measure, window) -> row -> addresses

    # ---- events ----

    def observe(self, events: Events, chosen: I4, rows: I4) -> None:
        """Take in events `chosen`; the thing of event chosen[j] has row rows[j]. Windows that ended are closed."""
        table = self._kernel
        self.late += observe(
            chosen, rows, events.kind, events.time, events.count, events.least, events.most, events.total,
            events.bits, events.turn, table.length, table.depth, table.first_mark, table.lane_of, table.counted,
            table.fold, table.bit, table.negated, table.first_cell,
            self.open, self.value, self.marks, self.connections, self.since, self.until,
        )  # fmt: skip
        for measure, each in enumerate(self.measures):
            if each.metric.is_set:
                self._observe_addresses(measure, each, events, chosen, rows)

    def hang_up(self, row: int, time: int) -> None:
        """A connection of the thing has ended without an event."""
        turned(
            row, ENDED, time, self._kernel.length, self._kernel.depth, self._kernel.first_mark, self.open, self.marks,
            self.connections, self.since, self.until,
        )  # fmt: skip

    def _observe_addresses(self, measure: int, each: Measure, events: Events, chosen: I4, rows: I4) -> None:
        """Where the thing connected from; with a dimension: where messages came from that lie in it."""
        kind = events.kind[chosen]
        wanted = (kind == (CONNECTED if each.bit < 0 else PUBLISHED)) & (events.ip[chosen] >= 0)
        if each.bit >= 0:
            inside = (events.bits[chosen] >> np.uint64(each.bit)) & np.uint64(1) == 1
            wanted &= inside != each.is_negated
        open_from = int(self.open[self._lane_of[measure]])
        for j in np.flatnonzero(wanted).tolist():
            time = int(events.time[chosen[j]])
            if time >= open_from:
                window = self._origins.setdefault((measure, time // each.window_ns), {})
                self._add_address(window.setdefault(int(rows[j]), {}), events.ips[events.ip[chosen[j]]])

    def _add_address(self, known: dict[str, None], address: str) -> None:
        if address not in known and len(known) >= ADDRESSES_MAX:
            self.crowded += 1
            return
        known[address] = None

    # ---- the passing of time ----

    def start(self, now: int) -> None:
        """Time begins here, where it has not: windows that have ended by now are closed already."""
        for lane, length in enumerate(self.lengths):
            if not self.open[lane]:
                self.open[lane] = self._open_from(now, length)

    def due(self) -> int:
        """When the next window is closed; `start` came before."""
        ends = [int(start) + length + self._grace_ns for start, length in zip(self.open, self.lengths, strict=True)]
        return min(ends, default=FAR)

    def ends(self, now: int) -> set[int]:
        """The ends of the windows that are to be closed at `now`.

        Those of a long gap are passed over where they have no datapoints: nobody is connected or missed, or nothing was
        heard.
        """
        ends: set[int] = set()
        idle = not self.connections.any() and not self._has_gauge()
        for lane, length in enumerate(self.lengths):
            first, last = int(self.open[lane]), self._open_from(now, length)
            some = first + self._depth[lane] * length  # later ones can't hold anything yet
            deaf = bool((self.unheard[:, 0] <= some).all() and (self.unheard[:, 1] >= last).all())
            stop = min(last, some) if idle or deaf else last
            ends.update(range(first + length, stop + 1, length))
            if stop < last:
                ends.add(last)
        return ends

    def close(self, end: int, sources: U1) -> list[Points]:
        """The datapoints of all windows that end here, measure by measure; they are empty then.

        `sources` [row]: which broker last told of each thing.
        """
        closed = [lane for lane, length in enumerate(self.lengths) if end % length == 0 and end > self.open[lane]]
        points = [
            found for measure, lane in enumerate(self._lane_of) if lane in closed
            for found in self._points(measure, lane, end, sources)
        ]  # fmt: skip
        for lane in closed:
            self.marks[:, self._mark_cell(lane, end)] = 0
            self.open[lane] = end
        return points

    def pause(self, since: int, until: int, sources: Sequence[int], row_sources: U1) -> None:
        """Nothing was heard of these sources: it is not their things' absence, and their windows are partial."""
        for source in sources:
            self.unheard[source] = since, until
        away = np.isin(row_sources, list(sources)) & (self.connections == 0) & (self.until > 0)
        self.until[away] += np.maximum(0, until - np.maximum(since, self.until[away]))

    def _points(self, measure: int, lane: int, end: int, sources: U1) -> Iterator[Points]:
        each = self.measures[measure]
        values: tuple[tuple[str, ...], ...] = ()
        if each.metric.is_set:
            rows, values = self._addresses(measure, end)
            figures: I8 = np.zeros((0, len(rows)), np.int64)
        elif each.metric.kind == "gauge":
            rows, figures = self._absences(end)
        else:
            rows, figures = self._counts(measure, lane, end)
        first = end - self.lengths[lane]
        unheard = (self.unheard[:, 1] > first) & (self.unheard[:, 0] < end)
        partial = unheard[sources[rows]] | bool(self.begun[measure] > first)
        # Of what was silent in a window that was not heard whole, nothing is known.
        known = np.flatnonzero(~partial | (self.marks[rows, self._mark_cell(lane, end)] == 1))
        if len(known):
            values = tuple(values[k] for k in known.tolist()) if values else ()
            yield Points(measure, end, rows[known], partial[known], np.ascontiguousarray(figures[:, known]), values)

    def _counts(self, measure: int, lane: int, end: int) -> tuple[I4, I8]:
        first = self._figure_of[measure]
        cells = [
            self._first_cell[figure] + self._cell(lane, end)
            for figure in range(first, first + len(self._figures[measure]))
        ]
        present = self.value[:, cells[0]] != ABSENT
        if self.measures[measure].metric.kind == "counter":
            present |= self._active(lane, end)
        rows = np.flatnonzero(present).astype(np.int32)
        figures = self.value[rows][:, cells].T
        self.value[:, cells] = ABSENT
        return rows, np.where(figures == ABSENT, 0, figures)

    def _active(self, lane: int, end: int) -> Flags:
        marked: Flags = self.marks[:, self._mark_cell(lane, end)] == 1
        return marked | ((self.connections > 0) & (self.since < end))

    def _absences(self, end: int) -> tuple[I4, I8]:
        """Seconds since the last connection ended, as of the end of the window; 0 while connected (spec.md §1.5)."""
        # What came and went after the end (while the window waited for late events) is not yet so.
        connected = ((self.connections > 0) & (self.since <= end)) | (self.until > end)
        away = (self.until > 0) & (self.until <= end)
        rows = np.flatnonzero(connected | away).astype(np.int32)
        seconds = np.where(connected[rows], 0, (end - self.until[rows]) // NS)
        return rows, seconds.reshape(1, -1)

    def _addresses(self, measure: int, end: int) -> tuple[I4, tuple[tuple[str, ...], ...]]:
        length = self.measures[measure].window_ns
        found = sorted(self._origins.pop((measure, end // length - 1), {}).items())
        return np.array([row for row, _ in found], np.int32), tuple(tuple(addresses) for _, addresses in found)

    def _open_from(self, now: int, length: int) -> int:
        return (now - self._grace_ns) // length * length

    def _cell(self, lane: int, end: int) -> int:
        return (end // self.lengths[lane] - 1) % self._depth[lane]

    def _mark_cell(self, lane: int, end: int) -> int:
        return self._first_mark[lane] + self._cell(lane, end)

    def _has_gauge(self) -> bool:
        return bool(self.until.any()) and any(measure.metric.kind == "gauge" for measure in self.measures)

    # ---- rows ----

    def grow(self, rows: int) -> None:
        more = rows - len(self.since)
        self.value = np.concatenate((self.value, np.full((more, self.value.shape[1]), ABSENT, np.int64)))
        self.marks = np.concatenate((self.marks, np.zeros((more, self.marks.shape[1]), np.uint8)))
        self.connections = np.concatenate((self.connections, np.zeros(more, np.int32)))
        self.since = np.concatenate((self.since, np.zeros(more, np.int64)))
        self.until = np.concatenate((self.until, np.zeros(more, np.int64)))

    def forget(self, rows: Rows) -> None:
        """Rows that are given up: their next owners find nothing."""
        self.value[rows] = ABSENT
        for array in (self.marks, self.connections, self.since, self.until):
            array[rows] = 0
        gone = set(rows.tolist())
        for window in self._origins.values():
            for row in gone & window.keys():
                del window[row]

    def is_missed(self, rows: Rows, now: int) -> Flags:
        """[k] whether a silent thing must be remembered: it is connected, or its absence is measured, up to a month."""
        missed: Flags = self.connections[rows] > 0
        return missed | (self.until[rows] > now - ABSENCE_NS) if self._has_gauge() else missed

    def seed(self, row: int, standing: Standing) -> None:
        """A client of the thing is connected, or was: told to an actor that did not hear of it itself."""
        if standing.since:
            known = int(self.since[row]) if self.connections[row] else standing.since
            self.since[row] = min(known, standing.since)
            self.connections[row] += 1
        self.until[row] = max(int(self.until[row]), standing.until)

    def unseat(self) -> None:
        """Forget who is connected: `seed` follows."""
        self.connections[:] = 0

    # ---- from another meter ----

    def begin(self, now: int) -> None:
        """The measures are new: what came before does not count for them."""
        self.begun[:] = now
        self.start(now)

    def adopt(self, other: "Meter", sources: Rows, rows: Rows) -> None:
        """Take over the windows of equal measures: row sources[k] of the other is own row rows[k]."""
        self.unheard = np.where(other.unheard[:, 1:] > self.unheard[:, 1:], other.unheard, self.unheard)
        for array in ("connections", "since", "until"):
            getattr(self, array)[rows] = getattr(other, array)[sources]
        for lane, length in enumerate(self.lengths):
            if length in other.lengths:
                self._adopt_marks(lane, other, other.lengths.index(length), sources, rows)
        theirs = {measure.key: at for at, measure in enumerate(other.measures)}
        for own, measure in enumerate(self.measures):
            if measure.key in theirs:
                self._adopt_measure(own, other, theirs[measure.key], sources, rows)

    def _adopt_marks(self, lane: int, other: "Meter", theirs: int, sources: Rows, rows: Rows) -> None:
        for end in self._both_open(lane, other, theirs):
            marks = other.marks[sources, other._mark_cell(theirs, end)]
            self.marks[rows, self._mark_cell(lane, end)] |= marks

    def _adopt_measure(self, own: int, other: "Meter", theirs: int, sources: Rows, rows: Rows) -> None:
        self.begun[own] = other.begun[theirs]
        lane, their_lane = self._lane_of[own], other._lane_of[theirs]
        places = dict(zip(sources.tolist(), rows.tolist(), strict=True))
        for end in self._both_open(lane, other, their_lane):
            for figure in range(len(self._figures[own])):
                cell = self._first_cell[self._figure_of[own] + figure] + self._cell(lane, end)
                theirs_at = other._first_cell[other._figure_of[theirs] + figure] + other._cell(their_lane, end)
                self.value[rows, cell] = other.value[sources, theirs_at]
            window = end // self.lengths[lane] - 1
            for row, addresses in other._origins.get((theirs, window), {}).items():
                if row in places:
                    self._origins.setdefault((own, window), {})[places[row]] = dict(addresses)

    def _both_open(self, lane: int, other: "Meter", theirs: int) -> Iterator[int]:
        """The ends of the windows that may be open in both."""
        length = self.lengths[lane]
        first = max(int(self.open[lane]), int(other.open[theirs]))
        last = min(
            int(self.open[lane]) + self._depth[lane] * length, int(other.open[theirs]) + other._depth[theirs] * length
        )
        return iter(range(first + length, last + 1, length))

    # ---- checkpoints ----

    def dump(self) -> dict[str, Any]:
        origins = [(*key, row, list(found)) for key, window in self._origins.items() for row, found in window.items()]
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        return {"arrays": arrays, "origins": origins, "late": self.late, "crowded": self.crowded}

    def load(self, state: dict[str, Any]) -> None:
        for name, array in state["arrays"].items():
            setattr(self, name, array.copy())
        self._origins = {}
        for measure, window, row, addresses in state["origins"]:
            self._origins.setdefault((measure, window), {})[row] = dict.fromkeys(addresses)
        self.late, self.crowded = state["late"], state["crowded"]


_ARRAYS: Final = ("open", "begun", "unheard", "value", "marks", "connections", "since", "until")
