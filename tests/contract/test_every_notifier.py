"""What every kind of receiver promises, run over whatever `discover` finds: a new file is tested by existing."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from transitions import raised

from actors.notice import Notice, message, webhook_id
from config.model import Receivers
from daemon.notifiers import build_all, client_session, kinds
from daemon.notifiers._base import Notifier, NotifierKind, Retry, Tools

KINDS = kinds()
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
async def tools(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Tools]:
    """Whoever asks AWS finds credentials, and nobody there but who `options` says."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    async with client_session() as session:
        yield Tools(session, time.time_ns, {})


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> NotifierKind:
    return KINDS[request.param]


def options(kind: NotifierKind, folder: Path, port: int, tools: Tools) -> Any:
    """Options of a kind, its required members filled in by what their names say; the receiver is at `port`."""
    (folder / "secret").write_text(SECRET)
    cast("dict[str, str]", tools.endpoint_urls)["sns"] = f"http://127.0.0.1:{port}/"
    arn = "arn:aws:sns:eu-west-1:123456789012:alarms"
    url = f"http://127.0.0.1:{port}/"
    filled = {"name": "ops", "url": url, "arn": arn, "secret_file": folder / "secret", "timeout_s": 5.0}
    return kind.options(**{name: filled[name] for name in kind.options.__struct_fields__ if name in filled})


def notice() -> Notice:
    told = raised()
    name = webhook_id(told.violation_id, "in-alarm", "ops")
    return Notice(1, name, "ops", told.violation_id, "in-alarm", told.thing, told.time_ns, 0, message(told))


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_there_is_at_least_one_kind_and_each_has_options_of_its_own() -> None:
    assert KINDS
    assert len({kind.options for kind in KINDS.values()}) == len(KINDS)


def test_every_kind_can_be_configured(kind: NotifierKind) -> None:
    configurable = str(Receivers.__annotations__)
    assert kind.options.__name__ in configurable
    assert "name" in kind.options.__struct_fields__


async def test_what_is_configured_is_built_by_its_kind(
    kind: NotifierKind, tools: Tools, tmp_path: Path, closed_port: int
) -> None:
    given = options(kind, tmp_path, closed_port, tools)
    field = next(f for f, a in Receivers.__annotations__.items() if kind.options.__name__ in str(a))
    assert type(build_all(Receivers(**{field: (given,)}), tools)["ops"]) is type(kind.build(given, tools))


async def test_an_attempt_that_fails_is_an_outcome_and_no_exception(
    kind: NotifierKind, tools: Tools, tmp_path: Path, closed_port: int
) -> None:
    notifier: Notifier = kind.build(options(kind, tmp_path, closed_port, tools), tools)
    async with asyncio.timeout(10):
        outcome = await notifier.send(notice())
    assert isinstance(outcome, Retry)


async def test_an_attempt_ends_in_time_when_nobody_answers(kind: NotifierKind, tools: Tools, tmp_path: Path) -> None:
    async with mute_server() as (port, _):
        given = options(kind, tmp_path, port, tools)
        fields = {name: getattr(given, name) for name in given.__struct_fields__}
        quick = type(given)(**fields | ({"timeout_s": 0.1} if "timeout_s" in fields else {}))
        async with asyncio.timeout(30):
            outcome = await kind.build(quick, tools).send(notice())
    assert isinstance(outcome, Retry)


async def test_cancelling_an_attempt_cancels_it(kind: NotifierKind, tools: Tools, tmp_path: Path) -> None:
    async with mute_server() as (port, asked):
        task = asyncio.create_task(kind.build(options(kind, tmp_path, port, tools), tools).send(notice()))
        async with asyncio.timeout(10):
            await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@asynccontextmanager
async def mute_server() -> AsyncIterator[tuple[int, asyncio.Event]]:
    """Its port, and whether anyone has asked it anything. It never answers."""
    asked = asyncio.Event()
    writers: list[asyncio.StreamWriter] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.read(1)
        asked.set()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1], asked
    server.close()
    for writer in writers:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def test_no_secret_is_in_a_repr_an_identity_a_warning_or_an_outcome(
    kind: NotifierKind, tools: Tools, tmp_path: Path, closed_port: int
) -> None:
    notifier = kind.build(options(kind, tmp_path, closed_port, tools), tools)
    said = f"{notifier!r} {notifier.identity} {notifier.warnings} {await notifier.send(notice())!r}"
    assert SECRET.removeprefix("whsec_") not in said


async def test_equal_options_have_one_identity(
    kind: NotifierKind, tools: Tools, tmp_path: Path, closed_port: int
) -> None:
    given = options(kind, tmp_path, closed_port, tools)
    assert kind.build(given, tools).identity == kind.build(given, tools).identity
