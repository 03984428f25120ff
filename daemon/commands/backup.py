"""`detectd backup DIR` and `detectd restore DIR`."""

import argparse
import asyncio
import os
import sqlite3
import sys
from collections.abc import Coroutine
from typing import Any

from actors.metrics import kinds
from config.load import load
from config.model import Settings
from daemon.backup import BackupError, LogUnreachable, make, put_back
from daemon.backup_list import NoBackup
from daemon.lock import DirectoryInUse


def backup(options: argparse.Namespace) -> int:
    """0 done, 1 the configuration is bad or DIR can't be used, 3 the daemon's log can't be reached."""
    return _done(_backup(load(options.config, kinds()).settings, options))


def restore(options: argparse.Namespace) -> int:
    """0 done, 1 the configuration is bad or the data directory can't be used, 2 DIR is no backup, 3 nats-server."""
    return _done(_restore(load(options.config, kinds()).settings, options))


async def _backup(settings: Settings, options: argparse.Namespace) -> str:
    made = await make(settings, options.directory)
    return f"{options.directory}: store, {made.checkpoints} checkpoint files, {made.log_bytes / 1e6:.1f} MB of log"


async def _restore(settings: Settings, options: argparse.Namespace) -> str:
    await put_back(settings, options.directory)
    return f"{settings.data_dir}: restored"


def _done(work: Coroutine[Any, Any, str]) -> int:
    before = os.umask(0o077)  # what a daemon knows is its user's alone, and so is a copy
    try:
        text, code = asyncio.run(work), 0
    except NoBackup as problem:
        text, code = str(problem), 2
    except LogUnreachable as problem:
        text, code = str(problem), 3
    except (BackupError, DirectoryInUse, OSError, sqlite3.Error) as problem:
        text, code = str(problem), 1
    finally:
        os.umask(before)
    print(text, file=sys.stderr)
    return code
