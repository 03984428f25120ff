"""The sensor on loopback: in front of a real Mosquitto, and of a broker that is no more than a socket."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiomqtt
import naive_mqtt
import pytest
import trustme
from mosquitto import Mosquitto
from naive_mqtt import publish, subscribe
from sensing import DEADLINE_S, LogDouble, OpenDoor, sensing, until
from structlog.testing import capture_logs

from config.address import Address
from config.model import Tls
from daemon.clock import VirtualClock
from daemon.sensor import sensor, tls
from daemon.sensor.door import Anyone, Hello, Pass, Refusal
from daemon.sensor.newcomers import GREETING_S
from daemon.sensor.sensor import Bounds, Sensor
from daemon.sensor.upstream import Upstream

VERSIONS = [aiomqtt.ProtocolVersion.V311, aiomqtt.ProtocolVersion.V5]
CONNACK = b"\x20\2\0\0"


@pytest.fixture
async def mosquitto(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    broker = Mosquitto(tmp_path / "broker")
    await broker.start()
    yield broker
    broker.stop()


def client(address: Address, identifier: str, **options: Any) -> aiomqtt.Client:
    return aiomqtt.Client(address.host, address.port, identifier=identifier, **options)


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_a_client_does_is_in_the_log_a_second_later(mosquitto: Mosquitto, version: Any) -> None:
    async with sensing(mosquitto.port) as seen:
        async with client(seen.address, "p1", protocol=version, username="bob") as p1:
            await p1.subscribe("x/#", qos=2)
            for number in range(30):
                await p1.publish("x/a", b"y" * number, qos=number % 3)
            await p1.publish("x/b", b"12345", qos=1)
            received = 0
            async for _ in p1.messages:
                received += 1
                if received == 31:
                    break
        await seen.noted("disconnected", "p1")
    assert [one for one in seen.log.events() if one[0] in ("connected", "disconnected")] == [
        ("connected", "p1", "", 1),
        ("disconnected", "p1", "", 1),
    ]
    for kind in ("published", "delivered"):
        assert (seen.log.count(kind, "p1", "x/a"), seen.log.count(kind, "p1", "x/b")) == (30, 1)
    assert (seen.counts.connected, seen.counts.disconnected, seen.counts.left) == (1, 1, 1)
    assert seen.counts.published == seen.counts.delivered == 31


async def test_the_first_entry_says_that_all_connections_have_ended(mosquitto: Mosquitto) -> None:
    async with sensing(mosquitto.port) as seen, client(seen.address, "p1"):
        await seen.noted("connected", "p1")
    assert [(cut.source, cut.cut) for cut in seen.log.cuts()] == [("plant", True)]
    assert seen.log.entries[0].subject == "detectd.log.resumed"


async def test_a_large_message_goes_through_both_ways_as_it_is(mosquitto: Mosquitto) -> None:
    body = bytes(range(256)) * 20_000
    async with sensing(mosquitto.port) as seen, client(seen.address, "p1") as p1:
        await p1.subscribe("big")
        await p1.publish("big", body, qos=1, timeout=DEADLINE_S)
        message = await anext(aiter(p1.messages))
        assert message.payload == body
        await seen.noted("delivered", "p1", "big")


async def test_a_wrong_password_is_a_failed_attempt_and_a_refusal(tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    passwords.write_text("")
    broker = Mosquitto(tmp_path / "broker", "allow_anonymous false", f"password_file {passwords}")
    await broker.start()
    try:
        async with sensing(broker.port) as seen:
            for version in VERSIONS:
                with pytest.raises(aiomqtt.MqttError):
                    await client(seen.address, "p1", protocol=version, username="a", password="b").__aenter__()
            await seen.noted("denied", "p1", times=2)
            await seen.noted("connect-failed", "p1", times=2)
            assert seen.log.count("connected", "p1") == 0
    finally:
        broker.stop()


async def test_a_publish_that_the_broker_refuses_is_seen_in_mqtt_5(tmp_path: Path) -> None:
    rules = tmp_path / "acl"
    rules.write_text("topic readwrite free/#\n")
    broker = Mosquitto(tmp_path / "broker", f"acl_file {rules}")
    await broker.start()
    try:
        async with sensing(broker.port) as seen:
            reader, writer = await seen.connection()
            writer.write(naive_mqtt.connect("p1", level=5) + publish(b"forbidden", b"x", 1, 7, b""))
            assert b"\x40\3\0\7\x87" in await closed(reader)  # then Mosquitto 2.0.11 hangs up
            await seen.noted("denied", "p1")
            await seen.noted("disconnected", "p1")
            assert seen.log.count("denied", "p1") == 1
            writer.close()
    finally:
        broker.stop()


# A broker that is no more than a socket


@dataclass
class Socket:
    """The broker's end of one client."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def read(self, size: int) -> bytes:
        return await asyncio.wait_for(self.reader.readexactly(size), DEADLINE_S)

    async def takes(self, greeting: bytes) -> None:
        assert await self.read(len(greeting)) == greeting
        self.writer.write(CONNACK)

    async def is_left(self) -> bytes:
        """What comes until the client's end."""
        try:
            return await asyncio.wait_for(self.reader.read(), DEADLINE_S)
        except ConnectionError:
            return b""


