"""Who may ask which endpoint: each needs its role, Prometheus may use Basic, and a stranger hears one word."""

import base64
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from signing import ROLES, SECRETS, settings, signed
from yarl import URL

from actors.delivery import State
from config.model import NS, Settings
from daemon.control import audit as trail
from daemon.http import audit, guards, ops, outbox, poison
from daemon.http.access import Access, keys_of
from daemon.http.server import Server, application
from daemon.store.outbox import Row
from daemon.store.store import Store
from daemon.telemetry import Telemetry


class Double:
    """A daemon that does whatever it is asked."""

    def __init__(self) -> None:
        self.telemetry = Telemetry()
        self.done: list[str] = []

    def unready(self) -> Sequence[str]:
        return ["the disk /dev/sda1 is full"]

    def status(self) -> Mapping[str, Any]:
        return {"generation": 7}

    def metrics(self) -> bytes:
        return self.telemetry.render()

    async def reload(self) -> ops.Answer:
        self.done.append("reload")
        return ops.Reloaded(1, True)

    async def poisoned(self) -> Sequence[dict[str, Any]]:
        return []

    async def retry(self, actor: str, position: int) -> bool:
        return not self.done.append(f"retry {actor} {position}")

    async def drop(self, actor: str, position: int) -> bool:
        return not self.done.append(f"drop {actor} {position}")

    async def outbox_rows(self, states: Sequence[State], before_id: int, limit: int) -> Sequence[Row]:
        return []

    async def outbox_resend(self, row: int) -> bool:
        return not self.done.append(f"resend {row}")

    async def outbox_drop(self, row: int) -> bool:
        return not self.done.append(f"drop {row}")


async def _who(request: web.Request) -> web.Response:
    actor = await guards.admitted(request, "read")
    return web.json_response([actor.who, actor.address])


