"""JetStream's own snapshot of the log, written to files and put back: it keeps the positions and the log's identity."""

import asyncio
from pathlib import Path
from typing import Any, Final

import msgspec
from nats.aio.client import Client

from daemon.log.streams import JetStreamError, api

CHUNK_BYTES: Final = 128 * 1024
WAIT_S: Final = 30.0  # for the next piece
PIECES: Final = "log.snapshot"
CONFIG: Final = "log.json"


class BrokeOff(Exception):
    """It did not come to its end; the message says why."""


async def save(nc: Client, stream: str, target: Path) -> int:
    """Write the stream's snapshot to files in `target`; its size in bytes.

    Raises:
        BrokeOff, JetStreamError, NatsError, OSError.
    """
    inbox = nc.new_inbox()
    pieces = await nc.subscribe(inbox, pending_bytes_limit=256 * 1024 * 1024)
    answer = await api(
        nc, f"STREAM.SNAPSHOT.{stream}", {"deliver_subject": inbox, "no_consumers": True, "chunk_size": CHUNK_BYTES}
    )
    about = msgspec.json.encode({"config": answer["config"], "state": answer["state"]})
    await asyncio.to_thread((target / CONFIG).write_bytes, about)
    size = 0
    with (target / PIECES).open("wb") as file:
        while piece := await _next_piece(pieces):
            await asyncio.to_thread(file.write, piece)
            size += len(piece)
    await pieces.unsubscribe()
    return size


async def _next_piece(pieces: Any) -> bytes:
    """The next bytes of a snapshot, b"" at its end; each is acknowledged, or the server stops sending."""
    try:
        message = await pieces.next_msg(timeout=WAIT_S)
    except TimeoutError as problem:
        raise BrokeOff(f"the log's snapshot broke off: nothing came for {WAIT_S:g} s") from problem
    status = (message.headers or {}).get("Status", "")
    if not message.data and status.startswith(("4", "5")):
        raise BrokeOff(f"the log's snapshot broke off: {message.headers.get('Description', status)}")
    if message.reply:
        await message.respond(b"")
    return bytes(message.data)


async def put_back(nc: Client, stream: str, source: Path) -> None:
    """Put a snapshot in the place of the (empty) stream.

    Raises:
        BrokeOff: the server does not take it.
        JetStreamError, NatsError, OSError.
    """
    about = msgspec.json.decode(await asyncio.to_thread((source / CONFIG).read_bytes))
    await api(nc, f"STREAM.DELETE.{stream}")
    answer = await api(nc, f"STREAM.RESTORE.{stream}", about)
    with (source / PIECES).open("rb") as file:
        while piece := await asyncio.to_thread(file.read, CHUNK_BYTES):
            await nc.request(answer["deliver_subject"], piece, timeout=WAIT_S)
    done = msgspec.json.decode((await nc.request(answer["deliver_subject"], b"", timeout=WAIT_S)).data)
    if error := done.get("error"):
        raise BrokeOff(f"the log was not restored: {JetStreamError('RESTORE', str(error.get('description')), 0)}")
