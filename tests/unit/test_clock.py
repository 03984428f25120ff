"""Both clocks keep the promises of the Protocol; the virtual one passes only when told."""

import asyncio

import pytest

from daemon.clock import NS, Clock, SystemClock, VirtualClock, sleep


async def test_a_sleeper_wakes_at_its_deadline_and_not_before() -> None:
    clock = VirtualClock()
    sleeping = asyncio.create_task(sleep(clock, 10))
    await clock.advance(9.999)
    assert not sleeping.done()
    await clock.advance(0.001)
    assert sleeping.done()


async def test_sleepers_wake_in_the_order_of_their_deadlines_each_at_its_own_time() -> None:
    clock = VirtualClock(now_ns=1_000 * NS)
    woken: list[tuple[str, int]] = []

    async def sleeper(name: str, *spans_s: float) -> None:
        for span_s in spans_s:
            await sleep(clock, span_s)
            woken.append((name, clock.monotonic_ns() // NS))

    tasks = [asyncio.create_task(sleeper("a", 3, 3)), asyncio.create_task(sleeper("b", 1, 4))]
    await clock.advance(100)
    assert woken == [("b", 1), ("a", 3), ("b", 5), ("a", 6)]
    assert (clock.monotonic_ns(), clock.now_ns()) == (100 * NS, 1_100 * NS)
    await asyncio.gather(*tasks)


async def test_equal_deadlines_wake_first_come_first_served() -> None:
    clock, woken = VirtualClock(), list[int]()

    async def sleeper(number: int) -> None:
        await sleep(clock, 1)
        woken.append(number)

    tasks = [asyncio.create_task(sleeper(number)) for number in range(5)]
    await clock.advance(1)
    await asyncio.gather(*tasks)
    assert woken == [0, 1, 2, 3, 4]


async def test_a_step_of_the_wall_wakes_nobody_and_the_monotonic_time_stays() -> None:
    clock = VirtualClock(now_ns=100 * NS)
    sleeping = asyncio.create_task(sleep(clock, 10))
    clock.step_wall(-50)
    await clock.advance(1)
    assert (clock.now_ns(), clock.monotonic_ns()) == (51 * NS, 1 * NS)
    assert not sleeping.done()
    await clock.advance(9)
    await sleeping


async def test_a_cancelled_sleeper_is_no_sleeper() -> None:
    clock = VirtualClock()
    sleeping = asyncio.create_task(sleep(clock, 10))
    await asyncio.sleep(0)
    assert clock.sleepers == 1
    sleeping.cancel()
    await asyncio.gather(sleeping, return_exceptions=True)
    assert clock.sleepers == 0
    await clock.advance(20)


@pytest.mark.parametrize("clock", [SystemClock(), VirtualClock()])
async def test_a_deadline_in_the_past_still_yields_to_the_loop(clock: Clock) -> None:
    ran: list[int] = []
    asyncio.get_running_loop().call_soon(ran.append, 1)
    await clock.sleep_until(clock.monotonic_ns() - NS)
    assert ran == [1]


async def test_the_real_clock_never_wakes_early() -> None:
    clock = SystemClock()
    deadline_ns = clock.monotonic_ns() + 3_000_000
    await clock.sleep_until(deadline_ns)
    assert clock.monotonic_ns() >= deadline_ns
