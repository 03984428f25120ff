"""A disk that is full: alarms wait for no metric value, nothing is missing afterwards, and the state is visible."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from builders import frames, report, rules, world

from actors.messages import Frames
from actors.series import Series
from actors.world import World
from config.model import Rules, SecurityProfile
from daemon.history import recorder, waiting
from daemon.history.recorder import History

OUT = "aws:all-bytes-out"
KEPT = rules(SecurityProfile("kept", additional_metrics_to_retain=(OUT,), targets=("all/things",)), report_interval_s=0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        if os.environ.get("CI"):
            pytest.fail("can't mount a tmpfs")
        pytest.skip("can't mount a tmpfs: needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


class Log:
    """One report of `p1` a second, 64 a batch; what was written can be read again."""

    def __init__(self) -> None:
        self.position = 0
        self.reads = 0

    def batch(self) -> Frames:
        first, self.position = self.position + 1, self.position + 64
        return self._entries(first, self.position)

    async def read(self, first: int, last: int) -> AsyncIterator[Frames]:
        self.reads += 1
        for at in range(first, min(last, self.position) + 1, 64):
            yield self._entries(at, min(at + 63, last))

    def _entries(self, first: int, last: int) -> Frames:
        reports = [replace(report("p1", n, bytes_out=n), position=n) for n in range(first, last + 1)]
        return frames(reports)


async def undefined(_: str) -> Rules:
    pytest.fail("no rules are asked for")


async def eventually(claim: object) -> None:
    async with asyncio.timeout(20):
        while not claim():  # type: ignore[operator]
            await asyncio.sleep(0.005)


async def counts(history: History) -> list[int]:
    found, _ = await history.values("p1", Series(OUT), "count", 0, 2**62, None, 10**6)
    return [datum.value for datum in reversed(found)]


async def test_a_full_disk_stalls_nobody_and_costs_no_value(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "REPORTS_HELD_MAX", 640)
    monkeypatch.setattr(recorder, "SETTLE_WAIT_S", 0.2)
    one, log, heard = world(KEPT), Log(), []
    history = await History.open(
        small_disk / "history.db", on_condition=lambda *what: heard.append(what), backoff=lambda _: 0.01
    )
    await history.adopt("log", 10**9)
    history.begin(0, one)
    running = asyncio.create_task(history.run(log.read, undefined))
    try:
        await _filled(small_disk, history, log, one, heard)
    finally:  # or the disk can't be unmounted
        running.cancel()
        await asyncio.wait([running])
        await history.close()


async def _filled(small_disk: Path, history: History, log: Log, one: World, heard: list[tuple[str, str]]) -> None:
    async def hear() -> None:
        history.take(one.router.route(log.batch()))
        await history.room()

    await hear()
    assert await history.settled()
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    async with asyncio.timeout(20):
        while not heard:  # the journal had some room of its own
            await hear()
            await asyncio.sleep(0.01)
    assert heard[0][0] == history.state == "storage-full"
    assert not await history.settled()
    async with asyncio.timeout(1):  # as the pipeline goes on
        for _ in range(30):
            await hear()
    assert history.counters.behind == 1
    assert history._waiting.reports <= 640 + 64
    before = await counts(history)  # what is there can be read
    assert before == list(range(1, len(before) + 1))
    ballast.unlink()
    await eventually(lambda: history._behind is None)
    await hear()
    assert await history.settled()
    assert log.reads >= 1
    assert await counts(history) == list(range(1, log.position + 1))
    assert heard[-1][0] == history.state == "ok"
