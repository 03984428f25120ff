"""What a device can and can't do at the embedded nats-server, over MQTT, as anyone may come in."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import trustme
from mqtt_load import connect_packet, publish_packet
from nats.aio.msg import Msg
from nats_rig import ANYWHERE, DEADLINE_S, SMALL, Rig, body, device, number_of, running, topic, until

from config.model import Tls
from daemon.log.streams import GUARD, api


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(tmp_path) as rig:
        yield rig


ATTACKS = [
    ("$JS/API/STREAM/PURGE/LOG", b""),
    ("$JS/API/STREAM/PURGE/$MQTT_msgs", b""),
    ("$JS/API/STREAM/DELETE/LOG", b""),
    ("$JS/API/STREAM/DELETE/$MQTT_msgs", b""),
    ("$JS/API/STREAM/MSG/DELETE/LOG", b'{"seq": 1}'),
    ("$JS/API/STREAM/UPDATE/LOG", b'{"name": "LOG", "subjects": ["x"], "max_msgs": 1}'),
    ("$KV/leases/group", b"mine"),
    ("$OBJ/checkpoints/c/x", b""),
    ("$SYS/REQ/SERVER/PING", b""),
    ("$SYS/REQ/USER/AUTH", b""),
    ("$MQTT/msgs/$aws/things/p1/defender/metrics/json", b'{"n": 66}'),
    ("$MQTT/sess/x", b"{}"),
    ("$MQTT/rmsgs/x", b"{}"),
    ("detectd/log/tick", b""),
    ("detectd/log/reconciled", b'{"guard":"x","guard_seq":999,"since_guard":999,"since_log":999}'),
    ("detectd/log/change", b"{}"),
    ("detectd/log/report/plant/p1/json", b"{}"),
    ("$aws/things/p1/defender/metrics/json/accepted", b'{"status": "ACCEPTED"}'),
    ("$aws/things/p1/defender/metrics/cbor/rejected", b"{}"),
    ("$aws/events/presence/connected/p1", b"{}"),
    ("_INBOX/x", b"{}"),
]


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_no_forged_message_changes_anything(rig: Rig, qos: int) -> None:
    async with rig.connection() as nc, device(rig.endpoint) as attacker:
        await attacker.publish(topic("p1"), body(1))
        before = await state(rig)
        heard: list[str] = []

        async def note(message: Msg) -> None:
            heard.append(message.subject)

        for subject in ("$aws.>", "$JS.>", "$KV.>", "$SYS.>", "detectd.>", "$MQTT.msgs.>", "_INBOX.x"):
            await nc.subscribe(subject, cb=note)
        await nc.flush()
        for forbidden, payload in ATTACKS:
            await attacker.publish(forbidden, payload, qos)
        await attacker.publish(topic("p1"), body(2))
        await until(lambda: "$aws.things.p1.defender.metrics.json" in heard, "the report that ends the attack")
        own = {"$JS.API.STREAM.INFO.LOG", f"$JS.API.STREAM.INFO.{GUARD}", "detectd.log.reconciled"}
        own |= {"$JS.API.STREAM.MSG.DELETE.$MQTT_qos2in"}  # how nats-server itself ends a QoS 2 publish
        reports = {"$aws.things.p1.defender.metrics.json", "$MQTT.msgs.$aws.things.p1.defender.metrics.json"}
        assert {subject for subject in heard if not subject.startswith(("_INBOX", "$JS.EVENT"))} <= own | reports
    await rig.events.seen("publish_refused")
    after = await state(rig)
    assert [number_of(entry) for entry in await rig.log()] == [1, 2]
    assert after == before | {"reports": 2}


async def test_a_hostile_will_changes_nothing(rig: Rig) -> None:
    for number, (forbidden, payload) in enumerate(ATTACKS[:1] + ATTACKS[13:14] + ATTACKS[17:18]):
        async with device(rig.endpoint, f"dying-{number}", will=(forbidden, payload)) as dying:
            await dying.publish(topic("p1"), body(number))
            dying.drop()
            await until(lambda: rig.events.count("publish_refused") > number, "the will was refused")
    assert [number_of(entry) for entry in await rig.log()] == [0, 1, 2]


@pytest.mark.parametrize(
    "hidden",
    [
        "$aws/things/other/defender/metrics/json",
        "$aws/things/other/defender/metrics/cbor",
        "$JS/API/#",
        "$KV/#",
        "$SYS/#",
        "$MQTT/msgs/#",
        "detectd/log/#",
        "_INBOX/#",
    ],
)
async def test_what_others_report_and_what_is_ours_cannot_be_subscribed_to(rig: Rig, hidden: str) -> None:
    async with device(rig.endpoint) as eavesdropper:
        assert await eavesdropper.subscribe(hidden) == 0x80


async def test_a_refused_subscription_is_counted(rig: Rig) -> None:
    async with device(rig.endpoint) as eavesdropper:
        await eavesdropper.subscribe("detectd/log/#")
        assert (await rig.events.seen("subscribe_refused"))["count"] == 1


@pytest.mark.parametrize(
    "wide", ["#", "$aws/#", "$aws/things/+/defender/metrics/+", "+/things/other/defender/metrics/json"]
)
async def test_a_wide_filter_does_not_reveal_what_others_report(rig: Rig, wide: str) -> None:
    async with device(rig.endpoint, "spy") as spy, device(rig.endpoint, "honest") as honest:
        await spy.subscribe(wide)
        await spy.subscribe("$aws/things/other/defender/metrics/json/accepted")
        await honest.publish(topic("other"), body(1))
        async with rig.connection() as nc:
            await nc.publish("$aws.things.other.defender.metrics.json.accepted", b"last")
            await nc.flush()
        await until(lambda: any(payload == b"last" for _, payload in spy.received), "the answer")
        assert {payload for _, payload in spy.received} == {b"last"}


@pytest.mark.parametrize("qos", [0, 1])
async def test_an_answer_reaches_the_device_that_waits_for_it(rig: Rig, qos: int) -> None:
    async with device(rig.endpoint) as waiting, rig.connection() as nc:
        assert await waiting.subscribe(topic("p1") + "/accepted", qos) == qos
        await nc.publish("$aws.things.p1.defender.metrics.json.accepted", b"yes")
        await until(lambda: bool(waiting.received), "the answer")
        assert waiting.received == [(topic("p1") + "/accepted", b"yes")]


async def test_ordinary_topics_are_free_between_devices(rig: Rig) -> None:
    async with device(rig.endpoint, "one") as one, device(rig.endpoint, "two") as two:
        await two.subscribe("factory/+/state")
        await one.publish("factory/1/state", b"on")
        await until(lambda: two.received == [("factory/1/state", b"on")], "the message")


@pytest.mark.parametrize("size", [131_072, 262_144])
async def test_a_report_that_is_too_large_still_reaches_us_to_be_answered(rig: Rig, size: int) -> None:
    async with device(rig.endpoint) as sender:
        await sender.publish(topic("p1"), b"x" * size)
        assert [len(entry.payload) for entry in await rig.log()] == [size]


async def test_a_huge_message_costs_its_sender_the_connection_and_nobody_else(rig: Rig) -> None:
    async with device(rig.endpoint, "other") as other:
        answer = await raw(rig, connect_packet("huge"), publish_packet(topic("p1"), b"x" * 700_000, qos=1))
        assert answer == b"\x20\x02\x00\x00"  # its CONNACK, then the end: no PUBACK
        await other.publish(topic("p2"), body(2))
    assert (await rig.events.seen("payload_refused"))["count"] == 1
    assert [number_of(entry) for entry in await rig.log()] == [2]


async def test_mqtt_5_is_refused_with_its_own_code_and_counted(rig: Rig) -> None:
    assert await raw(rig, connect_packet("modern", level=5)) == b"\x20\x02\x00\x01"
    assert (await rig.events.seen("mqtt5_refused"))["count"] == 1


@pytest.mark.parametrize(
    "packet",
    [
        publish_packet("$aws/things/a b/defender/metrics/json", b"{}", qos=1),
        publish_packet("$aws/things/+/defender/metrics/json", b"{}", qos=1),
        publish_packet("a\x00b", b"{}", qos=1),
        b"\x30\xff\xff\xff\xff\xff",
        b"\xf0\x00",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=["space", "wildcard", "nul", "length", "reserved", "http"],
)
async def test_a_packet_that_makes_no_sense_ends_only_its_own_connection(rig: Rig, packet: bytes) -> None:
    async with device(rig.endpoint, "other") as other:
        assert (await raw(rig, connect_packet("odd"), packet)).startswith(b"\x20\x02\x00\x00")
        await other.publish(topic("p2"), body(2))
        assert rig.events.count("died") == 0
    assert [number_of(entry) for entry in await rig.log()] == [2]


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("a.b", "a//b"),
        (".a", "//a"),
        ("a.", "a//"),
        ("ünï☂", "ünï☂"),
        ("%20", "%20"),
        ("a:b=c@d", "a:b=c@d"),
        ("$x", "$x"),
    ],
)
async def test_a_name_is_one_token_of_the_subject(rig: Rig, name: str, token: str) -> None:
    async with device(rig.endpoint) as sender:
        await sender.publish(topic(name), body(1))
    assert [entry.subject for entry in await rig.log()] == [f"$aws.things.{token}.defender.metrics.json"]


async def test_no_web_socket_and_no_monitoring_is_listening(rig: Rig) -> None:
    inodes = {
        str(Path(link).readlink()) for link in Path(f"/proc/{rig.endpoint.pid}/fd").iterdir() if link.is_symlink()
    }
    rows = [row.split() for table in ("tcp", "tcp6") for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
    listening = {row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes}
    ports = (rig.endpoint.url, rig.endpoint.mqtt)
    assert listening == {f"0100007F:{int(address.rpartition(':')[2]):04X}" for address in ports}


class Certificates:
    """A certificate authority, a server certificate of it, and clients with and without one."""

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.ca.cert_pem.write_to_path(str(folder / "ca.pem"))
        server = self.ca.issue_cert("127.0.0.1", "localhost")
        server.private_key_pem.write_to_path(str(folder / "server.key"))
        server.cert_chain_pems[0].write_to_path(str(folder / "server.pem"))
        self.folder = folder

    def server(self, *, verify: bool) -> Tls:
        ca = self.folder / "ca.pem" if verify else None
        return Tls(cert=self.folder / "server.pem", key=self.folder / "server.key", ca=ca)

    def client(self, issuer: trustme.CA | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        if issuer is not None:
            issuer.issue_cert("p1").configure_cert(context)
        return context


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


async def test_devices_report_over_tls(tmp_path: Path, certificates: Certificates) -> None:
    settings = msgspec.structs.replace(ANYWHERE, tls=certificates.server(verify=False))
    async with running(tmp_path, settings) as rig:
        async with device(rig.endpoint, tls=certificates.client(None)) as sender:
            await sender.publish(topic("p1"), body(1))
        assert [number_of(entry) for entry in await rig.log()] == [1]


async def test_a_client_certificate_lets_an_anonymous_device_in(tmp_path: Path, certificates: Certificates) -> None:
    settings = msgspec.structs.replace(ANYWHERE, tls=certificates.server(verify=True))
    async with running(tmp_path, settings) as rig:
        async with device(rig.endpoint, tls=certificates.client(certificates.ca)) as sender:
            assert await sender.subscribe(topic("p1") + "/accepted") == 1
            assert await sender.subscribe(topic("p2")) == 0x80
            await sender.publish(topic("p1"), body(1))
            await sender.publish("$JS/API/STREAM/PURGE/LOG", b"")
        await rig.events.seen("publish_refused")
        assert [number_of(entry) for entry in await rig.log()] == [1]


@pytest.mark.parametrize("issuer", [None, trustme.CA()], ids=["none", "of another authority"])
async def test_without_a_certificate_of_the_authority_nobody_comes_in(
    tmp_path: Path, certificates: Certificates, issuer: trustme.CA | None
) -> None:
    settings = msgspec.structs.replace(ANYWHERE, tls=certificates.server(verify=True))
    async with running(tmp_path, settings) as rig:
        host, port = rig.endpoint.mqtt.split(":")
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await first_answer(host, int(port), certificates.client(issuer))
        async with device(rig.endpoint, tls=certificates.client(certificates.ca)):
            pass


async def first_answer(host: str, port: int, context: ssl.SSLContext) -> bytes:
    """TLS 1.3 tells a client of its refusal with the first bytes, not in the handshake."""
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        writer.write(connect_packet("stranger"))
        return await asyncio.wait_for(reader.readexactly(4), DEADLINE_S)
    finally:
        writer.transport.abort()


async def test_a_plain_connection_to_a_tls_listener_is_turned_away(tmp_path: Path, certificates: Certificates) -> None:
    settings = msgspec.structs.replace(ANYWHERE, tls=certificates.server(verify=False))
    async with running(tmp_path, settings) as rig:
        assert connect_packet("plain")[:1] not in await raw(rig, connect_packet("plain"))
        assert rig.events.count("died") == 0


async def raw(rig: Rig, *packets: bytes) -> bytes:
    """All that the server says to these packets until it closes the connection."""
    host, port = rig.endpoint.mqtt.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    answer = b""
    try:
        for packet in packets:
            writer.write(packet)
            if packet is not packets[-1]:
                answer += await asyncio.wait_for(reader.readexactly(4), DEADLINE_S)
        return answer + await asyncio.wait_for(_rest(reader), DEADLINE_S)
    finally:
        writer.transport.abort()


async def _rest(reader: asyncio.StreamReader) -> bytes:
    answer = bytearray()
    try:
        while data := await reader.read(65536):
            answer += data
    except ConnectionResetError:
        pass
    return bytes(answer)


async def state(rig: Rig) -> dict[str, object]:
    """What an attack would change."""
    async with rig.connection() as nc:
        log = await api(nc, f"STREAM.INFO.{SMALL.stream}")
        guard = await api(nc, f"STREAM.INFO.{GUARD}")
    return {
        "log": log["config"],
        "guard": guard["config"],
        "created": (log["created"], guard["created"]),
        "first": (log["state"]["first_seq"], guard["state"]["first_seq"]),
        "reports": guard["state"]["messages"],
    }
