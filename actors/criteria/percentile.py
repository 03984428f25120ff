"""A thing against a percentile of its group (spec.md §3.2): tumbling windows of D seconds, aligned to the epoch.

A thing's value in [kD, (k+1)D) is the sum of its deltas or its latest snapshot. When the window ends, the percentile
of all values of the group, each thing's own included, is the limit: nearest rank, in exact integer arithmetic.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numba import njit

from actors.alarm import COMPLIES, NO_DATA, VIOLATES
from actors.columns import Schema
from actors.criteria._base import Closed, Criterion, Run, Slot, operator_code
from actors.messages import ABSENT, I1, I4, I8, U1
from actors.window import Rows
from config.model import NS, Limits, MetricValue


def rank(statistic: str, population: int) -> int:
    """The 1-based place of a percentile among `population` sorted values: ceil(p/100 · n), at least 1."""
    share = Fraction(statistic.removeprefix("p")) / 100
    return max(1, -(-share.numerator * population // share.denominator))


def verdicts(values: I8, statistic: str, operator: int, population_min: int) -> I1:
    """[k] each thing's value against the percentile of all of them; `operator` is a place in OPERATORS."""
    # Below zero there are no percentiles: the value of a count never is, that of a custom number may be.
    if len(values) < max(1, population_min) or values.min() < 0:
        return np.full(len(values), NO_DATA, np.int8)
    place = rank(statistic, len(values)) - 1
    limit = np.partition(values, place)[place]
    compare = (np.less, np.less_equal, np.greater, np.greater_equal)[operator]
    return np.where(compare(values, limit), COMPLIES, VIOLATES).astype(np.int8)


class Percentile:
    """All statistical thresholds of one group actor. State: [row, own slot], ABSENT = nothing in this window."""

    def __init__(self, slots: Sequence[tuple[int, Slot]], schema: Schema, limits: Limits) -> None:
        self.slots = tuple(number for number, _ in slots)
        self._column = np.array([schema.scalar(slot.metric.name) for _, slot in slots], np.int32)
        self._sums = np.array([slot.metric.kind == "delta" for _, slot in slots], np.uint8)
        self._operator = [operator_code(slot) for _, slot in slots]
        self._statistic = [statistic_of(slot) for _, slot in slots]
        self._duration_ns = [_duration_s(slot) * NS for _, slot in slots]
        self._population_min = limits.population_min
        self.value: I8 = np.full((0, len(slots)), ABSENT, np.int64)

    @property
    def merged(self) -> int:
        return 0

    def judge(self, run: Run) -> None:
        _gather(run.entries, run.rows, run.columns.scalars, self._column, self._sums, self.value)

    def ends(self, now: int) -> Sequence[int]:
        return [(now // duration + 1) * duration for duration in self._duration_ns]

    def close(self, end: int) -> Sequence[Closed]:
        return [self._close(own) for own, duration in enumerate(self._duration_ns) if end % duration == 0]

    def _close(self, own: int) -> Closed:
        rows = np.flatnonzero(self.value[:, own] != ABSENT).astype(np.int32)
        values = self.value[rows, own]
        self.value[rows, own] = ABSENT
        found = verdicts(values, self._statistic[own], self._operator[own], self._population_min)
        return Closed(self.slots[own], rows, found.reshape(-1, 1), values.reshape(-1, 1))

    def offenders(self, slot: int, value: MetricValue) -> tuple[str, ...]:
        return ()

    def grow(self, rows: int) -> None:
        fresh = np.full((rows - len(self.value), len(self.slots)), ABSENT, np.int64)
        self.value = np.concatenate((self.value, fresh))

    def forget(self, rows: Rows) -> None:
        self.value[rows] = ABSENT

    def begin(self, now: int) -> None:
        """A new slot's windows are empty."""

    def adopt(self, other: "Percentile", slots: Sequence[tuple[int, int]], sources: Rows, rows: Rows) -> None:
        for theirs, own in slots:
            a, b = other.slots.index(theirs), self.slots.index(own)
            self.value[rows, b] = other.value[sources, a]

    def dump(self) -> dict[str, Any]:
        return {"value": self.value}

    def load(self, state: dict[str, Any]) -> None:
        self.value = state["value"].copy()


def statistic_of(slot: Slot) -> str:
    """Which percentile a behavior names."""
    criteria = slot.behavior.criteria
    assert criteria is not None
    assert criteria.statistical_threshold is not None
    return criteria.statistical_threshold.statistic


def _duration_s(slot: Slot) -> int:
    criteria = slot.behavior.criteria
    assert criteria is not None
    assert criteria.duration_seconds is not None
    return criteria.duration_seconds


def _claims(slot: Slot, schema: Schema) -> bool:
    criteria = slot.behavior.criteria
    statistical = criteria is not None and criteria.statistical_threshold is not None
    return statistical and schema.scalar(slot.metric.name) is not None


CRITERION = Criterion("STATISTICAL", _claims, Percentile)


@njit("void(i4[::1],i4[::1],i8[:,::1],i4[::1],u1[::1],i8[:,::1])", nogil=True, cache=True)
def _gather(entries: I4, rows: I4, scalars: I8, column: I4, sums: U1, value: I8) -> None:
    """Add each report's deltas to its thing's window, or replace the snapshot."""
    for k in range(len(rows)):
        entry, row = np.uint64(entries[k]), np.uint64(rows[k])
        for s in range(len(column)):
            new = scalars[entry, np.uint64(column[s])]
            if new == ABSENT:
                continue
            old = value[row, s]
            if sums[s] and old != ABSENT:
                new = 2**63 - 1 if old > 2**63 - 1 - new else old + new
            value[row, s] = new
