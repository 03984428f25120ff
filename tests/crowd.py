"""Very many MQTT clients in one process: raw 3.1.1 on bare protocols, as a library's client costs a task or more."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar, cast

from mqtt_load import connect_packet, publish_packet

TAKEN: Final = b"\x20\x02\x00\x00"
PUBACK_BYTES: Final = 4
AT_ONCE: Final = 200
KEEP_ALIVE_S: Final = 600  # they say nothing in between
WAIT_S: Final = 60.0

Of = TypeVar("Of")
Got = TypeVar("Got")


class Member(asyncio.Protocol):
    """One client. `name` is its client id."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.has_lost = False
        self._owed = len(TAKEN)  # bytes of answers
        self._heard = b""  # until it is taken
        self._waits: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(connect_packet(self.name, keep_alive_s=KEEP_ALIVE_S))

    def data_received(self, data: bytes) -> None:
        if len(self._heard) < len(TAKEN):
            self._heard += data
        self._owed -= len(data)
        if self._owed == 0 and not self._waits.done():
            self._waits.set_result(None)

    def connection_lost(self, _error: Exception | None) -> None:
        self.has_lost = True
        if not self._waits.done():
            self._waits.set_result(None)

    async def answered(self) -> None:
        async with asyncio.timeout(WAIT_S):
            await self._waits

    @property
    def is_in(self) -> bool:
        return self._heard == TAKEN and not self.has_lost

    async def publish(self, *messages: tuple[str, bytes]) -> None:
        """(topic, payload) at QoS 1, all at once; returns when each is acknowledged."""
        self._waits = asyncio.get_running_loop().create_future()
        self._owed = PUBACK_BYTES * len(messages)
        packets = [publish_packet(*one, qos=1, packet_id=number) for number, one in enumerate(messages, start=1)]
        self._transport.write(b"".join(packets))
        await self.answered()
        assert self.is_in, f"{self.name} lost its connection"

    def leave(self) -> None:
        self._transport.write(b"\xe0\x00")
        self._transport.close()

    def vanish(self) -> None:
        """Without a word."""
        self._transport.abort()


async def come(address: tuple[str, int], names: Sequence[str], at_once: int = AT_ONCE) -> list[Member]:
    """All of them, once the broker has taken them or turned them away."""

    async def one(name: str) -> Member:
        _, member = await asyncio.get_running_loop().create_connection(lambda: Member(name), *address)
        await member.answered()
        return member

    return await in_waves(names, one, at_once)


async def in_waves(
    over: Sequence[Of], work: Callable[[Of], Coroutine[Any, Any, Got]], at_once: int = AT_ONCE
) -> list[Got]:
    """A few hundred at a time, as a fleet that knows its broker does it."""
    found: list[Got] = []
    for start in range(0, len(over), at_once):
        found += await asyncio.gather(*(work(one) for one in over[start : start + at_once]))
    return found
