"""How long news of clients is gathered before it is written: a while, but never so long that the broker stands still.

Equal facts become one while they are gathered, and nothing is acknowledged until they are written. A broker sends
only so many unacknowledged messages (20 by default in some, unknown to us): where it has stopped for us, more waiting
brings nothing. That is seen from the pause, and learnt when it shows twice at the same number.
"""

from typing import Final

from daemon.clock import NS

GATHER_NS: Final = NS // 4
GATHER_MAX: Final = 1024  # messages
STALL_MIN: Final = 8  # messages that say something of their rhythm
STALL_NS: Final = 5_000_000


class Gather:
    """Times are of a monotonic clock, handed in."""

    def __init__(self) -> None:
        self.count = 0
        self._first_ns = self._last_ns = 0
        self._window = 0  # messages that the broker sends without an answer; 0: not known
        self._stalled_at = 0

    def begin(self) -> None:
        self.count = 0

    def came(self, count: int, now_ns: int) -> None:
        if not self.count:
            self._first_ns = now_ns
        self.count += count
        self._last_ns = now_ns
        if self.count > self._window:
            self._window = 0

    def left_ns(self, now_ns: int) -> int:
        """How long to wait for more; 0: write now."""
        if self.count >= GATHER_MAX or self.count == self._window:
            return 0
        left_ns = self._first_ns + GATHER_NS - now_ns
        stall_ns = self._stall_ns() - now_ns
        if stall_ns <= 0 < left_ns:
            self._learn()
        return max(0, min(left_ns, stall_ns))

    def _stall_ns(self) -> int:
        """When a pause is too long for the rhythm so far."""
        if self.count < STALL_MIN:
            return self._first_ns + GATHER_NS
        rhythm_ns = (self._last_ns - self._first_ns) // (self.count - 1)
        return self._last_ns + max(STALL_NS, 4 * rhythm_ns)

    def _learn(self) -> None:
        self._window = self.count if self.count == self._stalled_at else 0
        self._stalled_at = self.count
