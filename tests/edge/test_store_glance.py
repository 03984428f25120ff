"""Short reads are done where they are asked, long ones in a thread, and nobody can tell but by the clock."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from daemon.store import database
from daemon.store.store import Store
from daemon.store.writer import StoreClosed

LONG = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) SELECT sum(i) FROM n"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await Store.open(tmp_path / "detectd.db", clock=lambda: 1)
    yield store
    await store.close()


def where_and(sql: str, heard: list[threading.Thread]):
    def run(con: sqlite3.Connection) -> object:
        heard.append(threading.current_thread())
        return con.execute(sql).fetchone()[0]

    return run


async def test_a_short_read_needs_no_thread(store: Store) -> None:
    heard: list[threading.Thread] = []
    assert await store.glance(where_and("SELECT 7", heard)) == 7
    assert heard == [threading.main_thread()]


async def test_a_long_one_is_broken_off_and_read_in_a_thread_from_its_beginning(store: Store) -> None:
    heard: list[threading.Thread] = []
    assert await store.glance(where_and(LONG, heard)) == 300_000 * 300_001 // 2
    assert [thread is threading.main_thread() for thread in heard] == [True, False]
    assert store.broken_off == 1


async def test_the_loop_goes_on_while_a_long_one_is_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "GLANCE_S", 0.0)
    turns = 0
    reading = asyncio.create_task(store.glance(where_and(LONG, [])))
    while not reading.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 1


async def test_what_was_written_is_seen_at_once(store: Store) -> None:
    await store.write(lambda con: con.execute("CREATE TABLE seen (a)"))
    for number in range(5):
        await store.write(lambda con, number=number: con.execute("INSERT INTO seen VALUES (?)", (number,)))
        assert await store.glance(lambda con: con.execute("SELECT max(a) FROM seen").fetchone()[0]) == number


async def test_it_writes_nothing_and_says_what_is_wrong(store: Store) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await store.glance(lambda con: con.execute("CREATE TABLE t (a)"))
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        await store.glance(lambda con: con.execute("SELECT 1 FROM nowhere"))
    with pytest.raises(KeyError):
        await store.glance(lambda _: {}["no"])


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "other.db", clock=lambda: 1)
    await store.glance(where_and("SELECT 1", []))
    await store.close()
    with pytest.raises(StoreClosed):
        await store.glance(where_and("SELECT 1", []))
