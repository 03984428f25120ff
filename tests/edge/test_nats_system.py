"""A cluster's system account as a source: a real nats-server, and the table of what its messages say."""

import asyncio
import gc
import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from bridging import ListenerDouble, LogDouble, until
from hypothesis import given
from hypothesis import strategies as st
from log_server import LogServer
from mosquitto import free_port

from actors.events import CLIENT, COUNT, KIND, KINDS, Event, Packed, packed, unpacked
from config.model import Broker, MosquittoLog, Nats, Settings
from daemon.brokers._outlet import Outlet
from daemon.brokers._tally import Tally
from daemon.brokers.nats_system import SESSIONS_MAX, Advisories, NatsSystem, SystemTotals
from daemon.clock import SystemClock
from daemon.log.window import Refused
from daemon.log.writer import LogWriter
from daemon.nats.binary import find_binary
from daemon.sources import Sources
from daemon.telemetry import Telemetry

NOW_NS = 1_795_664_999_000_000_000
AT_NS = 1_795_664_465_648_970_757
AT = "2026-11-26T03:41:05.648970757Z"


def told(log: LogDouble) -> Counter[tuple[str, str]]:
    """{(kind, client): count}."""
    found: Counter[tuple[str, str]] = Counter()
    for entry in log.entries:
        content = msgspec.json.decode(entry.payload, type=Packed)
        for row in content.rows:
            found[KINDS[row[KIND]], content.clients[row[CLIENT]]] += row[COUNT]
    return found


# ---- single messages ----


def message(**more: Any) -> dict[str, Any]:
    client = {"start": AT, "host": "192.0.2.7", "id": 7, "acc": "APP", "user": "dev", "kind": "Client"}
    client |= {"client_type": "mqtt", "client_id": "p1"} | more.pop("client", {})
    return {"timestamp": AT, "server": {"id": "NSERVER", "name": "n1"}, "client": client, **more}


CONNECT, DISCONNECT, ERR = "$SYS.ACCOUNT.APP.CONNECT", "$SYS.ACCOUNT.APP.DISCONNECT", "$SYS.SERVER.N.CLIENT.AUTH.ERR"
REFUSED = {"reason": "Authentication Failure"}
BEGAN = Event(event="connected", client_id="p1", time=AT_NS, ip="192.0.2.7", user="dev", session="NSERVER:7")
ENDED = Event(event="disconnected", client_id="p1", time=AT_NS, user="dev", session="NSERVER:7")
FAILED = Event(event="connect-failed", client_id="p1", time=AT_NS, ip="192.0.2.7", user="dev")


def heard(*messages: tuple[str, Any], totals: SystemTotals | None = None) -> list[Event]:
    advisories, tally = Advisories(totals or SystemTotals()), Tally()
    for subject, payload in messages:
        content = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        advisories.hear(subject, content, NOW_NS, tally)
    return tally.taken()


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([(CONNECT, message())], [BEGAN]),
        ([(DISCONNECT, message(reason="Client Closed"))], [ENDED]),
        ([(ERR, message(**REFUSED)), (DISCONNECT, message(**REFUSED))], [FAILED]),
        ([(CONNECT, message()), (ERR, message(**REFUSED)), (DISCONNECT, message(**REFUSED))], [BEGAN, ENDED]),
        ([(CONNECT, message(client={"client_type": "nats", "client_id": None}))], []),
        ([(ERR, message(client={"client_id": None}, **REFUSED))], []),
        ([("$SYS.ACCOUNT.APP.CLAIMS", message())], []),
    ],
)
def test_messages_become_what_they_say(messages: list[tuple[str, Any]], expected: list[Event]) -> None:
    assert heard(*messages) == expected


@pytest.mark.parametrize(
    "time", ["", "yesterday", 7, "2999-01-01T00:00:00Z", None, "2026-11-26T03:41:05.648970757Z" * 9]
)
def test_a_time_that_can_not_be_is_that_of_receipt(time: Any) -> None:
    assert [event.time for event in heard((CONNECT, {**message(), "timestamp": time}))] == [NOW_NS]


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b"{}", b'{"client": 7}', b'{"client": {"client_type": "mqtt"}}', b"\xff"]
)
def test_what_makes_no_sense_is_counted(payload: bytes) -> None:
    totals = SystemTotals()
    assert heard((CONNECT, payload), totals=totals) == []
    assert totals.unreadable == 1


