"""Cancellations that a library has lost: nats-py and aiomqtt wait by `asyncio.wait_for`.

Before Python 3.12 that forgets a cancellation which comes just as what it waits for is done. A task that goes on for
ever must therefore look by itself whether it has been told to end, or whoever told it waits for ever, too.
"""

import asyncio


def heed() -> None:
    """Raises CancelledError in a task that was cancelled, and was not let know."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
