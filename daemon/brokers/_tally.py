"""Sums equal facts, so that the log carries per-second facts and not a copy of the traffic.

Messages of one client on one topic become one event with their count and sizes; connections stay as they are, since
their order and their sessions matter. What is held is bounded: beyond `KEYS_MAX` the tally asks to be emptied.
"""

from collections.abc import Iterator
from typing import Final

from actors.events import ENTRY_BYTES_MAX, TEXT_BYTES_MAX, Event, Kind, packed

KEYS_MAX: Final = 50_000
ROW_BYTES: Final = 48  # of a packed event, about, beside its texts
SUMMED: Final = frozenset({"published", "delivered", "denied", "connect-failed"})

_Sum = list[int]  # time, count, bytes, bytes_min, bytes_max


class Tally:
    """What one source has heard since it was last emptied."""

    def __init__(self) -> None:
        self._sums: dict[tuple[Kind, str, str, str, str], _Sum] = {}
        self._single: list[Event] = []

    def __len__(self) -> int:
        return len(self._sums) + len(self._single)

    @property
    def is_full(self) -> bool:
        """Empty it before more comes: the source makes its clients wait."""
        return len(self) >= KEYS_MAX

    def add(
        self, kind: Kind, client_id: str, time_ns: int, *, topic: str = "", size: int = 0, count: int = 1,
        ip: str = "", user: str = "",
    ) -> None:  # fmt: skip
        """`count` messages of `size` bytes each, or `count` refusals."""
        key = (kind, client_id, topic[:TEXT_BYTES_MAX], ip, user[:TEXT_BYTES_MAX])
        known = self._sums.get(key)
        if known is None:
            self._sums[key] = [time_ns, count, size * count, size, size]
            return
        known[1] += count
        known[2] += size * count
        known[3], known[4] = min(known[3], size), max(known[4], size)

    def put(self, event: Event) -> None:
        """A fact that is not summed, or already a sum."""
        self._single.append(event)

    def taken(self) -> list[Event]:
        """All that is held, in the order of time; the tally is empty then."""
        sums, self._sums = self._sums, {}
        single, self._single = self._single, []
        events = [
            Event(
                event=kind, client_id=client, topic=topic, ip=ip, user=user, time=time, count=count,
                bytes=total, bytes_min=least, bytes_max=most,
            )
            for (kind, client, topic, ip, user), (time, count, total, least, most) in sums.items()
        ]  # fmt: skip
        return sorted([*single, *events], key=_time)


def payloads(events: list[Event]) -> Iterator[bytes]:
    """The entries for some events, in their order; none is larger than an entry may be."""
    piece: list[Event] = []
    size = 0
    for event in events:
        more = ROW_BYTES + len(event.client_id) + len(event.topic) + len(event.session) + len(event.ip)
        if piece and size + 6 * more > ENTRY_BYTES_MAX:  # a character may take six bytes in JSON
            yield packed(piece)
            piece, size = [], 0
        piece.append(event)
        size += more
    if piece:
        yield packed(piece)


def _time(event: Event) -> int:
    return event.time
