"""How many connections there may be and how long each may dawdle, on both event loops and with TLS before them."""

import asyncio
import resource
import socket
import ssl
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme
import uvloop
from aiohttp import web
from signing import open_access

from daemon.http import connections
from daemon.http.connections import CONNECTIONS, Connections
from daemon.http.server import application


class Meter:
    def __init__(self) -> None:
        self.refusals: Counter[str] = Counter()

    def answered(self, status: int) -> None: ...

    def refused(self, reason: str) -> None:
        self.refusals[reason] += 1


GATE: web.AppKey[asyncio.Event] = web.AppKey("gate", asyncio.Event)
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
HELD = b"GET /held HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


async def _held(request: web.Request) -> web.Response:
    await request.app[GATE].wait()
    return web.Response(text="let go")


async def _hello(_request: web.Request) -> web.Response:
    return web.Response(text="hello")


@asynccontextmanager
async def bounded(
    meter: Meter,
    *,
    most: int = 8,
    share: int | None = None,
    head_s: float = 30.0,
    idle_s: float = 30.0,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[tuple[str, Connections]]:
    """The same server with bounds that a test can wait for."""
    app = application(meter, open_access())
    app.router.add_get("/", _hello)
    app.router.add_get("/held", _held)
    app[GATE] = asyncio.Event()
    runner = web.AppRunner(app, access_log=None)
    taken_in = Connections(
        lambda: _protocol(runner), meter, most=most, share=share, head_s=head_s, idle_s=idle_s, tls=tls
    )
    app[CONNECTIONS] = taken_in
    await runner.setup()
    listener = await asyncio.get_running_loop().create_server(taken_in, "127.0.0.1", 0, backlog=1024)
    host, port = listener.sockets[0].getsockname()
    try:
        yield f"{host}:{port}", taken_in
    finally:
        app[GATE].set()
        listener.close()
        await runner.cleanup()
        taken_in.end()


def _protocol(runner: web.AppRunner) -> asyncio.Protocol:
    assert runner.server is not None
    return runner.server()


async def _open(address: str, tls: ssl.SSLContext | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = address.split(":")
    named = {"ssl": tls, "server_hostname": "localhost"} if tls else {}
    return await asyncio.open_connection(host, int(port), **named)


async def _until_closed(reader: asyncio.StreamReader) -> bytes:
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: local"])
async def test_headers_that_never_end_cost_the_connection(sent: bytes) -> None:
    meter = Meter()
    async with bounded(meter, head_s=0.05) as (address, _):
        reader, writer = await _open(address)
        writer.write(sent)
        assert await _until_closed(reader) == b""
        writer.close()
    assert meter.refusals == {"slow": 1}


async def test_a_connection_that_idles_after_its_answer_is_closed_and_not_called_slow() -> None:
    meter = Meter()
    async with bounded(meter, idle_s=0.05) as (address, _):
        reader, writer = await _open(address)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await _until_closed(reader)).endswith(b"hello")
        writer.close()
    assert meter.refusals == {}


async def test_the_second_requests_headers_are_timed_as_the_firsts() -> None:
    meter = Meter()
    async with bounded(meter, head_s=0.05) as (address, _):
        reader, writer = await _open(address)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await reader.readuntil(b"hello")
        writer.write(b"GET /")
        assert await _until_closed(reader) == b""
        writer.close()
    assert meter.refusals == {"slow": 1}


async def test_a_connection_too_many_takes_the_place_of_the_one_that_waits_longest() -> None:
    meter = Meter()
    async with bounded(meter, most=2) as (address, taken_in):
        silent, silent_writer = await _open(address)
        answered, answered_writer = await _open(address)
        answered_writer.write(GET)
        await answered.readuntil(b"hello")
        third, third_writer = await _open(address)
        third_writer.write(LAST)
        assert (await _until_closed(third)).endswith(b"hello")
        assert await _until_closed(silent) == b""
        answered_writer.write(LAST)
        assert (await _until_closed(answered)).endswith(b"hello")
        for writer in (silent_writer, answered_writer, third_writer):
            writer.close()
        await _eventually(lambda: not taken_in.all)
    assert meter.refusals == {"connections": 1}


async def test_a_request_that_is_being_answered_keeps_its_place_and_the_newcomer_is_turned_away() -> None:
    meter = Meter()
    async with bounded(meter, most=1) as (address, taken_in):
        busy, busy_writer = await _open(address)
        busy_writer.write(HELD)
        await _eventually(lambda: not taken_in._waiting)
        late, late_writer = await _open(address)
        late_writer.write(LAST)
        assert await _until_closed(late) == b""
        _gate(taken_in).set()
        assert (await _until_closed(busy)).endswith(b"let go")
        for writer in (busy_writer, late_writer):
            writer.close()
    assert meter.refusals == {"connections": 1}


async def test_an_address_that_is_not_ours_has_its_share_and_others_theirs() -> None:
    meter = Meter()
    taken_in = Connections(asyncio.Protocol, meter, most=8, share=2)
    there = [_Transport("192.0.2.1") for _ in range(3)]
    for transport in there:
        taken_in().connection_made(transport)
    here = [_Transport("127.0.0.1") for _ in range(4)]
    for transport in here:
        taken_in().connection_made(transport)
    assert [transport.aborted for transport in there] == [False, False, True]
    assert not any(transport.aborted for transport in here)
    assert meter.refusals == {"address": 1}
    next(iter(taken_in.all)).connection_lost(None)
    again = _Transport("192.0.2.1")
    taken_in().connection_made(again)
    assert not again.aborted
    taken_in.end()
    assert (taken_in.all, taken_in._waiting, taken_in._of_address) == ({}, {}, {})


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(the server's, a client's)."""
    ca = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    ca.configure_trust(client)
    return server, client


RUNNERS: list[Callable[[Coroutine[Any, Any, None]], None]] = [asyncio.run, uvloop.run]


@pytest.mark.parametrize("run", RUNNERS)
def test_over_tls_the_places_are_counted_before_the_handshake(run: Any, contexts: Any) -> None:
    async def story() -> None:
        meter = Meter()
        async with bounded(meter, most=2, tls=contexts[0]) as (address, taken_in):
            silent = [await _open(address) for _ in range(6)]
            await _eventually(lambda: meter.refusals["connections"] == 4)
            assert len(taken_in.all) == 2
            reader, writer = await _open(address, contexts[1])
            writer.write(LAST)
            assert (await _until_closed(reader)).endswith(b"hello")
            writer.close()
            for _, other in silent:
                other.close()
            await _eventually(lambda: not taken_in.all)

    run(story())


@pytest.mark.parametrize("run", RUNNERS)
def test_over_tls_a_request_that_is_being_answered_keeps_its_place(run: Any, contexts: Any) -> None:
    async def story() -> None:
        meter = Meter()
        async with bounded(meter, most=1, tls=contexts[0]) as (address, taken_in):
            busy, busy_writer = await _open(address, contexts[1])
            busy_writer.write(HELD)
            await _eventually(lambda: not taken_in._waiting)
            _, late = await _open(address)
            await _eventually(lambda: meter.refusals["connections"] == 1)
            _gate(taken_in).set()
            assert (await _until_closed(busy)).endswith(b"let go")
            for writer in (busy_writer, late):
                writer.close()

    run(story())


@pytest.mark.parametrize("run", RUNNERS)
@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00"])
def test_what_never_ends_its_handshake_costs_the_connection(run: Any, sent: bytes, contexts: Any) -> None:
    async def story() -> None:
        async with bounded(Meter(), head_s=0.1, tls=contexts[0]) as (address, taken_in):
            reader, writer = await _open(address)
            writer.write(sent)
            await _until_closed(reader)
            writer.close()
            await _eventually(lambda: not taken_in.all)
            reader, writer = await _open(address, contexts[1])
            writer.write(GET)
            assert await reader.readuntil(b"hello")
            writer.write(LAST)
            assert (await _until_closed(reader)).endswith(b"hello")
            writer.close()

    run(story())


@pytest.mark.parametrize("run", RUNNERS)
@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
def test_ten_thousand_connections_that_say_nothing_leave_room_for_a_good_request(
    run: Any, is_tls: bool, contexts: Any
) -> None:
    server, client = contexts if is_tls else (None, None)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    kept_open = min(10_000, soft - 2 * connections.CONNECTIONS_MAX)

    async def story() -> None:
        meter = Meter()
        async with bounded(meter, most=connections.CONNECTIONS_MAX, tls=server) as (address, taken_in):
            host, port = address.split(":")
            flood: deque[socket.socket] = deque()
            for _ in range(40):
                flood.extend(_silent(host, int(port)) for _ in range(250))
                reader, writer = await _open(address, client)
                writer.write(LAST)
                assert (await _until_closed(reader)).endswith(b"hello")
                assert len(taken_in.all) <= connections.CONNECTIONS_MAX
                writer.close()
                while len(flood) > kept_open:
                    flood.popleft().close()
            if kept_open == 10_000:
                assert meter.refusals["connections"] > 9_000
            for one in flood:
                one.close()

    run(story())


def _silent(host: str, port: int) -> socket.socket:
    one = socket.socket()
    one.setblocking(False)
    one.connect_ex((host, port))
    return one


class _Transport(asyncio.Transport):
    """A connection from wherever a test wants."""

    def __init__(self, address: str) -> None:
        super().__init__({"peername": (address, 5000)})
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


def _gate(taken_in: Connections) -> asyncio.Event:
    inner: Any = next(iter(taken_in.open.values()))._inner
    gate: asyncio.Event = inner._manager.request_handler.__self__[GATE]
    return gate


async def _eventually(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():
            await asyncio.sleep(0.005)
