"""Processes that we look after: their end is waited for, and whoever waits can be told not to."""

import asyncio
import signal
from pathlib import Path

import pytest

from daemon.nats.process import Process


@pytest.mark.parametrize("steps", range(8))
async def test_a_cancellation_is_heeded_whenever_it_comes_before_the_end(tmp_path: Path, steps: int) -> None:
    """The process has ended: what waits for that is done at some step between, where `wait_for` would forget it."""
    process = Process.spawn(["sleep", "60"], tmp_path / "err")
    process.send(signal.SIGKILL)
    await process.ended()
    task = asyncio.create_task(process.end(5))
    for _ in range(steps):
        await asyncio.sleep(0)
    was_told = task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() == was_told
    process.close()
