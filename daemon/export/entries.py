"""The JSON of exported metrics, datapoint by datapoint, and how it is gathered into messages (spec.md §9.4)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np

from actors.criteria._base import LEAST, MOST, TOTAL
from actors.effects import Formed
from actors.messages import ABSENT, Events
from actors.presence import BEGAN, ENDED, LEFT
from actors.router import Routed
from actors.series import Series
from config.model import MS, NS
from daemon.export.selection import DISCONNECTED, Destination, Exports
from daemon.formed import SIZES
from daemon.history.points import points_of, value_of

MESSAGE_BYTES_MAX: Final = 128 * 1024  # AWS's limit of a message
STATISTICS: Final = (("min", LEAST), ("max", MOST), ("sum", TOTAL))
OPENING: Final = b'{"version":"1.0","metrics":['
CLOSING: Final = b"]}"

Entry = tuple[Destination, bytes]

_encode = msgspec.json.Encoder().encode


# ---- datapoints ----


def entries_of_windows(key: str, formed: Sequence[Formed], exports: Exports) -> Iterator[Entry]:
    """What an actor formed, for every place that it goes to."""
    mine = exports.formed.get(key, {})
    for piece in formed:
        if exports.is_due(piece.series, piece.end):
            for place in mine.get(piece.series, ()):
                own = exports.claims.own(key, (place, piece.series), piece.things)
                for at in range(len(piece.things)) if own is None else own.tolist():
                    for body in _of_window(piece, at):
                        yield place, body


def entries_of_reports(routed: Routed, exports: Exports, after: int) -> Iterator[Entry]:
    """What the accepted reports behind position `after` say, for every place that it goes to."""
    for place, kept in exports.reported.items():
        points = points_of(routed, kept, after)
        for at, (name, ms) in enumerate(zip(points.names, points.ms.tolist(), strict=True)):
            thing, time = name.decode("utf-8", "replace"), _seconds(ms)
            for key, value in zip(points.keys, points.values[at].tolist(), strict=True):
                if value != ABSENT:
                    natural = value_of(key.field, value, points.words)
                    yield place, _entry(key.series, thing, {key.field: natural}, time)


def entries_of_turns(events: Events, exports: Exports) -> Iterator[Entry]:
    """0 for every device that came or went (spec.md §1.5)."""
    turned = np.flatnonzero(np.isin(events.turn, (BEGAN, ENDED, LEFT)))
    codes = np.array([exports.registry.codes.get(thing, 0) for thing in events.things], np.int64)
    for place, flags in exports.presence.items():
        for at in turned[flags[codes[events.thing[turned]]]].tolist():
            thing = events.things[events.thing[at]].decode("utf-8", "replace")
            yield place, _entry(DISCONNECTED, thing, {"count": 0}, _seconds(int(events.time[at]) // MS))


def _of_window(piece: Formed, at: int) -> Iterator[bytes]:
    thing, time = piece.things[at].decode("utf-8", "replace"), piece.end // NS
    if piece.addresses:
        yield _entry(piece.series, thing, {"cidrs": piece.addresses[at]}, time)
    elif len(piece.figures) == SIZES:
        for statistic, figure in STATISTICS:
            value = {"count": int(piece.figures[figure, at])}
            yield _entry(piece.series, thing, value, time, statistic)
    else:
        yield _entry(piece.series, thing, {"count": int(piece.figures[0, at])}, time)


def _entry(series: Series, thing: str, value: dict[str, Any], time: float, statistic: str = "") -> bytes:
    body: dict[str, Any] = {"name": series.metric, "thing": thing, "value": value, "version": 1, "timestamp": time}
    if series.dimension:
        body["dimension"] = {"name": series.dimension, "operator": series.operator}
    if statistic:
        body["statistic"] = statistic
    return _encode(body)


def _seconds(ms: int) -> float:
    """Epoch seconds; whole ones without a fraction."""
    return ms / 1000 if ms % 1000 else ms // 1000


# ---- messages ----


@dataclass(slots=True)
class Message:
    """One message under way: what of it there is, and how many datapoints."""

    body: bytearray = field(default_factory=lambda: bytearray(OPENING))
    count: int = 0

    def add(self, entry: bytes) -> None:
        if self.count:
            self.body += b","
        self.body += entry
        self.count += 1

    def has_room(self, entry: bytes) -> bool:
        return len(self.body) + 1 + len(entry) + len(CLOSING) <= MESSAGE_BYTES_MAX

    def closed(self) -> bytes:
        return bytes(self.body + CLOSING)


class Batches:
    """Datapoints that wait for their time, by place, in messages; `bytes_max` of them in all."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes = self.dropped = self.oversize = 0
        self._bytes_max = bytes_max
        self._messages: dict[Destination, list[Message]] = {}

    def add(self, place: Destination, entry: bytes) -> None:
        """Take a datapoint; it is dropped and counted where there is no room, or where no message can hold it."""
        if len(OPENING) + 1 + len(entry) + len(CLOSING) > MESSAGE_BYTES_MAX:
            self.oversize += 1
        elif self.bytes + len(entry) > self._bytes_max:
            self.dropped += 1
        else:
            messages = self._messages.setdefault(place, [])
            if not messages or not messages[-1].has_room(entry):
                messages.append(Message())
            messages[-1].add(entry)
            self.bytes += len(entry)

    def taken(self) -> list[tuple[Destination, Message]]:
        """All messages, in the order of places and of time. What they hold is not counted here any more."""
        messages, self._messages, self.bytes = self._messages, {}, 0
        return [(place, message) for place in sorted(messages) for message in messages[place]]
