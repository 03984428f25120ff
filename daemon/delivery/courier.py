"""One receiver's courier: takes notices from its lanes, makes the attempts, and does what `actors.delivery` says.

It knows nothing of the other receivers. At most `flights_max` requests are open, and the outcome of an attempt is
written down without making the next one wait.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, assert_never

from actors import delivery
from actors.delivery import Delivered, Disabled, Done, GiveUp, Hold, Outcome, Reason, Refused, Retry, Wait
from actors.notice import Notice
from config.model import NS
from daemon.clock import Clock
from daemon.delivery.lanes import Lane, Lanes
from daemon.notifiers._base import Notifier
from daemon.store import outbox
from daemon.store.outbox import Mark
from daemon.store.store import Store
from daemon.store.writer import StoreClosed

FLIGHTS_MAX: Final = 16
UNMARKED_MAX: Final = 256
"""Attempts whose outcome is not yet written: beyond it (a full disk) nothing more is sent."""
LOAD_MAX: Final = 64
REFILL_MAX: Final = 1000
RESCAN_S: Final = 60.0
"""How often the outbox is looked into without being told: another process may have added to it."""
CRASH_PAUSE_S: Final = 1.0
NEWS_NS: Final = 4 * 86_400 * NS
"""Rows that waited longer than this for a receiver that was removed or disabled are dead when it comes back."""


@dataclass(frozen=True, slots=True)
class Sent:
    receiver: str
    notice: Notice
    at_ns: int
    recovered: bool  # the receiver had been failing


@dataclass(frozen=True, slots=True)
class Failed:
    receiver: str
    notice: Notice
    reason: Reason
    why: str
    due_ns: int
    first: bool  # the receiver had been well: the one to log


@dataclass(frozen=True, slots=True)
class Died:
    """Given up: a dead letter."""

    receiver: str
    notice: Notice
    why: str
    first: bool = True  # the one to log: not one of many that a receiver refuses at once


@dataclass(frozen=True, slots=True)
class Switched:
    """A receiver was disabled (it answered 410) or enabled again."""

    receiver: str
    enabled: bool
    why: str


@dataclass(frozen=True, slots=True)
class Crashed:
    """A bug in a worker; it starts over from the outbox."""

    receiver: str
    error: BaseException


News = Sent | Failed | Died | Switched | Crashed


@dataclass(slots=True)
class Stats:
    """What one receiver's worker counts; plain numbers for telemetry, kept over reloads."""

    delivered: int = 0
    failed: Counter[Reason] = field(default_factory=Counter)
    dead: int = 0
    crashes: int = 0
    last_sent_ns: int = 0
    last_why: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """A receiver as the console shows it."""

    name: str
    condition: Literal["ok", "failing", "paused", "disabled"]
    why: str
    held: int  # notices in memory
    in_flight: int
    stats: Stats


