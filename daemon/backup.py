"""A copy of everything that a daemon knows, made while it runs: store, checkpoints, history and log; and the way back.

Order is what makes it consistent. The store is copied first, the log last: a log that is ahead of the store and of the
checkpoints is what every restart finds. What fails leaves an empty directory, as it found it.
"""

import asyncio
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError

from config.model import Settings
from daemon import backup_list
from daemon.app import CHECKPOINTS, HISTORY, STORE
from daemon.devices import credentials
from daemon.lock import LOCK, hold
from daemon.log import snapshot
from daemon.log.streams import JetStreamError, LogIdentity
from daemon.nats.binary import NoServer
from daemon.nats.child import ServerFailed
from daemon.nats.server import NatsServer
from daemon.reach import access, control
from daemon.recovery import Manifest

LOG_TROUBLE = (NatsError, JetStreamError, snapshot.BrokeOff, TimeoutError)


class BackupError(Exception):
    """It can't be made, or put back, where it was asked for; the message says why."""


class LogUnreachable(Exception):
    """The log can't be reached, or gives up in the middle; the message says why."""


@dataclass(frozen=True, slots=True)
class Made:
    """What a backup holds."""

    checkpoints: int  # files
    log_bytes: int


# ---- there ----


async def make(settings: Settings, target: Path) -> Made:
    """A backup in `target`, which is empty or not there yet.

    Raises:
        BackupError: `target` has something in it, or the store is damaged.
        LogUnreachable: the daemon does not run.
        OSError, sqlite3.Error: a file can't be read, or written.
    """
    async with AsyncExitStack() as stack:
        try:
            nc = await stack.enter_async_context(control(access(settings)))
        except (OSError, *LOG_TROUBLE) as problem:
            raise LogUnreachable(f"can't reach the log, for a backup the daemon must run: {problem}") from problem
        with _filling(target):
            return await _copy_all(nc, settings, target)


async def _copy_all(nc: Client, settings: Settings, target: Path) -> Made:
    source = settings.data_dir
    manifests = await asyncio.to_thread(_copy_store, source / STORE, target / STORE)
    if (source / HISTORY).exists():
        await asyncio.to_thread(_copy_database, source / HISTORY, target / HISTORY)
    await asyncio.to_thread(credentials.copy, source, target)
    names = {name for manifest in manifests for name, _ in manifest.files.values()}
    await asyncio.to_thread(_copy_checkpoints, source / CHECKPOINTS, target / CHECKPOINTS, names)
    try:
        size = await snapshot.save(nc, settings.log.stream, target)
    except LOG_TROUBLE as problem:
        raise LogUnreachable(str(problem) or repr(problem)) from problem
    await asyncio.to_thread(backup_list.seal, target)
    return Made(len(names), size)


def _copy_store(source: Path, target: Path) -> list[Manifest]:
    """SQLite's own online copy, looked through; and the checkpoints that it knows of."""
    _copy_database(source, target)
    with closing(sqlite3.connect(target)) as copy:
        [(found,), *_] = copy.execute("PRAGMA quick_check(1)").fetchall()
        if found != "ok":
            raise BackupError(f"{source}: damaged, so it can't be backed up: {found}")
        rows = copy.execute("SELECT manifest FROM checkpoints").fetchall()
    return [msgspec.json.decode(manifest, type=Manifest) for (manifest,) in rows]


def _copy_database(source: Path, target: Path) -> None:
    uri = f"{source.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as there, closing(sqlite3.connect(target)) as copy:
        there.backup(copy)


def _copy_checkpoints(source: Path, target: Path, names: set[str]) -> None:
    """The files that the copied store names. One that was tidied away meanwhile only costs time at the start."""
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)


# ---- and back ----


async def put_back(settings: Settings, source: Path) -> None:
    """Make the data directory, which is empty or not there yet, what it was when `source` was made.

    Raises:
        NoBackup: `source` is none, or not whole.
        BackupError: the data directory has something in it, or the log is elsewhere.
        LogUnreachable: nats-server does not start, or does not take the log.
        DirectoryInUse, OSError.
    """
    if settings.broker.embedded is None:
        raise BackupError("restore works on the embedded log; restore a cluster's stream with its own tools")
    await asyncio.to_thread(backup_list.verify, source)
    target = settings.data_dir
    with hold(target), _filling(target):
        await _restore_log(settings, source)
        if (source / CHECKPOINTS).exists():
            copy = shutil.copyfile
            await asyncio.to_thread(shutil.copytree, source / CHECKPOINTS, target / CHECKPOINTS, copy_function=copy)
        if (source / HISTORY).exists():
            await asyncio.to_thread(shutil.copyfile, source / HISTORY, target / HISTORY)
        await asyncio.to_thread(credentials.copy, source, target)
        # The store last: a directory without one is visibly not a whole restore.
        await asyncio.to_thread(shutil.copyfile, source / STORE, target / STORE)


class _Restored(Exception):
    """Ends the start of the server before devices are let in."""


async def _restore_log(settings: Settings, source: Path) -> None:
    async def prologue(nc: Client, identity: LogIdentity) -> None:
        await snapshot.put_back(nc, identity.stream, source)
        raise _Restored

    assert settings.broker.embedded is not None
    server = NatsServer(settings.broker.embedded, settings.log, settings.data_dir, lambda *_: None, prologue=prologue)
    try:
        await server.start()
    except _Restored:
        return
    except (NoServer, ServerFailed, *LOG_TROUBLE) as problem:
        raise LogUnreachable(f"the log can't be put back: {str(problem) or repr(problem)}") from problem
    await server.stop()
    raise LogUnreachable("nats-server came up without taking the log back")


@contextmanager
def _filling(folder: Path) -> Iterator[None]:
    """An empty directory, made if need be. What fails leaves it empty again, so that it can be tried once more.

    Raises:
        BackupError: it has something in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(path.name != LOCK for path in folder.iterdir()):
        raise BackupError(f"{folder}: not empty; a new directory is wanted")
    try:
        yield
    except BaseException:
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != LOCK:
                path.unlink(missing_ok=True)
        raise