def test_remembered_connections_are_bounded() -> None:
    totals = SystemTotals()
    advisories, tally = Advisories(totals), Tally()
    template = json.dumps(message()).replace('"id": 7', '"id": %d')
    for number in range(SESSIONS_MAX + 3):
        advisories.hear(CONNECT, (template % number).encode(), NOW_NS, tally)
    assert len(advisories._sessions) == SESSIONS_MAX
    assert totals.forgotten == 3


ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=2)
CLIENTS = st.dictionaries(st.sampled_from(["client_id", "host", "user", "id"]), ANYTHING).map(
    lambda one: {"client_type": "mqtt", "client_id": "p1", **one}
)
MESSAGES = st.builds(
    lambda client, time, server: json.dumps({"client": client, "timestamp": time, "server": {"id": server}}).encode(),
    CLIENTS, ANYTHING, ANYTHING,
)  # fmt: skip


@given(st.sampled_from([CONNECT, DISCONNECT, ERR]), st.binary() | MESSAGES)
def test_whatever_comes_the_log_can_carry_it(subject: str, payload: bytes) -> None:
    events = heard((subject, payload))
    assert len(events) <= 1
    assert all(unpacked(packed([event])) for event in events)


# ---- the real one ----


class Cluster:
    """One nats-server with a system account, and devices that log in."""

    def __init__(self, folder: Path) -> None:
        self.port, self.mqtt = free_port(), free_port()
        self._config = folder / "server.conf"
        self._log = folder / "server.log"
        self._config.write_text(
            f"server_name: n1\nlisten: 127.0.0.1:{self.port}\njetstream {{ store_dir: {folder}/js }}\n"
            f"mqtt {{ listen: 127.0.0.1:{self.mqtt} }}\nsystem_account: SYS\n"
            "accounts { SYS { users: [{user: system, password: s3cret}] }\n"
            "  APP { jetstream: enabled, users: [{user: dev, password: d}] } }\n"
        )
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as out:
            self._child = subprocess.Popen([find_binary().path, "-c", self._config], stdout=out, stderr=out)

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait(20)
            self._child = None

    async def device(self, client: str, password: str = "d") -> None:
        """Comes, and goes."""
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", DEVICE, str(self.mqtt), client, password,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        await asyncio.wait_for(child.wait(), 30)


