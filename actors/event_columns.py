"""The events of a batch of log entries, decoded into columns: who each client is, what is new of it, where topics lie.

Events are told at least once. One that names its connection is recognised when it comes again; sums of messages are
not, and may count twice after a crash.
"""

from collections import Counter
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from typing import Final

import numpy as np
import numpy.typing as npt

from actors.events import (
    BYTES,
    BYTES_MAX,
    BYTES_MIN,
    CLIENT,
    CONNECTED,
    COUNT,
    DISCONNECTED,
    EMBEDDED,
    IP,
    KIND,
    SESSION,
    SUBJECT,
    TIME,
    TOPIC,
    VERSION,
    Packed,
    unpacked,
)
from actors.messages import CONTROL, I1, I4, I8, U8, Events, Frames
from actors.presence import NO_NAME, NO_ROOM, NOTHING, Presence
from actors.topic_filters import TopicFilters

DROPS: Final = ("unreadable", "repeated", "unnamed", "table-full")
AHEAD_NS: Final = 5_000_000_000  # clocks that differ by less are the same


@dataclass(slots=True)
class Heard:
    """What becomes of events, as counts by reason (`daemon.telemetry` has the meanings)."""

    counted: int = 0
    dropped: Counter[str] = field(default_factory=Counter)  # by one of DROPS
    ahead: int = 0  # events stamped later than their entry: they count at its time


def event_entries(frames: Frames) -> list[int]:
    """Which entries of a batch carry events."""
    control = np.flatnonzero(frames.kind == CONTROL).tolist()
    return [entry for entry in control if frames.subject(entry).startswith(SUBJECT)]


def event_columns(
    frames: Frames, ts: I8, presence: Presence, filters: TopicFilters, heard: Heard, *, again: bool = False
) -> Events | None:
    """The events of a batch; None where it has none. Clients come and go in `presence`.

    `again`: they were heard before and are judged once more: nobody comes or goes.
    """
    decoding = _Decoding(presence, filters, heard, again)
    for entry in event_entries(frames):
        found = unpacked(frames.payload(entry))
        if found is None:
            heard.dropped["unreadable"] += 1
            continue
        content, table = found
        decoding.take(entry, int(ts[entry]), source_of(frames.subject(entry)), content, table)
    return decoding.columns()


def source_of(subject: str) -> int:
    """The number of the source that an entry of events names."""
    return source_number(subject.removeprefix(SUBJECT))


def source_number(bridge: str) -> int:
    """0 for the log's own broker; another's number is 1-255, the same in every run.

    Two may share one: then a pause of either is one of both.
    """
    return 1 + sum(bridge.encode()) % 255 if bridge not in ("", EMBEDDED) else 0


@dataclass(slots=True)
class _Decoding:
    """One batch under way."""

    presence: Presence
    filters: TopicFilters
    heard: Heard
    again: bool
    things: dict[bytes, int] = field(default_factory=dict)
    ips: dict[str, int] = field(default_factory=dict)
    pieces: list[tuple[I8, U8, I1]] = field(default_factory=list)  # a table [m, 10] of Events' columns, bits, turns

    def take(self, entry: int, ts: int, source: int, content: Packed, table: I8) -> None:
        # Behind each list stands -1, for events that name none.
        clients = [self.presence.row(client) for client in content.clients]
        rows = np.array([*clients, -1], np.int32)[table[:, CLIENT]]
        things = np.array([*map(self._thing, clients), -1])
        time = content.base + table[:, TIME]
        self.heard.ahead += int(np.count_nonzero(time > ts + AHEAD_NS))
        time = np.minimum(time, ts)
        keep = things[table[:, CLIENT]] >= 0
        nameless = int(np.count_nonzero(table[:, CLIENT] < 0))
        if nameless:
            self.heard.dropped["unnamed"] += nameless
        turns = self._turns(content, table, rows, time, source, keep)
        self.presence.hear(np.unique(rows[rows >= 0]), ts)
        addresses = np.array([*map(self._address, content.ips), -1])
        columns = (
            np.full(len(table), entry), things[table[:, CLIENT]], table[:, KIND], time, table[:, COUNT],
            table[:, BYTES_MIN], table[:, BYTES_MAX], table[:, BYTES], addresses[table[:, IP]],
            np.full(len(table), source),
        )  # fmt: skip
        self.heard.counted += int(table[keep, COUNT].sum())
        self.pieces.append((np.stack(columns, axis=1)[keep], self._bits(content, table[keep]), turns[keep]))

    def columns(self) -> Events | None:
        if not self.pieces:
            return None
        table = np.concatenate([piece for piece, _, _ in self.pieces])
        entry, thing, kind, time, count, least, most, total, ip, source = (column.copy() for column in table.T)
        return Events(
            list(self.things), list(self.ips), entry.astype(np.int32), thing.astype(np.int32), kind.astype(np.uint8),
            time, count, least, most, total, np.concatenate([bits for _, bits, _ in self.pieces]),
            ip.astype(np.int32), np.concatenate([turns for _, _, turns in self.pieces]), source.astype(np.uint8),
        )  # fmt: skip

    def _thing(self, row: int) -> int:
        if row == NO_ROOM:
            self.heard.dropped["table-full"] += 1
            return -1
        thing = b"" if row == NO_NAME else self.presence.things[row]
        if not thing:
            self.heard.dropped["unnamed"] += 1
            return -1
        return self.things.setdefault(thing, len(self.things))

    def _turns(
        self, content: Packed, table: I8, rows: I4, time: I8, source: int, keep: npt.NDArray[np.bool_]
    ) -> I1:  # fmt: skip
        """What each event changes about who is connected; events that came before are not kept."""
        turns = np.full(len(table), NOTHING, np.int8)
        coming = (table[:, KIND] == CONNECTED) | (table[:, KIND] == DISCONNECTED)
        for at in [] if self.again else np.flatnonzero(coming & keep).tolist():
            session = content.sessions[table[at, SESSION]] if table[at, SESSION] >= 0 else ""
            what = self.presence.turn(
                int(rows[at]), int(table[at, KIND]), int(time[at]), source, session, int(table[at, VERSION])
            )
            if what is None:
                self.heard.dropped["repeated"] += 1
                keep[at] = False
            else:
                turns[at] = what
        return turns

    def _bits(self, content: Packed, table: I8) -> U8:
        bits = np.zeros(len(table), np.uint64)
        if not self.filters.names:
            return bits
        with_topic = np.flatnonzero(table[:, TOPIC] >= 0)
        pairs = zip(table[with_topic, TOPIC].tolist(), table[with_topic, CLIENT].tolist(), strict=True)
        topics, clients, find = content.topics, content.clients, self.filters.bits
        bits[with_topic] = [find(topics[topic], clients[client]) for topic, client in pairs]
        return bits

    def _address(self, text: str) -> int:
        address = canonical_address(text)
        return -1 if address is None else self.ips.setdefault(address, len(self.ips))


def canonical_address(text: str) -> str | None:
    """An address as reports have it: IPv4-mapped ones as IPv4, without a zone; None where it is none."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)
