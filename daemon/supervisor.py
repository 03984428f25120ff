"""One task per group actor: hand it its shares, make its effects durable, rebuild it when it breaks.

A crashed actor is never re-entered. A new one is made from the last checkpoint and reads the log again up to where
the others are, off the reader's path; what it says a second time is recognised by its id and dropped. The entry that
broke it is tried once more, alone; if it breaks it again it is set aside as poison, for this actor, and the rest goes
on. More than RESTARTS_MAX crashes within RESTARTS_WITHIN_S end the actor: others go on, `/-/ready` tells.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Protocol

import structlog

from actors.effects import Formed, Transition
from actors.group import GroupActor
from actors.messages import Share
from daemon.checkpoint import CheckpointError, frozen
from daemon.mailbox import Mailbox

RESTARTS_MAX: Final = 5
RESTARTS_WITHIN_S: Final = 60.0
RETRY_FIRST_S: Final = 0.5  # doubled each time: a rebuild that fails because the log is away finds it again

log = structlog.get_logger(__name__)


OnFormed = Callable[[str, Sequence[Formed]], None]
"""Told the datapoints that an actor formed, once what it raised by them is durable; after a crash some come again."""


class Broke(Exception):
    """A rebuild met entries that break the actor: one of [first, last], not the log or a file, is to blame."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__(f"entries {first} to {last}")
        self.first, self.last = first, last


@dataclass(frozen=True, slots=True)
class Marker:
    """Passes through a mailbox like a share: a frozen copy of the actor's state at this place of the log is wanted."""

    position: int
    answer: "asyncio.Future[Any]"


class Telemetry(Protocol):
    def handled(self, actor: str, seconds: float, reports: int) -> None: ...
    def restarted(self, actor: str) -> None: ...
    def poisoned(self, actor: str) -> None: ...


@dataclass(slots=True)
class Seat:
    """One actor and all that belongs to it. `state` is running | rebuilding | failed."""

    actor: GroupActor
    poison: set[int]
    mailbox: Mailbox[Share | Marker] = field(default_factory=Mailbox)
    state: str = "running"
    settled: asyncio.Event = field(default_factory=asyncio.Event)  # not rebuilding
    crashes: deque[float] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None
    broken: BaseException | None = None  # its task ended: what it said could not be made durable


Perform = Callable[[str, int, Sequence[Transition]], Awaitable[None]]
Rebuild = Callable[[str, int, set[int]], Awaitable[tuple[GroupActor, list[Transition]]]]
"""(actor, position, its poison) -> it as it was after that position, from checkpoint and log, and all it said.

Raises `Broke` where handling entries fails; any other error is taken for one of the log or the checkpoint."""
SetAside = Callable[[str, int, bytes, str], Awaitable[None]]
"""(actor, position, payload or b"" where it must be read from the log, why)"""


