"""Cancellations: those that a library has lost, and one that gives time first.

nats-py and aiomqtt wait by `asyncio.wait_for`: before Python 3.12 that forgets a cancellation which comes just as what
it waits for is done. A task that goes on for ever must therefore look by itself whether it has been told to end, or
whoever told it waits for ever, too.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any


def heed() -> None:
    """Raises CancelledError in a task that was cancelled, and was not let know."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def done_unless(stop: asyncio.Event, work: Coroutine[Any, Any, None], grace_s: float) -> bool:
    """Do `work`. Once `stop` is set it has `grace_s` left, then it is cancelled. False: it was.

    Raises: what `work` raises.
    """
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait([working], timeout=grace_s)
        if working.done():
            working.result()
            return True
        return False
    finally:
        working.cancel()
        stopping.cancel()
        await asyncio.wait([working, stopping])
