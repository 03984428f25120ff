"""Replays: a file of reports in, the events that the daemon would have raised out (design.md §5, Replay input).

The same world as the daemon's, on the time of the input. A recording (`daemon.record`) starts with a header and
carries each entry's position, so its replay gives the very same events, ids included.
"""

import base64
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, BinaryIO, Final

import msgspec

from actors.controls import Control, pieces
from actors.effects import Transition
from actors.entries import frames_of
from actors.events import EMBEDDED, KINDS, SUBJECT, packed
from actors.events import Event as BrokerEvent
from actors.messages import Moment
from actors.notice import additional_info
from actors.topics import subject_of_topic
from actors.world import World
from config.diff import rules_from_bytes
from config.kinds import Kinds
from config.model import NS, Behavior, MetricValue, Rules

BATCH: Final = 1024
TIME_MAX_S: Final = 2**61 // NS  # leaves room for two days of silence and more in 64-bit nanoseconds
BYTES_MAX: Final = 2**62


class Unreadable(Exception):
    """The input can't be replayed; says in which line and why."""


class Line(msgspec.Struct, frozen=True, rename="camel"):
    """One line of input: a report, a broker event, or an entry of a recording."""

    time: Decimal  # a float would be off by 100 ns: enough to put a report on the wrong side of a window's end
    topic: str | None = None
    payload: msgspec.Raw = msgspec.Raw()  # empty: none
    event: str | None = None
    client_id: str = ""
    ip: str = ""
    bytes: int = 0  # of each message
    count: int = 1
    session: str = ""
    version: int = 0
    source: str = EMBEDDED
    # what a recording adds
    seq: int | None = None
    ts: int | None = None  # ns
    origin: int | None = None  # ns
    flags: int = 0
    subject: str | None = None
    rules: msgspec.Raw = msgspec.Raw()


class Header(msgspec.Struct, frozen=True, rename="camel"):
    """The first line of a recording."""

    recording: int  # the format's version
    identity: str  # of the log
    report_interval_default_s: float
    digest: str  # of the rules before the first entry
    rules: msgspec.Raw  # themselves


