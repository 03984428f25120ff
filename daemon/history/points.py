"""Datapoints on their way into the history, and how they are taken out of a batch of reports.

Times are the log's, to the millisecond. A scalar is an int64 as in the actors' columns; a set is spelled as msgpack of
its distinct elements (a "word"), and its column holds the word's number.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any, Final

import msgspec
import numpy as np

from actors.messages import ABSENT, I4, I8, REPORT_CBOR, Batch, Ragged, Rejected
from actors.numbers import MAPPED
from actors.report import decode
from actors.retention import Kept, Retention, Series, accepted
from actors.router import Routed
from config.kinds import ValueField
from daemon.history.codec import floats_of

MS: Final = 1_000_000  # ns
REPORTS: Final = "reports"
SETS: Final = frozenset({"ports", "cidrs", "numbers", "strings"})


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """A series as it is stored: a custom metric that was made anew with another type is another one."""

    series: Series
    field: ValueField

    @property
    def is_set(self) -> bool:
        return self.field in SETS


@dataclass(frozen=True, slots=True)
class Points:
    """Datapoints of several things: row by row a thing, an instant and one value per series."""

    names: Sequence[bytes]  # [n]
    ms: I8  # [n]
    keys: tuple[Key, ...]  # [k]
    values: I8  # [n, k] ABSENT = no datapoint
    words: Sequence[bytes]  # what the columns of sets refer to

    def __len__(self) -> int:
        return len(self.ms)


def points_of(routed: Routed, kept: Retention, after: int) -> Points:
    """The datapoints of the reports behind position `after`."""
    batch, entries = routed.batch, accepted(routed)
    entries = entries[batch.frames.seq[entries] > after]
    find = kept.registry.codes.get
    names = [batch.names[entry] for entry in entries.tolist()]
    covered = kept.covered[np.array([find(name, 0) for name in names], np.int32)]
    words: dict[bytes, int] = {}
    values = np.full((len(entries), len(kept.kept)), ABSENT, np.int64)
    for at, each in enumerate(kept.kept):
        mine = np.flatnonzero(covered[:, at])
        if len(mine):
            values[mine, at] = _column(batch, entries[mine], each, kept, words)
    keys = tuple(Key(each.series, each.field) for each in kept.kept)
    told = np.flatnonzero((values != ABSENT).any(axis=1))
    if len(told) < len(entries):
        names, entries, values = [names[row] for row in told.tolist()], entries[told], values[told]
    return Points(names, batch.ts[entries] // MS, keys, values, list(words))


def value_of(field: ValueField, value: int, words: Sequence[bytes]) -> Any:
    """The natural value behind a column's integer: what a MetricValue holds under `field`."""
    if field in SETS:
        return msgspec.msgpack.decode(words[value])
    if field == "number":
        return float(floats_of(np.array([value], np.int64))[0])
    return value


def _column(batch: Batch, entries: I4, kept: Kept, retention: Retention, words: dict[bytes, int]) -> I8:
    if not kept.is_set:
        column: I8 = batch.columns.scalars[entries, kept.column]
        return column
    if kept.field == "strings":
        spelled = _strings(batch, entries, kept, retention)
    else:
        spelled = _elements(batch.columns.sets[kept.column], entries, _READERS[kept.field])
    numbers = [ABSENT if word is None else words.setdefault(word, len(words)) for word in spelled]
    return np.array(numbers, np.int64)


def _elements(column: Ragged, entries: I4, read: Callable[[int, int], Any]) -> Iterator[bytes | None]:
    """The words of a set column; equal sets are spelled once."""
    known: dict[tuple[bytes, bytes], bytes] = {}
    for start, count in zip(column.start[entries].tolist(), column.count[entries].tolist(), strict=True):
        if count < 0:
            yield None
            continue
        hi, lo = column.hi[start : start + count], column.lo[start : start + count]
        raw = hi.tobytes(), lo.tobytes()
        word = known.get(raw)
        if word is None:
            distinct = dict.fromkeys(zip(hi.tolist(), lo.tolist(), strict=True))
            word = known[raw] = _word([read(*element) for element in distinct])
        yield word


def _strings(batch: Batch, entries: I4, kept: Kept, retention: Retention) -> Iterator[bytes | None]:
    """Read again from the report: the columns know only the words that behaviors name."""
    read = retention.kinds.custom["string-list"](kept.series.metric).read
    assert read is not None
    for entry in entries.tolist():
        payload = batch.frames.payload(entry)
        is_cbor = int(batch.frames.kind[entry]) == REPORT_CBOR
        report = decode(payload, is_cbor, lenient=True, payload_bytes_max=len(payload))
        value = None if isinstance(report, Rejected) else read(report)
        yield None if value is None else _word(list(dict.fromkeys(value)))


def _word(elements: list[Any]) -> bytes:
    return msgspec.msgpack.encode(elements)


def _address(hi: int, lo: int) -> str:
    if not hi and lo >> 32 == MAPPED >> 32:
        return ".".join(str(lo >> shift & 255) for shift in (24, 16, 8, 0))
    return str(IPv6Address(hi << 64 | lo))


def _number(_hi: int, lo: int) -> float:
    return float(floats_of(np.array([lo], np.uint64).view(np.int64))[0])


def _port(_hi: int, lo: int) -> int:
    return lo


_READERS: Final[dict[str, Callable[[int, int], Any]]] = {"ports": _port, "cidrs": _address, "numbers": _number}
