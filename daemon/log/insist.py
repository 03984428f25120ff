"""Into the log again and again until it is there: that something is in the way is told once, and that it is over."""

from collections.abc import Awaitable, Callable, Sized
from typing import Generic, TypeVar

from structlog.typing import FilteringBoundLogger

from daemon.clock import Clock, sleep

Entries = TypeVar("Entries", bound=Sized)


class Insistent(Generic[Entries]):
    """One's way into the log, by `append`. It tells `logger` of WHO.log_unreachable and WHO.log_reached.

    `pause_s`: how long to wait after so many failures. `failed` hears of each. `but`: what is for the caller to mend.
    """

    def __init__(
        self, append: Callable[[Entries], Awaitable[object]], clock: Clock, pause_s: Callable[[int], float],
        logger: FilteringBoundLogger, who: str, *,
        failed: Callable[[], None] = lambda: None, but: tuple[type[Exception], ...] = (),
    ) -> None:  # fmt: skip
        self._append, self._clock, self._pause_s, self._failed, self._but = append, clock, pause_s, failed, but
        self._logger, self._unreachable, self._reached = logger, f"{who}.log_unreachable", f"{who}.log_reached"

    async def store(self, entries: Entries) -> None:
        """Returns when all are stored, however long that takes. Raises what `but` names."""
        failures = 0
        while entries:
            try:
                await self._append(entries)
            except self._but:
                raise
            except Exception as why:  # noqa: BLE001  # the boundary to the log: whatever ails it, these must get there
                failures += 1
                self._failed()
                tell = self._logger.warning if failures == 1 else self._logger.debug
                tell(self._unreachable, entries=len(entries), why=str(why))
                await sleep(self._clock, self._pause_s(failures))
                continue
            if failures:
                self._logger.info(self._reached, attempts=failures + 1)
            return
