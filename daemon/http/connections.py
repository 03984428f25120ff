"""How many connections there may be, whose place a new one takes, and how long each may dawdle.

aiohttp bounds the time between requests, not the time in which a request's headers may drip in; and asyncio shows a
connection that speaks TLS only once its handshake is over. So each is taken in as it comes, counted and timed, before
TLS and before aiohttp. When all places are taken, the one that has waited longest for a request to be complete makes
room: a flood of connections that say nothing drives out itself. One whose request is being answered stays.
"""

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol, cast

from aiohttp import web

CONNECTIONS_MAX: Final = 512
SHARE: Final = CONNECTIONS_MAX // 4
"""Of one address that is not this machine's: busy connections do not make room, so that one could take all places."""
HEAD_S: Final = 10.0  # from the first byte (or the connection) to the end of the headers
IDLE_S: Final = 75.0  # between requests; also the longest wait for a client that doesn't read its answer
TLS_HANDSHAKE_S: Final = 10.0


class Meter(Protocol):
    def refused(self, reason: str) -> None:
        """A connection was ended, or not taken in: connections (no place), address (none for it), slow."""
        ...


class Connections:
    """Makes the protocol of each connection. `share`: places that one address may have; None: all of them."""

    def __init__(
        self,
        make: Callable[[], asyncio.Protocol],
        meter: Meter,
        *,
        tls: ssl.SSLContext | None = None,
        most: int = CONNECTIONS_MAX,
        share: int | None = SHARE,
        head_s: float = HEAD_S,
        idle_s: float = IDLE_S,
    ) -> None:
        self.all: dict[Connection, None] = {}  # those that have a place
        self.open: dict[asyncio.BaseTransport, Connection] = {}  # those of them that aiohttp knows
        self.make, self.meter, self.tls = make, meter, tls
        self.head_s, self.idle_s = head_s, idle_s
        self._most, self._share = most, share
        self._waiting: dict[Connection, None] = {}  # for a request to be complete, the longest first
        self._of_address: Counter[str] = Counter()

    def __call__(self) -> asyncio.Protocol:
        return Connection(self) if self.tls is None else Arrival(self, self.tls)

    def take_in(self, connection: "Connection") -> bool:
        """Give a connection a place, if need be that of another; False: there is none."""
        if self._has_its_share(connection.address):
            self.meter.refused("address")
            return False
        if len(self.all) >= self._most:
            self.meter.refused("connections")
            if not self._waiting:
                return False
            next(iter(self._waiting)).end()
        self.all[connection] = None
        self._of_address[connection.address] += 1
        return True

    def let_go(self, connection: "Connection") -> None:
        del self.all[connection]
        self.not_waiting(connection)
        self._of_address[connection.address] -= 1
        if not self._of_address[connection.address]:
            del self._of_address[connection.address]

    def waiting(self, connection: "Connection") -> None:
        """From now on it waits."""
        self.not_waiting(connection)
        self._waiting[connection] = None

    def not_waiting(self, connection: "Connection") -> None:
        self._waiting.pop(connection, None)

    def end(self) -> None:
        """End all that are left."""
        for connection in list(self.all):
            connection.end()

    def _has_its_share(self, address: str) -> bool:
        return self._share is not None and self._of_address[address] >= self._share and not _is_ours(address)


class Arrival(asyncio.Protocol):
    """A connection before TLS: given a place, or turned away, before a handshake costs us anything.

    The socket goes on to a `Connection` as a copy: asyncio can begin TLS on a socket it is given, and on a transport
    only in ways that differ from loop to loop.
    """

    def __init__(self, all_of_them: Connections, tls: ssl.SSLContext) -> None:
        self._all, self._tls = all_of_them, tls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        connection = Connection(self._all)
        if connection.arrive(transport):
            try:
                connection.secure(transport.get_extra_info("socket").dup(), self._tls)
            except OSError:  # no more files
                connection.end()
        _abort(transport)


class Connection(asyncio.Protocol):
    """Stands before aiohttp's own protocol and keeps the time: waiting for a request, busy with one, or idle."""

    def __init__(self, all_of_them: Connections) -> None:
        self.address = ""
        self._all = all_of_them
        self._inner: asyncio.Protocol | None = None  # while it may talk
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.BaseTransport | None = None
        self._socket: socket.socket | None = None  # while TLS begins
        self._handshake: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._idle = False

    def arrive(self, transport: asyncio.BaseTransport) -> bool:
        """Take a place; False: there is none."""
        self.address = str((transport.get_extra_info("peername") or ("",))[0])
        if not self._all.take_in(self):
            return False
        self._wait(self._all.head_s)
        return True

    def secure(self, plain: socket.socket, tls: ssl.SSLContext) -> None:
        """Begin TLS; `connection_made` comes when it is there."""
        self._socket = plain
        self._handshake = self._loop.create_task(self._secure(plain, tls), name="tls handshake")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not self._has_place and (self._handshake is not None or not self.arrive(transport)):
            _abort(transport)
            return
        self._socket = None
        self._transport = transport
        self._all.open[transport] = self
        self._inner = self._all.make()
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._inner is None:  # turned away
            return
        if self._idle:  # the first bytes of the next request
            self._idle = False
            self._wait(self._all.head_s)
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return None if self._inner is None else self._inner.eof_received()

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    def connection_lost(self, problem: Exception | None) -> None:
        self._leave()
        if self._inner is not None:
            self._inner.connection_lost(problem)
            self._inner = None

    def busy(self) -> None:
        """A request's headers are complete and its handler runs: how long that takes is the handler's affair."""
        self._idle = False
        self._stop_timer()
        self._all.not_waiting(self)

    def idle(self) -> None:
        """The handler is done: the client reads its answer and may send the next request."""
        if self._has_place:
            self._idle = True
            self._wait(self._all.idle_s)

    def end(self) -> None:
        """End it at once; its place is free."""
        transport, plain = self._transport, self._socket
        self._leave()
        if transport is not None:
            _abort(transport)
        if plain is not None:
            with contextlib.suppress(OSError):  # its handshake then fails, and closes it
                plain.shutdown(socket.SHUT_RDWR)

    @property
    def _has_place(self) -> bool:
        return self in self._all.all

    async def _secure(self, plain: socket.socket, tls: ssl.SSLContext) -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: self, plain, ssl=tls, ssl_handshake_timeout=TLS_HANDSHAKE_S
            )
        except OSError:  # no TLS, none that we take, or not in time: the client's affair
            self._leave()

    def _leave(self) -> None:
        self._stop_timer()
        self._socket = None
        if self._transport is not None:
            self._all.open.pop(self._transport, None)
            self._transport = None
        if self._has_place:
            self._all.let_go(self)

    def _wait(self, seconds: float) -> None:
        self._stop_timer()
        self._all.waiting(self)
        self._timer = self._loop.call_later(seconds, self._too_slow)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        if not self._idle:
            self._all.meter.refused("slow")
        self.end()


CONNECTIONS: Final[web.AppKey[Connections]] = web.AppKey("connections", Connections)


class Busy:
    """Tells the connection of a request that it is busy, for as long as the block lasts."""

    def __init__(self, request: web.Request) -> None:
        connections = request.app.get(CONNECTIONS)
        transport = request.transport
        self._connection = connections.open.get(transport) if connections and transport else None

    def __enter__(self) -> None:
        if self._connection is not None:
            self._connection.busy()

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.idle()


def _is_ours(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _abort(transport: asyncio.BaseTransport) -> None:
    # Every stream transport can abort; the type that a protocol is promised does not say so.
    cast("asyncio.WriteTransport", transport).abort()
