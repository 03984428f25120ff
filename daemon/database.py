"""The database file: opened to write, opened to read, copied while it is in use."""

import asyncio
import os
import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

from daemon.schema import SchemaError, migrate
from daemon.writer import StoreClosed

T = TypeVar("T")
Con = sqlite3.Connection

READERS: Final = 2
READ_CACHE_KIB: Final = 16 * 1024
"""Of each reader: 250 events that lie apart touch 5 MB of indexes and rows, SQLite's own cache has 2."""


class StoreError(Exception):
    """The store can't be opened, or what was asked of it can't be done; the message says what to do."""


def open_to_write(path: Path, durable: bool) -> Con:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)  # before SQLite does: the -wal and -shm files get the same mode
        con = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0.2)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"opening {path}: {error}") from error
    try:
        con.execute("PRAGMA journal_mode = WAL")
        con.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        con.execute("PRAGMA wal_autocheckpoint = 0")  # the writer does it, after it has answered
        con.execute("PRAGMA journal_size_limit = 67108864")
        migrate(con)
    except (SchemaError, sqlite3.Error) as error:
        con.close()
        raise StoreError(f"{path}: {error}") from error
    return con


def _connect_to_read(path: Path) -> Con:
    # Not mode=ro: a reader of a WAL may have to write to the -shm file.
    con = sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, isolation_level=None, check_same_thread=False)
    con.execute("PRAGMA query_only = ON")
    con.execute(f"PRAGMA cache_size = -{READ_CACHE_KIB}")
    return con


class Readers:
    """A few threads with a read-only connection each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        self._idle: deque[Con] = deque()
        self._turn = asyncio.Semaphore(READERS)
        self._closed = False

    async def run(self, run: Callable[[Con], T]) -> T:
        async with self._turn:
            if self._closed:
                raise StoreClosed("the store is closed")
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._run, run)

    def _run(self, run: Callable[[Con], T]) -> T:
        con = self._idle.pop() if self._idle else _connect_to_read(self._path)
        try:
            return run(con)
        finally:
            self._idle.append(con)

    async def close(self) -> None:
        self._closed = True
        await asyncio.to_thread(self._pool.shutdown)
        while self._idle:
            self._idle.pop().close()


def copy(con: Con, path: Path) -> None:
    """A consistent copy at `path`, whole or not there. Raises OSError and sqlite3.Error."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    target = sqlite3.connect(partial)
    try:
        con.backup(target)  # all pages in one read transaction: WAL readers do not hold up the writer
        target.execute("PRAGMA journal_mode = DELETE")  # one file, no -wal beside it
    except sqlite3.Error:
        target.close()
        partial.unlink(missing_ok=True)
        raise
    target.close()
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