class Courier:
    """Delivers to one receiver."""

    def __init__(
        self,
        name: str,
        notifier: Notifier,
        store: Store,
        clock: Clock,
        offset_ns: int,
        flights_max: int,
        tell: Callable[[News], None],
    ) -> None:
        self.name = name
        self.notifier = notifier
        self.disabled = ""  # why, where it is
        self.stats = Stats()
        self.lanes = Lanes()
        self._store = store
        self._clock = clock
        self._offset_ns = offset_ns
        self._flights_max = flights_max
        self._tell = tell
        self._wake = asyncio.Event()
        self._flying = 0  # requests open
        self._unmarked = 0  # attempts that ended and are not yet written down
        self._failing = False
        self._paused_ns = 0
        self._rescan_ns = 0
        self._reading = False
        self._alarm: asyncio.Task[None] | None = None
        self._alarm_ns = 0
        self._leaving = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._live(), name=f"dispatch-{self.name}")

    async def stop(self) -> None:
        """Nothing new; returns when what is in flight has ended and is written down."""
        self._leaving = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait([self._task])

    def cut_off(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def offer(self, notices: Sequence[Notice]) -> None:
        if not self.disabled:
            self.lanes.offer(notices, self._now_ns())
            self._wake.set()

    def rescan(self) -> None:
        self.lanes.rescan()
        self._wake.set()

    async def enable(self) -> bool:
        now_ns = self._now_ns()
        await self._store.write(lambda con: outbox.enable(con, self.name, now_ns - NEWS_NS, now_ns))
        self._start_over()
        self.disabled = ""
        self._paused_ns = 0
        self._wake.set()
        self._tell(Switched(self.name, enabled=True, why=""))
        return True

    def status(self) -> Status:
        condition: Literal["ok", "failing", "paused", "disabled"] = "failing" if self._failing else "ok"
        if self._paused_ns > self._now_ns():
            condition = "paused"
        if self.disabled:
            condition = "disabled"
        return Status(
            self.name, condition, self.disabled or self.stats.last_why, self.lanes.size, self._flying, self.stats
        )

    async def _live(self) -> None:
        while not self._leaving:
            try:
                await self._work()
            except ExceptionGroup as errors:  # isolation: a bug here must not end the other receivers
                if errors.subgroup(StoreClosed) is not None:
                    return
                self.stats.crashes += 1
                self._start_over()
                self._tell(Crashed(self.name, errors))
                await self._sleep(CRASH_PAUSE_S)

    def _start_over(self) -> None:
        """Know nothing but what the outbox says. Attempts in flight end with the lanes that they belong to."""
        self.lanes = Lanes()
        self._reading = False

    async def _work(self) -> None:
        self._flying = self._unmarked = 0
        self._alarm, self._reading = None, False
        async with asyncio.TaskGroup() as tasks:
            while not self._leaving:
                self._read_on(tasks)
                self._launch(tasks)
                self._set_alarm(tasks)
                await self._wake.wait()
                self._wake.clear()
            self._set_no_alarm()

    def _launch(self, tasks: asyncio.TaskGroup) -> None:
        now_ns = self._now_ns()
        self.lanes.wake(now_ns)
        while self._may_send(now_ns) and (notice := self.lanes.launch()) is not None:
            self._flying += 1
            tasks.create_task(self._fly(self.lanes, notice))

    def _may_send(self, now_ns: int) -> bool:
        if self.disabled or now_ns < self._paused_ns:
            return False
        return self._flying < self._flights_max and self._unmarked < UNMARKED_MAX

    async def _fly(self, lanes: Lanes, notice: Notice) -> None:
        """One attempt, and all that follows from it."""
        outcome = await self._send(notice)
        self._flying -= 1
        now_ns = self._now_ns()
        match delivery.settle(outcome, notice.webhook_id, notice.attempts, now_ns):
            case Done(state):
                lanes.land(notice, now_ns)
                self._succeeded(notice)
                mark = Mark(notice.id, state, notice.attempts, now_ns, "")
            case Wait() as wait:
                lanes.put_back(notice, wait.attempts, wait.due_ns, now_ns)
                self._paused_ns = max(self._paused_ns, wait.pause_ns)
                self._failed(notice, outcome, wait.why, wait.due_ns)
                mark = Mark(notice.id, wait.state, wait.attempts, wait.due_ns, wait.why)
            case GiveUp() as end:
                # Written first: it may skip rows behind it in the lane, which are read again after it.
                await self._mark(Mark(notice.id, end.state, end.attempts, now_ns, end.why))
                lanes.reload(notice, now_ns)
                self._died(notice, outcome, end.why)
                return
            case Hold() as hold:
                lanes.put_back(notice, notice.attempts, now_ns, now_ns)
                await self._disable(hold.why)
                return
            case unknown:
                assert_never(unknown)
        await self._mark(mark)

    async def _send(self, notice: Notice) -> Outcome:
        try:
            return await self.notifier.send(notice)
        except Exception as error:  # noqa: BLE001 - isolation: a bug in a notifier is a failed attempt
            return Retry(Reason.BUG, type(error).__name__)

    async def _mark(self, mark: Mark) -> None:
        self._unmarked += 1
        self._wake.set()
        now_ns = self._now_ns()
        await self._store.write(lambda con: outbox.mark(con, [mark], now_ns))
        self._unmarked -= 1
        self._wake.set()

    def _succeeded(self, notice: Notice) -> None:
        recovered, self._failing = self._failing, False
        self.stats.delivered += 1
        self.stats.last_sent_ns = self._clock.now_ns()
        self.stats.last_why = ""
        self._tell(Sent(self.name, notice, self.stats.last_sent_ns, recovered))

    def _failed(self, notice: Notice, outcome: Outcome, why: str, due_ns: int) -> None:
        first, self._failing = not self._failing, True
        reason = _reason(outcome)
        self.stats.failed[reason] += 1
        self.stats.last_why = why
        self._tell(Failed(self.name, notice, reason, why, due_ns, first))

    def _died(self, notice: Notice, outcome: Outcome, why: str) -> None:
        self._wake.set()
        first, self._failing = notice.attempts > 0 or not self._failing, True
        self.stats.failed[_reason(outcome)] += 1
        self.stats.dead += 1
        self.stats.last_why = why
        self._tell(Died(self.name, notice, why, first))

    async def _disable(self, why: str) -> None:
        self.stats.failed[Reason.GONE] += 1
        if self.disabled:  # another attempt in flight was told the same
            return
        self.disabled = why
        self._start_over()  # the memory is not needed; the rows stay queued
        digest, now_ns = self.notifier.identity, self._now_ns()
        await self._store.write(lambda con: outbox.disable(con, self.name, digest, why, now_ns))
        self._tell(Switched(self.name, enabled=False, why=why))

    # Reading from the outbox

    def _read_on(self, tasks: asyncio.TaskGroup) -> None:
        """Start reading, where something is to be read and nobody does."""
        now_ns = self._now_ns()
        if now_ns >= self._rescan_ns:
            self._rescan_ns = now_ns + int(RESCAN_S * NS)
            self.lanes.rescan()
        if not self._reading and not self.disabled and self._wants_to_read(self.lanes):
            self._reading = True
            tasks.create_task(self._read(self.lanes))

    @staticmethod
    def _wants_to_read(lanes: Lanes) -> bool:
        return lanes.room > 0 or lanes.must_load

    async def _read(self, lanes: Lanes) -> None:
        while lanes is self.lanes and self._wants_to_read(lanes):
            while (lane := lanes.to_load()) is not None:
                await self._load(lanes, lane)
            if lanes.room > 0:
                await self._refill(lanes)
            self._wake.set()
        if lanes is self.lanes:
            self._reading = False

    async def _refill(self, lanes: Lanes) -> None:
        asked, upto, seen = min(lanes.room, REFILL_MAX), lanes.newest, lanes.seen
        rows = await self._store.read(lambda con: outbox.queued(con, self.name, seen, asked))
        now_ns = self._now_ns()
        lanes.refill(_within_reach(rows, now_ns), asked, upto, now_ns)

    async def _load(self, lanes: Lanes, lane: Lane) -> None:
        thing, last, upto = lane.thing, lane.last, lane.newest
        rows = await self._store.read(lambda con: outbox.queued_of_thing(con, self.name, thing, last, upto, LOAD_MAX))
        now_ns = self._now_ns()
        lanes.loaded(lane, _within_reach(rows, now_ns), upto, LOAD_MAX, now_ns)

    # Time

    def _set_alarm(self, tasks: asyncio.TaskGroup) -> None:
        """Wake when the next thing is due, at the latest for the next look into the outbox."""
        wanted_ns = min(self._next_due_ns(), self._rescan_ns)
        if self._alarm is not None and not self._alarm.done() and self._alarm_ns == wanted_ns:
            return
        self._set_no_alarm()
        self._alarm_ns = wanted_ns
        self._alarm = tasks.create_task(self._ring(wanted_ns))

    def _set_no_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()

    def _next_due_ns(self) -> int:
        if self._paused_ns > self._now_ns():
            return self._paused_ns
        due_ns = self.lanes.next_due_ns()
        return self._rescan_ns if due_ns is None else due_ns

    async def _ring(self, due_ns: int) -> None:
        await self._clock.sleep_until(due_ns - self._offset_ns)
        self._wake.set()

    async def _sleep(self, seconds: float) -> None:
        await self._clock.sleep_until(self._clock.monotonic_ns() + int(seconds * NS))

    def _now_ns(self) -> int:
        return self._clock.monotonic_ns() + self._offset_ns


def _within_reach(rows: Sequence[Notice], now_ns: int) -> list[Notice]:
    return [replace(row, due_ns=delivery.due_ns(row.due_ns, now_ns)) for row in rows]


def _reason(outcome: Outcome) -> Reason:
    match outcome:
        case Retry(reason) | Disabled(reason) | Refused(reason):
            return reason
        case Delivered():
            raise AssertionError("a delivery is no failure")
        case _:
            assert_never(outcome)
