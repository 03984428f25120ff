"""The operators' endpoints over a real socket: what they answer, and in which words they refuse."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from open_server import opened
from signing import open_access

from config.address import Address, address_of
from daemon.http import ops
from daemon.http.server import Server, application
from daemon.telemetry import Telemetry

RELOADED = ops.Reloaded(generation=7, changed=True)


@dataclass
class Double:
    """A daemon of which a test decides everything."""

    reasons: list[str] = field(default_factory=list)
    answer: ops.Answer | Exception = RELOADED
    telemetry: Telemetry = field(default_factory=Telemetry)
    reloads: int = 0

    def unready(self) -> Sequence[str]:
        return self.reasons

    def status(self) -> Mapping[str, Any]:
        return {"generation": 7, "positions": {"pumps": 41}}

    def metrics(self) -> bytes:
        return self.telemetry.render()

    async def reload(self) -> ops.Answer:
        self.reloads += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def serving(double: Double) -> AbstractAsyncContextManager[aiohttp.ClientSession]:
    return opened(lambda app: ops.add(app, double), double.telemetry)


@pytest.mark.parametrize("path", ["/-/healthy", "/healthz"])
async def test_a_living_daemon_is_healthy_even_when_it_is_not_ready(path: str) -> None:
    async with serving(Double(reasons=["the log can't be read"])) as session, session.get(path) as answer:
        assert (answer.status, await answer.json()) == (200, {"healthy": True})


@pytest.mark.parametrize("path", ["/-/ready", "/readyz"])
async def test_a_daemon_that_can_work_is_ready(path: str) -> None:
    async with serving(Double()) as session, session.get(path) as answer:
        assert (answer.status, await answer.json()) == (200, {"ready": True})


async def test_a_daemon_that_is_not_ready_says_why() -> None:
    async with serving(Double(reasons=["the log can't be read", "bridge plant is down"])) as session:
        async with session.get("/-/ready") as answer:
            body = await answer.json()
    assert answer.status == 503
    assert body == {"ready": False, "reasons": ["the log can't be read", "bridge plant is down"]}


async def test_status_is_json() -> None:
    async with serving(Double()) as session, session.get("/-/status") as answer:
        assert answer.content_type == "application/json"
        assert await answer.json() == {"generation": 7, "positions": {"pumps": 41}}


async def test_metrics_come_in_the_text_format_with_its_version() -> None:
    async with serving(Double()) as session, session.get("/metrics") as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert "# TYPE detectd_reports_received_total counter" in await answer.text()


async def test_a_reload_that_is_accepted_names_the_generation() -> None:
    async with serving(Double()) as session, session.post("/-/reload") as answer:
        assert (answer.status, await answer.json()) == (200, {"generation": 7, "changed": True})


async def test_a_refused_reload_names_every_place_in_the_files() -> None:
    problems = ("/etc/d.yaml:3:5: http.listne: unknown key, did you mean 'listen'?", "/etc/p.yaml:1:1: empty")
    async with serving(Double(answer=ops.Refused(problems))) as session, session.post("/-/reload") as answer:
        body = await answer.json()
    assert answer.status == 400
    assert body["problems"] == list(problems)
    assert "old one stays in force" in body["message"]


async def test_a_failed_reload_is_the_daemons_fault() -> None:
    async with serving(Double(answer=ops.Failed("the store is full"))) as session:
        async with session.post("/-/reload") as answer:
            assert (answer.status, (await answer.json())["message"]) == (
                500,
                "the store is full; the old configuration stays in force",
            )


async def test_a_get_does_not_reload() -> None:
    double = Double()
    async with serving(double) as session, session.get("/-/reload") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")
        assert "message" in await answer.json()
    assert double.reloads == 0


async def test_a_path_that_does_not_exist_is_a_json_404() -> None:
    async with serving(Double()) as session, session.get("/nowhere") as answer:
        assert (answer.status, answer.content_type) == (404, "application/json")
        assert await answer.json() == {"message": "Not Found"}


async def test_a_bug_in_a_handler_shows_no_stack_trace() -> None:
    async with serving(Double(answer=RuntimeError("secret detail"))) as session, session.post("/-/reload") as answer:
        text = await answer.text()
    assert answer.status == 500
    assert "secret detail" not in text
    assert "Traceback" not in text
    assert answer.content_type == "application/json"


async def test_the_address_tells_the_port_that_the_system_chose_and_is_free_again_after_stop() -> None:
    double = Double()
    server = Server(application(double.telemetry, open_access()), "127.0.0.1:0", double.telemetry)
    address = await server.start()
    host, port = address_of(address).host, address_of(address).port
    assert host == "127.0.0.1"
    assert port > 0
    await server.stop()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, port)


async def test_a_taken_address_is_an_error_at_start() -> None:
    double = Double()
    first = Server(application(double.telemetry, open_access()), "127.0.0.1:0", double.telemetry)
    address = await first.start()
    with pytest.raises(OSError, match="address already in use"):
        await Server(application(double.telemetry, open_access()), address, double.telemetry).start()
    await first.stop()


@pytest.mark.parametrize("listen", ["8080", ":8080", "::1:8080", "localhost:", "localhost:http", "localhost:65536"])
def test_what_is_no_address_is_refused(listen: str) -> None:
    with pytest.raises(ValueError, match=r"brackets|host:port"):
        address_of(listen)


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert address_of("[::1]:8080") == Address("::1", 8080)
    assert str(address_of("[::1]:8080")) == "[::1]:8080"
