"""The way of an entry: log reader → router → mailboxes; and of an answer back to the device that reported.

One task reads the log and is the only one that routes. Entries that act on all actors at once (new rules, a start) wait
until every mailbox is empty; everything else flows.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from actors.controls import TICK, Change, Control, Pause, Retry, pieces
from actors.effects import Transition
from actors.messages import Downtime, Frames
from actors.router import Routed
from actors.world import World
from config.model import NS, Rules
from daemon.checkpoint import frozen
from daemon.clock import Clock
from daemon.log.reader import Gap, NotStored
from daemon.logs import RateLimited
from daemon.supervisor import Supervisor
from daemon.telemetry import Telemetry

ANSWER_WITHIN_NS: Final = 60 * NS  # an answer to an older report is of no use to a device

log = structlog.get_logger(__name__)


class Reader(Protocol):
    def batches(self, after: int) -> AsyncIterator[Frames | Gap]: ...


class Answers(Protocol):
    async def answer(self, routed: Routed) -> None:
        """Tell the devices what became of their reports."""


class Tap(Protocol):
    """Hears of every entry in order, and of the rules in force: the history of metric values."""

    def begin(self, position: int, world: World) -> None: ...
    def follow(self, position: int, world: World) -> None: ...
    def take(self, routed: Routed) -> None: ...
    def passed(self, position: int) -> None: ...
    async def room(self) -> None:
        """Wait a moment where too much was taken."""


class Untapped:
    """Nobody listens."""

    def begin(self, position: int, world: World) -> None: ...
    def follow(self, position: int, world: World) -> None: ...
    def take(self, routed: Routed) -> None: ...
    def passed(self, position: int) -> None: ...
    async def room(self) -> None: ...


Definition = Callable[[str], Awaitable[Rules]]
Perform = Callable[[str, int, Sequence[Transition]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Cut:
    """The state of everything at one position, each part copied as the log's stream passed it."""

    position: int
    rules: Rules
    router: object
    actors: "dict[str, asyncio.Future[object]]"


