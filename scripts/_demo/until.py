"""Several things at once until one ends, a signal comes or the time is up; then none of them is left."""

import asyncio
import signal
from collections.abc import Callable, Coroutine, Mapping
from typing import Any


class Stop:
    """Set by the first SIGINT, SIGTERM or SIGHUP; each further one calls `hurry`."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.hurry: Callable[[], None] = lambda: None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._heard)

    def _heard(self) -> None:
        if self.event.is_set():
            self.hurry()
        self.event.set()


async def run_until(stop: Stop, jobs: Mapping[str, Coroutine[Any, Any, None]], for_s: float | None = None) -> None:
    """Runs `jobs` side by side. What one of them raises is raised here, after all have ended."""
    tasks = [asyncio.create_task(job, name=name) for name, job in jobs.items()]
    stopped = asyncio.create_task(stop.event.wait(), name="stop")
    try:
        done, _ = await asyncio.wait([stopped, *tasks], timeout=for_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (stopped, *tasks):
            task.cancel()
        await asyncio.gather(stopped, *tasks, return_exceptions=True)
    for task in done:
        task.result()
