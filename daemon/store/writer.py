"""The one thread that writes to SQLite: a bounded queue, everything queued in one transaction, patience when full.

Overflow policy: at `PENDING_MAX` pieces of work the caller waits (`waits` counts it); nothing is dropped. A
piece of work is a function of the connection that may run more than once: when the disk is full or the file is
locked, the whole group is rolled back and tried again until there is room, while its callers wait.
"""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Final, Literal, TypeVar

T = TypeVar("T")
Condition = Literal["ok", "storage-full", "storage-busy", "storage-failing"]

PENDING_MAX: Final = 1024
GROUP_MAX: Final = 256
WAL_GROUPS_MAX: Final = 500  # The WAL is copied into the database after so many transactions,
WAL_ROWS_MAX: Final = 4000  # or so many changed rows: a few MB, which takes milliseconds

_CONDITIONS: Final[dict[int, Condition]] = {
    sqlite3.SQLITE_FULL: "storage-full",
    sqlite3.SQLITE_BUSY: "storage-busy",
    sqlite3.SQLITE_LOCKED: "storage-busy",
    sqlite3.SQLITE_IOERR: "storage-failing",
    sqlite3.SQLITE_CANTOPEN: "storage-failing",
    sqlite3.SQLITE_READONLY: "storage-failing",
    sqlite3.SQLITE_NOMEM: "storage-failing",
}


class StoreClosed(Exception):
    """The store was closed before this was written; the log still has it."""


def backoff_s(attempt: int) -> float:
    """Seconds between attempts to write to a full disk: 50 ms, doubling, at most 2 s."""
    return min(0.05 * 2.0 ** min(attempt, 10), 2.0)


@dataclass(frozen=True, slots=True)
class _Work:
    run: Callable[[sqlite3.Connection], Any]
    done: "asyncio.Future[Any]"
    then: Callable[[Any], None] | None


@dataclass(frozen=True, slots=True)
class _Failed:
    error: Exception


