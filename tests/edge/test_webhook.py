"""Webhooks on loopback: signatures that strangers verify, and an honest outcome for whatever a receiver does."""

import asyncio
import json
import logging
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import pytest
import trustme
from aiohttp import web
from standardwebhooks import Webhook as Verifier
from transitions import START_NS, raised

from actors.notice import Notice, message, webhook_id
from config.model import Receivers, Webhook
from daemon.notifiers import ReceiverError, build_all, client_session
from daemon.notifiers._base import Delivered, Disabled, Notifier, Outcome, Reason, Retry, Tools
from daemon.notifiers.webhook import build, payload, rfc3339

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_SECRET = "whsec_" + "q" * 32


def notice(thing: str = "meter-12", receiver: str = "ops") -> Notice:
    told = raised(thing)
    return Notice(
        id=1,
        webhook_id=webhook_id(told.violation_id, "in-alarm", receiver),
        receiver=receiver,
        violation_id=told.violation_id,
        event_type="in-alarm",
        thing=thing,
        time_ns=told.time_ns,
        created_ns=START_NS,
        message=message(told),
    )


class Site:
    """A receiver on loopback: answers as told, and remembers what it got."""

    def __init__(self) -> None:
        self.status = 204
        self.headers: dict[str, str] = {}
        self.answer: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.peers: set[object] = set()
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.got.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        assert request.transport is not None
        self.peers.add(request.transport.get_extra_info("peername"))
        if self.answer is not None:
            return await self.answer(request)
        return web.Response(status=self.status, headers=self.headers)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", site.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    site.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield site
    await runner.cleanup()


@pytest.fixture
async def tools() -> AsyncIterator[Tools]:
    async with client_session() as session:
        yield Tools(session, time.time_ns)


def webhook(
    url: str, tools: Tools, folder: Path | None = None, secret: str = SECRET, timeout_s: float = 15.0
) -> Notifier:
    file = None
    if folder is not None:
        file = folder / "key"
        file.write_text(secret)
    return build(Webhook(name="ops", url=url, secret_file=file, timeout_s=timeout_s), tools)


async def test_a_webhook_is_verified_by_the_package_of_the_standard(site: Site, tools: Tools, tmp_path: Path) -> None:
    assert await webhook(site.url, tools, tmp_path, f"\n {SECRET} \n").send(notice("ünïcode")) == Delivered()
    ((headers, body),) = site.got
    data = Verifier(SECRET).verify(body, headers)
    assert data["type"] == "alarm.in-alarm"
    assert data["timestamp"] == "2026-01-02T03:05:00.000Z"
    assert data["data"] == json.loads(notice("ünïcode").message)
    assert headers["webhook-id"] == headers["idempotency-key"] == notice("ünïcode").webhook_id
    assert headers["user-agent"].startswith("detectd/")
    assert headers["content-type"] == "application/json"


