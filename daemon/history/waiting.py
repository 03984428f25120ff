"""What waits to be written into the history: batches and closed windows in the order in which they were told of.

Bounded in reports, bytes and datapoints. Half full it is crowded: there the pipeline waits.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from actors.retention import Retention, Vocabulary
from actors.router import Routed
from daemon.held import Held
from daemon.history.points import REPORTS, Points, points_of

REPORTS_A_COMMIT: Final = 8192
REPORTS_HELD_MAX: Final = 65_536
WINDOWS_HELD_MAX: Final = 8_000_000  # datapoints of closed windows: those of a large fleet come at once
BYTES_HELD_MAX: Final = 128 * 1024**2


@dataclass(frozen=True, slots=True)
class Reports:
    """One batch, as it was routed."""

    routed: Routed
    kept: Retention
    last: int


@dataclass(frozen=True, slots=True)
class Windows:
    """Datapoints of another source than the log's reports: windows that actors closed. `size`: how many, about."""

    source: str
    make: Callable[[], Points]
    size: int
    last: int


@dataclass(frozen=True, slots=True)
class Defined:
    """New rules: series of custom metrics and dimensions that they do not define go."""

    vocabulary: Vocabulary
    last: int


Item = Reports | Windows | Defined


class Waiting:
    """The queue. `put` counts all that ever came in, `written` what has left."""

    def __init__(self) -> None:
        self.put = self.written = 0
        self.reports = self._windows = 0
        self._items: deque[Item] = deque()
        self._held = Held()

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Item) -> None:
        self._items.append(item)
        self.put += 1
        match item:
            case Reports(routed=routed):
                self.reports += len(routed.reports)
                self._held.take(routed.batch.frames.data)
            case Windows(size=size):
                self._windows += size
            case Defined():
                pass

    def next(self) -> list[Item]:
        """What goes into the next commit: new rules go alone, since they end series."""
        items: list[Item] = []
        reports = 0
        for item in self._items:
            if isinstance(item, Defined):
                return items or [item]
            if reports >= REPORTS_A_COMMIT:
                break
            items.append(item)
            reports += len(item.routed.reports) if isinstance(item, Reports) else item.size
        return items

    def let_go(self, count: int) -> None:
        """So many of the first are written."""
        for _ in range(count):
            match self._items.popleft():
                case Reports(routed=routed):
                    self.reports -= len(routed.reports)
                    self._held.give(routed.batch.frames.data)
                case Windows(size=size):
                    self._windows -= size
                case Defined():
                    pass
        self.written += count

    def clear(self) -> None:
        """Nobody will write any more."""
        self._items.clear()
        self.reports = self._windows = 0
        self._held = Held()

    def is_full(self) -> bool:
        return self._is_filled(1.0)

    def is_crowded(self) -> bool:
        return self._is_filled(0.5) or self._windows > 0.5 * WINDOWS_HELD_MAX

    def has_room_for(self, windows: int) -> bool:
        """For so many datapoints of windows; any number, where there are none."""
        return not self._windows or self._windows + windows <= WINDOWS_HELD_MAX

    def _is_filled(self, share: float) -> bool:
        return self.reports > share * REPORTS_HELD_MAX or self._held.size > share * BYTES_HELD_MAX


def prepared(items: Sequence[Item], reached: Mapping[str, int]) -> tuple[list[Points], dict[str, int]]:
    """What is new in these, and the positions that they reach."""
    batches: list[Points] = []
    now: dict[str, int] = {}
    for item in items:
        source = item.source if isinstance(item, Windows) else REPORTS
        after = now.get(source, reached.get(source, 0))
        if isinstance(item, Reports) and item.last > after:
            batches.append(points_of(item.routed, item.kept, after))
        elif isinstance(item, Windows) and item.last > after:
            batches.append(item.make())
        now[source] = max(after, item.last)
    return [points for points in batches if len(points)], now
