"""Datapoints on their way into the history, and how they are taken out of a batch of reports.

Times are the log's, to the millisecond. A scalar is an int64 as in the actors' columns; a set is a "word", and its
column holds the word's number. A word is the elements as the actors have them, behind a byte that says how wide they
are (it is read a thousand times less often than it is written); strings, which actors know by number, are msgpack.
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
from actors.retention import Kept, Retention, accepted
from actors.router import Routed
from actors.series import Series
from config.kinds import ValueField
from config.model import MS
from daemon.history.codec import floats_of

REPORTS: Final = "reports"
NARROW: Final = b"\x08"  # elements of 8 bytes: ports, numbers, IPv4 addresses
WIDE: Final = b"\x10"  # of 16, the high half first
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
        return _spelled(field, words[value])
    if field == "number":
        return float(floats_of(np.array([value], np.int64))[0])
    return value


def _spelled(field: ValueField, word: bytes) -> list[Any]:
    """The distinct elements of a word."""
    if field == "strings":
        elements: list[Any] = msgspec.msgpack.decode(word)
        return elements
    halves = np.frombuffer(word, np.uint64, offset=len(NARROW)).tolist()
    pairs = zip(halves[::2], halves[1::2], strict=True) if word.startswith(WIDE) else [(0, low) for low in halves]
    read = _READERS[field]
    return [read(*pair) for pair in dict.fromkeys(pairs)]


def _column(batch: Batch, entries: I4, kept: Kept, retention: Retention, words: dict[bytes, int]) -> I8:
    if not kept.is_set:
        column: I8 = batch.columns.scalars[entries, kept.column]
        return column
    if kept.field == "strings":
        spelled = _strings(batch, entries, kept, retention)
    else:
        spelled = _elements(batch.columns.sets[kept.column], entries)
    numbers = [ABSENT if word is None else words.setdefault(word, len(words)) for word in spelled]
    return np.array(numbers, np.int64)


def _elements(column: Ragged, entries: I4) -> Iterator[bytes | None]:
    """The words of a set column: slices of its bytes."""
    if column.hi.any():  # an IPv6 address is among them
        raw, width, mark = np.stack((column.hi, column.lo), axis=1).tobytes(), 16, WIDE
    else:
        raw, width, mark = column.lo.tobytes(), 8, NARROW
    for start, count in zip(column.start[entries].tolist(), column.count[entries].tolist(), strict=True):
        yield None if count < 0 else mark + raw[width * start : width * (start + count)]


def _strings(batch: Batch, entries: I4, kept: Kept, retention: Retention) -> Iterator[bytes | None]:
    """Read again from the report: the columns know only the words that behaviors name."""
    read = retention.kinds.custom["string-list"](kept.series.metric).read
    assert read is not None
    for entry in entries.tolist():
        payload = batch.frames.payload(entry)
        is_cbor = int(batch.frames.kind[entry]) == REPORT_CBOR
        report = decode(payload, is_cbor, lenient=True, payload_bytes_max=len(payload))
        value = None if isinstance(report, Rejected) else read(report)
        yield None if value is None else msgspec.msgpack.encode(list(dict.fromkeys(value)))


def _address(hi: int, lo: int) -> str:
    if not hi and lo >> 32 == MAPPED >> 32:
        return ".".join(str(lo >> shift & 255) for shift in (24, 16, 8, 0))
    return str(IPv6Address(hi << 64 | lo))


def _number(_hi: int, lo: int) -> float:
    return float(floats_of(np.array([lo], np.uint64).view(np.int64))[0])


def _port(_hi: int, lo: int) -> int:
    return lo


_READERS: Final[dict[str, Callable[[int, int], Any]]] = {"ports": _port, "cidrs": _address, "numbers": _number}
