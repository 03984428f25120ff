"""Who goes wrong, when, and for how long: one device at a time, then a rest."""

import asyncio
from collections.abc import Callable, Sequence
from random import Random

from fleet import Fleet


async def go_wrong_in_turn(
    fleet: Fleet, order: Sequence[str], *, first_s: float, ill_s: float, rest_s: float, note: Callable[[str], None]
) -> None:
    """`order` round and round, until cancelled. The first falls ill after `first_s`."""
    await asyncio.sleep(first_s)
    while True:
        for thing in order:
            fleet.ill.add(thing)
            note(f"{thing} goes wrong: opens a port, talks to a stranger, floods")
            await asyncio.sleep(ill_s)
            fleet.ill.discard(thing)
            note(f"{thing} is well again")
            await asyncio.sleep(rest_s)


def turns(things: Sequence[str], seed: int) -> list[str]:
    """Every thing once, in an order that the seed decides."""
    return Random(f"{seed}/turns").sample(list(things), len(things))
