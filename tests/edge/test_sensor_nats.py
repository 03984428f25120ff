"""The sensor in front of the embedded nats-server, wired as in the daemon."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiomqtt
import msgspec
import naive_mqtt
import nats
import pytest
from naive_mqtt import publish, subscribe
from nats_rig import SMALL
from sensing import DEADLINE_S, OpenDoor, eventually, until

from actors.controls import RESUMED, Pause
from actors.events import CLIENT, COUNT, KIND, KINDS, SUBJECT, TOPIC, unpacked
from actors.topics import subject_of_topic
from config.model import Broker, Embedded, Settings
from daemon.clock import SystemClock
from daemon.host import LogHost, open_host
from daemon.log.reader import Gap
from daemon.log.streams import GUARD, api
from daemon.nats.conf import PUBLISH_DENIED
from daemon.nats.state import read_keys
from daemon.sensor.denied import own_refusals
from daemon.sensor.sensor import Sensor
from daemon.sensor.sensors import Sensors
from daemon.telemetry import Telemetry

CONNACK = b"\x20\2\0\0"


class Whole:
    """The log's host and its sensor, and the sensor's numbers."""

    def __init__(self, host: LogHost, sensors: Sensors, telemetry: Telemetry, folder: Path) -> None:
        self.host, self.sensors, self.telemetry, self.folder = host, sensors, telemetry, folder

    @property
    def sensor(self) -> Sensor:
        return next(iter(self.sensors._running))

    @property
    def port(self) -> int:
        return int(str(self.host.mqtt).rpartition(":")[2])

    @property
    def behind(self) -> int:
        return read_keys(self.folder / "nats").behind_port

    def client(self, identifier: str, **options: Any) -> aiomqtt.Client:
        return aiomqtt.Client("127.0.0.1", self.port, identifier=identifier, **options)

    async def entries(self) -> list[tuple[str, bytes]]:
        found = []
        async for frames in self.host.read_range(1, await self.host.last_seq()):
            if not isinstance(frames, Gap):
                found += [(frames.subject(i), frames.payload(i)) for i in range(len(frames))]
        return found

    async def told(self) -> list[tuple[str, str, str, int]]:
        """(kind, client, topic, count); `cut` where all connections ended."""
        found = []
        for subject, payload in await self.entries():
            if subject == RESUMED and msgspec.json.decode(payload, type=Pause).cut:
                found.append(("cut", "", "", 1))
            if subject == f"{SUBJECT}embedded":
                content, table = unpacked(payload) or pytest.fail("an entry that can't be read")
                for row in table.tolist():
                    topic = content.topics[row[TOPIC]] if row[TOPIC] >= 0 else ""
                    found.append((KINDS[row[KIND]], content.clients[row[CLIENT]], topic, row[COUNT]))
        return found

    async def hears(self, kind: str, client: str) -> None:
        async def has() -> bool:
            return any(one[:2] == (kind, client) for one in await self.told())

        await eventually(has)

    def metric(self, name: str) -> float:
        return float(self.telemetry.registry.get_sample_value(name, {"sensor": "embedded"}) or 0)


@asynccontextmanager
async def serving(folder: Path, mqtt: str = "127.0.0.1:0") -> AsyncIterator[Whole]:
    settings = Settings(data_dir=folder, broker=Broker(embedded=Embedded(mqtt=mqtt)), log=SMALL)
    telemetry, clock = Telemetry(), SystemClock()
    host = await open_host(settings, clock, telemetry, lambda _: None)
    sensors = Sensors(settings, host, lambda _: OpenDoor(), telemetry, clock)
    watch = asyncio.create_task(host.watch())
    try:
        await sensors.start()
        yield Whole(host, sensors, telemetry, folder)
    finally:
        await sensors.stop()
        watch.cancel()
        await asyncio.wait([watch])
        await host.stop()


@pytest.fixture
async def whole(tmp_path: Path) -> AsyncIterator[Whole]:
    async with serving(tmp_path) as whole:
        yield whole


async def said(port: int, *packets: bytes, until_closed: bool = True, size: int = 4) -> bytes:
    """What is answered to these packets."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"".join(packets))
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            reading = reader.read() if until_closed else reader.readexactly(size)
            return await asyncio.wait_for(reading, DEADLINE_S)
        return b""
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("options", [{}, {"username": "?SDK=Python"}, {"username": "bob", "password": "whatever"}])
async def test_devices_come_in_through_the_sensor_under_any_name(whole: Whole, options: dict[str, str]) -> None:
    async with whole.client("p1", **options) as p1:
        await p1.publish("$aws/things/p1/defender/metrics/json", b"{}", qos=1)
        await whole.hears("published", "p1")
    assert ("$aws.things.p1.defender.metrics.json", b"{}") in await whole.entries()


