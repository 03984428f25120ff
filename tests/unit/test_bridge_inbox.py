"""The inbox of a bridge: order, bounds, and what is left at the end."""

import asyncio

from daemon.brokers._inbox import Inbox
from daemon.brokers._wire import Arrived


def message(payload: bytes, mid: int = 1) -> Arrived:
    return Arrived(topic="t", payload=payload, qos=1, mid=mid, dup=False, retain=False)


async def test_messages_come_out_in_order_and_in_batches() -> None:
    inbox = Inbox(bytes_max=1000)
    for i in range(5):
        inbox.put([message(b"%d" % i)])
    assert [m.payload for m in await inbox.take(3)] == [b"0", b"1", b"2"]
    assert [m.payload for m in await inbox.take(3)] == [b"3", b"4"]


async def test_it_is_full_by_bytes_until_some_are_stored() -> None:
    inbox, states = Inbox(bytes_max=10), list[bool]()
    for payload in (b"x" * 9, b"x"):
        inbox.put([message(payload)])
        states.append(inbox.is_full)
    await inbox.take(1)
    states.append(inbox.is_full)
    inbox.settled(9)
    assert [*states, inbox.is_full] == [False, True, True, False]


def test_it_is_full_by_number_too_for_empty_messages_cost_memory() -> None:
    inbox, states = Inbox(bytes_max=10), list[bool]()
    for _ in range(65_536):
        inbox.put([message(b"")])
        states.append(inbox.is_full)
    assert states == [False] * 65_535 + [True]


async def test_a_receiver_waits_for_the_first_message() -> None:
    inbox = Inbox(bytes_max=10)
    taking = asyncio.create_task(inbox.take(8))
    await asyncio.sleep(0)
    assert not taking.done()
    inbox.put([message(b"a")])
    assert [m.payload for m in await taking] == [b"a"]


async def test_closing_hands_out_what_is_left_and_then_nothing() -> None:
    inbox = Inbox(bytes_max=10)
    inbox.put([message(b"a")])
    inbox.close()
    assert len(await inbox.take(8)) == 1
    assert await inbox.take(8) == []


async def test_closing_wakes_a_receiver_that_waits() -> None:
    inbox = Inbox(bytes_max=10)
    taking = asyncio.create_task(inbox.take(8))
    await asyncio.sleep(0)
    inbox.close()
    assert await taking == []
