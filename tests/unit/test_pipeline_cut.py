"""Cuts through the running pipeline: whoever else waits for the same one, and gives up, takes it from nobody."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from actors.entries import frames_of
from actors.messages import Frames
from actors.metrics import kinds
from actors.world import World
from config.model import NS, Rules
from daemon.clock import SystemClock
from daemon.pipeline import Cut, Pipeline
from daemon.supervisor import Supervisor
from daemon.telemetry import Telemetry


class ReaderDouble:
    """Gives what was put."""

    def __init__(self) -> None:
        self.entries: asyncio.Queue[Frames] = asyncio.Queue()

    async def batches(self, after: int) -> AsyncIterator[Frames]:
        while True:
            yield await self.entries.get()


async def nothing(*_: Any) -> Any:
    """Nobody is told, nothing is asked for."""


async def test_a_checkpoint_that_is_given_up_does_not_take_the_last_cut_with_it() -> None:
    telemetry, clock, reader = Telemetry(), SystemClock(), ReaderDouble()
    supervisor = Supervisor(nothing, nothing, nothing, telemetry, lambda: clock.monotonic_ns() / NS)
    world = World(Rules(), kinds(), "log", 0.0)
    pipeline = Pipeline(world, supervisor, None, nothing, nothing, nothing, telemetry, clock)  # type: ignore[arg-type]
    running = asyncio.create_task(pipeline.run(reader, 0))  # type: ignore[arg-type]

    async def append(subject: str, payload: bytes) -> int:
        reader.entries.put_nowait(frames_of([(7, 1, subject, payload, None, 0)]))
        return 7

    checkpoint = asyncio.create_task(pipeline.cut())
    await asyncio.sleep(0)
    checkpoint.cancel()
    cut: Cut = await asyncio.wait_for(pipeline.final_cut(append), 10)
    assert cut.position == 7
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await supervisor.stop()
