"""A cancellation that a library forgot is found by who looks for it."""

import asyncio

from daemon import cancellation


async def test_a_task_that_was_cancelled_and_not_let_know_ends_where_it_looks() -> None:
    turns = 0

    async def forgetful() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:  # as `wait_for` did before Python 3.12
            return

    async def for_ever() -> None:
        nonlocal turns
        while True:
            cancellation.heed()
            turns += 1
            await forgetful()

    task = asyncio.create_task(for_ever())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert (task.cancelled(), turns) == (True, 1)


async def test_who_was_not_cancelled_goes_on() -> None:
    cancellation.heed()
