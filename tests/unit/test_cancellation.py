"""A cancellation that a library forgot is found by who looks for it."""

import asyncio

import pytest

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


async def test_work_that_nobody_stops_is_done() -> None:
    done = []

    async def work() -> None:
        await asyncio.sleep(0)
        done.append(1)

    assert await cancellation.done_unless(asyncio.Event(), work(), grace_s=0)
    assert done == [1]


async def test_work_that_ends_within_its_grace_is_done() -> None:
    stop = asyncio.Event()

    async def work() -> None:
        stop.set()
        for _ in range(5):
            await asyncio.sleep(0)

    assert await cancellation.done_unless(stop, work(), grace_s=60)


async def test_work_that_does_not_is_cancelled_and_waited_for() -> None:
    stop, ended = asyncio.Event(), []
    stop.set()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(1)

    assert not await cancellation.done_unless(stop, work(), grace_s=0)
    assert ended == [1]


async def test_what_breaks_the_work_is_raised() -> None:
    async def work() -> None:
        raise LookupError("x")

    with pytest.raises(LookupError):
        await cancellation.done_unless(asyncio.Event(), work(), grace_s=0)


async def test_whose_doer_is_cancelled_ends_too() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    doer = asyncio.create_task(cancellation.done_unless(asyncio.Event(), work(), grace_s=0))
    for _ in range(3):
        await asyncio.sleep(0)
    doer.cancel()
    await asyncio.wait([doer])
    assert doer.cancelled()
    assert ended.is_set()
