"""What the guards turn away: web pages that steer a browser at us, floods, and connections that dawdle."""

import asyncio
import io
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from multidict import CIMultiDict
from signing import open_access, settings

from daemon.http import guards
from daemon.http.access import Access
from daemon.http.server import Server, application


class Meter:
    def __init__(self) -> None:
        self.answers: Counter[int] = Counter()
        self.refusals: Counter[str] = Counter()

    def answered(self, status: int) -> None:
        self.answers[status] += 1

    def refused(self, reason: str) -> None:
        self.refusals[reason] += 1


async def _hello(_request: web.Request) -> web.Response:
    return web.Response(text="hello")


async def _echo(request: web.Request) -> web.Response:
    return web.Response(body=await guards.body(request))


@asynccontextmanager
async def serving(meter: Meter, access: Access | None = None) -> AsyncIterator[str]:
    app = application(meter, access or open_access())
    app.router.add_get("/", _hello)
    app.router.add_post("/echo", _echo)
    server = Server(app, "127.0.0.1:0", meter)
    address = await server.start()
    try:
        yield address
    finally:
        await server.stop()


async def _get(address: str, **headers: str) -> tuple[int, str]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}/", headers=named) as answer:
        return answer.status, await answer.text()


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8080", "127.0.0.1:1", "127.8.9.10", "[::1]:8080", "a.localhost", "localhost."]
)
def test_a_loopback_host_passes(host: str) -> None:
    assert guards.refusal(CIMultiDict({"Host": host})) is None


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "evil.example:8080",
        "127.0.0.1.nip.io",
        "localhost.example.com",
        "10.0.0.1",
        "[::2]",
        "[::1",
        "",
        "0.0.0.0",
    ],
)
def test_any_other_host_is_refused_so_that_dns_rebinding_fails(host: str) -> None:
    refused = guards.refusal(CIMultiDict({"Host": host}))
    assert refused is not None
    assert refused[0] == "host"


@pytest.mark.parametrize(
    "origin",
    [
        "http://example.com",
        "null",
        "http://localhost:3000",
        "http://127.0.0.1:80800",
        "file://localhost:8080",
        "",
        "http://[",
    ],
)
def test_a_page_of_another_origin_is_refused_on_this_machine_too(origin: str) -> None:
    refused = guards.refusal(CIMultiDict({"Host": "localhost:8080", "Origin": origin}))
    assert refused is not None
    assert refused[0] == "origin"


def test_our_own_page_passes() -> None:
    own = {"Host": "localhost:8080", "Origin": "http://localhost:8080", "Sec-Fetch-Site": "same-origin"}
    assert guards.refusal(CIMultiDict(own)) is None


def test_a_second_host_header_does_not_hide_the_first() -> None:
    refused = guards.refusal(CIMultiDict([("Host", "localhost"), ("Host", "evil.example")]))
    assert refused is not None


def test_a_request_without_browser_headers_passes() -> None:
    assert guards.refusal(CIMultiDict()) is None


async def test_a_cross_site_request_gets_403_in_json_and_is_counted() -> None:
    meter = Meter()
    async with serving(meter) as address:
        status, text = await _get(address, Sec_Fetch_Site="cross-site")
    assert (status, "message" in text) == (403, True)
    assert meter.refusals == {"cross-site": 1}
    assert meter.answers == {403: 1}


async def test_a_foreign_host_gets_403_over_the_wire() -> None:
    meter = Meter()
    async with serving(meter) as address:
        assert (await _get(address, Host="rebound.example"))[0] == 403
        assert (await _get(address, Origin="http://rebound.example"))[0] == 403
        assert (await _get(address))[0] == 200
    assert meter.refusals == {"host": 1, "origin": 1}


async def test_bytes_that_are_no_request_are_a_short_line_and_only_some_a_second(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(Meter()) as address:
        host, _, port = address.rpartition(":")
        for _ in range(50):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
            assert (await reader.readline()).split()[1] == b"400"
            writer.close()
    lines = [record for record in caplog.records if record.name == "aiohttp.server"]
    assert 1 <= len(lines) <= 20, "a line each"
    assert all(line.exc_info is None and line.getMessage().startswith("http.malformed: 400") for line in lines)


async def test_the_rule_is_off_where_keys_are_asked_for(tmp_path: Path) -> None:
    async with serving(Meter(), Access(settings(tmp_path), time.time_ns)) as address:
        assert (await _get(address, Host="detectd.example"))[0] == 200


async def test_every_answer_carries_the_security_headers_errors_too() -> None:
    async with serving(Meter()) as address, aiohttp.ClientSession(f"http://{address}") as session:
        for path in ("/", "/nowhere"):
            async with session.get(path) as answer:
                shown = {name: answer.headers.get(name) for name in guards.SECURITY_HEADERS}
                assert shown == guards.SECURITY_HEADERS


async def test_a_body_of_a_mebibyte_passes_and_one_byte_more_is_413() -> None:
    meter = Meter()
    async with serving(meter) as address, aiohttp.ClientSession(f"http://{address}") as session:
        async with session.post("/echo", data=io.BytesIO(b"x" * guards.BODY_BYTES_MAX)) as answer:
            assert (answer.status, len(await answer.read())) == (200, guards.BODY_BYTES_MAX)
        async with session.post("/echo", data=io.BytesIO(b"x" * (guards.BODY_BYTES_MAX + 1))) as answer:
            assert answer.status == 413
    assert meter.refusals == {"too-large": 1}


async def test_a_chunked_body_without_a_stated_length_is_bounded_too() -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * 65_536

    async with serving(Meter()) as address, aiohttp.ClientSession(f"http://{address}") as session:
        async with session.post("/echo", data=endless()) as answer:
            assert answer.status == 413


async def test_what_is_not_http_is_refused_without_a_stack_trace() -> None:
    async with serving(Meter()) as address:
        reader, writer = await _open(address)
        writer.write(b"\x16\x03\x01 not http\r\n\r\n")
        answer = await reader.read()
        writer.close()
    assert answer.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
    assert b"Traceback" not in answer


async def _open(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = address.split(":")
    return await asyncio.open_connection(host, int(port))
