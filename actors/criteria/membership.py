"""A set against a set (spec.md §1.4): ports, addresses, numbers and strings, all as 128-bit keys in sorted ranges.

in-…: every observed element lies in the set; not-in-…: none does; an empty observation always complies. IPv4 lives
in its IPv4-mapped place and is cut out of every IPv6 range, so that neither family is ever inside the other.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final

import numpy as np
from numba import njit

from actors.alarm import COMPLIES, VIOLATES
from actors.columns import Schema
from actors.criteria._base import Closed, Criterion, Run, Slot
from actors.messages import I1, I4, U8
from actors.numbers import address_key, key_of
from actors.window import UNCOUNTED, Rows
from config.model import Limits, MetricValue

MAPPED: Final = 0xFFFF << 32  # ::ffff:0:0/96, the place of IPv4
MAPPED_LAST: Final = MAPPED | 0xFFFFFFFF
LOW: Final = 2**64 - 1
BUCKET_BITS: Final = 8
BUCKETS: Final = 1 << BUCKET_BITS
ONE: Final = np.uint64(1)

Range = tuple[int, int]  # first and last 128-bit key, both inside


class Membership:
    """All set criteria of one group actor."""

    def __init__(self, slots: Sequence[tuple[int, Slot]], schema: Schema) -> None:
        self.slots = tuple(number for number, _ in slots)
        self._schema = schema
        self._columns = [_column(slot, schema) for _, slot in slots]
        self._negated = [_operator(slot).startswith("not-") for _, slot in slots]
        self._ranges = {number: ranges_of(_value(slot), schema) for number, slot in slots}
        self._tables = [_table(self._ranges[number]) for number in self.slots]

    @property
    def merged(self) -> int:
        return 0

    def judge(self, run: Run) -> None:
        for slot, column, negated, table in zip(self.slots, self._columns, self._negated, self._tables, strict=True):
            found = run.columns.sets[column]
            _judge(run.entries, found.start, found.count, found.hi, found.lo, *table, negated, slot, run.verdicts)

    def ends(self, now: int) -> Sequence[int]:
        return ()

    def close(self, end: int) -> Sequence[Closed]:
        return ()

    def offenders(self, slot: int, value: MetricValue) -> tuple[str, ...]:
        ranges, negated = self._ranges[slot], self._negated[self.slots.index(slot)]
        return tuple(
            dict.fromkeys(name for name, key in keys_of(value, self._schema) if is_inside(ranges, key) == negated)
        )

    def grow(self, rows: int) -> None:
        """Nothing is kept by row: a set is judged by what the report says."""

    def forget(self, rows: Rows) -> None:
        """As `grow`."""

    def begin(self, now: int) -> None:
        """As `grow`."""

    def adopt(self, other: "Membership", slots: Sequence[tuple[int, int]], sources: Rows, rows: Rows) -> None:
        """As `grow`."""

    def dump(self) -> dict[str, Any]:
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """As `grow`."""


def ranges_of(value: MetricValue, schema: Schema) -> list[Range]:
    """The set as sorted ranges that neither overlap nor touch."""
    return _joined(_raw_ranges(value, schema))


def cidr_ranges(cidrs: Iterable[str]) -> list[Range]:
    """As `ranges_of`, of networks."""
    return _joined(range_ for cidr in cidrs for range_ in _cidr_ranges(ip_network(cidr, strict=False)))


def _joined(ranges: Iterable[Range]) -> list[Range]:
    merged: list[Range] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def keys_of(value: MetricValue, schema: Schema) -> list[tuple[str, int]]:
    """(text, 128-bit key) of every element of an observed value, as the columns hold them."""
    found: list[tuple[str, int]] = [(str(port), port) for port in value.ports or ()]
    for text in value.cidrs or ():
        hi, lo = address_key(text)
        found.append((text, hi << 64 | lo))
    found += [(f"{number:g}", key_of(number) & LOW) for number in value.numbers or ()]
    return found + [(repr(word), schema.vocabulary.get(word, LOW)) for word in value.strings or ()]


def _raw_ranges(value: MetricValue, schema: Schema) -> Iterable[Range]:
    for port in value.ports or ():
        yield port, port
    for number in value.numbers or ():
        yield key_of(number) & LOW, key_of(number) & LOW
    for word in value.strings or ():
        yield schema.vocabulary[word], schema.vocabulary[word]
    for cidr in value.cidrs or ():
        yield from _cidr_ranges(ip_network(cidr, strict=False))


def _cidr_ranges(network: IPv4Network | IPv6Network) -> Iterable[Range]:
    first, last = int(network.network_address), int(network.broadcast_address)
    if network.version == 4:
        yield MAPPED | first, MAPPED | last
    elif first >= MAPPED and last <= MAPPED_LAST:  # written as IPv6, means IPv4
        yield first, last
    elif first < MAPPED and last >= MAPPED_LAST:
        yield first, MAPPED - 1
        if last > MAPPED_LAST:  # a /95 ends where IPv4 does
            yield MAPPED_LAST + 1, last
    else:
        yield first, last


def _table(ranges: list[Range]) -> tuple[U8, U8, U8, U8, U8, int, int]:
    """(first hi, first lo, last hi, last lo), [ranges] each, and an index of those that begin in the lower half.

    That is (starts, base, shift): `starts[b]` ranges begin before bucket b; a key lies in bucket (key - base) >> shift.
    Keys behind the last bucket count as in one more, which is empty.
    """
    firsts, lasts = [first for first, _ in ranges], [last for _, last in ranges]
    lower = [first for first in firsts if first <= LOW]
    base = lower[0] if lower else 0
    shift = max(0, (lower[-1] - base).bit_length() - BUCKET_BITS) if lower else 0
    buckets = [(first - base) >> shift for first in lower]
    return (
        np.array([k >> 64 for k in firsts], np.uint64), np.array([k & LOW for k in firsts], np.uint64),
        np.array([k >> 64 for k in lasts], np.uint64), np.array([k & LOW for k in lasts], np.uint64),
        np.searchsorted(buckets, np.arange(BUCKETS + 2)).astype(np.uint64), base, shift,
    )  # fmt: skip


def is_inside(ranges: list[Range], key: int) -> bool:
    """Whether a key lies in one of the ranges, which `ranges_of` gave."""
    at = bisect_right(ranges, (key, 2**128)) - 1
    return at >= 0 and ranges[at][0] <= key <= ranges[at][1]


def _value(slot: Slot) -> MetricValue:
    assert slot.behavior.criteria is not None
    assert slot.behavior.criteria.value is not None
    return slot.behavior.criteria.value


def _operator(slot: Slot) -> str:
    assert slot.behavior.criteria is not None
    assert slot.behavior.criteria.comparison_operator is not None
    return slot.behavior.criteria.comparison_operator


def _column(slot: Slot, schema: Schema) -> int:
    column = schema.set(slot.metric.name)
    assert column is not None
    return column


def _claims(slot: Slot, schema: Schema) -> bool:
    value = slot.behavior.criteria.value if slot.behavior.criteria else None
    is_set = value is not None and value.count is None and value.number is None
    return is_set and schema.set(slot.metric.name) is not None


def _build(slots: Sequence[tuple[int, Slot]], schema: Schema, limits: Limits) -> Membership:
    return Membership(slots, schema)


CRITERION = Criterion("STATIC", _claims, _build)


@njit("u8(u8,u8,u8[::1],u8[::1],u8[::1],u8,u8)", nogil=True, cache=True, forceinline=True, **UNCOUNTED)
def _begun(hi: Any, lo: Any, first_hi: U8, first_lo: U8, starts: U8, base: Any, shift: Any) -> Any:
    """How many ranges begin at an element or before it."""
    if hi > 0:  # an IPv6 address
        low, high = starts[BUCKETS + 1], np.uint64(len(first_hi))
    elif lo < base:
        return 0
    else:  # a port, a number, an IPv4 address: the index leaves little to search
        bucket = min((lo - base) >> shift, np.uint64(BUCKETS))
        low, high = starts[bucket], starts[bucket + ONE]
    while low < high:
        middle = (low + high) >> ONE
        if first_hi[middle] < hi or (first_hi[middle] == hi and first_lo[middle] <= lo):
            low = middle + ONE
        else:
            high = middle
    return low


@njit(
    "void(i4[::1],i4[::1],i4[::1],u8[::1],u8[::1],u8[::1],u8[::1],u8[::1],u8[::1],u8[::1],u8,u8,b1,i8,i1[:,::1])",
    nogil=True,
    cache=True,
    **UNCOUNTED,
)
def _judge(
    entries: I4, start: I4, count: I4, hi: U8, lo: U8,
    first_hi: U8, first_lo: U8, last_hi: U8, last_lo: U8, starts: U8, base: Any, shift: Any,
    negated: bool, slot: int, verdicts: I1,
) -> None:  # fmt: skip
    """Search each element in the sorted ranges; one that is on the wrong side decides."""
    for k in range(len(entries)):
        entry = np.uint64(entries[k])
        if count[entry] < 0:
            continue
        verdict = COMPLIES
        for i in range(np.uint64(start[entry]), np.uint64(start[entry] + count[entry])):
            begun = _begun(hi[i], lo[i], first_hi, first_lo, starts, base, shift)
            at = begun - ONE
            inside = begun > 0 and (hi[i] < last_hi[at] or (hi[i] == last_hi[at] and lo[i] <= last_lo[at]))
            if inside == negated:
                verdict = VIOLATES
                break
        verdicts[k, slot] = verdict
