"""`detectd backup DIR` and `detectd restore DIR`."""

import argparse
import asyncio
import os
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError

from actors.metrics import kinds
from config.load import load
from config.model import Settings
from daemon import devices
from daemon.app import CHECKPOINTS, HISTORY, STORE
from daemon.backup import (
    CHECKPOINTS_COPY,
    LOG_CONFIG,
    LOG_COPY,
    STORE_COPY,
    BackupError,
    copy_checkpoints,
    restore_log,
    snapshot_log,
)
from daemon.lock import DirectoryInUse, hold
from daemon.nats import NatsServer
from daemon.reach import access, control
from daemon.recovery import Manifest
from daemon.streams import LogIdentity


def backup(options: argparse.Namespace) -> int:
    """0 done, 1 the configuration is bad or DIR can't be used, 3 the daemon's log can't be reached."""
    return _with_settings(options, _backup)


def restore(options: argparse.Namespace) -> int:
    """0 done, 1 the configuration is bad or the data directory is not empty, 2 DIR is no backup, 3 nats-server."""
    return _with_settings(options, _restore)


def _with_settings(options: argparse.Namespace, work: Any) -> int:
    settings = load(options.config, kinds()).settings
    before = os.umask(0o077)  # what a daemon knows is its user's alone, and so is a copy
    try:
        return int(asyncio.run(work(settings, options.directory)))
    except (BackupError, DirectoryInUse, FileExistsError) as problem:
        print(problem, file=sys.stderr)
        return 1
    except (OSError, NatsError, TimeoutError) as problem:
        print(f"can't reach the log: {problem!r} (the daemon must be running for a backup)", file=sys.stderr)
        return 3
    finally:
        os.umask(before)


async def _backup(settings: Settings, target: Path) -> int:
    if target.exists() and any(target.iterdir()):
        raise BackupError(f"{target}: not empty")
    async with control(access(settings)) as nc:
        target.mkdir(parents=True, exist_ok=True)
        manifests = await asyncio.to_thread(_copy_store, settings.data_dir / STORE, target / STORE_COPY)
        await asyncio.to_thread(_copy_database, settings.data_dir / HISTORY, target / HISTORY)
        await asyncio.to_thread(devices.copy, settings.data_dir, target)
        names = {name for manifest in manifests for name, _ in manifest.files.values()}
        await asyncio.to_thread(copy_checkpoints, settings.data_dir / CHECKPOINTS, target / CHECKPOINTS_COPY, names)
        size = await snapshot_log(nc, settings.log.stream, target)
    print(f"{target}: store, {len(names)} checkpoint files, {size / 1e6:.1f} MB of log", file=sys.stderr)
    return 0


def _copy_store(source: Path, target: Path) -> list[Manifest]:
    """SQLite's own online copy, and the checkpoints that it knows of."""
    with sqlite3.connect(f"file:{source}?mode=ro", uri=True) as store, sqlite3.connect(target) as copy:
        store.backup(copy)
        rows = copy.execute("SELECT manifest FROM checkpoints").fetchall()
    store.close()
    copy.close()
    return [msgspec.json.decode(manifest, type=Manifest) for (manifest,) in rows]


def _copy_database(source: Path, target: Path) -> None:
    """SQLite's own online copy of a file that is there."""
    if source.exists():
        with (
            closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as store,
            closing(sqlite3.connect(target)) as copy,
        ):
            store.backup(copy)


async def _restore(settings: Settings, source: Path) -> int:
    missing = [name for name in (STORE_COPY, LOG_COPY, LOG_CONFIG) if not (source / name).exists()]
    if missing:
        print(f"{source}: no backup of detectd: {', '.join(missing)} missing", file=sys.stderr)
        return 2
    if settings.broker.embedded is None:
        raise BackupError("restore works on the embedded log; restore a cluster's stream with its own tools")
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    if any(settings.data_dir.iterdir()):
        raise FileExistsError(f"{settings.data_dir}: not empty; restore makes a new data directory")
    with hold(settings.data_dir):
        await _restore_log(settings, source)
        checkpoints = settings.data_dir / CHECKPOINTS
        await asyncio.to_thread(shutil.copytree, source / CHECKPOINTS_COPY, checkpoints, copy_function=shutil.copyfile)
        if (source / HISTORY).exists():
            await asyncio.to_thread(shutil.copyfile, source / HISTORY, settings.data_dir / HISTORY)
        await asyncio.to_thread(devices.copy, source, settings.data_dir)
        # The store last: a directory without one is visibly not a whole restore.
        await asyncio.to_thread(shutil.copyfile, source / STORE_COPY, settings.data_dir / STORE)
    print(f"{settings.data_dir}: restored", file=sys.stderr)
    return 0


class _Restored(Exception):
    """Ends the start of the server before devices are let in."""


async def _restore_log(settings: Settings, source: Path) -> None:
    async def put_back(nc: Client, identity: LogIdentity) -> None:
        await restore_log(nc, identity.stream, source)
        raise _Restored

    assert settings.broker.embedded is not None
    server = NatsServer(settings.broker.embedded, settings.log, settings.data_dir, lambda *_: None, prologue=put_back)
    try:
        await server.start()
    except _Restored:
        return
    await server.stop()
    raise BackupError("the server came up without taking the log back")
