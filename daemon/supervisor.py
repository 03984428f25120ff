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
from typing import Any, Final, Protocol

import structlog

from actors.effects import Transition
from actors.group import GroupActor
from actors.messages import Share
from daemon.checkpoint import frozen
from daemon.mailbox import Mailbox

RESTARTS_MAX: Final = 5
RESTARTS_WITHIN_S: Final = 60.0

log = structlog.get_logger(__name__)


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
    mailbox: Mailbox[Share | Marker] = field(default_factory=Mailbox)
    state: str = "running"
    crashes: deque[float] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None


Perform = Callable[[str, int, Sequence[Transition]], Awaitable[None]]
Rebuild = Callable[[str, int, set[int]], Awaitable[tuple[GroupActor, list[Transition]]]]
"""(actor, position, its poison) -> it as it was after that position, from checkpoint and log, and all it said."""
SetAside = Callable[[str, int, bytes, str], Awaitable[None]]


class Supervisor:
    """All seats. `told` is the last position handed to every mailbox."""

    def __init__(
        self, perform: Perform, rebuild: Rebuild, set_aside: SetAside, telemetry: Telemetry, monotonic: Callable[[], float]
    ) -> None:
        self._perform, self._rebuild, self._set_aside = perform, rebuild, set_aside
        self._telemetry, self._monotonic = telemetry, monotonic
        self.seats: dict[str, Seat] = {}
        self.told = 0

    def seat(self, actors: dict[str, GroupActor]) -> None:
        """Start a task for every actor; a rebuilt one takes its place in `actors`. Those of before must be stopped."""
        self._actors = actors
        for key, actor in actors.items():
            seat = self.seats[key] = Seat(actor)
            seat.task = asyncio.create_task(self._run(key, seat), name=f"actor {key}")

    async def tell(self, shares: Mapping[str, Share]) -> None:
        """Hand a batch to all actors; waits for the slowest mailbox. A seat that is being rebuilt reads it later."""
        for key, share in shares.items():
            seat = self.seats[key]
            if seat.state == "running":
                await seat.mailbox.tell(share)
            self.told = max(self.told, int(share.batch.frames.seq[share.last - 1]))

    async def mark(self, position: int) -> dict[str, "asyncio.Future[Any]"]:
        """Ask every actor for a copy of its state at this place, made in its own turn."""
        answers = {}
        for key, seat in self.seats.items():
            answers[key] = asyncio.get_running_loop().create_future()
            await seat.mailbox.tell(Marker(position, answers[key]))
        return answers

    async def drained(self) -> None:
        """Wait until every actor has handled all it was told, rebuilt ones included."""
        for seat in self.seats.values():
            while seat.state == "rebuilding":
                await asyncio.sleep(0.01)
            await seat.mailbox.drained()

    async def stop(self) -> None:
        """End the tasks; what waits in a mailbox is read again from the log by whoever comes next."""
        tasks = [seat.task for seat in self.seats.values() if seat.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.seats = {}

    def failed(self) -> list[str]:
        return [key for key, seat in self.seats.items() if seat.state != "running"]

    async def _run(self, key: str, seat: Seat) -> None:
        while True:
            message = await seat.mailbox.take()
            if isinstance(message, Marker):
                if not message.answer.done():
                    message.answer.set_result(frozen(seat.actor.dump()))
                continue
            if int(message.batch.frames.seq[message.last - 1]) <= seat.actor.position:
                continue  # caught up past it while it waited
            try:
                effects = self._handle(key, seat, message)
            except Exception as problem:  # noqa: BLE001  # isolation boundary: one actor's bug is not the daemon's end
                await self._recover(key, seat, message, problem)
                continue
            await self._perform(key, seat.actor.position, effects)

    def _handle(self, key: str, seat: Seat, share: Share) -> list[Transition]:
        before = self._monotonic()
        effects = seat.actor.handle(share)
        self._telemetry.handled(key, self._monotonic() - before, len(share.entries))
        return effects

    async def _recover(self, key: str, seat: Seat, share: Share, problem: BaseException) -> None:
        seat.state = "rebuilding"
        log.error("actor.crashed", actor=key, entries=len(share.entries), exc_info=problem)
        now = self._monotonic()
        seat.crashes.append(now)
        while seat.crashes[0] < now - RESTARTS_WITHIN_S:
            seat.crashes.popleft()
        if len(seat.crashes) > RESTARTS_MAX:
            self._give_up(key, seat)
            return
        self._telemetry.restarted(key)
        seat.mailbox.clear()
        try:
            await self._catch_up(key, seat, share)
        except Exception as again:  # noqa: BLE001  # the rebuilding itself failed: the same boundary
            await self._recover(key, seat, share, again)
            return
        seat.state = "running"
        log.info("actor.rebuilt", actor=key, position=seat.actor.position)

    def _give_up(self, key: str, seat: Seat) -> None:
        seat.state = "failed"
        seat.mailbox.clear()
        log.critical("actor.failed", actor=key, crashes=len(seat.crashes), within_s=RESTARTS_WITHIN_S)

    async def _catch_up(self, key: str, seat: Seat, share: Share) -> None:
        """Rebuild to just before the share, find the entry that breaks it, and go on until nothing is left to read."""
        poison = set(seat.actor.poison)
        await self._become(key, seat, int(share.batch.frames.seq[share.first]) - 1, poison)
        for place in range(share.first, share.last):
            position = int(share.batch.frames.seq[place])
            try:
                effects = seat.actor.handle(_single(share, place))
            except Exception as problem:  # noqa: BLE001  # the second time: it is this entry's doing
                poison.add(position)
                log.error("entry.poison", actor=key, position=position, error=repr(problem))
                self._telemetry.poisoned(key)
                await self._set_aside(key, position, share.batch.frames.payload(place), repr(problem))
                break
            await self._perform(key, position, effects)
        while seat.actor.position < self.told:  # the others went on meanwhile
            await self._become(key, seat, self.told, poison)

    async def _become(self, key: str, seat: Seat, position: int, poison: set[int]) -> None:
        seat.actor, effects = await self._rebuild(key, position, poison)
        self._actors[key] = seat.actor
        await self._perform(key, seat.actor.position, effects)


def _single(share: Share, place: int) -> Share:
    mine = share.entries == place
    return replace(share, first=place, last=place + 1, entries=share.entries[mine], registered=share.registered[mine])
