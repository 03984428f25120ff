"""A bridge that listens: taps and presence events through a real Mosquitto, summed, stored, then acknowledged."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import trustme
from bad_broker import BadBroker, Connection
from bridging import LogDouble, running, source, until
from mosquitto import Mosquitto, free_port

from actors.events import CLIENT, COUNT, KIND, KINDS, SUBJECT, TIME, unpacked
from config.model import Bridge, Settings, Tap
from config.model import Broker as BrokerSettings
from daemon.bridges import Bridges
from daemon.brokers.mqtt import MqttBridge
from daemon.clock import NS, SystemClock
from daemon.telemetry import Telemetry

REPORT = "$aws/things/p1/defender/metrics/json"
TAP = Tap(topics=("fleet/{clientId}/#",))


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    made = Mosquitto(tmp_path / "mosquitto")
    await made.start()
    yield made
    made.kill()


def plant(broker: Mosquitto | BadBroker, **options: object) -> Bridge:
    given = {"replies": "off", "tap": TAP, **options}
    return Bridge(name="plant", url=f"mqtt://127.0.0.1:{broker.port}", **given)  # type: ignore[arg-type]


def told(log: LogDouble) -> dict[tuple[str, str], int]:
    """(kind, client) -> how many."""
    found: dict[tuple[str, str], int] = {}
    for entry in log.entries:
        if entry.subject == f"{SUBJECT}plant":
            content = unpacked(entry.payload)
            assert content is not None
            packed, rows = content
            for row in rows.tolist():
                key = (KINDS[row[KIND]], packed.clients[row[CLIENT]])
                found[key] = found.get(key, 0) + row[COUNT]
    return found


def times_ns(log: LogDouble) -> list[int]:
    contents = [unpacked(entry.payload) for entry in log.entries if entry.subject == f"{SUBJECT}plant"]
    return [content[0].base + row[TIME] for content in contents if content for row in content[1].tolist()]


async def test_tapped_messages_become_one_entry_of_sums(broker: Mosquitto) -> None:
    log = LogDouble()
    bridge = source(plant(broker), log)
    async with running(bridge), broker.client("d") as device:
        await asyncio.gather(*(device.publish(f"fleet/d{i % 3}/up", b"x", qos=1) for i in range(300)))
        await until(lambda: sum(told(log).values()) == 300)
    assert told(log) == {("published", f"d{i}"): 100 for i in range(3)}
    assert len(log.entries) <= 30
    assert bridge.counts.events <= 3 * 30
    assert (bridge.counts.stored, bridge.counts.misnamed) == (0, 0)


async def test_a_report_does_not_wait_for_news_and_takes_it_along(broker: Mosquitto) -> None:
    log = LogDouble()
    async with running(source(plant(broker), log)), broker.client("d") as device:
        await device.publish("fleet/d1/up", b"x", qos=1)
        await device.publish(REPORT, b"{}", qos=1)
        await until(lambda: len(log.entries) >= 2)
    assert [entry.subject for entry in log.entries] == [f"{SUBJECT}plant", "detectd.log.report.plant.p1.json"]


async def test_a_message_that_is_report_and_tapped_is_both(broker: Mosquitto) -> None:
    log = LogDouble()
    options = plant(broker, prefix="fleet", tap=Tap(topics=("fleet/things/{clientId}/defender/metrics/json",)))
    async with running(source(options, log)), broker.client("d") as device:
        await device.publish("fleet/things/p1/defender/metrics/json", b"{}", qos=0)
        await until(lambda: len(log.entries) >= 2)
    assert told(log)["published", "p1"] >= 1
    assert "detectd.log.report.plant.p1.json" in [entry.subject for entry in log.entries]


async def test_without_reports_none_is_read(broker: Mosquitto) -> None:
    """Also where an earlier configuration had subscribed to them: the broker keeps that."""
    async with running(source(plant(broker), LogDouble())):
        pass
    log = LogDouble()
    bridge = source(plant(broker, reports=False), log)
    async with running(bridge), broker.client("d") as device:
        assert isinstance(bridge, MqttBridge)
        await until(lambda: bridge._birth.is_out)  # the broker has answered to all that we said
        await device.publish(REPORT, b"{}", qos=1)
        await device.publish("fleet/d1/up", b"x", qos=1)
        await until(lambda: told(log))
    assert bridge.counts.received == 1
    assert {entry.subject for entry in log.entries} == {f"{SUBJECT}plant"}


async def test_presence_events_are_read_from_under_the_prefix(broker: Mosquitto) -> None:
    log = LogDouble()
    body = {"clientId": "p1", "timestamp": 1_700_000_000_000, "sessionIdentifier": "s", "versionNumber": 3}
    async with running(source(plant(broker, events=("presence",), tap=None), log)), broker.client("d") as client:
        await client.publish("$aws/events/presence/connected/p1", json.dumps(body).encode(), qos=1)
        await client.publish("$aws/events/presence/disconnected/p1", b"{", qos=1)
        await until(lambda: told(log))
    assert told(log) == {("connected", "p1"): 1}
    assert times_ns(log) == [1_700_000_000 * NS]


async def test_news_is_acknowledged_after_it_is_stored(broker: Mosquitto) -> None:
    held = LogDouble()
    held.gate.clear()
    async with running(source(plant(broker), held)), broker.client("d") as device:
        await device.publish("fleet/d1/up", b"x", qos=1)
        await until(lambda: held.waiting)
    assert held.entries == []

    log = LogDouble()
    bridge = source(plant(broker), log)
    async with running(bridge):
        await until(lambda: told(log) == {("published", "d1"): 1})
        assert bridge.counts.redelivered == 1  # another process can't know that the first had not stored it


async def test_a_tapped_message_whose_acknowledgement_was_lost_counts_once(broker: Mosquitto) -> None:
    log = LogDouble()
    log.gate.clear()
    bridge = source(plant(broker), log)
    async with running(bridge):
        async with broker.client("d") as device:
            await asyncio.gather(*(device.publish("fleet/d1/up", b"%d" % i, qos=1) for i in range(50)))
        await until(lambda: log.waiting)
        broker.stop()
        log.gate.set()
        await until(lambda: log.entries)
        await broker.start()
        await until(lambda: bridge.counts.connected)
        async with broker.client("d") as device:
            await device.publish("fleet/d2/up", b"x", qos=1)
        await until(lambda: ("published", "d2") in told(log))
    assert told(log)["published", "d1"] == 50
    assert bridge.counts.repeated > 0


async def test_tapped_messages_of_the_backlog_are_dated_back_to_the_outage(broker: Mosquitto) -> None:
    """Else an hour of messages would be one moment's, and an alarm."""
    log, clock = LogDouble(), SystemClock()
    async with running(source(plant(broker), log)):
        pass
    async with broker.client("d") as device:
        await device.publish("fleet/d1/up", b"x", qos=1)
    bridge = source(plant(broker), log)
    async with running(bridge):
        await until(lambda: told(log))
        async with broker.client("d") as device:
            assert isinstance(bridge, MqttBridge)
            await until(lambda: not bridge._reading.in_backlog)
            await device.publish("fleet/d2/up", b"x", qos=1)
        await until(lambda: len(told(log)) == 2)
    then, now = times_ns(log)
    assert then < clock.now_ns() - 3600 * NS
    assert now > clock.now_ns() - 60 * NS


