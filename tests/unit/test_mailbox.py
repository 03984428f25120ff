"""The inbox of an actor: order kept, the sender waits when it is full, nothing is shed."""

import asyncio

import pytest

from daemon.mailbox import Mailbox


async def settle():
    """Let every task that can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_messages_come_out_in_the_order_they_went_in():
    box: Mailbox[int] = Mailbox(most=8)
    for number in range(5):
        await box.tell(number)
    assert [await box.take() for _ in range(5)] == [0, 1, 2, 3, 4]


async def test_a_full_box_makes_the_sender_wait_until_one_is_taken():
    box: Mailbox[int] = Mailbox(most=2)
    await box.tell(1)
    await box.tell(2)
    third = asyncio.create_task(box.tell(3))
    await settle()
    assert not third.done()
    assert await box.take() == 1
    await third
    assert [await box.take(), await box.take()] == [2, 3]


async def test_a_taker_waits_for_a_message():
    box: Mailbox[str] = Mailbox()
    taker = asyncio.create_task(box.take())
    await settle()
    assert not taker.done()
    await box.tell("x")
    assert await taker == "x"


async def test_drained_means_handled_not_merely_taken():
    box: Mailbox[int] = Mailbox()
    await box.tell(1)
    await box.take()
    drained = asyncio.create_task(box.drained())
    await settle()
    assert not drained.done()
    taker = asyncio.create_task(box.take())  # comes back for more: the first is handled
    await drained
    taker.cancel()


async def test_an_empty_box_is_drained_at_once():
    await asyncio.wait_for(Mailbox[int]().drained(), 1)


async def test_clearing_hands_out_what_waited_and_lets_a_waiting_sender_in():
    box: Mailbox[int] = Mailbox(most=1)
    await box.tell(1)
    second = asyncio.create_task(box.tell(2))
    await settle()
    assert box.clear() == [1]
    await second
    assert await box.take() == 2


@pytest.mark.parametrize("most", [1, 2, 8])
async def test_nothing_is_lost_or_reordered_between_a_fast_sender_and_a_slow_receiver(most):
    box: Mailbox[int] = Mailbox(most)
    longest, got = 0, []

    async def send():
        for number in range(200):
            await box.tell(number)

    sender = asyncio.create_task(send())
    while len(got) < 200:
        got.append(await box.take())
        longest = max(longest, len(box))
        if len(got) % 7 == 0:
            await settle()
    await sender
    assert got == list(range(200))
    assert longest <= most + 1  # and the one in hand
