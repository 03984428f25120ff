"""The log under both event loops, and over TLS: the daemon runs on uvloop, where it is missing on asyncio's own."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
import trustme
import uvloop
from log_server import LogServer

from daemon.log import session as reading
from daemon.log.reader import Access, Entry, Gap, LogReader, LogWriter, WireError

REPORT = "$aws.things.p1.defender.metrics.json"
WITHIN_S = 30.0


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    return trustme.CA()


@pytest.fixture(params=["asyncio", "uvloop"])
def runner(request) -> Iterator[asyncio.Runner]:
    factory = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}[request.param]
    with asyncio.Runner(loop_factory=factory) as there:
        yield there


def secured(tmp_path: Path, authority: trustme.CA) -> LogServer:
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    extra = f'tls {{ cert_file: "{tmp_path}/server.pem", key_file: "{tmp_path}/server.pem" }}'
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return LogServer(tmp_path, extra=extra, tls=context)


@asynccontextmanager
async def running(server: LogServer) -> AsyncIterator[None]:
    try:
        await server.start()
        await server.create_log()
        yield
    finally:
        server.stop()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_entries_are_written_and_read_through_a_kill(runner, tmp_path, authority, tls):
    server = secured(tmp_path, authority) if tls else LogServer(tmp_path)
    assert runner.run(told_and_read(server, 10_000)) == list(range(10_000))


async def told_and_read(server: LogServer, count: int) -> list[int]:
    """Append `count` entries and read them, killing the server once in the middle of that."""
    entries = [Entry(REPORT, b"%d" % i + b" " * 500) for i in range(count)]
    found: list[int] = []
    killed = False
    async with running(server), asyncio.timeout(WITHIN_S), LogWriter(server.access) as writer:
        await writer.append_many(entries)
        async with aclosing(LogReader(server.access).batches(0)) as batches:
            async for item in batches:
                assert not isinstance(item, Gap)
                found += [int(item.payload(i)) for i in range(len(item))]
                if not killed:
                    server.kill()
                    await server.start()
                    killed = True
                if len(found) == count:
                    break
    return found


def test_a_socket_that_was_paused_goes_on(runner, tmp_path, monkeypatch):
    """The bound of last resort: more is held than the server's own window allows."""
    monkeypatch.setattr(reading, "HELD_MAX", 200_000)
    server = LogServer(tmp_path)
    assert runner.run(told_and_read(server, 10_000)) == list(range(10_000))


def test_a_server_whose_certificate_nobody_vouches_for_is_not_talked_to(runner, tmp_path, authority):
    server = secured(tmp_path, authority)

    async def story() -> None:
        async with running(server):
            stranger = Access(server.access.urls, "daemon", "s3cret", ssl.create_default_context())
            with pytest.raises(WireError, match=r"(?i)certificate verify failed"):
                await LogReader(stranger).info()

    runner.run(story())
