"""What one receiver is to be sent next: in order per thing, things side by side, bounded, no I/O.

A *lane* holds the notices of one thing; only its head may be sent. The outbox in SQLite is the truth and this is
its front part: at most `size_max` notices are held. A lane that fails keeps its head and lets go of the rest; when
there is no more room the receiver is `behind`, and what lies in SQLite beyond `seen` is read later. `turned_away`
counts what was left to SQLite.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from heapq import heappop, heappush
from typing import Final

from actors.notice import Notice

SIZE_MAX: Final = 10_000


class Place(Enum):
    """Where a lane is. LOADING: its next rows are being read from SQLite."""

    READY = auto()
    FLYING = auto()
    WAITING = auto()
    LOADING = auto()


@dataclass(slots=True)
class Lane:
    thing: str
    place: Place = Place.READY
    queue: deque[Notice] = field(default_factory=deque)
    last: int = 0  # id of the last notice that was put in `queue`
    newest: int = 0  # id of the newest row that exists for this thing, as far as we were told
    due_ns: int = 0

    @property
    def cut(self) -> bool:
        """SQLite has rows of this thing that `queue` lacks."""
        return self.newest > self.last


class Lanes:
    """The lanes of one receiver. Owned by one worker; every method is called in the loop."""

    def __init__(self, size_max: int = SIZE_MAX) -> None:
        self.size = 0  # notices held
        self.seen = 0  # every queued row with an id up to here is in a lane, or its lane knows that it is cut
        self.newest = 0  # the newest row we were told of
        self.turned_away = 0
        self._size_max = size_max
        self._lanes: dict[str, Lane] = {}
        self._ready: deque[str] = deque()
        self._waiting: list[tuple[int, str]] = []  # heap of (due_ns, thing); an entry may be out of date
        self._to_load: deque[str] = deque()
        self._rescan = True  # at the start nobody knows what SQLite has

    def __len__(self) -> int:
        return len(self._lanes)

    @property
    def behind(self) -> bool:
        """SQLite may have rows beyond `seen`."""
        return self._rescan or self.newest > self.seen

    @property
    def room(self) -> int:
        """How many rows beyond `seen` to read now; 0 while more than half is still held."""
        return self._size_max - self.size if self.behind and self.size <= self._size_max // 2 else 0

    def offer(self, notices: Iterable[Notice], now_ns: int) -> None:
        """Take fresh rows, just committed, in order of id."""
        for notice in notices:
            behind = self.behind
            self.newest = max(self.newest, notice.id)
            if behind or self.size >= self._size_max:
                self.turned_away += 1
            else:
                self._take(notice, now_ns)

    def refill(self, notices: Sequence[Notice], asked: int, upto: int, now_ns: int) -> None:
        """Take what SQLite has beyond `seen`. Fewer rows than `asked` are all there were, at least up to `upto`,
        which was `newest` when the reading began: a row may have left the queue without ever being seen here.
        """
        for notice in notices:
            self._take(notice, now_ns)
        if len(notices) < asked:
            self._rescan = False
            self.seen = max(self.seen, upto)

    def rescan(self) -> None:
        """Look into SQLite again: another process may have added rows."""
        self._rescan = True

    def _take(self, notice: Notice, now_ns: int) -> None:
        if notice.id <= self.seen:
            return
        self.seen = notice.id
        self.newest = max(self.newest, notice.id)
        lane = self._lanes.get(notice.thing)
        if lane is None:
            self._open(notice, now_ns)
            return
        held_back = lane.cut or lane.place is Place.WAITING  # one that waits holds its head only
        lane.newest = notice.id
        if held_back:
            self.turned_away += 1
        else:
            self._push(lane, notice)

    def _open(self, notice: Notice, now_ns: int) -> None:
        lane = Lane(notice.thing, newest=notice.id)
        self._lanes[notice.thing] = lane
        self._push(lane, notice)
        self._place(lane, now_ns)

    def _push(self, lane: Lane, notice: Notice) -> None:
        lane.queue.append(notice)
        lane.last = notice.id
        self.size += 1

    def _place(self, lane: Lane, now_ns: int) -> None:
        """A lane that is not in flight goes where its head belongs."""
        if lane.queue and lane.queue[0].due_ns > now_ns:
            lane.place, lane.due_ns = Place.WAITING, lane.queue[0].due_ns
            self._shed(lane)
            heappush(self._waiting, (lane.due_ns, lane.thing))
        elif lane.queue:
            lane.place = Place.READY
            self._ready.append(lane.thing)
        elif lane.cut:
            lane.place = Place.LOADING
            self._to_load.append(lane.thing)
        else:
            del self._lanes[lane.thing]

    def _shed(self, lane: Lane) -> None:
        """Keep the head only: a receiver that is down for days must not fill the memory."""
        if len(lane.queue) > 1:
            lane.last = lane.queue[0].id
            self.size -= len(lane.queue) - 1
            lane.queue = deque([lane.queue[0]])

    def wake(self, now_ns: int) -> None:
        """Lanes whose time has come are ready."""
        while self._waiting and self._waiting[0][0] <= now_ns:
            due_ns, thing = heappop(self._waiting)
            lane = self._lanes.get(thing)
            if lane is not None and lane.place is Place.WAITING and lane.due_ns == due_ns:
                lane.place = Place.READY
                self._ready.append(thing)

    def next_due_ns(self) -> int | None:
        """When the next waiting lane is due."""
        return self._waiting[0][0] if self._waiting else None

    def launch(self) -> Notice | None:
        """The head of the lane that has been ready longest, now in flight."""
        if not self._ready:
            return None
        lane = self._lanes[self._ready.popleft()]
        lane.place = Place.FLYING
        return lane.queue[0]

    def land(self, notice: Notice, now_ns: int) -> None:
        """The notice in flight is done with, whatever became of it: on with its lane."""
        lane = self._flying(notice)
        self._pop(lane)
        self._place(lane, now_ns)

    def put_back(self, notice: Notice, attempts: int, due_ns: int, now_ns: int) -> None:
        """The notice in flight failed: its lane waits until `due_ns`."""
        lane = self._flying(notice)
        lane.queue[0] = replace(notice, attempts=attempts, due_ns=due_ns)
        self._place(lane, now_ns)

    def reload(self, notice: Notice, now_ns: int) -> None:
        """The notice in flight died, which may have changed the rows behind it: read them again."""
        lane = self._flying(notice)
        self._shed(lane)
        self._pop(lane)
        self._place(lane, now_ns)

    def _flying(self, notice: Notice) -> Lane:
        lane = self._lanes[notice.thing]
        assert lane.place is Place.FLYING, f"lane is {lane.place}"
        assert lane.queue[0].id == notice.id, "another notice is in flight"
        return lane

    def _pop(self, lane: Lane) -> None:
        lane.queue.popleft()
        self.size -= 1

    @property
    def must_load(self) -> bool:
        return bool(self._to_load)

    def to_load(self) -> Lane | None:
        """A lane whose next rows must be read: those with `last` < id ≤ `newest`."""
        return self._lanes[self._to_load.popleft()] if self._to_load else None

    def loaded(self, lane: Lane, notices: Sequence[Notice], upto: int, asked: int, now_ns: int) -> None:
        """The rows of `lane` up to id `upto`; at most `asked` were read."""
        for notice in notices:
            self._push(lane, notice)
        if len(notices) < asked:
            lane.last = max(lane.last, upto)  # those in between are no longer queued
        self._place(lane, now_ns)

    def forget(self, ids: Iterable[int]) -> None:
        """An operator dropped these: what is not yet in flight is not sent."""
        gone = frozenset(ids)
        for lane in [lane for lane in self._lanes.values() if any(n.id in gone for n in lane.queue)]:
            self._forget(lane, gone)

    def _forget(self, lane: Lane, gone: frozenset[int]) -> None:
        flying = lane.place is Place.FLYING
        kept = deque(n for i, n in enumerate(lane.queue) if (flying and i == 0) or n.id not in gone)
        self.size -= len(lane.queue) - len(kept)
        lane.queue = kept
        if not kept:  # READY or WAITING; what `_waiting` says of it is now out of date
            if lane.place is Place.READY:
                self._ready.remove(lane.thing)
            self._place(lane, now_ns=0)
