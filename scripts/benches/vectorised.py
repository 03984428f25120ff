"""The peer of the kernels: the same rules in NumPy, as a good programmer writes them: no loop over reports."""

from collections.abc import Iterator, Sequence
from ipaddress import ip_network
from typing import Any, Final

import numpy as np

from actors.columns import Schema
from actors.criteria._base import Slot
from actors.criteria.threshold import horizon_ns
from actors.messages import ABSENT, Ragged, Share

RING: Final = 4  # reports kept per thing; more than a window of 300 s holds
MAPPED: Final = 0xFFFF << 32

Array = np.ndarray[Any, Any]


class Vectorised:
    """State is arrays by thing; `handle` judges a batch by masks, `searchsorted` and `isin`."""

    def __init__(self, slots: Sequence[Slot], schema: Schema, things: int) -> None:
        self._slots = slots
        self._sums = [s for s, slot in enumerate(slots) if slot.metric.kind == "delta" and not _is_statistical(slot)]
        self._snapshots = [s for s, slot in enumerate(slots) if slot.metric.kind == "snapshot"]
        self._percentiles = [s for s, slot in enumerate(slots) if _is_statistical(slot)]
        self._ports = [(s, np.array(_value(slots[s]).ports)) for s in _of(slots, "ports")]
        self._cidrs = [(s, *_cidr_table(_value(slots[s]).cidrs)) for s in _of(slots, "cidrs")]
        self._column = [schema.scalar(slot.metric.name) for slot in slots]
        self._set = [schema.set(slot.metric.name) for slot in slots]
        self._limit = np.array([_value(slot).count or 0 if not _is_statistical(slot) else 0 for slot in slots])
        self._horizon = horizon_ns(300)
        self._rows: dict[bytes, int] = {}
        self._ts = np.zeros((things, RING), np.int64)
        self._values = np.zeros((things, RING, len(self._sums)), np.int64)
        self._head = np.zeros(things, np.int64)
        self._window = np.zeros((things, len(self._percentiles)), np.int64)
        self._alarmed = np.zeros((things, len(slots)), bool)
        self._streak = np.zeros((things, len(slots)), np.int64)
        self._last_at = np.zeros((things, len(slots)), np.int64)
        self._heard = np.zeros((things, len(slots)), np.int64)

    def handle(self, share: Share) -> list[tuple[str, str, str]]:
        names = [share.batch.names[entry] for entry in share.entries.tolist()]
        rows = np.array([self._rows.setdefault(name, len(self._rows)) for name in names])
        told = []
        for at in _each_thing_once(rows):
            told += self._judge(share, share.entries[at], rows[at], [names[k] for k in at.tolist()])
        return told

    def _judge(self, share: Share, entries: Array, rows: Array, names: list[bytes]) -> list[tuple[str, str, str]]:
        columns, times = share.batch.columns, share.batch.ts[entries]
        violates = np.zeros((len(entries), len(self._slots)), bool)
        present = np.zeros((len(entries), len(self._slots)), bool)
        self._judge_sums(columns.scalars[entries], rows, times, violates, present)
        for s in self._snapshots:
            value = columns.scalars[entries, self._column[s]]
            present[:, s] = value != ABSENT
            violates[:, s] = value > self._limit[s]
        for s, ports in self._ports:
            found = columns.sets[self._set[s]]  # type: ignore[index]
            self._judge_set(found, entries, ~np.isin(found.lo, ports), s, violates, present)
        for s, v4, v6 in self._cidrs:
            found = columns.sets[self._set[s]]  # type: ignore[index]
            self._judge_set(found, entries, _inside(found, v4, v6), s, violates, present)
        for own, s in enumerate(self._percentiles):
            value = columns.scalars[entries, self._column[s]]
            self._window[rows, own] += np.where(value == ABSENT, 0, value)
        return self._step(rows, times, violates, present, names)

    def _judge_sums(self, scalars: Array, rows: Array, times: Array, violates: Array, present: Array) -> None:
        deltas = scalars[:, [self._column[s] for s in self._sums]]
        head = self._head[rows] = (self._head[rows] + 1) % RING
        self._ts[rows, head] = times
        self._values[rows, head] = np.where(deltas == ABSENT, 0, deltas)
        young = times[:, None] - self._ts[rows] < self._horizon
        total = (self._values[rows] * young[:, :, None]).sum(axis=1)
        present[:, self._sums] = deltas != ABSENT
        violates[:, self._sums] = total > self._limit[self._sums]

    def _judge_set(self, found: Ragged, entries: Array, wrong: Array, s: int, violates: Array, present: Array) -> None:
        before = np.concatenate(([0], np.cumsum(wrong)))
        start, count = found.start[entries], found.count[entries]
        present[:, s] = count >= 0
        violates[:, s] = before[start + np.maximum(count, 0)] > before[start]

    def _step(
        self, rows: Array, times: Array, violates: Array, present: Array, names: list[bytes]
    ) -> list[tuple[str, str, str]]:
        """All behaviors alarm and clear at the first datapoint, as the bench's do."""
        was = self._alarmed[rows]
        flips = present & (violates != was)
        self._alarmed[rows] = was ^ flips
        self._streak[rows] = np.where(present, 0, self._streak[rows])
        self._heard[rows] = np.where(present, times[:, None], self._heard[rows])
        self._last_at[rows] = np.where(present & violates, times[:, None], self._last_at[rows])
        return [
            (names[k].decode(), self._slots[s].behavior.name, "in-alarm" if violates[k, s] else "alarm-cleared")
            for k, s in np.argwhere(flips).tolist()
        ]


def _each_thing_once(rows: Array) -> Iterator[Array]:
    """Places of `rows` in runs that have no thing twice, in order: two reports of one thing are judged one by one."""
    left = np.arange(len(rows))
    while len(left):
        _, first = np.unique(rows[left], return_index=True)
        yield left[np.sort(first)]
        left = np.delete(left, first)


def _inside(found: Ragged, v4: tuple[Array, Array], v6: tuple[Array, Array]) -> Array:
    """IPv4 by its number, IPv6 by its upper half: enough for prefixes of up to 64 bits, which the bench's are."""
    is_v4 = (found.hi == 0) & (found.lo >> np.uint64(32) == 0xFFFF)
    return np.where(is_v4, _in_ranges(found.lo, *v4), _in_ranges(found.hi, *v6))


def _in_ranges(keys: Array, first: Array, last: Array) -> Array:
    at = np.searchsorted(first, keys, side="right") - 1
    return (at >= 0) & (keys <= last[np.maximum(at, 0)])


def _cidr_table(cidrs: Sequence[str] | None) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    networks = [ip_network(text) for text in cidrs or ()]
    v4 = sorted((int(n[0]) | MAPPED, int(n[-1]) | MAPPED) for n in networks if n.version == 4)
    v6 = sorted((int(n[0]) >> 64, int(n[-1]) >> 64) for n in networks if n.version == 6)
    return _columns(v4), _columns(v6)


def _columns(ranges: list[tuple[int, int]]) -> tuple[Array, Array]:
    return np.array([a for a, _ in ranges], np.uint64), np.array([b for _, b in ranges], np.uint64)


def _of(slots: Sequence[Slot], field: str) -> list[int]:
    return [s for s, slot in enumerate(slots) if slot.metric.value_field == field]


def _is_statistical(slot: Slot) -> bool:
    return slot.behavior.criteria is not None and slot.behavior.criteria.statistical_threshold is not None


def _value(slot: Slot) -> Any:
    assert slot.behavior.criteria is not None
    return slot.behavior.criteria.value