@pytest.mark.parametrize("name", ["pump.12", "hall 3", "a*b>c", "100%", "%2E", "日本"])
async def test_client_ids_that_aws_takes_come_in_keep_their_session_and_one_ends_the_other(
    whole: Whole, name: str
) -> None:
    async with whole.client(name, clean_session=False) as first:
        await first.subscribe("dt/down", qos=1)
    async with whole.client("sender") as sender:
        await sender.publish("dt/down", b"kept", qos=1)
    async with whole.client(name, clean_session=False) as second:
        message = await asyncio.wait_for(anext(aiter(second.messages)), DEADLINE_S)
        assert message.payload == b"kept"
        async with whole.client(name, clean_session=False):
            with pytest.raises(aiomqtt.MqttError):
                await asyncio.wait_for(anext(aiter(second.messages)), DEADLINE_S)
    await whole.hears("connected", name)


@pytest.mark.parametrize(
    "greeting",
    [
        naive_mqtt.connect("around"),
        naive_mqtt.connect("around", user="bob"),
        naive_mqtt.connect("around", user="device"),
        naive_mqtt.connect("around", user="device", password=b"guess"),
    ],
    ids=["nameless", "named", "the user", "a guess"],
)
async def test_no_local_process_gets_past_the_sensor(whole: Whole, greeting: bytes) -> None:
    answer = await said(whole.behind, greeting, publish(b"a", b"x", 1))
    assert CONNACK not in answer
    assert b"\x40\x02" not in answer


async def test_mqtt_5_is_refused_in_nats_servers_words_and_noted(whole: Whole) -> None:
    assert await said(whole.port, naive_mqtt.connect("modern", level=5)) == b"\x20\2\0\1"
    await whole.hears("connect-failed", "modern")
    await until(lambda: whole.telemetry.registry.get_sample_value("detectd_nats_mqtt5_refused_total"))
    assert whole.metric("detectd_sensor_connect_failed_total") == 1
    assert whole.metric("detectd_sensor_denied_total") == 0


TOPICS = [
    "$JS/API/STREAM/PURGE/LOG",
    "$JS",
    "$JS//API",
    "$KV/leases/group",
    "$SYS/REQ/SERVER/PING",
    "$MQTT/sess/x",
    "detectd/log/tick",
    "detectd",
    "_INBOX/x",
    "$aws/things/p1/defender/metrics/json",
    "$aws/things/p1/defender/metrics/json/accepted",
    "$aws/things/a.b/defender/metrics/cbor/rejected",
    "$aws/things//defender/metrics/cbor/rejected",
    "$aws/events/presence/connected/p1",
    "$aws/events",
    "$JS.API.x",
    "plant/1",
    "/$JS/API",
]


@pytest.mark.parametrize("topic", TOPICS)
async def test_a_publish_is_denied_exactly_where_nats_server_refuses_it(whole: Whole, topic: str) -> None:
    violations = "detectd_nats_permission_violations_total"
    before = whole.telemetry.registry.get_sample_value(violations)
    async with whole.client("p1") as p1:
        await p1.publish(topic, b"x", qos=1)
        await p1.publish("$SYS/x", b"x", qos=1)  # refused for certain, and later
    refused = own_refusals(PUBLISH_DENIED)(topic)
    read = whole.telemetry.registry.get_sample_value
    await until(lambda: read(violations) >= (before or 0) + 1 + refused)
    await whole.hears("disconnected", "p1")
    kinds = {one[2]: one[0] for one in await whole.told() if one[0] in ("published", "denied")}
    assert kinds[topic] == ("denied" if refused else "published")
    assert read(violations) == (before or 0) + 1 + refused


async def test_an_acknowledged_report_is_in_the_log_and_went_the_short_way(whole: Whole) -> None:
    topic = b"$aws/things/p1/defender/metrics/json"
    guarded = await guarded_until(whole)
    reader, writer = await asyncio.open_connection("127.0.0.1", whole.port)
    # All at once: what comes before the broker has answered waits for that.
    writer.write(naive_mqtt.connect("p1") + b"".join(publish(topic, b"%d" % n, 1, n) for n in range(1, 301)))
    assert await asyncio.wait_for(reader.readexactly(4), DEADLINE_S) == CONNACK
    said = await asyncio.wait_for(reader.readexactly(4 * 300), DEADLINE_S)
    assert said == b"".join(b"\x40\2" + n.to_bytes(2) for n in range(1, 301))
    found = [payload for subject, payload in await whole.entries() if subject == "$aws.things.p1.defender.metrics.json"]
    assert found == [b"%d" % n for n in range(1, 301)]
    assert await guarded_until(whole) == guarded, "nats-server's own MQTT has seen nothing of it"
    writer.transport.abort()