class Supervisor:
    """All seats. `told` is the last position handed to every mailbox."""

    def __init__(
        self, perform: Perform, rebuild: Rebuild, set_aside: SetAside, telemetry: Telemetry,
        monotonic: Callable[[], float], sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        formed: OnFormed = lambda _key, _formed: None,
    ) -> None:  # fmt: skip
        self._perform, self._rebuild, self._set_aside = perform, rebuild, set_aside
        self._telemetry, self._monotonic, self._sleep = telemetry, monotonic, sleep
        self._formed = formed
        self.seats: dict[str, Seat] = {}
        self._given_up: set[str] = set()
        self.told = 0

    def seat(self, actors: dict[str, GroupActor]) -> None:
        """Start a task for every actor; a rebuilt one takes its place in `actors`. Those of before must be stopped.

        One that was given up stays so: what it has missed cannot be made good before the next start.
        """
        self._actors = actors
        for key, actor in actors.items():
            seat = self.seats[key] = Seat(actor, set(actor.poison))
            seat.state = "failed" if key in self._given_up else "running"
            seat.settled.set()
            seat.task = asyncio.create_task(self._run(key, seat), name=f"actor {key}")
            seat.task.add_done_callback(partial(_ended, key, seat))

    async def tell(self, shares: Mapping[str, Share]) -> None:
        """Hand a batch to all actors; waits for the slowest mailbox. A seat that is being rebuilt reads it later.

        Raises what ended an actor's task: its effects could not be made durable, nothing may go on.
        """
        for key, share in shares.items():
            seat = self.seats[key]
            if seat.state == "running":
                await seat.mailbox.tell(share)
            if seat.broken is not None:
                raise seat.broken
            self.told = max(self.told, int(share.batch.frames.seq[share.last - 1]))

    async def mark(self, position: int) -> dict[str, "asyncio.Future[Any]"]:
        """Ask every actor for a copy of its state at this place, made in its own turn.

        The answer of one that is being rebuilt, or crashes before its turn, is a CheckpointError.
        """
        answers = {}
        for key, seat in self.seats.items():
            marker = Marker(position, asyncio.get_running_loop().create_future())
            answers[key] = marker.answer
            if seat.state == "running" and seat.broken is None:
                await seat.mailbox.tell(marker)
            else:
                _no_answer(key, marker)
        return answers

    async def drained(self) -> None:
        """Wait until every actor has handled all it was told, rebuilt ones included."""
        for seat in self.seats.values():
            while len(seat.mailbox) or not seat.settled.is_set():  # a crash empties the box
                await seat.mailbox.drained()
                await seat.settled.wait()
            if seat.broken is not None:
                raise seat.broken

    async def stop(self) -> None:
        """End the tasks; what waits in a mailbox is read again from the log by whoever comes next."""
        tasks = [seat.task for seat in self.seats.values() if seat.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for key, seat in self.seats.items():
            _clear(key, seat)
        self.seats = {}

    def failed(self) -> list[str]:
        return [key for key, seat in self.seats.items() if seat.state != "running"]

    async def _run(self, key: str, seat: Seat) -> None:
        while True:
            message = await seat.mailbox.take()
            if isinstance(message, Marker):
                _answer(key, seat, message)
                continue
            if int(message.batch.frames.seq[message.last - 1]) <= seat.actor.position or seat.state == "failed":
                continue  # caught up past it while it waited, or given up
            try:
                effects = self._handle(key, seat, message)
            except Exception as problem:  # noqa: BLE001  # isolation boundary: one actor's bug is not the daemon's end
                await self._recover(key, seat, message, problem)
                continue
            await self._perform(key, seat.actor.position, effects)
            self._hand_on(key, seat.actor)

    def hand_on(self, actors: Mapping[str, GroupActor]) -> None:
        """Tell what actors formed at an entry that acts on all of them."""
        for key, actor in actors.items():
            self._hand_on(key, actor)

    def _hand_on(self, key: str, actor: GroupActor) -> None:
        formed = actor.taken()
        if formed:
            self._formed(key, formed)

    def _handle(self, key: str, seat: Seat, share: Share) -> list[Transition]:
        before = self._monotonic()
        effects = seat.actor.handle(share)
        self._telemetry.handled(key, self._monotonic() - before, len(share.entries))
        return effects

    async def _recover(self, key: str, seat: Seat, share: Share, problem: BaseException) -> None:
        seat.state = "rebuilding"
        seat.settled.clear()
        _clear(key, seat)
        try:
            while self._may_restart(key, seat, problem):
                try:
                    await self._catch_up(key, seat, share)
                except Exception as again:  # noqa: BLE001  # the rebuilding itself failed: the same boundary
                    problem = again
                    if not isinstance(again, Broke):
                        await self._sleep(RETRY_FIRST_S * 2.0 ** len(seat.crashes))
                else:
                    seat.state = "running"
                    log.info("actor.rebuilt", actor=key, position=seat.actor.position)
                    return
            self._give_up(key, seat)
        finally:
            seat.settled.set()

    def _may_restart(self, key: str, seat: Seat, problem: BaseException) -> bool:
        log.error("actor.crashed", actor=key, position=seat.actor.position, exc_info=problem)
        now = self._monotonic()
        seat.crashes.append(now)
        while seat.crashes[0] < now - RESTARTS_WITHIN_S:
            seat.crashes.popleft()
        if len(seat.crashes) > RESTARTS_MAX:
            return False
        self._telemetry.restarted(key)
        return True

    def _give_up(self, key: str, seat: Seat) -> None:
        seat.state = "failed"
        self._given_up.add(key)
        _clear(key, seat)
        # A crash may have left half a batch in it: nothing may be read from that any more, by new rules for instance.
        # What it has missed comes from the last checkpoint and the log at the next start.
        seat.actor = self._actors[key] = seat.actor.emptied()
        log.critical("actor.failed", actor=key, crashes=len(seat.crashes), within_s=RESTARTS_WITHIN_S)

    async def _catch_up(self, key: str, seat: Seat, share: Share) -> None:
        """Rebuild to just before the share, find the entry that breaks it, and go on until nothing is left to read."""
        await self._become(key, seat, int(share.batch.frames.seq[share.first]) - 1)
        await self._one_by_one(key, seat, share)
        while seat.actor.position < self.told:  # the others went on meanwhile
            await self._become(key, seat, self.told)

    async def _one_by_one(self, key: str, seat: Seat, share: Share) -> None:
        for place in range(share.first, share.last):
            position = int(share.batch.frames.seq[place])
            try:
                effects = seat.actor.handle(_single(share, place))
            except Exception as problem:  # noqa: BLE001  # the second time: it is this entry's doing
                await self._poisoned(key, seat, position, share.batch.frames.payload(place), repr(problem))
                return
            await self._perform(key, position, effects)
            self._hand_on(key, seat.actor)

    async def _become(self, key: str, seat: Seat, position: int) -> None:
        """Replace the actor by one that has read the log up to `position`."""
        try:
            actor, effects = await self._rebuild(key, position, seat.poison)
        except Broke as broke:
            await self._isolate(key, seat, broke)
            raise
        if actor.position < position:
            raise CheckpointError(f"actor {key}: the log ends at {actor.position}, before {position}")
        seat.actor = self._actors[key] = actor
        await self._perform(key, actor.position, effects)
        self._hand_on(key, actor)

    async def _isolate(self, key: str, seat: Seat, broke: Broke) -> None:
        """Find the entry that breaks a rebuild, by halving: it was not among those that were handled one by one."""
        good, bad = broke.first - 1, broke.last
        while bad - good > 1:
            middle = (good + bad) // 2
            try:
                await self._rebuild(key, middle, seat.poison)
            except Broke:
                bad = middle
            else:
                good = middle
        await self._poisoned(key, seat, bad, b"", repr(broke.__cause__))

    async def _poisoned(self, key: str, seat: Seat, position: int, payload: bytes, why: str) -> None:
        seat.poison.add(position)
        log.error("entry.poison", actor=key, position=position, error=why)
        self._telemetry.poisoned(key)
        await self._set_aside(key, position, payload, why)


def _answer(key: str, seat: Seat, marker: Marker) -> None:
    """A copy of the state, if it is that of the place asked for: a rebuilt actor may be ahead of it."""
    if marker.answer.done():
        return
    if seat.state == "running" and seat.actor.position == marker.position:
        marker.answer.set_result(frozen(seat.actor.dump()))
    else:
        _no_answer(key, marker)


def _no_answer(key: str, marker: Marker) -> None:
    if not marker.answer.done():
        marker.answer.set_exception(CheckpointError(f"actor {key} has no state at position {marker.position}"))
        marker.answer.exception()  # nobody may be waiting any more; that is no news for the event loop's log


def _clear(key: str, seat: Seat) -> None:
    for message in seat.mailbox.clear():
        if isinstance(message, Marker):
            _no_answer(key, message)


def _ended(key: str, seat: Seat, task: "asyncio.Task[None]") -> None:
    """An actor's task ended by itself: whoever tells it next must hear of it, and whoever waits must wake."""
    if not task.cancelled():
        seat.broken = task.exception()
        _clear(key, seat)


def _single(share: Share, place: int) -> Share:
    mine = share.entries == place
    return replace(share, first=place, last=place + 1, entries=share.entries[mine], registered=share.registered[mine])
