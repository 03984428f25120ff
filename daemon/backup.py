"""A copy of everything that a daemon knows, made while it runs: store, checkpoints and log; and the way back.

Order is what makes it consistent. The store is copied first, the log last: a log that is ahead of the store and of the
checkpoints is what every restart finds. JetStream's own snapshot keeps the positions and the log's identity.
"""

import asyncio
import shutil
from pathlib import Path
from typing import Any, Final

import msgspec
from nats.aio.client import Client

from daemon.streams import JetStreamError, api

CHUNK_BYTES: Final = 128 * 1024
WAIT_S: Final = 30.0  # for the next piece of a snapshot
STORE_COPY: Final = "detectd.sqlite"
LOG_COPY: Final = "log.snapshot"
LOG_CONFIG: Final = "log.json"
CHECKPOINTS_COPY: Final = "checkpoints"


class BackupError(Exception):
    """The copy can't be made, or is none; the message says why."""


def copy_checkpoints(source: Path, target: Path, names: set[str]) -> None:
    """Copy the files that the copied store names. One that was tidied away meanwhile only costs time at the start."""
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)


async def snapshot_log(nc: Client, stream: str, target: Path) -> int:
    """Write the stream's snapshot to `target/log.snapshot`; its size in bytes.

    Raises:
        BackupError: it broke off.
    """
    inbox = nc.new_inbox()
    pieces = await nc.subscribe(inbox, pending_bytes_limit=256 * 1024 * 1024)
    answer = await api(
        nc, f"STREAM.SNAPSHOT.{stream}", {"deliver_subject": inbox, "no_consumers": True, "chunk_size": CHUNK_BYTES}
    )
    about = msgspec.json.encode({"config": answer["config"], "state": answer["state"]})
    await asyncio.to_thread((target / LOG_CONFIG).write_bytes, about)
    size = 0
    with (target / LOG_COPY).open("wb") as file:
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
        raise BackupError(f"the log's snapshot broke off: nothing came for {WAIT_S:g} s") from problem
    status = (message.headers or {}).get("Status", "")
    if not message.data and status.startswith(("4", "5")):
        raise BackupError(f"the log's snapshot broke off: {message.headers.get('Description', status)}")
    if message.reply:
        await message.respond(b"")
    return bytes(message.data)


async def restore_log(nc: Client, stream: str, source: Path) -> None:
    """Put a snapshot in the place of the (empty) stream.

    Raises:
        BackupError: the server does not take it.
    """
    about = msgspec.json.decode(await asyncio.to_thread((source / LOG_CONFIG).read_bytes))
    await api(nc, f"STREAM.DELETE.{stream}")
    answer = await api(nc, f"STREAM.RESTORE.{stream}", about)
    with (source / LOG_COPY).open("rb") as file:
        while piece := await asyncio.to_thread(file.read, CHUNK_BYTES):
            await nc.request(answer["deliver_subject"], piece, timeout=WAIT_S)
    done = msgspec.json.decode((await nc.request(answer["deliver_subject"], b"", timeout=WAIT_S)).data)
    if error := done.get("error"):
        raise BackupError(f"the log was not restored: {JetStreamError('RESTORE', str(error.get('description')), 0)}")
