"""A number against a limit (spec.md §3.1): a snapshot as it is, a device counter summed over its last D seconds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit

from actors.alarm import COMPLIES, VIOLATES
from actors.columns import Schema
from actors.criteria._base import Closed, Criterion, Run, Slot, operator_code
from actors.messages import ABSENT, I1, I4, I8, U1
from actors.numbers import key_of
from actors.window import UNCOUNTED, Rows, Windows, push, total
from config.model import NS, Limits, MetricValue


def horizon_ns(duration_s: int) -> int:
    """The age at which a counter's report leaves the sum: D − min(15 s, D/20).

    Agents report every 300 s with jitter: an exact D would now sum two reports, now one (design.md §4).
    """
    return duration_s * NS - min(15 * NS, duration_s * NS // 20)


class Threshold:
    """All numeric limits of one group actor."""

    def __init__(self, slots: Sequence[tuple[int, Slot]], schema: Schema) -> None:
        self.slots = tuple(number for number, _ in slots)
        self._slots = np.array(self.slots, np.int32)
        self._column = np.array([schema.scalar(slot.metric.name) for _, slot in slots], np.int32)
        self._operator = np.array([operator_code(slot) for _, slot in slots], np.uint8)
        self._limit = np.array([_limit(slot) for _, slot in slots], np.int64)
        self._metrics = [slot.metric.name for _, slot in slots]
        sums = {slot.metric.name for _, slot in slots if slot.metric.kind == "delta"}
        self._summed = tuple(sorted(sums))
        self._horizon = np.array([_horizon(slot) for _, slot in slots], np.int64)
        self._since = np.zeros(len(slots), np.int64)  # a behavior sums nothing that came before it did
        self._window = np.array([self._summed.index(m) if m in sums else -1 for m in self._metrics], np.int32)
        longest = [max(h for h, m in zip(self._horizon, self._metrics, strict=True) if m == s) for s in self._summed]
        self._window_column = np.array([schema.scalar(m) for m in self._summed], np.int32)
        self.windows = Windows(np.array(longest, np.int64))

    @property
    def merged(self) -> int:
        return self.windows.merged

    def judge(self, run: Run) -> None:
        at = 0
        while at >= 0:
            at = _judge(
                at, run.entries, run.rows, run.times, run.columns.scalars,
                self._slots, self._column, self._operator, self._limit, self._window, self._horizon, self._since,
                self._window_column, self.windows.horizons_ns,
                self.windows.offset, self.windows.room, self.windows.head, self.windows.length,
                self.windows.pool_ts, self.windows.pool_value, run.verdicts, run.values,
            )  # fmt: skip
            if at >= 0:  # a ring was full there: enlarge it and go on from that very place
                self.windows.enlarge(run.rows, run.times, at)

    def ends(self, now: int) -> Sequence[int]:
        return ()

    def close(self, end: int) -> Sequence[Closed]:
        return ()

    def offenders(self, slot: int, value: MetricValue) -> tuple[str, ...]:
        return ()

    def grow(self, rows: int) -> None:
        self.windows.grow(rows)

    def forget(self, rows: Rows) -> None:
        self.windows.forget(rows)

    def begin(self, now: int) -> None:
        self._since[:] = now

    def adopt(self, other: "Threshold", slots: Sequence[tuple[int, int]], sources: Rows, rows: Rows) -> None:
        for theirs, own in slots:
            self._since[self.slots.index(own)] = other._since[other.slots.index(theirs)]
        for own, metric in enumerate(self._summed):
            if metric in other._summed:
                self.windows.adopt(own, other.windows, other._summed.index(metric), sources, rows)

    def dump(self) -> dict[str, Any]:
        return {"since": self._since, "windows": self.windows.dump()}

    def load(self, state: dict[str, Any]) -> None:
        self._since = state["since"].copy()
        self.windows.load(state["windows"])


def _limit(slot: Slot) -> int:
    criteria = slot.behavior.criteria
    assert criteria is not None
    assert criteria.value is not None
    if criteria.value.count is not None:
        return criteria.value.count
    assert criteria.value.number is not None
    return key_of(criteria.value.number)


def _horizon(slot: Slot) -> int:
    criteria = slot.behavior.criteria
    assert criteria is not None
    return horizon_ns(criteria.duration_seconds or 300)


def _claims(slot: Slot, schema: Schema) -> bool:
    value = slot.behavior.criteria.value if slot.behavior.criteria else None
    numeric = value is not None and (value.count is not None or value.number is not None)
    return numeric and schema.scalar(slot.metric.name) is not None


def _build(slots: Sequence[tuple[int, Slot]], schema: Schema, limits: Limits) -> Threshold:
    return Threshold(slots, schema)


CRITERION = Criterion("STATIC", _claims, _build)


@njit("b1(u1,i8,i8)", nogil=True, cache=True)
def complies(operator: int, value: int, limit: int) -> bool:
    """`value OPERATOR limit`; the code is the index in OPERATORS."""
    if operator == 0:
        return value < limit
    if operator == 1:
        return value <= limit
    if operator == 2:
        return value > limit
    return value >= limit


@njit(
    "i8(i8,i4[::1],i4[::1],i8[::1],i8[:,::1],i4[::1],i4[::1],u1[::1],i8[::1],i4[::1],i8[::1],i8[::1],i4[::1],i8[::1],"
    "i4[:,::1],i4[:,::1],i4[:,::1],i4[:,::1],i8[::1],i8[::1],i1[:,::1],i8[:,::1])",
    nogil=True,
    cache=True,
    **UNCOUNTED,
)
def _judge(
    at: int, entries: I4, rows: I4, times: I8, scalars: I8,
    slots: I4, column: I4, operator: U1, limit: I8, window: I4, horizon: I8, since: I8,
    window_column: I4, window_horizon: I8,
    offset: I4, room: I4, head: I4, length: I4, pool_ts: I8, pool_value: I8,
    verdicts: I1, values: I8,
) -> int:  # fmt: skip
    """Judge reports from place `at` = k × windows + window on; the place of a full ring, or -1 at the end."""
    windows = len(window_column)
    first_window = at % windows if windows else 0
    for k in range(at // windows if windows else 0, len(rows)):
        entry, row, now = np.uint64(entries[k]), rows[k], times[k]
        for w in range(first_window, windows):
            value = scalars[entry, np.uint64(window_column[w])]
            if value == ABSENT:
                continue
            if not push(row, w, now, value, window_horizon[w], offset, room, head, length, pool_ts, pool_value):
                return k * windows + w
        first_window = 0
        for s in range(len(slots)):
            value = scalars[entry, np.uint64(column[s])]
            if value == ABSENT:
                continue
            if window[s] >= 0:
                value = total(
                    row, window[s], now, horizon[s], since[s], offset, room, head, length, pool_ts, pool_value
                )
            values[k, slots[s]] = value
            verdicts[k, slots[s]] = COMPLIES if complies(operator[s], value, limit[s]) else VIOLATES
    return -1