class Writer:
    """Owns the writing connection and its thread. Create it in the running loop; `close` ends the thread.

    `on_condition` is called in the loop, once when writing starts to fail and once when it works again.
    """

    def __init__(
        self,
        con: sqlite3.Connection,
        *,
        on_condition: Callable[[Condition, str], None],
        backoff: Callable[[int], float] = backoff_s,
        pending_max: int = PENDING_MAX,
    ) -> None:
        self.condition: Condition = "ok"
        self.groups = 0  # transactions committed
        self.written = 0  # pieces of work in them
        self.waits = 0  # callers that had to wait for a place in the queue
        self.retries = 0  # groups rolled back and tried again
        self._con = con
        self._on_condition = on_condition
        self._backoff = backoff
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(pending_max)
        self._pending_max = pending_max
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        self._closing = threading.Event()
        self._closed = False
        self._in_queue = 0
        self._copied = 0, 0  # groups and changed rows at the last checkpoint of the WAL
        self._thread = threading.Thread(target=self._main, name="store-writer", daemon=True)
        self._thread.start()

    @property
    def pending(self) -> int:
        """Pieces of work not yet written."""
        return self._in_queue

    async def submit(self, run: Callable[[sqlite3.Connection], T], then: Callable[[T], None] | None = None) -> T:
        """Run `run` in the next transaction, and give its result once that is committed.

        `then` is called in the loop with the result before any waiter wakes, even when the caller was cancelled.
        An exception of `run` undoes its own changes only, and is raised here. Raises `StoreClosed`.
        """
        if self._room.locked():
            self.waits += 1
        await self._room.acquire()
        if self._closed:
            self._room.release()
            raise StoreClosed("the store is closed")
        done: asyncio.Future[T] = self._loop.create_future()
        self._in_queue += 1
        self._queue.put(_Work(run, done, then))
        return await done

    async def close(self) -> None:
        """Write what is queued, then end the thread. On a full disk what can't be written fails as `StoreClosed`."""
        if not self._closed:
            self._closed = True
            self._closing.set()
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)  # its answers reach the loop before this does

    # Below: in the writer's thread.

    def _main(self) -> None:
        more = True
        while more:
            group, more = self._take()
            if group:
                self._answer(group, self._write(group))
                self._checkpoint()
        with contextlib.suppress(sqlite3.Error):
            self._con.close()

    def _take(self) -> tuple[list[_Work], bool]:
        """What is queued, at least one, at most `GROUP_MAX`; False once the end mark has come."""
        group: list[_Work] = []
        work = self._queue.get()
        while work is not None:
            group.append(work)
            if len(group) == GROUP_MAX or self._queue.empty():
                return group, True
            work = self._queue.get()
        return group, False

    def _write(self, group: Sequence[_Work]) -> list[Any]:
        """The results of a group, committed; tried until it succeeds, or fails for a reason that will not pass."""
        attempt = 0
        while True:
            try:
                results = self._transaction(group)
            except Exception as error:  # noqa: BLE001 - isolation: this thread must outlive whatever one group brings
                self._roll_back()
                if (condition := _condition(error)) is None:
                    return [_Failed(error)] * len(group)
                self._report(condition, str(error))
                if self._closing.wait(self._backoff(attempt)) and attempt:
                    return [_Failed(StoreClosed(f"closed while {condition}: {error}"))] * len(group)
                attempt += 1
                self.retries += 1
            else:
                self._report("ok", "")
                return results

    def _transaction(self, group: Sequence[_Work]) -> list[Any]:
        self._con.execute("BEGIN IMMEDIATE")
        results = [self._run(work) for work in group]
        self._con.execute("COMMIT")
        self.groups += 1
        self.written += len(group)
        return results

    def _run(self, work: _Work) -> Any:
        self._con.execute("SAVEPOINT work")
        try:
            result = work.run(self._con)
        except Exception as error:  # isolation: one caller's bug must not undo the others' work
            if _condition(error) is not None:
                raise
            self._con.execute("ROLLBACK TO work")
            result = _Failed(error)
        self._con.execute("RELEASE work")
        return result

    def _roll_back(self) -> None:
        if self._con.in_transaction:  # SQLite may have rolled back by itself
            with contextlib.suppress(sqlite3.Error):
                self._con.execute("ROLLBACK")

    def _report(self, condition: Condition, detail: str) -> None:
        if condition != self.condition:
            self.condition = condition
            self._in_loop(self._on_condition, condition, detail)

    def _answer(self, group: Sequence[_Work], results: Sequence[Any]) -> None:
        self._in_loop(self._deliver, group, results)

    def _in_loop(self, call: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(call, *args)

    def _checkpoint(self) -> None:
        # Not SQLite's own at every 1000 pages: that one runs inside COMMIT, before the callers are answered.
        # A failure (a full disk) is not one: the WAL keeps everything, and the next write tells.
        if self.groups - self._copied[0] < WAL_GROUPS_MAX and self._con.total_changes - self._copied[1] < WAL_ROWS_MAX:
            return
        self._copied = self.groups, self._con.total_changes
        with contextlib.suppress(sqlite3.Error):
            self._con.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    # Below: in the loop again.

    def _deliver(self, group: Sequence[_Work], results: Sequence[Any]) -> None:
        for work, result in zip(group, results, strict=True):
            self._in_queue -= 1
            self._room.release()
            if isinstance(result, _Failed):
                _fail(work.done, result.error)
                continue
            if work.then is not None:
                self._loop.call_soon(work.then, result)  # runs before whoever `set_result` wakes
            if not work.done.done():
                work.done.set_result(result)


def _fail(done: "asyncio.Future[Any]", error: Exception) -> None:
    if not done.done():
        done.set_exception(error)


def _condition(error: Exception) -> Condition | None:
    """What is the matter with the storage, where waiting may help; None for a bug or a broken file."""
    if not isinstance(error, sqlite3.Error):
        return None
    return _CONDITIONS.get(int(getattr(error, "sqlite_errorcode", 0)) & 0xFF)
