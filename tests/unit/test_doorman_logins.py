"""Checks of passwords: two at a time, successes remembered, failures slowed down, and each bound counted."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from config.model import NS
from daemon.devices.logins import (
    AT_ONCE,
    FAILURES_PER_NETWORK,
    FAILURES_PER_USER,
    WAITING_PER_NETWORK_MAX,
    Login,
    Logins,
)
from daemon.devices.passwords import Cost, Hash
from daemon.http.access import network

KEPT = Hash(Cost(1), b"s" * 16, b"d" * 32)
OTHER = Hash(Cost(1), b"t" * 16, b"d" * 32)
IP = "192.0.2.7"


class Checks:
    """In the place of scrypt: counts, and waits where it is told to."""

    def __init__(self) -> None:
        self.made = 0
        self.at_once = self.at_once_max = 0
        self.go = threading.Event()
        self.go.set()
        self._lock = threading.Lock()

    def __call__(self, password: bytes, _kept: Hash) -> bool:
        with self._lock:
            self.made += 1
            self.at_once += 1
            self.at_once_max = max(self.at_once_max, self.at_once)
        assert self.go.wait(30)
        with self._lock:
            self.at_once -= 1
        return password == b"right"


class Time:
    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> int:
        return int(self.s * NS)


@pytest.fixture
def checks() -> Checks:
    return Checks()


@pytest.fixture
def time() -> Time:
    return Time()


async def turns(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not is_so():
            await asyncio.sleep(0)


async def test_who_was_right_is_known_again_without_a_check(checks, time):
    logins = Logins(time, is_right=checks)
    for _ in range(3):
        assert await logins.judge("u", b"right", KEPT, IP) is Login.GOOD
    assert checks.made == 1


async def test_a_success_counts_for_that_user_that_password_and_that_hash_only(checks, time):
    logins = Logins(time, is_right=checks)
    await logins.judge("u", b"right", KEPT, IP)
    assert await logins.judge("u", b"wrong", KEPT, IP) is Login.WRONG
    assert await logins.judge("v", b"right", KEPT, IP) is Login.GOOD
    assert await logins.judge("u", b"right", OTHER, IP) is Login.GOOD
    assert checks.made == 4


async def test_user_and_password_are_not_run_together(checks, time):
    logins = Logins(time, is_right=checks)
    await logins.judge("u", b"right", KEPT, IP)
    assert await logins.judge("ur", b"ight", KEPT, IP) is Login.WRONG


async def test_the_longest_unused_success_is_forgotten_and_counted(checks, time):
    logins = Logins(time, is_right=checks, remembered_max=2)
    for user in ("a", "b", "a", "c"):  # b goes
        await logins.judge(user, b"right", KEPT, IP)
    assert logins.forgotten == 1
    await logins.judge("a", b"right", KEPT, IP)
    assert checks.made == 3
    await logins.judge("b", b"right", KEPT, IP)
    assert checks.made == 4


async def test_a_device_that_keeps_failing_is_not_looked_at_any_more_and_its_neighbours_are(checks, time):
    logins = Logins(time, is_right=checks)
    told = [await logins.judge("u", b"wrong", KEPT, IP) for _ in range(FAILURES_PER_USER + 2)]
    assert told == [Login.WRONG] * FAILURES_PER_USER + [Login.THROTTLED] * 2
    assert await logins.judge("u", b"right", KEPT, IP) is Login.THROTTLED  # else it would tell a right guess
    assert await logins.judge("v", b"right", KEPT, IP) is Login.GOOD
    time.s += 5
    assert await logins.judge("u", b"right", KEPT, IP) is Login.GOOD


async def test_an_address_that_tries_names_is_slowed_down_but_who_is_known_comes_in(checks, time):
    logins = Logins(time, is_right=checks)
    await logins.judge("known", b"right", KEPT, IP)
    told = [await logins.judge(f"u{n}", b"wrong", KEPT, IP) for n in range(FAILURES_PER_NETWORK + 1)]
    assert told == [Login.WRONG] * FAILURES_PER_NETWORK + [Login.THROTTLED]
    assert await logins.judge("new", b"right", KEPT, IP) is Login.THROTTLED
    assert await logins.judge("known", b"right", KEPT, IP) is Login.GOOD
    assert await logins.judge("new", b"right", KEPT, "192.0.2.8") is Login.GOOD


async def test_no_more_than_two_are_checked_at_a_time(checks, time):
    logins = Logins(time, is_right=checks)
    checks.go.clear()
    asked = [asyncio.create_task(logins.judge(f"u{n}", b"right", KEPT, IP)) for n in range(10)]
    await turns(lambda: checks.made == AT_ONCE and logins.waiting == 10)
    checks.go.set()
    assert set(await asyncio.gather(*asked)) == {Login.GOOD}
    assert (checks.at_once_max, checks.made, logins.waiting) == (AT_ONCE, 10, 0)


async def test_a_queue_that_is_full_turns_away_and_counts(checks, time):
    logins = Logins(time, is_right=checks, waiting_max=3)
    checks.go.clear()
    asked = [asyncio.create_task(logins.judge(f"u{n}", b"right", KEPT, IP)) for n in range(5)]
    await turns(lambda: logins.busy == 2)
    checks.go.set()
    told = await asyncio.gather(*asked)
    assert told == [Login.GOOD] * 3 + [Login.BUSY] * 2


async def test_one_address_does_not_fill_the_queue_for_all(checks, time):
    logins = Logins(time, is_right=checks)
    checks.go.clear()
    many = WAITING_PER_NETWORK_MAX + 5
    asked = [asyncio.create_task(logins.judge(f"u{n}", b"right", KEPT, IP)) for n in range(many)]
    await turns(lambda: logins.busy == 5)
    other = asyncio.create_task(logins.judge("u", b"right", KEPT, "192.0.2.8"))
    await turns(lambda: logins.waiting == WAITING_PER_NETWORK_MAX + 1)
    checks.go.set()
    assert await other is Login.GOOD
    await asyncio.gather(*asked)
    assert logins._waiting == {}


async def test_who_hangs_up_before_the_answer_has_failed_all_the_same(checks, time):
    logins = Logins(time, is_right=checks)
    for n in range(FAILURES_PER_USER):
        asked = asyncio.create_task(logins.judge("u", b"wrong", KEPT, IP))
        await turns(lambda n=n: checks.made == n + 1)
        asked.cancel()
        await turns(lambda: logins.waiting == 0)
    assert await logins.judge("u", b"right", KEPT, IP) is Login.THROTTLED
    assert checks.made == FAILURES_PER_USER


async def test_those_who_wait_behind_their_own_failures_are_not_checked(checks, time):
    logins = Logins(time, is_right=checks)
    checks.go.clear()
    asked = [asyncio.create_task(logins.judge("u", b"wrong", KEPT, IP)) for _ in range(100)]
    await turns(lambda: logins.waiting == 100)
    checks.go.set()
    told = await asyncio.gather(*asked)
    assert checks.made <= FAILURES_PER_USER + AT_ONCE
    assert told.count(Login.THROTTLED) == 100 - checks.made


async def test_two_that_come_together_are_one_check_when_the_first_was_right(checks, time):
    logins = Logins(time, is_right=checks)
    told = await asyncio.gather(*(logins.judge("u", b"right", KEPT, IP) for _ in range(20)))
    assert set(told) == {Login.GOOD}
    assert checks.made <= AT_ONCE


async def test_it_shows_no_password(checks, time):
    logins = Logins(time, is_right=checks)
    await logins.judge("u", b"right", KEPT, IP)
    assert repr(logins) == "<Logins 1 remembered, 0 waiting>"
    assert b"right" not in b"".join(logins._remembered)


async def test_failures_of_very_many_addresses_are_bounded_and_counted(checks, time, monkeypatch):
    monkeypatch.setattr("daemon.devices.logins.ADDRESSES_MAX", 4)
    logins = Logins(time, is_right=checks)
    for n in range(6):
        await logins.judge("u", b"wrong", KEPT, f"198.51.100.{n}")
    assert logins.evicted == 4  # two of users, two of networks
    assert network("2001:db8::1") == network("2001:db8::2")
