"""kill -9 between commit and delivery, and between delivery and its mark: told at least once, under one id."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from transitions import raised

ROOT = Path(__file__).parent.parent.parent


class Site:
    """A receiver on loopback that may hold its answers back."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.bodies: dict[str, set[bytes]] = {}
        self.answers = asyncio.Event()
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        name = request.headers["webhook-id"]
        self.ids.append(name)
        self.bodies.setdefault(name, set()).add(await request.read())
        await self.answers.wait()
        return web.Response()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    app = web.Application()
    app.router.add_post("/", site.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    site.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    yield site
    await runner.cleanup()


Start = Callable[..., Awaitable[Process]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts a process, and returns once it has committed."""
    started: list[Process] = []

    async def start(database: Path, url: str, *things: str) -> Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(ROOT / "tests/data/delivering_daemon.py"),
            str(database),
            url,
            *things,
            stdin=PIPE,
            stdout=PIPE,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        )
        started.append(process)
        assert process.stdout is not None
        async with asyncio.timeout(60):
            assert await process.stdout.readline() == b"committed\n"
        return process

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def end(process: Process) -> None:
    async with asyncio.timeout(60):
        await process.communicate(b"")  # the end of its stdin
    assert process.returncode == 0


async def seen(site: Site, count: int) -> None:
    async with asyncio.timeout(60):
        while len(site.ids) < count:
            await asyncio.sleep(0.01)


def ids(*things: str) -> list[str]:
    return sorted(f"{raised(thing).violation_id}-in-alarm-ops" for thing in things)


async def test_killed_before_anyone_was_told_it_tells_after_the_restart(
    site: Site, start: Start, tmp_path: Path
) -> None:
    nobody = await start(tmp_path / "d.db", "http://127.0.0.1:1/", "p1", "p2", "p3")
    nobody.kill()
    await nobody.communicate()
    assert site.ids == []
    site.answers.set()
    again = await start(tmp_path / "d.db", site.url, "p1", "p2", "p3")  # the log, read again
    await seen(site, 3)
    await end(again)
    assert sorted(site.ids) == ids("p1", "p2", "p3")


async def test_killed_while_telling_it_tells_again_under_the_same_id_with_the_same_bytes(
    site: Site, start: Start, tmp_path: Path
) -> None:
    first = await start(tmp_path / "d.db", site.url, "p1", "p2")
    await seen(site, 2)
    first.kill()
    await first.communicate()
    site.answers.set()
    second = await start(tmp_path / "d.db", site.url)
    await seen(site, 4)
    await end(second)
    assert sorted(site.ids) == sorted(ids("p1", "p2") * 2)
    assert all(len(bodies) == 1 for bodies in site.bodies.values())


async def test_what_was_delivered_is_not_told_again_after_a_restart(site: Site, start: Start, tmp_path: Path) -> None:
    site.answers.set()
    first = await start(tmp_path / "d.db", site.url, "p1")
    await seen(site, 1)
    await end(first)
    second = await start(tmp_path / "d.db", site.url, "p1", "p2")
    await seen(site, 2)
    await end(second)
    assert sorted(site.ids) == ids("p1", "p2")
