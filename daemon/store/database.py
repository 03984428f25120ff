"""The database file: opened to write, opened to read, copied while it is in use."""

import asyncio
import os
import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Final, TypeVar
from urllib.parse import quote

from daemon.store.schema import SchemaError, migrate
from daemon.store.writer import StoreClosed

T = TypeVar("T")
Con = sqlite3.Connection

READERS: Final = 2
READ_CACHE_KIB: Final = 16 * 1024
"""Of each reader: 250 events that lie apart touch 5 MB of indexes and rows, SQLite's own cache has 2."""

GLANCE_S: Final = 0.003
GLANCE_STEPS: Final = 200
"""Of SQLite's machine, between two looks at the clock: a dozen rows, should each have to come from the disk."""


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


def _connect_to_read(path: Path, timeout_s: float = 5.0) -> Con:
    # Not mode=ro: a reader of a WAL may have to write to the -shm file.
    uri = f"file:{quote(str(path))}?mode=rw"
    con = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=timeout_s)
    con.execute("PRAGMA query_only = ON")
    con.execute(f"PRAGMA cache_size = -{READ_CACHE_KIB}")
    return con


class _Glances:
    """Reads that are broken off when they take long, by a connection of the loop's own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._con: Con | None = None
        self._until = 0.0

    def take(self, run: Callable[[Con], T]) -> T:
        """Raises sqlite3.OperationalError where it took too long, or would have to wait."""
        if self._con is None:
            self._con = _connect_to_read(self._path, timeout_s=0.0)
            self._con.set_progress_handler(self._is_over, GLANCE_STEPS)
        self._until = perf_counter() + GLANCE_S
        return run(self._con)

    def close(self) -> None:
        if self._con is not None:
            self._con.close()
            self._con = None

    def _is_over(self) -> bool:
        return perf_counter() > self._until


class Readers:
    """A few threads with a read-only connection each; and, for what is read in no time, none."""

    def __init__(self, path: Path) -> None:
        self.broken_off = 0  # glances that ended in a thread
        self._path = path
        self._glances = _Glances(path)
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        self._idle: deque[Con] = deque()
        self._turn = asyncio.Semaphore(READERS)
        self._closed = False

    async def run(self, run: Callable[[Con], T]) -> T:
        async with self._turn:
            if self._closed:
                raise StoreClosed("the store is closed")
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._run, run)

    async def glance(self, run: Callable[[Con], T]) -> T:
        """As `run`, for what is short as a rule: read here and now, for to hand it to a thread costs more than that.

        What takes longer than GLANCE_S is broken off, and read in a thread from its beginning.
        """
        if self._closed:
            raise StoreClosed("the store is closed")
        try:
            return self._glances.take(run)
        except sqlite3.OperationalError:  # too long; or something that the thread will wait for, or say
            self.broken_off += 1
            return await self.run(run)

    def _run(self, run: Callable[[Con], T]) -> T:
        con = self._idle.pop() if self._idle else _connect_to_read(self._path)
        try:
            return run(con)
        finally:
            self._idle.append(con)

    async def close(self) -> None:
        self._closed = True
        self._glances.close()
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