class Pipeline:
    """Drives a world along the log. `position` is the last entry routed; `applied` fires on every step of it."""

    def __init__(
        self, world: World, supervisor: Supervisor, answers: Answers, definition: Definition, perform: Perform,
        on_gap: Callable[[Gap], Awaitable[None]], telemetry: Telemetry, clock: Clock, tap: Tap | None = None,
    ) -> None:  # fmt: skip
        self.world, self.position = world, 0
        self._tap: Tap = tap or Untapped()
        self.answer_after = 0  # reports up to here were answered by the run before
        self.read_at_ns = clock.monotonic_ns()
        self._supervisor, self._answers, self._definition = supervisor, answers, definition
        self._perform, self._on_gap, self._telemetry, self._clock = perform, on_gap, telemetry, clock
        self._applied = asyncio.Condition()
        self._cut_wanted: asyncio.Future[Cut] | None = None
        self._gap_open = False
        self._rejections = RateLimited(per_s=5)

    @property
    def suppressed(self) -> int:
        """Log lines about rejected reports that were held back."""
        return self._rejections.suppressed

    def held_back(self) -> Mapping[str, int]:
        """Of these, what no line has told yet: the last word after a flood."""
        return self._rejections.drain()

    async def run(self, reader: Reader, after: int) -> None:
        """Read the log from `after` on, for ever."""
        self.position = after
        self._supervisor.told = after
        self._supervisor.seat(self.world.actors)
        self._tap.begin(after, self.world)
        async for item in reader.batches(after):
            self.read_at_ns = self._clock.monotonic_ns()
            if isinstance(item, Gap):
                await self._lost(item)
            else:
                for piece in pieces(item):
                    await (self._control(piece) if isinstance(piece, Control) else self._entries(piece))
            if self._cut_wanted is not None:
                await self._cut()
            async with self._applied:
                self._applied.notify_all()

    async def reached(self, position: int) -> None:
        """Wait until an entry has been routed."""
        async with self._applied:
            await self._applied.wait_for(lambda: self.position >= position)

    async def cut(self) -> Cut:
        """The state of all at the next batch's end. Made by the reading task: nowhere else are all at one place."""
        if self._cut_wanted is None:
            self._cut_wanted = asyncio.get_running_loop().create_future()
        # Shielded: a checkpoint that is cancelled must not take the cut from the one that waits for the same.
        return await asyncio.shield(self._cut_wanted)

    async def final_cut(self, append: Callable[[str, bytes], Awaitable[int]]) -> Cut:
        """The last cut of a run: a tick makes sure that an idle log has a next batch."""
        wanted = asyncio.ensure_future(self.cut())
        await append(TICK, b"")
        return await wanted

    async def _cut(self) -> None:
        wanted, self._cut_wanted = self._cut_wanted, None
        router = frozen(self.world.router.dump())
        answers = await self._supervisor.mark(self.position)
        if wanted is not None and not wanted.done():
            wanted.set_result(Cut(self.position, self.world.rules, router, answers))

    async def _entries(self, frames: Frames) -> None:
        if self._gap_open:
            await self._resume_after_gap(frames)
        before = self._clock.monotonic_ns()
        routed = self.world.router.route(frames)
        self._telemetry.decode_seconds.observe((self._clock.monotonic_ns() - before) / NS)
        self._tap.take(routed)
        await self._supervisor.tell(routed.shares)
        await self._tap.room()
        self.position = int(frames.seq[-1])
        self._count(routed)
        if self.position > self.answer_after and self._clock.now_ns() - int(frames.ts[-1]) < ANSWER_WITHIN_NS:
            await self._answers.answer(routed)

    async def _control(self, control: Control) -> None:
        self._telemetry.control_entries.inc()
        if isinstance(control.what, Retry):
            log.info("poison.retried", position=control.position, actor=control.what.actor, was=control.what.position)
            await self._supervisor.tell(self.world.retried(control.what, self.world.moment(control)))
            self.position = control.position
            self._tap.passed(control.position)
            return
        await self._supervisor.drained()
        actors = dict(self.world.actors)
        match control.what:
            case Pause(since=since, source=source):
                effects = self.world.obey(control, None)
                log.info("log.pause", position=control.position, since_ns=since, source=source or "all")
            case Change(digest=digest):
                effects = await self._change(digest, control)
        await self._perform("", control.position, effects)
        self._supervisor.hand_on(actors)  # those that new rules have replaced ended their windows first
        self._supervisor.hand_on(self.world.actors)
        self.position = self._supervisor.told = control.position
        self._tap.passed(control.position)

    async def _change(self, digest: str, control: Control) -> list[Transition]:
        rules = await self._definition(digest)
        await self._supervisor.stop()
        effects = self.world.obey(control, rules)
        self._supervisor.seat(self.world.actors)
        self._tap.follow(control.position, self.world)
        unjudged = [name for plan in self.world.plans for name in plan.unjudged]
        log.info("rules.changed", position=control.position, digest=digest, actors=len(self.world.actors))
        if unjudged:
            log.warning(
                "rules.unjudged", behaviors=unjudged, why="this version has no way to measure or judge them yet"
            )
        return effects

    async def _lost(self, gap: Gap) -> None:
        log.error("log.gap", first=gap.first, last=gap.last, entries=gap.last - gap.first + 1)
        self._telemetry.gaps.inc()
        self._telemetry.gap_entries.inc(gap.last - gap.first + 1)
        self._gap_open = True
        await self._on_gap(gap)

    async def _resume_after_gap(self, frames: Frames) -> None:
        """What was lost is not the devices' silence."""
        self._gap_open = False
        await self._supervisor.drained()
        ts, since = int(frames.ts[0]), self.world.router.last_ts
        position = int(frames.seq[0]) - 1
        await self._perform("", position, self.world.pause(Downtime(position, ts, since, "")))
        self._supervisor.hand_on(self.world.actors)

    def _count(self, routed: Routed) -> None:
        received, rejected = len(routed.reports), len(routed.rejected)
        if not received:
            return
        self._telemetry.reports_received.inc(received)
        self._telemetry.reports_accepted.inc(received - rejected)
        if routed.batch.columns.ignored:
            self._telemetry.custom_values_ignored.inc(routed.batch.columns.ignored)
        for entry, why in routed.rejected.items():
            self._telemetry.reports_rejected.labels(why.reason).inc()
            thing = routed.batch.names[entry].decode("utf-8", "replace")
            self._rejections.warning(
                log, "report.rejected", self._clock.monotonic_ns(), thing=thing, reason=why.reason, message=why.message
            )


async def ticks(
    pipeline: Pipeline, append: Callable[[str, bytes], Awaitable[int]], clock: Clock, telemetry: Telemetry
) -> None:
    """While the log is idle, write a tick into it, at most one a second: this is how time passes (design.md §4.2)."""
    while True:
        due = pipeline.read_at_ns + NS
        if clock.monotonic_ns() < due:
            await clock.sleep_until(due)
            continue
        try:
            await append(TICK, b"")
            telemetry.ticks.inc()
        except NotStored as problem:  # the server is away, or its disk is full: time stands still with the log
            log.warning("tick.not-stored", why=str(problem))
        await clock.sleep_until(clock.monotonic_ns() + NS)
