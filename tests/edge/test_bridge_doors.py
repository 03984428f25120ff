"""Ways into a broker, and what the bridge says when one is shut: passwords, certificates, WebSockets, refusals."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiomqtt
import nats_rig
import pytest
import trustme
from bridging import ListenerDouble, LogDouble, running, source, until
from mosquitto import Mosquitto, free_port

from config.model import Bridge

TOPIC = "$aws/things/p1/defender/metrics/json"


@asynccontextmanager
async def broker_with(folder: Path, *settings: str) -> AsyncIterator[Mosquitto]:
    made = Mosquitto(folder / "mosquitto", *settings)
    await made.start()
    try:
        yield made
    finally:
        made.kill()


def plant(url: str, **options: object) -> Bridge:
    return Bridge(name="plant", url=url, **options)  # type: ignore[arg-type]


def password_file(folder: Path, user: str, password: str) -> Path:
    path = folder / "passwords"
    subprocess.run(["mosquitto_passwd", "-c", "-b", str(path), user, password], check=True, capture_output=True)
    path.chmod(0o600)
    return path


async def test_the_password_comes_from_a_file_and_is_shown_nowhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = password_file(tmp_path, "detectd", "correct horse")
    secret = tmp_path / "secret"
    secret.write_text("correct horse\n")
    async with broker_with(tmp_path, "allow_anonymous false", f"password_file {known}") as broker:
        bridge = source(plant(f"mqtt://127.0.0.1:{broker.port}", username="detectd", password_file=secret), LogDouble())
        async with running(bridge):
            shown = f"{bridge!r} {bridge.status()} {vars(bridge)}"
    assert "correct horse" not in shown + capsys.readouterr().out


async def test_a_wrong_password_is_said_and_a_corrected_file_gets_in_without_a_restart(tmp_path: Path) -> None:
    known = password_file(tmp_path, "detectd", "correct horse")
    secret = tmp_path / "secret"
    secret.write_text("wrong")
    listener = ListenerDouble()
    async with broker_with(tmp_path, "allow_anonymous false", f"password_file {known}") as broker:
        options = plant(f"mqtt://127.0.0.1:{broker.port}", username="detectd", password_file=secret)
        bridge = source(options, LogDouble(), listener)
        async with running(bridge, connected=False):
            await until(lambda: listener.downs)
            secret.write_text("correct horse")
            await until(lambda: bridge.counts.connected)
    assert listener.downs == ["the broker says: Not authorized"]


async def test_a_missing_password_file_is_said_and_tried_again(tmp_path: Path) -> None:
    listener = ListenerDouble()
    options = plant("mqtt://127.0.0.1:1", username="detectd", password_file=tmp_path / "nowhere")
    async with running(source(options, LogDouble(), listener), connected=False):
        await until(lambda: listener.downs)
    assert "no such secret file" in listener.downs[0]


async def test_tls_with_a_client_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    files = certificates(authority, tmp_path)
    door = ("cafile ca.pem", "certfile server.pem", "keyfile server.key", "require_certificate true")
    listener = tuple(line.replace(" ", f" {tmp_path}/") if "file " in line else line for line in door)
    log, without, refusals = LogDouble(), LogDouble(), ListenerDouble()
    async with broker_behind(tmp_path, listener) as (broker, port):
        async with running(source(plant(f"mqtts://localhost:{port}", **files), log)), broker.client("device") as device:
            await device.publish(TOPIC, b"{}", qos=1)
            await until(lambda: log.entries)
        unknown = plant(f"mqtts://localhost:{port}", ca=files["ca"])
        async with running(source(unknown, without, refusals), connected=False):
            await until(lambda: refusals.downs)


async def test_a_broker_whose_certificate_nobody_we_trust_signed_is_refused(tmp_path: Path) -> None:
    files = certificates(trustme.CA(), tmp_path)
    stranger = tmp_path / "stranger.pem"
    trustme.CA().cert_pem.write_to_path(stranger)
    door = (f"certfile {tmp_path}/server.pem", f"keyfile {tmp_path}/server.key")
    listener = ListenerDouble()
    async with broker_behind(tmp_path, door) as (_broker, port):
        options = plant(f"mqtts://localhost:{port}", **{**files, "ca": stranger})
        async with running(source(options, LogDouble(), listener), connected=False):
            await until(lambda: listener.downs)
    assert "CERTIFICATE_VERIFY_FAILED" in listener.downs[0]


def certificates(authority: trustme.CA, folder: Path) -> dict[str, Path]:
    """A server's and a client's, in files; the client's as the options of a bridge."""
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name, identity in (("server", "localhost"), ("client", "detectd.example")):
        issued = authority.issue_cert(identity)
        issued.private_key_pem.write_to_path(folder / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    return {"ca": folder / "ca.pem", "cert": folder / "client.pem", "key": folder / "client.key"}


@asynccontextmanager
async def broker_behind(folder: Path, door: tuple[str, ...]) -> AsyncIterator[tuple[Mosquitto, int]]:
    """A Mosquitto with one more listener, behind the `door` settings, and its port."""
    port = free_port()
    async with broker_with(folder, f"listener {port} 127.0.0.1", *door) as broker:
        yield broker, port


async def test_a_websocket_carries_reports_both_ways(tmp_path: Path) -> None:
    log = LogDouble()
    async with broker_behind(tmp_path, ("protocol websockets",)) as (broker, port):
        bridge = source(plant(f"ws://127.0.0.1:{port}/mqtt"), log)
        async with running(bridge), broker.client("device") as device:
            await device.subscribe(f"{TOPIC}/accepted")
            await device.publish(TOPIC, b"{}", qos=1)
            await until(lambda: log.entries)
            await bridge.reply("p1", "json", True, b"yes")
            assert (await anext(aiter(device.messages))).payload == b"yes"


async def test_a_refused_subscription_is_said_in_words_and_is_not_a_connection(tmp_path: Path) -> None:
    """Our own embedded server lets no device read what others report."""
    listener = ListenerDouble()
    async with nats_rig.running(tmp_path) as rig:
        bridge = source(plant(f"mqtt://{rig.endpoint.mqtt}"), LogDouble(), listener)
        async with running(bridge, connected=False):
            await until(lambda: "refuses the subscription" in str(bridge.status()["why"]))
            assert not bridge.counts.connected
    assert "$aws/things/+/defender/metrics/json (code 128)" in str(bridge.status()["why"])
    assert listener.ups == []
    assert len(listener.downs) == 1


async def test_a_broker_that_speaks_3_1_1_only_is_spoken_to_in_3_1_1(tmp_path: Path) -> None:
    log = LogDouble()
    async with nats_rig.running(tmp_path) as rig:
        bridge = source(plant(f"mqtt://{rig.endpoint.mqtt}", prefix="factory"), log)
        host, port = rig.endpoint.mqtt.split(":")
        async with running(bridge), aiomqtt.Client(host, int(port), identifier="device") as device:
            assert bridge.status()["mqtt"] == "3.1.1"
            await until(lambda: bridge.status()["replies"])
            await device.subscribe("factory/things/p1/defender/metrics/json/accepted")
            await device.publish("factory/things/p1/defender/metrics/json", b"{}", qos=1)
            await until(lambda: log.entries)
            await bridge.reply("p1", "json", True, b"yes")
            assert (await anext(aiter(device.messages))).payload == b"yes"


async def test_a_broker_that_lets_us_read_only_gets_no_replies_and_reports_still_come(tmp_path: Path) -> None:
    rules = tmp_path / "acl"
    rules.write_text("topic read $aws/#\nuser device\ntopic readwrite $aws/#\n")
    rules.chmod(0o600)
    log = LogDouble()
    async with broker_with(tmp_path, f"acl_file {rules}") as broker:
        bridge = source(plant(f"mqtt://127.0.0.1:{broker.port}"), log)
        async with running(bridge), broker.client("device", username="device") as device:
            await until(lambda: "refuses our replies" in str(bridge.status()["self_test"]))
            await device.publish(TOPIC, b"{}", qos=1)
            await until(lambda: log.entries)
            await bridge.reply("p1", "json", True, b"yes")
    assert bridge.status()["replies"] is False
    assert bridge.counts.replies_dropped == 1


async def test_a_broker_that_hangs_up_on_replies_is_found_out_and_then_left_in_peace(tmp_path: Path) -> None:
    """As AWS IoT Core does: a publish to a reserved topic ends the connection."""
    log = LogDouble()
    async with broker_with(tmp_path) as broker, hanging_up(broker.port) as port:
        bridge = source(plant(f"mqtt://127.0.0.1:{port}"), log)
        async with running(bridge), broker.client("device") as device:
            await until(lambda: "ends the connection" in str(bridge.status()["self_test"]))
            await until(lambda: bridge.counts.connected)
            reconnects = bridge.counts.reconnects
            await bridge.reply("p1", "json", True, b"yes")
            await device.publish(TOPIC, b"{}", qos=1)
            await until(lambda: log.entries)
    assert bridge.counts.reconnects == reconnects
    assert bridge.counts.replies_dropped >= 1


@asynccontextmanager
async def hanging_up(port: int) -> AsyncIterator[int]:
    """A way to the broker that closes when it sees a client publish to …/accepted."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, watch: bool) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                if watch and data[0] >> 4 == 3 and b"/accepted" in data:
                    break
                writer.write(data)
                await writer.drain()
        writer.close()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(carry(reader, inner_writer, watch=True), carry(inner_reader, writer, watch=False))

    server = await asyncio.start_server(client, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def test_more_than_memory_allows_makes_the_broker_wait_and_costs_no_report(tmp_path: Path) -> None:
    """What comes in one turn of the connection is taken all the same: 256 KiB."""
    log = LogDouble()
    log.gate.clear()
    async with broker_with(tmp_path) as broker:
        bridge = source(plant(f"mqtt://127.0.0.1:{broker.port}"), log, waiting_bytes_max=100_000)
        async with running(bridge), broker.client("device") as device:
            for i in range(60):
                await device.publish(TOPIC, b"%d " % i + b"x" * 20_000, qos=1)
            await until(lambda: bridge.counts.pauses)
            log.gate.set()
            await until(lambda: len(log.entries) >= 60)
    assert bridge.counts.reconnects == 0
    assert max(log.batches) <= (100_000 + 256 * 1024) // 20_000
    assert [int(payload.split()[0]) for payload in log.payloads] == list(range(60))


async def test_stopping_does_not_wait_for_a_broker_that_never_answers() -> None:
    connected = asyncio.Event()

    async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await stop.wait()
        writer.close()

    stop = asyncio.Event()
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with running(source(plant(f"mqtt://127.0.0.1:{port}"), LogDouble()), connected=False):
        await connected.wait()
        async with asyncio.timeout(4):  # the broker's time to answer is 10 s
            for task in [task for task in asyncio.all_tasks() if task.get_name() == "bridge under test"]:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
    stop.set()
    server.close()


async def test_a_broker_that_talks_nonsense_is_said_to_and_tried_again() -> None:
    connections: list[int] = []

    async def babbling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        await reader.read(100)
        writer.write(b"\xf0\xff\xff\xff\xff\xff HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    listener = ListenerDouble()
    server = await asyncio.start_server(babbling, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with running(source(plant(f"mqtt://127.0.0.1:{port}"), LogDouble(), listener), connected=False):
        await until(lambda: len(connections) >= 3)
    server.close()
    assert len(listener.downs) == 1


async def test_a_listener_that_fails_does_not_end_the_bridge(tmp_path: Path) -> None:
    listener = ListenerDouble()

    def fail_once() -> None:
        listener.before_up = lambda: None
        raise RuntimeError("a bug")

    listener.before_up = fail_once
    async with broker_with(tmp_path) as broker:
        bridge = source(plant(f"mqtt://127.0.0.1:{broker.port}"), LogDouble(), listener)
        async with running(bridge):
            assert "a bug" in listener.downs[0]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1", "no broker is reached by 'http'"),
        ("mqtt://", "names no host"),
        ("mqtt://127.0.0.1:99999", "no possible port"),
        ("mqtt://user:hush@127.0.0.1", "no user or password in the URL"),
    ],
)
def test_a_url_that_can_not_work_is_refused_when_built(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        source(plant(url), LogDouble())
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("prefix", ["", "a/+", "#", "aws/"])
def test_a_prefix_that_is_no_topic_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="is no topic"):
        source(plant("mqtt://127.0.0.1", prefix=prefix), LogDouble())


@pytest.mark.parametrize("name", ["", "a.b", "a b", "a*", "a>"])
def test_a_name_that_would_break_a_subject_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="letters, digits"):
        source(Bridge(name=name, url="mqtt://127.0.0.1"), LogDouble())
