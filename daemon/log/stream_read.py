"""Reading a bounded part of a stream in batches, and appending to one with every entry confirmed.

For the comparison of two streams at a start; the log's steady reader is another thing (daemon/log/reader.py).
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from daemon.log.streams import JetStreamError, api

_BATCH: Final = 1000
_UNCONFIRMED_MAX: Final = 500
_PATIENCE_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Entry:
    seq: int
    ts_ns: int
    subject: str
    payload: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Draft:
    """An entry that is to be appended."""

    subject: str
    payload: bytes
    headers: Mapping[str, str]


async def read(
    nc: Client, stream: str, subjects: Sequence[str], *, after: int, since: datetime | None, last: int
) -> AsyncGenerator[list[Entry], None]:
    """Entries of `subjects` at positions (after, last], from `since` on where given, in order, batch by batch.

    Iterate inside `contextlib.aclosing`: it holds a subscription. Raises JetStreamError, nats.errors.Error,
    TimeoutError.
    """
    consumer, pending = await _consumer(nc, stream, subjects, after, since)
    box = _Box()
    subscription = await nc.subscribe(inbox := nc.new_inbox(), cb=box.put)
    try:
        while pending > 0:
            wanted = min(pending, _BATCH)
            await nc.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}", _next(wanted), inbox)
            batch = [_entry(message) for message in await box.take(wanted)]
            pending = pending - len(batch) if batch else 0
            yield [entry for entry in batch if after < entry.seq <= last]
            if batch and batch[-1].seq >= last:
                break
    finally:
        # Not waited for: a connection that broke would answer neither, and JetStream forgets it by itself in time.
        with suppress(NatsError):
            await subscription.unsubscribe()
            await nc.publish(f"$JS.API.CONSUMER.DELETE.{stream}.{consumer}")


async def append(nc: Client, stream: str, draft: Draft) -> int:
    """Append one entry; its position. Raises JetStreamError, nats.errors.Error, TimeoutError."""
    headers = {**draft.headers, "Nats-Expected-Stream": stream}
    return _position(draft.subject, await nc.request(draft.subject, draft.payload, _PATIENCE_S, headers=headers))


async def append_all(nc: Client, stream: str, drafts: Sequence[Draft]) -> None:
    """Append in order; returns when every entry is confirmed. Raises as `append`."""
    box = _Box()
    subscription = await nc.subscribe(inbox := nc.new_inbox(), cb=box.put)
    try:
        for first in range(0, len(drafts), _UNCONFIRMED_MAX):
            some = drafts[first : first + _UNCONFIRMED_MAX]
            for draft in some:
                headers = {**draft.headers, "Nats-Expected-Stream": stream}
                await nc.publish(draft.subject, draft.payload, inbox, headers)
            for confirmation in await box.take(len(some)):
                _position(confirmation.subject, confirmation)
    finally:
        with suppress(NatsError):
            await subscription.unsubscribe()


class _Box:
    """Messages that arrive on an inbox, taken by the number."""

    def __init__(self) -> None:
        self._messages: list[Msg] = []
        self._arrived = asyncio.Event()

    async def put(self, message: Msg) -> None:
        self._messages.append(message)
        self._arrived.set()

    async def take(self, count: int) -> list[Msg]:
        """The next `count` messages; fewer when a status says that no more will come. Raises TimeoutError."""
        async with asyncio.timeout(_PATIENCE_S):
            while len(self._messages) < count and not self._is_over():
                self._arrived.clear()
                await self._arrived.wait()
        taken, self._messages = self._messages[:count], self._messages[count:]
        return [message for message in taken if not _is_status(message)]

    def _is_over(self) -> bool:
        return bool(self._messages) and _is_status(self._messages[-1])


def _is_status(message: Msg) -> bool:
    return message.headers is not None and "Status" in message.headers


async def _consumer(
    nc: Client, stream: str, subjects: Sequence[str], after: int, since: datetime | None
) -> tuple[str, int]:
    """A consumer for one reading: its name, and how many entries wait for it."""
    name = nc.new_inbox().rpartition(".")[2]
    config: dict[str, Any] = {
        "name": name,
        "filter_subjects": list(subjects),
        "ack_policy": "none",
        "replay_policy": "instant",
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": 60_000_000_000,
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": after + 1,
    }
    if since is not None:
        del config["opt_start_seq"]
        config |= {"deliver_policy": "by_start_time", "opt_start_time": since.isoformat()}
    request = {"stream_name": stream, "config": config, "action": "create"}
    info = await api(nc, f"CONSUMER.CREATE.{stream}.{name}", request)
    return name, info["num_pending"]


def _next(batch: int) -> bytes:
    # Entries that were dropped meanwhile never come: the request expires with a status, which ends the reading.
    return msgspec.json.encode({"batch": batch, "expires": 5_000_000_000})


def _entry(message: Msg) -> Entry:
    # $JS.ACK.[domain.account.]stream.consumer.delivered.stream_seq.consumer_seq.time.pending[.token]
    tokens = message.reply.split(".")
    at = 5 if len(tokens) == 9 else 7
    return Entry(int(tokens[at]), int(tokens[at + 2]), message.subject, message.data, message.headers or {})


def _position(subject: str, confirmation: Msg) -> int:
    answer = msgspec.json.decode(confirmation.data)
    if error := answer.get("error"):
        raise JetStreamError(subject, error.get("description", "refused"), error.get("err_code", 0))
    return int(answer["seq"])
