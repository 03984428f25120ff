"""A disk that fills up: commits wait, the state is visible, nothing is lost or torn, and all goes on with room."""

import asyncio
import contextlib
import os
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from transitions import START_NS, raised

from daemon.store.store import Store
from daemon.store.writer import Condition, StoreClosed

Heard = list[tuple[Condition, str]]


def hasty(_: int) -> float:
    return 0.01


async def eventually(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not claim():
            await asyncio.sleep(0.005)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        if os.environ.get("CI"):
            pytest.fail(f"can't mount a tmpfs: {mounted.stderr.decode()}")
        pytest.skip("can't mount a tmpfs (needs root): the full disk is left out; max_page_count is tried below")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@contextlib.asynccontextmanager
async def opened(path: Path, heard: Heard) -> AsyncIterator[Store]:
    store = await Store.open(path, clock=lambda: START_NS, on_condition=lambda *what: heard.append(what), backoff=hasty)
    store.route = lambda _: ("ops",)
    try:
        yield store
    finally:
        await store.close()


def sound(path: Path) -> bool:
    with contextlib.closing(sqlite3.connect(path)) as con:
        return bool(con.execute("PRAGMA integrity_check").fetchall() == [("ok",)])


async def test_a_full_disk_holds_commits_back_and_loses_none(small_disk: Path) -> None:
    heard: Heard = []
    async with opened(small_disk / "detectd.db", heard) as store:
        await store.commit([raised("before")], {"pumps": 1})
        ballast = small_disk / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        waiting = [
            asyncio.create_task(store.commit([raised(f"t{n}.{m}") for m in range(100)], {"pumps": 2 + n}))
            for n in range(5)
        ]
        await eventually(lambda: bool(heard))
        assert heard[0][0] == "storage-full"
        retries = store.writer.retries
        await eventually(lambda: store.writer.retries > retries + 3)
        assert not any(task.done() for task in waiting)
        assert [v.thing for v in await store.active_violations()] == ["before"]
        ballast.unlink()
        results = await asyncio.gather(*waiting)
        assert [len(ids) for ids in results] == [100] * 5
        assert heard[-1][0] == "ok"
        assert len(await store.active_violations()) == 501
        assert await store.positions() == {"pumps": 6}
    assert sound(small_disk / "detectd.db")


async def test_a_database_at_its_limit_waits_for_it_to_be_raised(tmp_path: Path) -> None:
    heard: Heard = []
    async with opened(tmp_path / "detectd.db", heard) as store:
        await store.commit([raised("before")])
        pages = await store.write(lambda con: con.execute("PRAGMA page_count").fetchone()[0])
        await store.write(lambda con: con.execute(f"PRAGMA max_page_count = {pages + 2}").fetchone())
        waiting = asyncio.create_task(store.commit([raised(f"t{n}") for n in range(100)]))
        other = asyncio.create_task(store.put_meta("small", "too"))
        await eventually(lambda: store.condition == "storage-full")
        assert not waiting.done()
        store.writer._con.execute("PRAGMA max_page_count = 100000").fetchone()
        assert len(await waiting) == 100
        await other
    assert [condition for condition, _ in heard] == ["storage-full", "ok"]


async def test_closing_on_a_full_disk_ends_and_says_what_was_not_written(tmp_path: Path) -> None:
    heard: Heard = []
    async with opened(tmp_path / "detectd.db", heard) as store:
        await store.commit([raised("before")])
        pages = await store.write(lambda con: con.execute("PRAGMA page_count").fetchone()[0])
        await store.write(lambda con: con.execute(f"PRAGMA max_page_count = {pages}").fetchone())
        waiting = asyncio.create_task(store.commit([raised(f"t{n}") for n in range(100)]))
        await eventually(lambda: store.condition == "storage-full")
        async with asyncio.timeout(10):
            await store.close()
        with pytest.raises(StoreClosed, match="storage-full"):
            await waiting
    async with opened(tmp_path / "detectd.db", heard) as again:
        assert [v.thing for v in await again.active_violations()] == ["before"]


async def test_a_database_locked_by_another_process_is_waited_for(tmp_path: Path) -> None:
    heard: Heard = []
    async with opened(tmp_path / "detectd.db", heard) as store:
        with contextlib.closing(sqlite3.connect(tmp_path / "detectd.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            waiting = asyncio.create_task(store.commit([raised()]))
            await eventually(lambda: store.condition == "storage-busy")
            other.execute("COMMIT")
        assert len(await waiting) == 1
    assert heard[-1][0] == "ok"


async def test_a_disk_that_fails_for_a_moment_does_nothing_twice(tmp_path: Path) -> None:
    heard: Heard = []
    failures = iter([True, True, False])

    def flaky(con: sqlite3.Connection) -> None:
        con.execute("INSERT INTO gaps (source, first, last, time_ns, reason) VALUES ('LOG', 1, 2, 3, '')")
        if next(failures):
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error

    async with opened(tmp_path / "detectd.db", heard) as store:
        await asyncio.gather(store.write(flaky), store.put_gap("LOG", 7, 8, ""))
        assert sorted((gap.first, gap.last) for gap in await store.gaps()) == [(1, 2), (7, 8)]
    assert heard == [("storage-failing", "disk I/O error"), ("ok", "")]
