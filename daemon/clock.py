"""The only place that asks what time it is: the real clock, and a virtual one that tests and doubles drive."""

import asyncio
import heapq
import time
from typing import Protocol

NS = 1_000_000_000


class Clock(Protocol):
    """Two times that must not be mixed: the wall's, which may step, and the monotonic one, which never goes back."""

    def now_ns(self) -> int:
        """Wall time, ns since the epoch. For what is written down; never for measuring a span."""
        ...

    def monotonic_ns(self) -> int:
        """Nanoseconds since some moment. For spans, deadlines and sleeping."""
        ...

    async def sleep_until(self, deadline_ns: int) -> None:
        """Returns once `monotonic_ns() >= deadline_ns`; always yields to the loop at least once. Cancellable."""
        ...


async def sleep(clock: Clock, seconds: float) -> None:
    """Sleep for a span on `clock`."""
    await clock.sleep_until(clock.monotonic_ns() + int(seconds * NS))


class SystemClock:
    """The clocks of the machine."""

    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    async def sleep_until(self, deadline_ns: int) -> None:
        # asyncio may wake a hair early (its clock has its own resolution): the promise is ">=", hence the loop.
        await asyncio.sleep(max(0, deadline_ns - self.monotonic_ns()) / NS)
        while (left_ns := deadline_ns - self.monotonic_ns()) > 0:  # noqa: ASYNC110  # an event has no clock
            await asyncio.sleep(left_ns / NS)


class VirtualClock:
    """A clock that stands still until `advance`: sleepers wake in the order of their deadlines, without waiting."""

    def __init__(self, now_ns: int = 0) -> None:
        self._wall_ns = now_ns
        self._monotonic_ns = 0
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._slept = 0  # breaks ties: equal deadlines wake first come, first served

    def now_ns(self) -> int:
        return self._wall_ns

    def monotonic_ns(self) -> int:
        return self._monotonic_ns

    @property
    def sleepers(self) -> int:
        """How many are asleep now: lets a test wait until all has come to rest."""
        return sum(not future.done() for _, _, future in self._sleepers)

    async def sleep_until(self, deadline_ns: int) -> None:
        if deadline_ns <= self._monotonic_ns:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._slept += 1
        heapq.heappush(self._sleepers, (deadline_ns, self._slept, future))
        await future

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass. Whoever wakes runs at its own deadline, and may fall asleep again within the span."""
        end_ns = self._monotonic_ns + int(seconds * NS)
        await _settle()
        while self._sleepers and self._sleepers[0][0] <= end_ns:
            deadline_ns, _, future = heapq.heappop(self._sleepers)
            self._pass_to(deadline_ns)
            if not future.done():
                future.set_result(None)
            await _settle()
        self._pass_to(end_ns)

    def step_wall(self, seconds: float) -> None:
        """What an administrator or NTP does: wall time jumps, by a negative span too; nobody wakes."""
        self._wall_ns += int(seconds * NS)

    def _pass_to(self, monotonic_ns: int) -> None:
        passed_ns = max(0, monotonic_ns - self._monotonic_ns)
        self._wall_ns += passed_ns
        self._monotonic_ns += passed_ns


async def _settle() -> None:
    # What a wake-up sets going (a queue, an event, a task) takes a few turns of the loop to come to rest.
    for _ in range(20):
        await asyncio.sleep(0)
