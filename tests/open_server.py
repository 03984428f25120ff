"""The HTTP server on a free loopback port, open to everyone, with the endpoints that a test gives it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web
from signing import open_access

from daemon.http.server import Server, application
from daemon.telemetry import Telemetry


@asynccontextmanager
async def opened(add: Callable[[web.Application], None], telemetry: Telemetry) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of it."""
    app = application(telemetry, open_access())
    add(app)
    server = Server(app, "127.0.0.1:0", telemetry)
    address = await server.start()
    try:
        async with aiohttp.ClientSession(f"http://{address}") as session:
            yield session
    finally:
        await server.stop()
