"""Opens the HTTP listener and closes it: an aiohttp application behind the guards, on one address."""

import asyncio
import ssl
from typing import Final

from aiohttp import web

from config.address import Address, address_of
from config.model import Tls
from daemon import certificates
from daemon.http import guards, noise
from daemon.http.access import Access
from daemon.http.connections import CONNECTIONS, SHARE, Connections

STOP_S: Final = 5.0
BACKLOG: Final = 128


def application(meter: guards.Meter, access: Access) -> web.Application:
    """An application with the guards and no endpoint: `ops.add` and its like add theirs.

    `access`: who may. Where it asks for no keys the rule about browsers holds (guards.refusal).
    """
    app = web.Application(middlewares=[guards.guarded(access, meter)], client_max_size=guards.BODY_BYTES_MAX)
    app[guards.ACCESS] = access
    return app


def context(tls: Tls | None) -> ssl.SSLContext | None:
    """What a listener needs for TLS; with `ca`, clients must show a certificate that it signed.

    Raises:
        OSError: a file can't be read, or is not what it should be.
    """
    if tls is None:
        return None
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificates.put_into(made, tls)
    return made


class Server:
    """One listener. `start` and `stop` are each called once."""

    def __init__(
        self, app: web.Application, listen: str, meter: guards.Meter, *, tls: ssl.SSLContext | None = None
    ) -> None:
        """`listen`: `host:port`, `[v6]:port`; port 0: the system chooses."""
        self.address = listen
        self._meter = meter
        self._tls = tls
        noise.quieten()
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=STOP_S)
        self._app = app
        self._listener: asyncio.Server | None = None
        self._connections: Connections | None = None

    async def start(self) -> str:
        """Listen; the actual address as `host:port`.

        Raises:
            OSError: the address is taken, or not ours.
            ValueError: it is no address, or one that others can reach where no keys are asked for.
        """
        wanted = address_of(self.address)
        access = self._app[guards.ACCESS]
        if access.is_open and not wanted.is_loopback:  # the configuration was checked; this is the last door
            raise ValueError(f"{self.address} is off loopback, and no access keys are asked for")
        # A proxy brings all its clients' connections from one address.
        share = None if access.behind_proxy else SHARE
        connections = Connections(self._protocol, self._meter, tls=self._tls, share=share)
        self._app[CONNECTIONS] = self._connections = connections  # before setup: it freezes the application
        await self._runner.setup()
        try:
            self._listener = await self._open(connections, wanted.host, wanted.port)
        except OSError:
            await self._runner.cleanup()
            raise
        self.address = str(Address(*self._listener.sockets[0].getsockname()[:2]))
        return self.address

    async def stop(self) -> None:
        """No new connections; requests under way have STOP_S to end."""
        if self._listener is not None:
            self._listener.close()
        await self._runner.cleanup()
        if self._connections is not None:
            self._connections.end()  # those that never came as far as aiohttp
        if self._listener is not None:
            await self._listener.wait_closed()

    async def _open(self, connections: Connections, host: str, port: int) -> asyncio.Server:
        # Without TLS: `connections` begins it itself, once a connection has a place.
        return await asyncio.get_running_loop().create_server(connections, host, port, backlog=BACKLOG)

    def _protocol(self) -> asyncio.Protocol:
        assert self._runner.server is not None, "the runner is set up before the listener opens"
        return self._runner.server()