@pytest.mark.parametrize(
    ("topic", "qos"),
    [("$aws/things/p1/defender/metrics/json", 2), ("$aws/things/p.1/defender/metrics/cbor", 1)],
    ids=["QoS 2", "a name that AWS would not take"],
)
async def test_a_report_that_is_not_taken_goes_the_long_way(whole: Whole, topic: str, qos: int) -> None:
    guarded = await guarded_until(whole)
    async with whole.client("p1") as p1:
        await p1.publish(topic, b"{}", qos=qos)

    async def is_there() -> bool:
        return (subject_of_topic(topic), b"{}") in await whole.entries()

    await eventually(is_there)
    assert await guarded_until(whole) > guarded
    assert whole.sensor.counts.reports == 0


async def guarded_until(whole: Whole) -> int:
    """The last position of the guard: what nats-server's own MQTT has acknowledged."""
    nc = await nats.connect(whole.host.access.urls[0], user=whole.host.access.user, password=whole.host.access.password)
    try:
        return int((await api(nc, f"STREAM.INFO.{GUARD}"))["state"]["last_seq"])
    finally:
        await nc.close()


async def test_a_subscription_that_nats_server_refuses_is_noted(whole: Whole) -> None:
    answer = await said(
        whole.port, naive_mqtt.connect("spy"), subscribe(7, "detectd/log/#"), until_closed=False, size=9
    )
    assert answer == CONNACK + b"\x90\3\0\7\x80"
    await whole.hears("denied", "spy")


async def test_when_the_server_dies_its_clients_are_cut_and_let_in_again(whole: Whole) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", whole.port)
    writer.write(naive_mqtt.connect("p1"))
    assert await asyncio.wait_for(reader.readexactly(4), DEADLINE_S) == CONNACK
    await whole.hears("connected", "p1")
    whole.host.kill()
    with suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), DEADLINE_S) == b""
    # It may be down still, unnoticed yet, or up again: whoever comes now waits until it is. Only its listener may
    # outlive its connections for a moment: who got to that one is cut off by the kernel, and comes again.
    tries = 0

    async def comes_in() -> bool:
        nonlocal tries
        tries += 1
        return await said(whole.port, naive_mqtt.connect("p2"), until_closed=False) == CONNACK

    await eventually(comes_in)
    assert tries <= 2
    await whole.hears("connected", "p2")
    kinds = [one[0] for one in await whole.told() if one[1] != "p2" or one[0] == "connected"]
    assert kinds == ["cut", "connected", "cut", "connected"], "its end is no doing of the device"
    writer.transport.abort()


async def test_a_chosen_port_is_the_same_after_a_restart_and_another_one_when_it_is_taken(tmp_path: Path) -> None:
    async with serving(tmp_path) as first:
        port = first.port
        assert await said(port, naive_mqtt.connect("p1"), until_closed=False) == CONNACK
    async with serving(tmp_path) as second:
        assert second.port == port

        async def cut_twice() -> bool:
            kinds = [one[0] for one in await second.told() if one[0] != "disconnected"]
            return kinds == ["cut", "connected", "cut"]

        await eventually(cut_twice)
    other = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", port)
    try:
        async with serving(tmp_path) as third:
            assert third.port != port
            assert await said(third.port, naive_mqtt.connect("p1"), until_closed=False) == CONNACK
    finally:
        other.close()
        await other.wait_closed()


async def test_a_named_port_that_is_taken_is_the_end_of_the_start(tmp_path: Path) -> None:
    other = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = other.sockets[0].getsockname()[1]
    try:
        with pytest.raises(OSError, match=f"127.0.0.1:{port}"):
            await serving(tmp_path, f"127.0.0.1:{port}").__aenter__()
    finally:
        other.close()
        await other.wait_closed()


async def test_hundreds_of_clients_come_at_once(whole: Whole) -> None:
    async def one(number: int) -> bytes:
        topic = b"plant/%d" % number
        return await said(
            whole.port,
            naive_mqtt.connect(f"c{number}"),
            publish(topic, b"x", 1, 5),
            until_closed=False,
            size=8,
        )

    answers: Sequence[bytes] = await asyncio.gather(*(one(number) for number in range(300)))
    assert set(answers) == {CONNACK + b"\x40\2\0\5"}
    await until(lambda: whole.metric("detectd_sensor_connected_total") == 300)

    async def noted() -> bool:
        return sum(one[0] == "published" for one in await whole.told()) == 300

    await eventually(noted)