class Served:
    def __init__(self, address: str, session: aiohttp.ClientSession, double: Double, access: Access) -> None:
        self.address, self.double, self.access = address, double, access
        self._session = session

    async def ask(
        self,
        method: str,
        path: str,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> tuple[int, Any, Mapping[str, str]]:
        url = f"http://{self.address}{path}"
        named = {**(headers or {}), **(signed(method, url, key, body, now_s=time.time()) if key else {})}
        async with self._session.request(method, URL(url, encoded=True), headers=named, data=body) as answer:
            is_json = answer.content_type == "application/json"
            return answer.status, await (answer.json() if is_json else answer.text()), answer.headers


@asynccontextmanager
async def serving(configured: Settings, store: Store | None = None) -> AsyncIterator[Served]:
    double, access = Double(), Access(configured, time.time_ns)
    app = application(double.telemetry, access)
    ops.add(app, double)
    poison.add(app, double)
    outbox.add(app, double)
    if store is not None:
        audit.add(app, store)
    app.router.add_get("/who", _who)
    server = Server(app, "127.0.0.1:0", double.telemetry)
    address = await server.start()
    try:
        async with aiohttp.ClientSession() as session:
            yield Served(address, session, double, access)
    finally:
        await server.stop()


ENDPOINTS = [
    ("GET", "/-/status", "read"),
    ("GET", "/metrics", "read"),
    ("GET", "/-/poison", "read"),
    ("GET", "/-/outbox?state=dead", "read"),
    ("POST", "/-/poison/retry?actor=g%20%C3%BC&position=4", "operate"),
    ("POST", "/-/outbox/resend?id=3", "operate"),
    ("POST", "/-/poison/drop?actor=g&position=4", "admin"),
    ("POST", "/-/outbox/drop?id=3", "admin"),
    ("POST", "/-/reload", "admin"),
]
RANK = ["read", "operate", "admin"]


@pytest.mark.parametrize(("method", "path", "need"), ENDPOINTS)
async def test_an_endpoint_answers_who_has_its_role_and_nobody_else(
    tmp_path: Path, method: str, path: str, need: str
) -> None:
    async with serving(settings(tmp_path)) as served:
        for key, role in ROLES.items():
            before = len(served.double.done)
            status, answer, headers = await served.ask(method, path, key)
            if RANK.index(role) >= RANK.index(need):
                assert status == 200
            else:
                assert (status, headers["x-amzn-ErrorType"]) == (403, "AccessDeniedException")
                assert need in answer["message"]
                assert len(served.double.done) == before
        status, answer, headers = await served.ask(method, path)
        assert (status, headers["x-amzn-ErrorType"]) == (403, "MissingAuthenticationTokenException")


async def test_without_keys_all_of_them_answer_on_loopback() -> None:
    async with serving(Settings()) as served:
        for method, path, _ in ENDPOINTS:
            assert (await served.ask(method, path))[0] == 200
        assert (await served.ask("GET", "/-/ready"))[1]["reasons"] == ["the disk /dev/sda1 is full"]
        assert (await served.ask("GET", "/-/status", headers={"Origin": "http://evil.example"}))[0] == 403


async def test_a_stranger_hears_whether_we_are_alive_and_ready_and_not_why(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as served:
        assert (await served.ask("GET", "/-/healthy"))[:2] == (200, {"healthy": True})
        assert (await served.ask("GET", "/readyz"))[:2] == (503, {"ready": False})
        assert (await served.ask("GET", "/-/ready", "READER"))[1]["reasons"] == ["the disk /dev/sda1 is full"]
        wrong = signed("GET", f"http://{served.address}/-/ready", "READER", secret="guess", now_s=time.time())
        assert (await served.ask("GET", "/-/ready", headers=wrong))[0] == 403


async def test_a_body_is_signed_too(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as served:
        assert (await served.ask("POST", "/-/reload", "ADMIN", body=b"x" * 5000))[0] == 200
        url = f"http://{served.address}/-/reload"
        forged = signed("POST", url, "ADMIN", b"a", now_s=time.time())
        assert (await served.ask("POST", "/-/reload", headers=forged, body=b"b"))[0] == 403
    assert served.double.done == ["reload"]


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


async def test_prometheus_may_use_basic_on_metrics_and_nowhere_else(tmp_path: Path) -> None:
    good = basic("READER", SECRETS["READER"])
    async with serving(settings(tmp_path)) as served:
        status, text, _ = await served.ask("GET", "/metrics", headers=good)
        assert (status, "detectd_reports_received_total" in text) == (200, True)
        status, _, headers = await served.ask("GET", "/metrics", headers=basic("READER", "guess"))
        assert (status, headers["WWW-Authenticate"]) == (401, 'Basic realm="detectd"')
        for path in ("/-/status", "/-/poison", "/-/ready"):
            assert (await served.ask("GET", path, headers=good))[0] == 403


async def test_keys_may_come_and_go_while_we_serve(tmp_path: Path) -> None:
    async with serving(Settings()) as served:
        assert (await served.ask("GET", "/-/status"))[0] == 200
        served.access.apply(keys_of(settings(tmp_path)))
        assert (await served.ask("GET", "/-/status"))[0] == 403
        assert (await served.ask("GET", "/-/status", "READER"))[0] == 200


@pytest.mark.parametrize(
    ("forwarded", "behind_proxy", "expected"),
    [
        ("203.0.113.9", False, "127.0.0.1"),
        ("203.0.113.9", True, "203.0.113.9"),
        ("10.0.0.1, 203.0.113.9", True, "203.0.113.9"),
        ("2001:db8::5", True, "2001:db8::5"),
        ("203.0.113.9, nonsense", True, "127.0.0.1"),
        ("", True, "127.0.0.1"),
        (None, True, "127.0.0.1"),
    ],
)
async def test_only_a_proxys_own_word_says_whose_request_it_is(
    tmp_path: Path, forwarded: str | None, behind_proxy: bool, expected: str
) -> None:
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    async with serving(settings(tmp_path, behind_proxy=behind_proxy)) as served:
        assert (await served.ask("GET", "/who", "READER", headers=headers))[1] == ["READER", expected]


async def test_who_lies_about_an_address_is_slowed_down_all_the_same(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as served:
        codes = set()
        for number in range(40):
            wrong = signed("GET", f"http://{served.address}/who", "READER", secret="guess", now_s=time.time())
            wrong["X-Forwarded-For"] = f"203.0.113.{number}"
            codes.add((await served.ask("GET", "/who", headers=wrong))[2]["x-amzn-ErrorType"])
        assert codes == {"InvalidSignatureException", "ThrottlingException"}


async def test_an_open_door_is_not_opened_to_others() -> None:
    telemetry = Telemetry()
    server = Server(application(telemetry, Access(Settings(), time.time_ns)), "0.0.0.0:0", telemetry)
    with pytest.raises(ValueError, match="off loopback"):
        await server.start()


# ---- the audit trail ----


@asynccontextmanager
async def store_with(tmp_path: Path, changes: int) -> AsyncIterator[Store]:
    store = await Store.open(tmp_path / "s.sqlite", clock=lambda: 0)
    try:
        for number in range(changes):
            await store.write(_change(number))
        yield store
    finally:
        await store.close()


def _change(number: int) -> Callable[[trail.Con], None]:
    who = trail.Actor("ADMIN", "192.0.2.7")
    return lambda con: trail.note(con, number * NS, who, "CreateThing", f"thing/{number}", {"thingName": str(number)})


async def test_administrators_read_the_trail_newest_first_and_in_pages(tmp_path: Path) -> None:
    async with store_with(tmp_path, 5) as store, serving(settings(tmp_path), store) as served:
        assert (await served.ask("GET", "/-/audit", "OPERATOR"))[0] == 403
        status, answer, _ = await served.ask("GET", "/-/audit?limit=2", "ADMIN")
        page = msgspec.convert(answer["audit"], list[trail.Entry])
        assert (status, [entry.resource for entry in page]) == (200, ["thing/4", "thing/3"])
        rest = (await served.ask("GET", f"/-/audit?before={page[-1].id}&since_ns={1 * NS}", "ADMIN"))[1]["audit"]
        assert [entry["resource"] for entry in rest] == ["thing/2", "thing/1"]
        assert (await served.ask("GET", f"/-/audit?since_ns={time.time_ns()}", "ADMIN"))[:2] == (200, {"audit": []})


@pytest.mark.parametrize(
    "query", ["limit=x", "since_ns=-1", "before=1.5", "limit=%C2%B2", "before=" + "9" * 30, f"before={2**63}"]
)
async def test_a_question_about_the_trail_that_makes_no_sense_is_400(tmp_path: Path, query: str) -> None:
    async with store_with(tmp_path, 0) as store, serving(settings(tmp_path), store) as served:
        assert (await served.ask("GET", f"/-/audit?{query}", "ADMIN"))[0] == 400
