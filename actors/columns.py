"""Which columns reports are decoded into, and the decoding of a batch: `actors.scan` first, then `actors.report`.

A report that the kernel defers, and every one in CBOR, is read by the reference and written into the same columns.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final

import numpy as np

from actors.custom_names import CustomNames
from actors.messages import ABSENT, I4, I8, REPORT_CBOR, U1, U8, Columns, Frames, Ragged, Rejected
from actors.numbers import address_key, key_of
from actors.report import Report, decode
from actors.scan import DEFERRALS, DEFERRED, IGNORED, SETS, TALLY, scan
from config.kinds import Kinds, Metric
from config.model import Limits, Rules

UNKNOWN_WORD: Final = 2**64 - 1
"""The element of a string that no behavior names."""

LOW: Final = 2**64 - 1

# The kernel fills these by their place.
FIXED_SCALARS: Final = (
    "bytes_in",
    "bytes_out",
    "packets_in",
    "packets_out",
    "tcp_total",
    "udp_total",
    "established_total",
)
FIXED_SETS: Final = ("tcp_ports", "udp_ports", "addresses")
MEMBERS: Final = {"number": "number", "number-list": "numbers", "string-list": "strings", "ip-address-list": "cidrs"}

Key = tuple[int, int]  # (hi, lo)
ReadScalar = Callable[[Report], int | None]
ReadSet = Callable[[Report], list[Key] | None]


@dataclass(frozen=True, slots=True)
class Schema:
    """The columns that a set of rules needs. Two are equal when they mean the same by every column.

    Behind the fixed columns come one per custom metric, and one per metric that the kernel does not know: those
    cost, since every report is then read by the reference.
    """

    scalars: tuple[str, ...]
    sets: tuple[str, ...]
    vocabulary: Mapping[str, int]  # every string of a string set -> its element
    custom: Mapping[str, str]  # custom metric -> its type
    scalar_of: Mapping[str, int]  # metric -> scalar column
    set_of: Mapping[str, int]  # metric -> set column
    compiled: bool  # whether the kernel knows every column
    names: CustomNames = field(repr=False, compare=False)
    read_scalars: tuple[ReadScalar, ...] = field(repr=False, compare=False)
    read_sets: tuple[ReadSet, ...] = field(repr=False, compare=False)

    def scalar(self, metric: str) -> int | None:
        """The scalar column of a metric; None where it has none: a set, from the cloud side, or not in use."""
        return self.scalar_of.get(metric)

    def set(self, metric: str) -> int | None:
        """The set column of a metric; None where it has none."""
        return self.set_of.get(metric)


def schema_of(rules: Rules, kinds: Kinds) -> Schema:
    """The columns for these rules: all that the kernel knows, all custom metrics, and what else the profiles name."""
    vocabulary = _vocabulary(rules)
    custom = {metric.metric_name: metric.metric_type for metric in rules.custom_metrics}
    further = [kinds.custom[kind](name) for name, kind in custom.items()]
    unknown = _unknown_to_the_kernel(rules, kinds)
    scalars = [metric for metric in [*further, *unknown] if not metric.is_set]
    sets = [metric for metric in [*further, *unknown] if metric.is_set]
    scalar_of, set_of = _places(FIXED_SCALARS, scalars, kinds), _places(FIXED_SETS, sets, kinds)
    numbers = {name: scalar_of[name] for name, kind in custom.items() if kind == "number"}
    return Schema(
        scalars=(*FIXED_SCALARS, *map(_column_name, scalars)),
        sets=(*FIXED_SETS, *map(_column_name, sets)),
        vocabulary=vocabulary,
        custom=custom,
        scalar_of=scalar_of,
        set_of=set_of,
        compiled=not unknown,
        names=CustomNames(numbers),
        read_scalars=(*map(attrgetter, FIXED_SCALARS), *map(_scalar_reader, scalars)),
        read_sets=(*_FIXED_SET_READERS, *(_set_reader(metric, vocabulary) for metric in sets)),
    )


def decode_frames(frames: Frames, schema: Schema, limits: Limits) -> Columns:
    """Decode every report of a batch. Control entries are neither ok nor rejected."""
    count = len(frames)
    ok: U1 = np.empty(count, np.uint8)
    report_id: I8 = np.empty(count, np.int64)
    scalars: I8 = np.empty((count, len(schema.scalars)), np.int64)
    places: I4 = np.empty((SETS, 2, count), np.int32)
    tally: I8 = np.zeros(TALLY, np.int64)
    elements = _scan(frames, schema, limits, (ok, report_id, scalars, places), tally)
    sets = [_ragged(places[i], elements[i, :, : tally[i]]) for i in range(SETS)]
    sets += [_empty_set(count) for _ in schema.sets[SETS:]]
    columns = Columns(ok, report_id, scalars, tuple(sets), {}, int(tally[IGNORED]))
    return _complete(frames, schema, limits, columns) if tally[DEFERRALS] else columns


def _scan(frames: Frames, schema: Schema, limits: Limits, rows: tuple[Any, ...], tally: I8) -> U8:
    """Run the kernel; the sets' elements [SETS, 2, capacity], with room that doubles whenever it is used up."""
    elements: U8 = np.empty((SETS, 2, 16 + int(frames.payload_len.sum()) // 64), np.uint64)
    size_max = limits.payload_bytes_max if schema.compiled else -1  # -1: all is too large for the kernel
    entries = (frames.data, frames.kind, frames.payload_off, frames.payload_len)
    names = (schema.names.text, schema.names.slots)
    run: Callable[..., int] = scan
    at = run(*entries, 0, size_max, *names, *rows, elements, tally)
    while at < len(frames):
        elements = np.concatenate((elements, np.empty_like(elements)), axis=2)
        at = run(*entries, at, size_max, *names, *rows, elements, tally)
    return elements


def _ragged(places: I4, elements: U8) -> Ragged:
    return Ragged(places[0], places[1], elements[0], elements[1])


def _empty_set(count: int) -> Ragged:
    nothing: U8 = np.empty(0, np.uint64)
    return Ragged(np.zeros(count, np.int32), np.full(count, -1, np.int32), nothing, nothing)


def _complete(frames: Frames, schema: Schema, limits: Limits, columns: Columns) -> Columns:
    """Let the reference decide what the kernel has deferred."""
    further: list[list[Key]] = [[] for _ in schema.sets]
    rejected: dict[int, Rejected] = {}
    ignored = columns.ignored
    for entry in np.flatnonzero(columns.ok == DEFERRED).tolist():
        report = decode(
            frames.payload(entry),
            bool(frames.kind[entry] == REPORT_CBOR),
            lenient=limits.lenient,
            payload_bytes_max=limits.payload_bytes_max,
        )
        if isinstance(report, Rejected):
            rejected[entry] = report
            columns.ok[entry] = 0
            columns.report_id[entry] = ABSENT if report.report_id is None else report.report_id
        else:
            _write(entry, report, schema, columns, further)
            ignored += report.ignored + _undefined(report, schema)
    sets = tuple(_extended(column, more) for column, more in zip(columns.sets, further, strict=True))
    return Columns(columns.ok, columns.report_id, columns.scalars, sets, rejected, ignored)


def _write(entry: int, report: Report, schema: Schema, columns: Columns, further: list[list[Key]]) -> None:
    columns.ok[entry] = 1
    columns.report_id[entry] = report.report_id
    for column, read in enumerate(schema.read_scalars):
        value = read(report)
        if value is not None:
            columns.scalars[entry, column] = value
    for place, read_set, more in zip(columns.sets, schema.read_sets, further, strict=True):
        keys = read_set(report)
        if keys is not None:
            place.start[entry] = len(place.lo) + len(more)
            place.count[entry] = len(keys)
            more.extend(keys)


def _extended(column: Ragged, more: list[Key]) -> Ragged:
    if not more:
        return column
    keys: U8 = np.array(more, np.uint64)
    hi, lo = np.concatenate((column.hi, keys[:, 0])), np.concatenate((column.lo, keys[:, 1]))
    return Ragged(column.start, column.count, hi, lo)


def _undefined(report: Report, schema: Schema) -> int:
    """How many values are of no defined metric, or of another type than it has (spec.md §2.3)."""
    kinds = [(value, schema.custom.get(name)) for name, value in report.custom.items()]
    return sum(kind is None or getattr(value, MEMBERS[kind]) is None for value, kind in kinds)


def _vocabulary(rules: Rules) -> dict[str, int]:
    behaviors = [behavior for profile in rules.profiles for behavior in profile.behaviors]
    values = [behavior.criteria.value for behavior in behaviors if behavior.criteria and behavior.criteria.value]
    words = sorted({word for value in values for word in value.strings or ()})
    return {word: number for number, word in enumerate(words)}


def _unknown_to_the_kernel(rules: Rules, kinds: Kinds) -> list[Metric]:
    """Metrics of the device's side without a compiled column that some profile names, in the order of their names."""
    named = {behavior.metric for profile in rules.profiles for behavior in profile.behaviors}
    for profile in rules.profiles:
        named |= set(profile.additional_metrics_to_retain)
        named |= {kept.metric for kept in profile.additional_metrics_to_retain_v2}
    known = {*FIXED_SCALARS, *FIXED_SETS}
    found = [metric for name, metric in sorted(kinds.metrics.items()) if name in named]
    return [metric for metric in found if metric.read is not None and metric.column not in known]


def _places(fixed: tuple[str, ...], further: list[Metric], kinds: Kinds) -> dict[str, int]:
    """Metric -> its column among the fixed ones and, behind them, those of `further`."""
    places = {metric.name: fixed.index(metric.column) for metric in kinds.metrics.values() if metric.column in fixed}
    return places | {metric.name: len(fixed) + number for number, metric in enumerate(further)}


def _column_name(metric: Metric) -> str:
    return f"custom:{metric.name}" if metric.side == "custom" else metric.name


def _scalar_reader(metric: Metric) -> ReadScalar:
    read = metric.read
    assert read is not None, metric.name
    if metric.value_field == "count":
        return read
    return lambda report: None if (value := read(report)) is None else key_of(value)


def _set_reader(metric: Metric, vocabulary: Mapping[str, int]) -> ReadSet:
    read, spell = metric.read, _speller(metric, vocabulary)
    assert read is not None, metric.name
    return lambda report: None if (value := read(report)) is None else [spell(element) for element in value]


def _speller(metric: Metric, vocabulary: Mapping[str, int]) -> Callable[[Any], Key]:
    """How an element of this metric's values is written: (hi, lo)."""
    match metric.value_field:
        case "cidrs":
            return address_key
        case "numbers":
            return _number_key
        case "strings":
            return lambda word: (0, vocabulary.get(word, UNKNOWN_WORD))
        case _:
            return _port_key


def _port_key(port: int) -> Key:
    return 0, port


def _number_key(number: float) -> Key:
    return 0, key_of(number) & LOW


def _ports_reader(name: str) -> ReadSet:
    return lambda report: None if (ports := getattr(report, name)) is None else list(map(_port_key, ports))


def _addresses(report: Report) -> list[Key] | None:
    return None if report.addresses is None else list(map(address_key, report.addresses))


_FIXED_SET_READERS: Final = (_ports_reader("tcp_ports"), _ports_reader("udp_ports"), _addresses)