class Event(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """What a replay prints: the ViolationEvent of spec.md §7.1, its time in epoch seconds."""

    violation_id: str
    thing_name: str
    security_profile_name: str
    behavior: Behavior
    metric_value: MetricValue | None = None
    violation_event_additional_info: dict[str, str] | None = None
    violation_event_type: str
    verification_state: str | None = None
    violation_event_time: float


@dataclass(frozen=True, slots=True)
class Entry:
    """A line as an entry of a log."""

    seq: int
    ts: int
    subject: str
    payload: bytes
    origin: int | None
    flags: int
    rules: Rules | None = None


def event_of(transition: Transition) -> Event:
    """A transition as the API shows it."""
    return Event(
        violation_id=transition.violation_id,
        thing_name=transition.thing,
        security_profile_name=transition.profile,
        behavior=transition.behavior,
        metric_value=transition.value,
        violation_event_additional_info=additional_info(transition.behavior),
        violation_event_type=transition.event_type,
        verification_state="UNKNOWN",
        violation_event_time=transition.time_ns / NS,
    )


def replay(
    source: BinaryIO, rules: Rules, kinds: Kinds, *, until_ns: int | None = None, what_if: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[Transition]:  # fmt: skip
    """The transitions that a file of reports brings about, in the order of the log.

    Args:
        source: JSON Lines, in time order.
        rules: what is normal.
        kinds: the metrics that this build knows.
        what_if: judge a recording by `rules`; else it brings its own, and their changes.
        until_ns: where the clock runs on to after the input.
        progress: told how many bytes have been read.

    Raises:
        Unreadable: with the number of the line.
    """
    lines: Iterator[tuple[int, bytes]] = enumerate(source, start=1)
    first = next(lines, (1, b""))
    header = _header(first[1])
    if header is None:
        world = World(rules, kinds, "replay", interval_default_s=0.0)
        lines = _chain(first, lines)
    else:
        recorded = rules if what_if else rules_from_bytes(bytes(header.rules))
        world = World(recorded, kinds, header.identity, header.report_interval_default_s)
    position = 0
    for batch in _batches(_entries(lines), progress):
        yield from _play(world, batch, take_changes=not what_if)
        position = batch[-1].seq
    if until_ns is not None:
        yield from world.advance(Moment(position + 1, until_ns))


def _play(world: World, batch: list[Entry], *, take_changes: bool) -> Iterator[Transition]:
    rules = {entry.seq: entry.rules for entry in batch if entry.rules is not None}
    for piece in pieces(frames_of([(e.seq, e.ts, e.subject, e.payload, e.origin, e.flags) for e in batch])):
        if not isinstance(piece, Control):
            yield from world.handle(piece)[1]
            continue
        change = rules.get(piece.position) if take_changes else None
        yield from world.obey(piece, change)


def _batches(entries: Iterable[tuple[Entry, int]], progress: Callable[[int], None]) -> Iterator[list[Entry]]:
    batch: list[Entry] = []
    read = 0
    for entry, size in entries:
        batch.append(entry)
        read += size
        if len(batch) == BATCH:
            progress(read)
            yield batch
            batch, read = [], 0
    progress(read)
    if batch:
        yield batch


def _entries(lines: Iterable[tuple[int, bytes]]) -> Iterator[tuple[Entry, int]]:
    decoder = msgspec.json.Decoder(Line)
    seq = 0
    for number, text in lines:
        if not text.strip():
            continue
        try:
            line = decoder.decode(text)
            seq = line.seq if line.seq is not None else seq + 1
            yield _entry(line, seq), len(text)
        except (msgspec.MsgspecError, ValueError) as problem:
            raise Unreadable(f"line {number}: {problem}") from problem


def _entry(line: Line, seq: int) -> Entry:
    ts = line.ts if line.ts is not None else epoch_ns(line.time)
    if line.subject is not None:  # of a recording
        rules = rules_from_bytes(bytes(line.rules)) if line.rules else None
        return Entry(seq, ts, line.subject, _payload(line.payload), line.origin, line.flags, rules)
    if line.event is not None:
        return Entry(seq, ts, SUBJECT + line.source, packed([_event(line, ts)]), None, 0)
    if line.topic is None:
        raise ValueError("a line needs `topic` and `payload`, or `event`")
    return Entry(seq, ts, subject_of_topic(line.topic), _payload(line.payload), None, line.flags)


def _event(line: Line, ts: int) -> BrokerEvent:
    if line.event not in KINDS:
        raise ValueError(f"unknown event {line.event!r} (one of {', '.join(sorted(KINDS))})")
    if not line.client_id:
        raise ValueError("an event needs `clientId`")
    if line.count < 1 or line.bytes < 0 or line.version < 0 or line.bytes * line.count > BYTES_MAX:
        raise ValueError("`count` is at least 1, and `bytes` and `version` are not negative")
    return BrokerEvent(
        event=line.event,
        client_id=line.client_id,
        time=ts,
        topic=line.topic or "",
        ip=line.ip,
        count=line.count,
        bytes=line.bytes * line.count,
        bytes_min=line.bytes,
        bytes_max=line.bytes,
        session=line.session,
        version=line.version,
    )


def epoch_ns(time: Decimal) -> int:
    if not 0 <= time < TIME_MAX_S:
        raise ValueError("`time` is not in epoch seconds")
    return round(time * NS)


def _payload(raw: msgspec.Raw) -> bytes:
    text = bytes(raw)
    if text.startswith(b'"'):
        return base64.b64decode(msgspec.json.decode(text), validate=True)
    return text


def _header(text: bytes) -> Header | None:
    """A recording's header, or None where the first line is an ordinary one."""
    try:
        return msgspec.json.decode(text, type=Header)
    except msgspec.MsgspecError:
        return None


def _chain(first: Any, rest: Iterable[Any]) -> Iterator[Any]:
    yield first
    yield from rest