async def test_our_own_replies_are_no_messages_of_a_device() -> None:
    async def deed(connection: Connection) -> None:
        for topic in ("fleet/things/p1/defender/metrics/json/accepted", "fleet/things/p1/up"):
            await connection.publish(topic, b"x", qos=0)

    log = LogDouble()
    async with BadBroker(deed).running() as broker:
        options = plant(broker, prefix="fleet", tap=Tap(topics=("fleet/things/{clientId}/#",)))
        async with running(source(options, log)):
            await until(lambda: told(log))
    assert told(log) == {("published", "p1"): 1}


async def test_news_that_the_broker_keeps_to_itself_is_told_and_reports_still_come(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = LogDouble()
    broker = BadBroker(lambda connection: connection.publish(REPORT, b"{}"))
    broker.suback = lambda topic: 0x87 if topic.startswith("fleet") else 1
    async with broker.running():
        bridge = source(plant(broker), log)
        async with running(bridge):
            await until(lambda: log.entries)
            assert bridge.status()["refused_topics"] == ["fleet/+/#"]
    assert capsys.readouterr().out.count("bridge.refused_topics") == 1


async def test_news_that_is_all_there_is_to_read_and_is_refused_is_a_failure() -> None:
    broker = BadBroker()
    broker.suback = lambda topic: 0x87 if topic.startswith("fleet") else 1
    async with broker.running():
        bridge = source(plant(broker, reports=False), LogDouble())
        async with running(bridge, connected=False):
            await until(lambda: "refuses the subscription to fleet/+/#" in str(bridge.status()["why"]))


async def test_the_broker_window_does_not_make_taps_slow() -> None:
    """A broker that sends no more than ten unacknowledged messages does not wait a quarter second for each ten."""
    many = 200

    async def deed(connection: Connection) -> None:
        for number in range(many):
            await until(lambda: number - len(connection.acknowledged) < 10)
            await connection.publish("fleet/d1/up", b"%d" % number, mid=number + 1)

    log = LogDouble()
    async with BadBroker(deed).running() as broker:
        async with running(source(plant(broker), log)):
            await until(lambda: told(log) == {("published", "d1"): many})
            assert broker.connections[0].acknowledged == list(range(1, many + 1))


# Birth and will.


async def status_of(broker: Mosquitto) -> bytes | None:
    async with broker.client("watcher") as client:
        await client.subscribe("detectd/detectd-plant/status", qos=1)
        try:
            async with asyncio.timeout(1):
                message = await anext(aiter(client.messages))
        except TimeoutError:
            return None
    assert isinstance(message.payload, bytes)
    return message.payload


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_the_status_is_online_while_it_runs_and_offline_after_a_clean_stop(
    broker: Mosquitto, version: str
) -> None:
    bridge = source(plant(broker), LogDouble())
    assert isinstance(bridge, MqttBridge)
    bridge._version = version  # type: ignore[assignment]
    async with running(bridge):
        await until(lambda: bridge._birth.is_out)
        assert await status_of(broker) == b'{"state":"online"}'
    assert await status_of(broker) == b'{"state":"offline"}'


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_the_broker_says_offline_for_a_bridge_that_is_gone_without_a_word(
    broker: Mosquitto, version: str
) -> None:
    bridge = source(plant(broker), LogDouble())
    assert isinstance(bridge, MqttBridge)
    bridge._version = version  # type: ignore[assignment]
    async with running(bridge):
        await until(lambda: bridge._birth.is_out)
        # Another client of the same id: the broker ends ours, and that is no goodbye.
        async with broker.client("detectd-plant"):
            assert await status_of(broker) == b'{"state":"offline"}'


# ALPN.


@pytest.mark.parametrize("scheme", ["mqtts", "wss"])
async def test_alpn_names_the_protocol_in_the_handshake(tmp_path: Path, scheme: str) -> None:
    authority = trustme.CA()
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    context.set_alpn_protocols(["other", "x-amzn-mqtt-ca"])
    chosen: list[str | None] = []
    served: list[bool] = []

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        chosen.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await reader.read(10)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        served.append(True)

    server = await asyncio.start_server(client, "localhost", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    options = Bridge(name="plant", url=f"{scheme}://localhost:{port}", ca=ca, alpn=("x-amzn-mqtt-ca",))
    async with running(source(options, LogDouble()), connected=False):
        await until(lambda: chosen)
    await until(lambda: len(served) == len(chosen))
    server.close()
    assert set(chosen) == {"x-amzn-mqtt-ca"}


async def test_wss_with_a_client_certificate_carries_reports(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name, identity in (("server", "localhost"), ("client", "detectd.example")):
        issued = authority.issue_cert(identity)
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
    port = free_port()
    door = [f"cafile {tmp_path}/ca.pem", f"certfile {tmp_path}/server.pem", f"keyfile {tmp_path}/server.key"]
    broker = Mosquitto(
        tmp_path / "m", f"listener {port} 127.0.0.1", "protocol websockets", *door, "require_certificate true"
    )
    await broker.start()
    log = LogDouble()
    files = {"ca": tmp_path / "ca.pem", "cert": tmp_path / "client.pem", "key": tmp_path / "client.key"}
    options = Bridge(name="plant", url=f"wss://localhost:{port}/mqtt", **files)
    try:
        async with running(source(options, log)), broker.client("device") as device:
            await device.publish(REPORT, b"{}", qos=1)
            await until(lambda: log.entries)
    finally:
        broker.kill()


# Ready or not.


async def test_only_a_required_bridge_keeps_the_daemon_from_being_ready(broker: Mosquitto) -> None:
    async def unready(**options: object) -> list[list[str]]:
        bridges = Bridges(LogDouble(), Telemetry(), SystemClock(), lambda: 0.0)
        await bridges.apply(Settings(broker=BrokerSettings(bridges=(plant(broker, **options),))))
        try:
            source_ = bridges.by_name()["plant"]
            found = [bridges.unready()]
            await until(lambda: source_.counts.connected)
            found.append(bridges.unready())
            await until(lambda: source_.counts.silent)
            found.append(bridges.unready())
        finally:
            await bridges.stop()
        return found

    assert await unready(required=True, silent_s=0.3) == [
        ["bridge plant: not connected yet"],
        [],
        ["bridge plant: silent"],
    ]
    assert await unready(required=False, silent_s=0.3) == [[], [], []]
