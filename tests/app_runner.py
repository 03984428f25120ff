"""The whole daemon in the test's own loop: what a test replaces is replaced in it, and its parts can be looked at."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from actors.metrics import kinds
from config.load import load
from daemon.app import App


@asynccontextmanager
async def running(config: Path) -> AsyncIterator[App]:
    app = App(config, load(config, kinds()))
    task = asyncio.create_task(app.run())
    try:
        await eventually(lambda: ready(app, task))
        yield app
    finally:
        app.stop()
        await asyncio.wait_for(task, 30)


async def ready(app: App, task: "asyncio.Task[None]") -> bool:
    assert not task.done(), task.exception()
    return bool(app.address) and (await ask(app, "GET", "/-/ready"))[0] == 200


async def ask(app: App, method: str, path: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.request(method, f"http://{app.address}{path}") as answer:
        return answer.status, await answer.json()


async def eventually(is_so: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(60):
        while not await is_so():
            await asyncio.sleep(0.02)


def mqtt(app: App) -> tuple[str, int]:
    host, _, port = str(app.host.mqtt).rpartition(":")
    return host, int(port)