async def test_a_webhook_is_verified_by_another_language(site: Site, tools: Tools, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on PATH: the JavaScript verification is left out")
    await webhook(site.url, tools, tmp_path).send(notice("ünïcode"))
    ((headers, body),) = site.got
    script = Path(__file__).parent.parent / "data" / "verify_webhook.mjs"

    async def verdict(**changed: object) -> tuple[int, str]:
        given = {"secret": SECRET, "headers": headers, "body": body.decode()} | changed
        process = await asyncio.create_subprocess_exec(
            node, str(script), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        out, _ = await process.communicate(json.dumps(given).encode())
        assert process.returncode is not None
        return process.returncode, out.decode().strip()

    assert await verdict() == (0, "alarm.in-alarm")
    assert await verdict(body=body.decode().replace("meter", "motor").replace("ü", "u")) == (1, "")
    assert await verdict(secret=OTHER_SECRET) == (1, "")


async def test_while_a_key_is_replaced_both_verify(site: Site, tools: Tools, tmp_path: Path) -> None:
    await webhook(site.url, tools, tmp_path, f"{SECRET}\n{OTHER_SECRET}\n").send(notice())
    ((headers, body),) = site.got
    for secret in (SECRET, OTHER_SECRET):
        assert Verifier(secret).verify(body, headers)["type"] == "alarm.in-alarm"


async def test_without_a_secret_file_it_is_sent_unsigned_and_warned_of(site: Site, tools: Tools) -> None:
    unsigned = webhook(site.url, tools)
    assert await unsigned.send(notice()) == Delivered()
    assert "webhook-signature" not in site.got[0][0]
    assert unsigned.warnings == ("without a secret_file its webhooks are not signed",)


async def test_every_attempt_sends_the_same_bytes_at_its_own_time(site: Site, tools: Tools, tmp_path: Path) -> None:
    one, later = notice(), replace(notice(), attempts=4)
    await webhook(site.url, tools, tmp_path).send(one)
    hours_later = Tools(tools.session, lambda: time.time_ns() + 7200 * 10**9)
    await webhook(site.url, hours_later, tmp_path).send(later)
    (first, second) = site.got
    assert first[1] == second[1]
    assert first[0]["webhook-id"] == second[0]["webhook-id"]
    assert int(second[0]["webhook-timestamp"]) - int(first[0]["webhook-timestamp"]) >= 7200


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Delivered()),
        (202, Delivered()),
        (301, Retry(Reason.REDIRECT, "HTTP 301")),
        (304, Retry(Reason.REDIRECT, "HTTP 304")),
        (400, Retry(Reason.CLIENT_ERROR, "HTTP 400")),
        (404, Retry(Reason.CLIENT_ERROR, "HTTP 404")),
        (410, Disabled(detail="HTTP 410")),
        (429, Retry(Reason.THROTTLED, "HTTP 429")),
        (500, Retry(Reason.SERVER_ERROR, "HTTP 500")),
        (503, Retry(Reason.SERVER_ERROR, "HTTP 503")),
    ],
)
async def test_only_2xx_is_a_success(site: Site, tools: Tools, status: int, outcome: Outcome) -> None:
    site.status = status
    assert await webhook(site.url, tools).send(notice()) == outcome


async def test_a_redirect_is_not_followed(site: Site, tools: Tools) -> None:
    site.status, site.headers = 307, {"Location": site.url + "/elsewhere"}
    assert await webhook(site.url, tools).send(notice()) == Retry(Reason.REDIRECT, "HTTP 307")
    assert len(site.got) == 1


@pytest.mark.parametrize(
    ("given", "after_s"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("soon", None),
        ("-5", None),
        ("1e9", None),
        ("٣", None),
        ("99999999999999999999", 1e12),
    ],
)
async def test_retry_after_in_seconds_is_passed_on(site: Site, tools: Tools, given: str, after_s: float | None) -> None:
    site.status, site.headers = 503, {"Retry-After": given}
    outcome = await webhook(site.url, tools).send(notice())
    assert isinstance(outcome, Retry)
    assert outcome.after_s == (after_s if after_s is None else pytest.approx(after_s, rel=1e-6))


async def test_retry_after_as_a_date_is_passed_on(site: Site, tools: Tools) -> None:
    site.status, site.headers = 429, {"Retry-After": formatdate(time.time() + 600, usegmt=True)}
    outcome = await webhook(site.url, tools).send(notice())
    assert isinstance(outcome, Retry)
    assert outcome.after_s == pytest.approx(600, abs=60)


async def test_a_connection_is_used_again(site: Site, tools: Tools) -> None:
    ops = webhook(site.url, tools)
    site.answer = lambda _: _respond(web.Response(text="thank you" * 100))
    for _ in range(5):
        assert await ops.send(notice()) == Delivered()
    assert len(site.peers) == 1


async def _respond(response: web.Response) -> web.Response:
    return response


async def test_an_endless_answer_is_not_read_to_its_end(site: Site, tools: Tools) -> None:
    sent = 0

    async def flood(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65_536)
                sent += 65_536
        except ConnectionError:
            return response

    site.answer = flood
    assert await webhook(site.url, tools).send(notice()) == Delivered()
    assert sent < 50_000_000


async def test_an_answer_whose_body_never_ends_is_still_the_answer(site: Site, tools: Tools) -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x")
        await asyncio.Event().wait()
        return response

    site.answer = drip
    async with asyncio.timeout(10):
        assert await webhook(site.url, tools).send(notice()) == Delivered()


