"""What one connection published and received since it was last asked: a sum per topic."""

from typing import Final

from actors.events import KINDS, TEXT_BYTES_MAX, Event
from daemon.sensor import packets
from daemon.sensor.stream import Row

Sum = list[int]
TIME, KIND, COUNT, SIZE, SIZE_MIN, SIZE_MAX = range(6)

TOPICS_MAX: Final = 10_000
"""Topics of one connection between two collections; it waits for the next one when it has more."""


def begun(time_ns: int, kind: int) -> Sum:
    return [time_ns, kind, 0, 0, 2**62, 0]


def add(found: Sum, row: Row) -> None:
    """The packets that a row stands for."""
    found[COUNT] += row[packets.COUNT]
    found[SIZE] += row[packets.SIZE]
    if row[packets.SIZE_MIN] < found[SIZE_MIN]:  # noqa: PLR1730 - min() costs twice as much, for each report
        found[SIZE_MIN] = row[packets.SIZE_MIN]
    if row[packets.SIZE_MAX] > found[SIZE_MAX]:  # noqa: PLR1730
        found[SIZE_MAX] = row[packets.SIZE_MAX]


def events(sums: dict[bytes, Sum], client_id: str, user: str) -> list[Event]:
    """One per topic; what is not text is shown as far as it is, long topics are cut."""
    return [
        Event(
            event=KINDS[kind],
            client_id=client_id,
            topic=topic[:TEXT_BYTES_MAX].decode(errors="replace"),
            user=user,
            time=time_ns,
            count=count,
            bytes=size,
            bytes_min=least,
            bytes_max=most,
        )
        for topic, (time_ns, kind, count, size, least, most) in sums.items()
    ]
