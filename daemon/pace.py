"""How long to rest between small batches, so that the loop stays free for what comes: each batch has its price.

At rest a batch is one report and nobody rests. The busier the loop, the longer the rests, up to REST_MAX_S, and the
larger the batches: at 20 000 reports/s that spares a quarter of the work; at 1 000/s, on a slow machine, it is the
difference between a loop that is nearly always busy, where all wait for each other, and one that is half idle.
"""

from collections.abc import Callable
from time import monotonic, thread_time
from typing import Final

SMALL: Final = 256  # a larger batch has earned its price
REST_MAX_S: Final = 0.005
REST_MIN_S: Final = 0.0005  # less is not worth a timer
LOOK_S: Final = 0.02
BUSY, IDLE = 0.5, 0.3  # share of the time that the thread works: above it rests grow, below it they shrink
GROWTH: Final = 1.3


class Pace:
    """Of one who takes batches, in the thread that works on them. Clocks: of the wall, and of the thread's work."""

    def __init__(self, wall: Callable[[], float] = monotonic, work: Callable[[], float] = thread_time) -> None:
        self._wall, self._work = wall, work
        self._looked, self._worked = wall(), work()
        self._rest_s = 0.0

    def rest_s(self, count: int) -> float:
        """After a batch of so many, in seconds."""
        now = self._wall()
        if now - self._looked >= LOOK_S:
            worked = self._work()
            self._adapt((worked - self._worked) / (now - self._looked))
            self._looked, self._worked = now, worked
        return self._rest_s if count < SMALL else 0.0

    def _adapt(self, share: float) -> None:
        if share > BUSY:
            self._rest_s = min(max(self._rest_s * GROWTH, REST_MIN_S), REST_MAX_S)
        elif share < IDLE:
            self._rest_s = self._rest_s / GROWTH if self._rest_s > REST_MIN_S else 0.0