async def test_a_receiver_that_does_not_answer_in_time_is_a_timeout(site: Site, tools: Tools) -> None:
    async def never(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    site.answer = never
    assert await webhook(site.url, tools, timeout_s=0.1).send(notice()) == Retry(Reason.TIMEOUT)


async def test_a_closed_port_is_unreachable(tools: Tools) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        outcome = await webhook(f"http://127.0.0.1:{port}/", tools).send(notice())
    assert isinstance(outcome, Retry)
    assert outcome.reason is Reason.UNREACHABLE


async def test_a_server_that_speaks_something_else_is_a_protocol_error(tools: Tools) -> None:
    async def gibberish(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.com ESMTP\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(gibberish, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    outcome = await webhook(f"http://127.0.0.1:{port}/", tools).send(notice())
    server.close()
    await server.wait_closed()
    assert isinstance(outcome, Retry)
    assert outcome.reason is Reason.PROTOCOL


async def test_a_certificate_that_nobody_vouches_for_is_refused(tools: Tools) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    site = Site()
    runner = web.AppRunner(app := web.Application())
    app.router.add_post("/", site.handle)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    outcome = await webhook(f"https://127.0.0.1:{runner.addresses[0][1]}/", tools).send(notice())
    await runner.cleanup()
    assert isinstance(outcome, Retry)
    assert outcome.reason is Reason.TLS
    assert site.got == []


async def test_no_outcome_log_or_repr_holds_the_secret_or_the_url(
    site: Site, tools: Tools, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = "t0ken-in-the-path"
    outcomes = []
    for status in (200, 302, 410, 500):
        site.status = status
        ops = webhook(f"{site.url}/{token}?key={token}", tools, tmp_path)
        outcomes.append(await ops.send(notice()))
    outcomes.append(await webhook(f"http://user:{token}@127.0.0.1:1/", tools, tmp_path).send(notice()))
    said = f"{outcomes!r} {ops!r} {vars(ops)['_signers']!r} {caplog.text}"
    assert token not in said
    assert SECRET.removeprefix("whsec_") not in said


@pytest.mark.parametrize("secret", ["", "hunter2-not-a-key", "whsec_", "whsec_%%%", f"{SECRET} hunter2"])
async def test_a_secret_that_cannot_sign_is_refused_without_being_quoted(
    tools: Tools, tmp_path: Path, secret: str
) -> None:
    with pytest.raises(ValueError, match="must hold a key") as raised_error:
        webhook("http://127.0.0.1/", tools, tmp_path, secret)
    said = f"{raised_error.value} {raised_error.value.__cause__} {raised_error.value.__context__}"
    assert "hunter2" not in said
    assert "%%%" not in said


async def test_all_receivers_that_cannot_be_built_are_named_at_once(tools: Tools, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xff\xfe")
    receivers = Receivers(
        webhooks=(
            Webhook(name="good", url="http://127.0.0.1:9/"),
            Webhook(name="ftp", url="ftp://example.com/"),
            Webhook(name="gone", url="http://127.0.0.1:9/", secret_file=tmp_path / "nowhere"),
            Webhook(name="bytes", url="http://127.0.0.1:9/", secret_file=tmp_path / "key"),
            Webhook(name="port", url="http://127.0.0.1:99999/t0ken"),
        )
    )
    with pytest.raises(ReceiverError) as refused:
        build_all(receivers, tools)
    assert [problem.split(":")[0] for problem in refused.value.problems] == [
        f"receiver '{name}'" for name in ("ftp", "gone", "bytes", "port")
    ]
    assert "t0ken" not in str(refused.value)


async def test_equal_options_and_secrets_are_recognised(tools: Tools, tmp_path: Path) -> None:
    first = webhook("http://127.0.0.1:9/", tools, tmp_path)
    assert webhook("http://127.0.0.1:9/", tools, tmp_path).identity == first.identity
    assert webhook("http://127.0.0.1:9/", tools, tmp_path, OTHER_SECRET).identity != first.identity
    assert webhook("http://127.0.0.1:8/", tools, tmp_path).identity != first.identity
    assert SECRET not in first.identity


def test_the_time_in_a_payload_is_the_events_in_utc() -> None:
    assert rfc3339(1_767_323_045_678_901_234) == "2026-01-02T03:04:05.678Z"
    assert json.loads(payload(notice()))["timestamp"] == "2026-01-02T03:05:00.000Z"