DEVICE = """
import socket, sys
port, client, password = sys.argv[1:]
fields = b"".join(len(text).to_bytes(2, "big") + text for text in (client.encode(), b"dev", password.encode()))
body = bytes([0, 4]) + b"MQTT" + bytes([4, 0xC2, 0, 60]) + fields
with socket.create_connection(("127.0.0.1", int(port))) as connection:
    connection.sendall(bytes([0x10, len(body)]) + body)
    connection.recv(4)
    connection.sendall(bytes([0xE0, 0]))
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    server = Cluster(tmp_path)
    server.start()
    yield server
    server.kill()


def options(folder: Path, cluster: Cluster, password: str = "s3cret") -> Nats:
    (folder / "system").write_text(f"system:{password}\n")
    return Nats(url=f"nats://127.0.0.1:{cluster.port}", system_credentials_file=folder / "system")


@asynccontextmanager
async def listening(given: Nats, log: LogDouble, listener: ListenerDouble | None = None) -> AsyncIterator[NatsSystem]:
    totals = SystemTotals()
    outlet = Outlet("cluster", log, SystemClock(), lambda: 0.1, totals)
    source = NatsSystem(given, outlet, listener or ListenerDouble(), SystemClock(), totals)
    task = asyncio.create_task(source.run())
    try:
        yield source
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_who_comes_goes_and_is_refused_is_told(tmp_path: Path, cluster: Cluster) -> None:
    log = LogDouble()
    async with listening(options(tmp_path, cluster), log) as source:
        await until(lambda: source.totals.connected)
        await cluster.device("p1")
        await cluster.device("p2", password="wrong")
        await until(lambda: sum(told(log).values()) >= 3)
    assert told(log) == {("connected", "p1"): 1, ("disconnected", "p1"): 1, ("connect-failed", "p2"): 1}
    assert {entry.subject for entry in log.entries} == {"detectd.log.events.cluster"}


async def test_it_comes_back_after_the_server_did_and_says_since_when_it_was_away(
    tmp_path: Path, cluster: Cluster
) -> None:
    log, listener = LogDouble(), ListenerDouble()
    async with listening(options(tmp_path, cluster), log, listener) as source:
        await until(lambda: source.totals.connected)
        cluster.kill()
        await until(lambda: not source.totals.connected)
        cluster.start()
        await until(lambda: source.totals.connected)
        await cluster.device("p1")
        await until(lambda: told(log)["disconnected", "p1"] == 1)
    assert listener.ups[0] is None or len(listener.ups) > 2  # the server may be slower than we at the start
    assert listener.ups[-1] is not None
    assert source.totals.reconnects >= 1


@pytest.mark.parametrize(
    "greeting", [b"", b"INFO {}\r\n", b"HTTP/1.1 400\r\n\r\n", b'INFO {"max_payload": 1}\r\nPONG\r\n']
)
async def test_what_is_no_nats_server_is_tried_again_and_leaves_nothing_open(tmp_path: Path, greeting: bytes) -> None:
    asked = 0

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        writer.write(greeting)
        writer.close()

    (tmp_path / "system").write_text("system:s3cret\n")
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with listening(Nats(url=url, system_credentials_file=tmp_path / "system"), LogDouble()) as source:
            await until(lambda: asked >= 2)
            assert not source.totals.connected
    for _ in range(20):  # a transport that was closed lets go of its socket in one of the next turns
        await asyncio.sleep(0)
    gc.collect()  # an open socket would be a warning now, and so an error


async def test_a_wrong_password_is_said_and_not_shown(tmp_path: Path, cluster: Cluster, capsys: Any) -> None:
    async with listening(options(tmp_path, cluster, "hunter2"), LogDouble()) as source:
        await until(lambda: "uthorization" in source.status()["why"])
    assert "hunter2" not in str(source.status()) + capsys.readouterr().out


async def test_what_was_heard_is_stored_when_it_ends(tmp_path: Path, cluster: Cluster) -> None:
    log = LogDouble()
    async with listening(options(tmp_path, cluster), log) as source:
        await until(lambda: source.totals.connected)
        log.gate.clear()
        await cluster.device("p1")
        await until(lambda: source.totals.heard >= 2)
        asyncio.get_running_loop().call_later(0.1, log.gate.set)
    assert told(log) == {("connected", "p1"): 1, ("disconnected", "p1"): 1}


async def test_while_the_log_is_away_what_is_kept_is_bounded(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.brokers._tally.KEYS_MAX", 4)
    log = LogDouble()
    log.gate.clear()
    async with listening(options(tmp_path, cluster), log) as source:
        await until(lambda: source.totals.connected)
        for number in range(8):
            await cluster.device(f"p{number}")
        await until(lambda: source.totals.shed > 0)
        log.gate.set()
        # The server may tell it of its own connection, too, which is no device's.
        await until(lambda: source.totals.heard - 1 <= sum(told(log).values()) <= source.totals.heard)
    assert 4 <= sum(told(log).values()) <= 8
    assert source.totals.heard <= 8 + 1


# ---- the way into the log ----


async def test_an_entry_that_the_log_never_takes_does_not_hold_up_the_others() -> None:
    class Picky(LogDouble):
        async def append_many(self, entries: Any, /) -> Any:
            if any(b"large" in entry.payload for entry in entries):
                raise Refused("too large")
            return await super().append_many(entries)

    log, totals = Picky(), SystemTotals()
    outlet = Outlet("cluster", log, SystemClock(), lambda: 0.0, totals)
    await outlet.hand_over([b"a", b"large", b"b"], "token")
    assert log.payloads == [b"a", b"b"]
    assert (totals.stored, totals.refused) == (2, 1)
    assert len({entry.headers["Nats-Msg-Id"] for entry in log.entries}) == 2


async def test_what_is_handed_over_twice_under_one_token_is_in_the_log_once(tmp_path: Path) -> None:
    server = LogServer(tmp_path)
    await server.start()
    try:
        await server.create_log(duplicate_window=60_000_000_000)
        for _ in range(2):  # a daemon, and the one after it
            async with LogWriter(server.access) as writer:
                outlet = Outlet("plant", writer, SystemClock(), lambda: 0.0, SystemTotals())
                await outlet.hand_over([b"first", b"second"], "token")
        assert (await server.ask("STREAM.INFO.LOG"))["state"]["messages"] == 2
    finally:
        server.stop()


async def test_sources_start_stop_and_are_counted(tmp_path: Path, cluster: Cluster) -> None:
    path = tmp_path / "mosquitto.log"
    path.touch()
    broker = Broker(nats=options(tmp_path, cluster), mosquitto_logs=(MosquittoLog(name="plant", path=path),))
    log, telemetry = LogDouble(), Telemetry()
    sources = Sources(
        Settings(data_dir=tmp_path, broker=broker), log, ListenerDouble(), telemetry, SystemClock(), lambda: 0.1
    )
    sources.start()
    await until(lambda: all(not one["why"] for one in sources.status().values()))
    with path.open("a") as file:
        file.write("1795664879: Client p9 disconnected.\n")
    await cluster.device("p1")
    await until(lambda: sum(told(log).values()) == 3)
    shown = telemetry.render().decode()
    assert 'detectd_source_connected{source="cluster"} 1.0' in shown
    assert 'detectd_source_lines_total{source="plant"} 1.0' in shown
    await sources.stop()
    assert sources.status() == {}