class Bare:
    def __init__(self) -> None:
        self.clients: asyncio.Queue[Socket] = asyncio.Queue()
        self.port = 0

    async def client(self) -> Socket:
        return await asyncio.wait_for(self.clients.get(), DEADLINE_S)


@asynccontextmanager
async def bare() -> AsyncIterator[Bare]:
    broker = Bare()
    writers = []

    async def come(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        broker.clients.put_nowait(Socket(reader, writer))

    server = await asyncio.start_server(come, "127.0.0.1", 0)
    broker.port = server.sockets[0].getsockname()[1]
    try:
        yield broker
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await server.wait_closed()


async def closed(reader: asyncio.StreamReader) -> bytes:
    """What a client hears until it is disconnected."""
    try:
        return await asyncio.wait_for(reader.read(), DEADLINE_S)
    except ConnectionError:
        return b""


async def test_a_client_that_never_greets_is_closed_in_time_and_costs_nobody_else() -> None:
    clock = VirtualClock()
    async with bare() as broker, sensing(broker.port, clock=clock) as seen:
        reader, writer = await seen.connection()
        await until(lambda: seen.counts.ungreeted == 1)
        for _ in range(int(GREETING_S) + 2):
            await clock.advance(1.0)
        assert await closed(reader) == b""
        assert (seen.counts.silent, seen.counts.ungreeted, seen.counts.connections) == (1, 0, 0)
        writer.close()


async def test_who_keeps_silent_for_longer_than_it_said_is_put_out_by_us_where_reports_are_taken() -> None:
    clock = VirtualClock()
    upstream = Upstream(lambda: Address("127.0.0.1", broker.port), login=(b"device", b"secret"))
    async with bare() as broker, sensing(0, clock=clock, upstream=upstream, takes_reports=True) as seen:
        clients = {}
        for name, keep_alive in (("quiet", 4), ("busy", 4), ("patient", 0)):
            clients[name] = reader, writer = await seen.connection()
            writer.write(naive_mqtt.connect(name, keep_alive=keep_alive))
            socket = await broker.client()
            await socket.takes(naive_mqtt.connect(name, user="device", password=b"secret"))
            assert await asyncio.wait_for(reader.readexactly(4), DEADLINE_S) == CONNACK
        for number in range(1, 10):
            reader, writer = clients["busy"]
            writer.write(publish(b"$aws/things/busy/defender/metrics/json", b"{}", 1, number))
            assert await asyncio.wait_for(reader.readexactly(4), DEADLINE_S) == b"\x40\2\0" + bytes([number])
            await clock.advance(1.0)
        assert await closed(clients["quiet"][0]) == b""
        assert (seen.counts.lapsed, seen.counts.connections, seen.counts.reports) == (1, 2, 9)
        for _, writer in clients.values():
            writer.close()


async def test_beyond_the_bound_the_oldest_that_has_not_greeted_goes() -> None:
    async with bare() as broker, sensing(broker.port, bounds=Bounds(ungreeted=2)) as seen:
        first, writer = await seen.connection()
        await until(lambda: seen.counts.ungreeted == 1)
        others = [await seen.connection() for _ in range(2)]
        assert await closed(first) == b""
        assert seen.counts.crowded == 1
        greeting = naive_mqtt.connect("p1")
        others[1][1].write(greeting)
        await (await broker.client()).takes(greeting)
        assert await others[1][0].readexactly(4) == CONNACK
        for one in (writer, others[0][1], others[1][1]):
            one.close()


async def test_who_has_to_go_before_its_turn_comes_is_closed_too() -> None:
    async with bare() as broker, sensing(broker.port, bounds=Bounds(ungreeted=0)) as seen:
        reader, writer = await seen.connection()
        assert await closed(reader) == b""
        assert (seen.counts.crowded, seen.counts.ungreeted, seen.counts.connections) == (1, 0, 0)
        writer.close()


@pytest.mark.parametrize(("files_for", "limit"), [(1, "open files"), (2, "clients")])
async def test_beyond_the_bound_of_connections_the_newest_is_turned_away(
    files_for: int, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensor, "links_max", lambda: files_for)
    most = Bounds(connections=3 - files_for)
    async with bare() as broker, sensing(broker.port, bounds=most) as seen:
        _, one = await seen.connection()
        await until(lambda: seen.counts.connections == 1)
        with capture_logs() as lines:
            reader, two = await seen.connection()
            assert await closed(reader) == b""
        assert (seen.counts.crowded, seen.counts.connections) == (1, 1)
        [line] = [line for line in lines if line["event"] == "sensor.crowded"]
        assert (line["clients"], limit in line["why"]) == (1, True)
        one.close()
        two.close()


async def test_who_arrives_counts_once_toward_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []
    arrived = Sensor.arrived

    def counting(sensor: Sensor, link: Any) -> None:
        arrived(sensor, link)  # its handshake's task has not heard of it yet
        counted.append(sensor.counts.connections + sensor._newcomers.handshakes)

    monkeypatch.setattr(Sensor, "arrived", counting)
    async with bare() as broker, sensing(broker.port) as seen:
        come = [await seen.connection() for _ in range(3)]
        await until(lambda: seen.counts.connections == 3)
        for _, writer in come:
            writer.close()
    assert counted == [1, 2, 3]


@pytest.mark.parametrize(
    ("data", "counter"),
    [
        (b"\x10\x81\x80\x04", "oversize"),
        (b"GET / HTTP/1.1\r\n\r\n", "malformed"),
        (b"\x10\xff\xff\xff\xff\x01", "malformed"),
    ],
)
async def test_a_greeting_that_makes_no_sense_costs_only_its_own_connection(data: bytes, counter: str) -> None:
    async with bare() as broker, sensing(broker.port) as seen:
        reader, writer = await seen.connection()
        writer.write(data)
        assert await closed(reader) == b""
        assert getattr(seen.counts, counter) == 1
        assert broker.clients.empty()
        writer.close()


async def test_a_client_that_reads_nothing_makes_the_broker_wait_and_nobody_else() -> None:
    async with bare() as broker, sensing(broker.port) as seen:
        _, slow = await greeted(seen, broker, "slow")
        there = broker_of["slow"]
        assert await taken_of(there.writer) < TOO_MUCH
        reader, quick = await greeted(seen, broker, "quick")
        broker_of["quick"].writer.write(publish(b"d", b"y"))
        assert await asyncio.wait_for(reader.readexactly(6), DEADLINE_S) == publish(b"d", b"y")
        slow.transport.abort()
        quick.close()


async def test_a_broker_that_reads_nothing_makes_its_client_wait() -> None:
    async with bare() as broker, sensing(broker.port) as seen:
        _, writer = await greeted(seen, broker, "p1")
        there = broker_of["p1"]
        there.reader._transport.pause_reading()  # type: ignore[attr-defined]
        assert await taken_of(writer) < TOO_MUCH
        writer.transport.abort()


TOO_MUCH = 50_000_000  # more than all sockets on the way hold


async def taken_of(writer: asyncio.StreamWriter) -> int:
    """Bytes that are taken until no more are."""
    sent = 0
    while sent < 2 * TOO_MUCH:
        writer.write(publish(b"d", b"x" * 60_000))
        sent += 60_000
        try:
            await asyncio.wait_for(writer.drain(), 0.5)
        except TimeoutError:
            break
    return sent


broker_of: dict[str, Socket] = {}


async def greeted(seen: Any, broker: Bare, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await seen.connection()
    greeting = naive_mqtt.connect(name)
    writer.write(greeting)
    broker_of[name] = await broker.client()
    await broker_of[name].takes(greeting)
    assert await asyncio.wait_for(reader.readexactly(4), DEADLINE_S) == CONNACK
    return reader, writer


async def test_a_broker_that_is_away_is_a_failed_attempt_of_its_clients() -> None:
    async with bare() as broker:
        port = broker.port
    async with sensing(port) as seen:
        reader, writer = await seen.connection()
        writer.write(naive_mqtt.connect("p1"))
        assert await closed(reader) == b""
        assert seen.counts.unreachable == 1
        await seen.noted("connect-failed", "p1")
        writer.close()


class Slow(OpenDoor):
    """Answers when it may."""

    def __init__(self) -> None:
        self.asked, self.may_answer = asyncio.Event(), asyncio.Event()

    async def admit(self, hello: Hello) -> Pass | Refusal:
        self.asked.set()
        await self.may_answer.wait()
        return await super().admit(hello)


async def test_a_client_that_leaves_while_it_waits_leaves_nothing_behind() -> None:
    door = Slow()
    async with bare() as broker, sensing(broker.port, door=door) as seen:
        _, writer = await seen.connection()
        writer.write(naive_mqtt.connect("p1") + b"\xc0\0")
        await door.asked.wait()
        writer.transport.abort()
        door.may_answer.set()
        await until(lambda: seen.counts.waiting == 0 and seen.counts.connections == 0)
        assert await (await broker.client()).is_left() in (b"", naive_mqtt.connect("p1") + b"\xc0\0")


async def test_beyond_the_bound_of_those_who_wait_the_newest_is_turned_away() -> None:
    door = Slow()
    async with bare() as broker, sensing(broker.port, door=door, bounds=Bounds(waiting=1)) as seen:
        one_reader, one = await seen.connection()
        one.write(naive_mqtt.connect("one"))
        await door.asked.wait()
        reader, two = await seen.connection()
        two.write(naive_mqtt.connect("two"))
        assert await closed(reader) == b""
        assert seen.counts.crowded == 1
        door.may_answer.set()
        await (await broker.client()).takes(naive_mqtt.connect("one"))
        assert await asyncio.wait_for(one_reader.readexactly(4), DEADLINE_S) == CONNACK
        one.close()
        two.close()


async def test_what_is_held_of_all_clients_is_bounded_and_given_back() -> None:
    async with bare() as broker, sensing(broker.port) as seen:
        whole, seen.sensor.room.left = seen.sensor.room.left, 300
        _, first = await seen.connection()
        first.write(naive_mqtt.connect("x" * 300)[:200])
        await until(lambda: seen.sensor.room.left == 100)
        reader, second = await seen.connection()
        second.write(naive_mqtt.connect("y" * 300)[:200])
        assert await closed(reader) == b""
        assert seen.counts.oversize == 1
        first.close()
        await until(lambda: seen.sensor.room.left == 300)
        seen.sensor.room.left = whole
        second.close()


async def test_very_many_clients_come_from_several_addresses_of_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.sensor.upstream.PORTS", 2)
    async with bare() as broker, sensing(broker.port) as seen:
        writers = [(await greeted(seen, broker, f"c{number}"))[1] for number in range(4)]
        places = [broker_of[f"c{number}"].writer.get_extra_info("peername")[0] for number in range(4)]
        assert places == ["127.0.0.1", "127.0.1.1", "127.0.1.1", "127.0.2.1"]
        for writer in writers:
            writer.close()


async def test_a_broken_doorman_costs_a_client_its_attempt_and_no_more() -> None:
    class Broken(OpenDoor):
        async def admit(self, hello: Hello) -> Pass | Refusal:
            if hello.client_id == "bad":
                raise RuntimeError("a bug")
            return await super().admit(hello)

    async with bare() as broker, sensing(broker.port, door=Broken()) as seen:
        reader, writer = await seen.connection()
        writer.write(naive_mqtt.connect("bad"))
        assert await closed(reader) == b""
        _, good = await greeted(seen, broker, "good")
        writer.close()
        good.close()


# The doorman


class Strict(OpenDoor):
    """Everyone may speak for itself only; who is called "nobody" stays out."""

    def __init__(self) -> None:
        self.revision = 0
        self.banned: set[str] = set()

    async def admit(self, hello: Hello) -> Pass | Refusal:
        self.hello = hello
        return Refusal("nobody", 5) if hello.client_id == "nobody" else Own(hello.client_id)

    def still_good(self, hello: Hello, given: Any) -> bool:
        assert given == Own(hello.client_id)
        return hello.client_id not in self.banned


@dataclass(frozen=True)
class Own:
    user: str
    judges: bool = True

    def may_publish(self, topic: str) -> bool:
        return topic.startswith(f"{self.user}/")

    def may_subscribe(self, topic_filter: str) -> bool:
        return self.may_publish(topic_filter)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_refused_client_hears_why_and_the_broker_nothing(version: Any) -> None:
    level = 5 if version == VERSIONS[1] else 4
    async with bare() as broker, sensing(broker.port, door=Strict()) as seen:
        reader, writer = await seen.connection()
        writer.write(naive_mqtt.connect("nobody", level=level))
        assert await closed(reader) == (b"\x20\3\0\x87\0" if level == 5 else b"\x20\2\0\5")
        assert broker.clients.empty()
        await seen.noted("denied", "nobody")
        await seen.noted("connect-failed", "nobody")
        assert (seen.counts.refused, seen.counts.denied) == (1, 1)
        writer.close()


async def test_a_last_will_for_another_keeps_its_client_out() -> None:
    async with bare() as broker, sensing(broker.port, door=Strict()) as seen:
        reader, writer = await seen.connection()
        writer.write(naive_mqtt.connect("p1", will=("p2/x", b"gone")))
        assert await closed(reader) == b"\x20\2\0\5"
        assert broker.clients.empty()
        await seen.noted("denied", "p1", "p2/x")
        writer.close()


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_refused_publish_never_reaches_the_broker(mosquitto: Mosquitto, version: Any) -> None:
    async with sensing(mosquitto.port, door=Strict()) as seen, mosquitto.client("watcher") as watcher:
        await watcher.subscribe("#", qos=2)
        async with client(seen.address, "p1", protocol=version) as p1:
            for qos in (0, 1, 2):
                try:
                    await p1.publish("p2/x", b"forged", qos=qos)
                except aiomqtt.MqttError:
                    assert version == VERSIONS[1]
                await p1.publish("p1/x", b"own", qos=qos)
        topics = [str((await anext(aiter(watcher.messages))).topic) for _ in range(3)]
        assert topics == ["p1/x"] * 3
        await seen.noted("denied", "p1", "p2/x", times=3)
        await seen.noted("published", "p1", "p1/x", times=3)
        assert seen.log.count("published", "p1", "p2/x") == 0


async def test_a_refused_subscription_is_said_and_noted() -> None:
    async with bare() as broker, sensing(broker.port, door=Strict()) as seen:
        reader, writer = await greeted(seen, broker, "p1")
        writer.write(subscribe(9, "p1/a", "p2/#") + subscribe(10, "p1/b"))
        assert await asyncio.wait_for(reader.readexactly(6), DEADLINE_S) == b"\x90\4\0\x09\x80\x80"
        assert await broker_of["p1"].read(len(subscribe(10, "p1/b"))) == subscribe(10, "p1/b")
        await seen.noted("denied", "p1", "p2/#")
        writer.close()


async def test_who_may_no_more_what_it_might_is_put_out() -> None:
    door, clock = Strict(), VirtualClock()
    async with bare() as broker, sensing(broker.port, door=door, clock=clock) as seen:
        bad, one = await greeted(seen, broker, "bad")
        good, two = await greeted(seen, broker, "good")
        door.banned.add("bad")
        door.revision += 1
        await clock.advance(1.5)
        assert await closed(bad) == b""
        assert await broker_of["bad"].is_left() == b""
        assert seen.counts.revoked == 1
        broker_of["good"].writer.write(b"\xd0\0")
        assert await asyncio.wait_for(good.readexactly(2), DEADLINE_S) == b"\xd0\0"
        one.close()
        two.close()


async def test_who_the_broker_refuses_in_its_own_words_is_not_the_doormans_to_put_out() -> None:
    door, clock = Strict(), VirtualClock()
    async with bare() as broker:
        ours = Upstream(lambda: Address("127.0.0.1", broker.port), login=(b"device", b"secret"))
        async with sensing(broker.port, door=door, clock=clock, upstream=ours) as seen:
            reader, writer = await seen.connection()
            greeting = naive_mqtt.connect("p1", level=5)
            writer.write(greeting)
            there = await broker.client()
            assert await there.read(len(greeting)) == greeting, "the login is not for it"
            await until(lambda: seen.counts.waiting == 0)
            door.revision += 1
            await clock.advance(1.5)
            there.writer.write(b"\x20\3\0\x84\0")
            there.writer.close()
            assert await closed(reader) == b"\x20\3\0\x84\0"
            assert seen.counts.revoked == 0
            writer.close()


class Hasty(Strict):
    """Revokes whom it has just let in."""

    async def admit(self, hello: Hello) -> Pass | Refusal:
        given = await super().admit(hello)
        self.banned.add(hello.client_id)
        return given


async def test_a_client_that_is_revoked_while_it_comes_in_is_turned_away() -> None:
    async with bare() as broker, sensing(broker.port, door=Hasty()) as seen:
        reader, writer = await seen.connection()
        writer.write(naive_mqtt.connect("late"))
        assert await asyncio.wait_for(reader.read(), DEADLINE_S) == b"\x20\x02\x00\x05"
        assert seen.counts.revoked == 1
        writer.close()


# The log


async def test_while_the_log_is_away_nothing_is_lost_and_repetitions_are_known(mosquitto: Mosquitto) -> None:
    log = LogDouble()
    async with sensing(mosquitto.port, log=log) as seen, client(seen.address, "p1") as p1:
        await seen.noted("connected", "p1")
        log.away = True
        for _ in range(3):
            await p1.publish("a", b"x", qos=1)
            await until(lambda before=log.refusals: log.refusals > before)
        log.away = False
        await seen.noted("published", "p1", "a", times=3)
        names = [entry.headers["Nats-Msg-Id"] for entry in log.entries]
        assert len(set(names)) == len(names)


async def test_full_sums_make_a_client_wait_until_the_log_has_them() -> None:
    log = LogDouble()
    async with bare() as broker, sensing(broker.port, log=log, bounds=Bounds(keys=10)) as seen:
        _, writer = await greeted(seen, broker, "p1")
        await seen.noted("connected", "p1")
        log.hung.clear()
        sent = b"".join(publish(b"t%d" % n, b"x") for n in range(200))
        for at in range(0, len(sent), 35):
            writer.write(sent[at : at + 35])
            await writer.drain()
            await asyncio.sleep(0)
        await until(lambda: seen.counts.pauses > 0)
        log.hung.set()
        assert await broker_of["p1"].read(len(sent)) == sent
        await until(lambda: log.count("published", "p1") + seen.counts.dropped == 200)
        writer.close()


async def test_while_the_log_is_away_for_long_clients_go_on_and_what_is_not_noted_is_counted() -> None:
    log, clock = LogDouble(), VirtualClock()
    async with bare() as broker, sensing(broker.port, log=log, clock=clock, bounds=Bounds(keys=10)) as seen:
        _, writer = await greeted(seen, broker, "p1")
        log.away = True
        for _ in range(8):
            await clock.advance(1.0)
        sent = b"".join(publish(b"t%d" % n, b"x") for n in range(100)) + publish(b"t1", b"again")
        writer.write(sent)
        assert await broker_of["p1"].read(len(sent)) == sent
        assert seen.counts.dropped >= 80
        assert sum(len(link.sums) for link in seen.sensor._links) <= 21
        log.away = False
        for _ in range(12):
            await clock.advance(1.0)
            await asyncio.sleep(0.02)
        await seen.noted("published", "p1", "t1", times=2)
        writer.close()


# TLS


class Certificates:
    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self.ca.cert_pem.write_to_path(str(self.ca_file))
        server = self.ca.issue_cert("127.0.0.1", "localhost")
        self.key, self.cert = folder / "server.key", folder / "server.pem"
        server.private_key_pem.write_to_path(str(self.key))
        server.cert_chain_pems[0].write_to_path(str(self.cert))

    def tls(self, *, verify: bool) -> Tls:
        return Tls(cert=self.cert, key=self.key, ca=self.ca_file if verify else None)

    def client(self, issuer: trustme.CA | None = None, alpn: list[str] | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ca_file))
        if issuer is not None:
            issuer.issue_cert("p1").configure_cert(context)
        if alpn:
            context.set_alpn_protocols(alpn)
        return context


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


@pytest.mark.parametrize(
    ("alpn", "agreed"), [(None, None), (["x-amzn-mqtt-ca"], "x-amzn-mqtt-ca"), (["h2", "mqtt"], "mqtt"), (["h2"], None)]
)
async def test_tls_ends_here_whatever_protocol_the_client_names(
    certificates: Certificates, alpn: list[str] | None, agreed: str | None
) -> None:
    door = Strict()
    context = tls.listener(certificates.tls(verify=True))
    async with bare() as broker, sensing(broker.port, door=door, tls=context) as seen:
        mine = certificates.client(certificates.ca, alpn)
        reader, writer = await asyncio.open_connection("127.0.0.1", seen.address.port, ssl=mine)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == agreed
        greeting = naive_mqtt.connect("p1")
        writer.write(greeting)
        await (await broker.client()).takes(greeting)
        assert await asyncio.wait_for(reader.readexactly(4), DEADLINE_S) == CONNACK
        assert ssl.DER_cert_to_PEM_cert(door.hello.certificate or b"").startswith("-----BEGIN")
        writer.transport.abort()


@pytest.mark.parametrize("issuer", [None, trustme.CA()], ids=["none", "of another authority"])
async def test_without_a_certificate_of_the_authority_nobody_gets_to_the_broker(
    certificates: Certificates, issuer: trustme.CA | None
) -> None:
    context = tls.listener(certificates.tls(verify=True))
    async with bare() as broker, sensing(broker.port, tls=context) as seen:
        with pytest.raises(ssl.SSLError, match=r"CERTIFICATE_REQUIRED|UNKNOWN_CA"):  # it is told why
            await first_answer(seen.address.port, certificates.client(issuer))
        await until(lambda: seen.counts.handshakes_failed == 1)
        assert broker.clients.empty()
        assert seen.counts.connections == 0


async def first_answer(port: int, context: ssl.SSLContext) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        writer.write(naive_mqtt.connect("stranger"))
        return await asyncio.wait_for(reader.readexactly(4), DEADLINE_S)
    finally:
        writer.transport.abort()


async def test_a_plain_client_does_not_get_through_a_tls_listener(certificates: Certificates) -> None:
    context = tls.listener(certificates.tls(verify=False))
    async with bare() as broker, sensing(broker.port, tls=context) as seen:
        reader, writer = await seen.connection()
        writer.write(naive_mqtt.connect("plain"))
        assert CONNACK not in await closed(reader)
        assert broker.clients.empty()
        writer.close()


async def test_the_broker_behind_may_speak_tls(tmp_path: Path, certificates: Certificates) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    broker = Mosquitto(
        tmp_path / "broker",
        f"listener {port} 127.0.0.1",
        f"certfile {certificates.cert}",
        f"keyfile {certificates.key}",
    )
    await broker.start()
    to = Upstream(lambda: Address("127.0.0.1", port), tls.upstream(certificates.ca_file))
    try:
        async with sensing(port, upstream=to) as seen, client(seen.address, "p1") as p1:
            await p1.publish("a", b"x", qos=1)
            await seen.noted("published", "p1", "a")
    finally:
        broker.stop()


async def test_an_address_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        sensor = Sensor("x", Upstream(lambda: Address("", 0)), OpenDoor(), LogDouble(), VirtualClock())
        with pytest.raises(OSError, match=f"127.0.0.1:{port}: bind: address already in use"):
            await sensor.listen(Address("127.0.0.1", port))
        await sensor.stop()


async def test_at_the_end_clients_are_disconnected_and_what_was_heard_is_booked() -> None:
    async with bare() as broker:
        async with sensing(broker.port) as seen:
            reader, writer = await greeted(seen, broker, "p1")
            writer.write(publish(b"a", b"x"))
            await until(lambda: any(link.sums for link in seen.sensor._links))
        assert await closed(reader) == b""
        writer.close()
    assert seen.log.count("published", "p1", "a") == 1
    assert seen.log.count("disconnected", "p1") == 0, "the end of the daemon is no doing of the device"


async def test_at_the_end_reports_that_were_taken_are_stored_and_acknowledged() -> None:
    async with bare() as broker:
        async with sensing(broker.port, takes_reports=True) as seen:
            reader, writer = await greeted(seen, broker, "p1")
            seen.log.hung.clear()
            writer.write(publish(b"$aws/things/p1/defender/metrics/json", b"{}", 1, 5))
            await until(lambda: any(link.sums for link in seen.sensor._links))
            asyncio.get_running_loop().call_later(0.2, seen.log.hung.set)
        assert await closed(reader) == b"\x40\2\0\5"
        writer.close()
    assert [entry.payload for entry in seen.log.entries if entry.subject.endswith(".json")] == [b"{}"]


def test_passes_of_an_open_door_judge_nobody() -> None:
    assert Anyone("x").may_publish("a")
    assert Anyone("x").may_subscribe("#")
