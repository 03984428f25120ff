"""Who a device is, by the installed daemon: what is not its own is refused, noted, alarmed on, and changes nothing."""

import asyncio
import base64
import json
import ssl
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import msgspec
import pytest
import trustme
from aiomqtt.exceptions import MqttConnectError
from mosquitto import Mosquitto
from system_tools import (
    DEADLINE_S,
    DETECTD,
    PORTS,
    Daemon,
    Hooks,
    edit,
    free_port,
    profile,
    report,
    serving,
    topic,
    write,
)

from actors.events import CLIENT, COUNT, KIND, KINDS, SUBJECT, TOPIC, Packed
from daemon.devices.credentials import FILE

pytestmark = pytest.mark.system

REFUSALS = {
    "name": "refusals",
    "metric": "aws:num-authorization-failures",
    "criteria": {"comparisonOperator": "less-than-equals", "value": {"count": 0}, "durationSeconds": 1},
}
QUICK = {"report_interval_s": 0, "durations": "any", "grace_s": 2}


async def detectd(*words: str | Path) -> str:
    """What a command prints; it must succeed."""
    child = await asyncio.create_subprocess_exec(
        str(DETECTD), *map(str, words), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(child.communicate(), DEADLINE_S)
    assert child.returncode == 0, err.decode()
    return out.decode()


async def add(config: Path, name: str) -> str:
    """A device with a password, which is given back."""
    return (await detectd("devices", "add", name, "--generate", "--config", config)).strip()


@asynccontextmanager
async def connected(
    daemon: Daemon,
    name: str,
    password: str | None = None,
    *,
    user: str | None = None,
    tls: ssl.SSLContext | None = None,
    protocol: aiomqtt.ProtocolVersion = aiomqtt.ProtocolVersion.V311,
) -> AsyncIterator[aiomqtt.Client]:
    async with aiomqtt.Client(
        *daemon.mqtt, identifier=name, username=user or (name if password else None), password=password,
        protocol=protocol, timeout=DEADLINE_S, tls_context=tls,
    ) as client:  # fmt: skip
        yield client


async def refused(daemon: Daemon, name: str, password: str | None = None, **more: Any) -> int:
    """The code of the CONNACK, 4 or 5; paho tells those in the words of MQTT 5."""
    with pytest.raises(MqttConnectError) as error:
        async with connected(daemon, name, password, **more):
            pass
    return {"Bad user name or password": 4, "Not authorized": 5}[str(error.value.rc)]


async def heard(client: aiomqtt.Client, thing: str, number: int) -> str:
    """Report for a thing, and wait for its reply: `accepted` or `rejected`."""
    await client.publish(topic(thing), json.dumps(report(number)).encode(), qos=1)
    async with asyncio.timeout(DEADLINE_S):
        async for message in client.messages:
            return str(message.topic).rsplit("/", 1)[1]
    raise AssertionError


async def log_of(daemon: Daemon) -> list[dict[str, Any]]:
    lines = (await detectd("record", "--config", daemon.config)).splitlines()
    return [json.loads(line) for line in lines[1:]]


async def facts_of(daemon: Daemon) -> list[tuple[str, str, str, int]]:
    """(kind, client, topic, count) of each event of the log."""
    found = []
    for line in await log_of(daemon):
        if line["subject"].startswith(SUBJECT):
            body = msgspec.json.decode(_payload(line["payload"]), type=Packed)
            found += [
                (KINDS[row[KIND]], body.clients[row[CLIENT]], [*body.topics, ""][row[TOPIC]], row[COUNT])
                for row in body.rows
            ]
    return found


def _payload(shown: Any) -> bytes:
    """As it was before `record` wrote it: JSON stays JSON, anything else is base64."""
    return base64.b64decode(shown) if isinstance(shown, str) else json.dumps(shown).encode()


async def until_fact(daemon: Daemon, kind: str, client: str, about: str = "") -> None:
    async with asyncio.timeout(DEADLINE_S):
        while (kind, client, about) not in [fact[:3] for fact in await facts_of(daemon)]:
            await asyncio.sleep(0.2)


async def test_a_device_that_reports_for_another_is_refused_alarms_and_changes_nothing_of_it(tmp_path: Path) -> None:
    async with Hooks() as hooks:
        config = write(tmp_path, hooks, profiles=[profile(PORTS, REFUSALS)], limits=QUICK)
        passwords = {name: await add(config, name) for name in ("t1", "t2")}
        async with serving(config) as daemon, connected(daemon, "t1", passwords["t1"]) as t1:
            await t1.subscribe(topic("t1") + "/+")
            assert await heard(t1, "t1", 1) == "accepted"
            await t1.publish(topic("t2"), json.dumps(report(1, ports=[4444])).encode(), qos=1)  # has its PUBACK
            for topic_filter in (topic("t2") + "/accepted", "$aws/things/+/defender/#", "$aws/#"):
                assert await granted(t1, topic_filter) == 0x80
            await until_fact(daemon, "denied", "t1", topic("t2"))
            assert await heard(t1, "t1", 2) == "accepted"
            subjects = [line["subject"] for line in await log_of(daemon)]
            assert not [subject for subject in subjects if ".t2." in subject]
            assert len([subject for subject in subjects if ".t1." in subject]) == 2
            await hooks.seen("t1", "refusals", "in-alarm")
            assert not [key for key in hooks.keys() if key[0] == "t2" or key[1] == "ports"]


async def test_a_filter_that_begins_with_a_wildcard_hears_no_replies_of_others(tmp_path: Path) -> None:
    config = write(tmp_path)
    passwords = {name: await add(config, name) for name in ("t1", "t2")}
    async with (
        serving(config) as daemon,
        connected(daemon, "t1", passwords["t1"]) as t1,
        connected(daemon, "t2", passwords["t2"]) as t2,
    ):
        for topic_filter in ("#", "+/things/t2/#", "+/+/+/+/+/+/+", topic("t1") + "/+"):
            assert await granted(t1, topic_filter) == 0
        await t2.subscribe(topic("t2") + "/+")
        assert await heard(t2, "t2", 1) == "accepted"
        await t2.publish("dt/t2/up", b"for all")
        await t1.publish(topic("t1"), json.dumps(report(1)).encode(), qos=1)
        heard_by_t1 = set()
        async with asyncio.timeout(DEADLINE_S):
            async for message in t1.messages:
                heard_by_t1.add(str(message.topic))
                if heard_by_t1 >= {topic("t1") + "/accepted", "dt/t2/up"}:
                    break
        assert heard_by_t1 == {topic("t1") + "/accepted", "dt/t2/up"}


async def test_wrong_and_missing_credentials_are_refused_and_noted(tmp_path: Path) -> None:
    config = write(tmp_path)
    password = await add(config, "t1")
    async with serving(config) as daemon:
        assert await refused(daemon, "t1", "guess") == 4
        assert await refused(daemon, "nobody", "guess") == 4
        assert await refused(daemon, "t1") == 5
        assert await refused(daemon, "t2", password, user="t1") == 5  # not its client id
        async with connected(daemon, "t1", password) as t1:
            await t1.subscribe(topic("t1") + "/+")
            assert await heard(t1, "t1", 1) == "accepted"
        await until_fact(daemon, "connect-failed", "t1")
        assert await daemon.metric("detectd_devices_refused_total") == 4
        assert password not in daemon.log()
        assert "guess" not in daemon.log_path.read_text()


async def test_the_first_device_and_a_revocation_take_effect_on_those_who_are_in(tmp_path: Path) -> None:
    async with serving(config := write(tmp_path)) as daemon:
        async with connected(daemon, "anyone") as anyone:
            password = await add(config, "t1")
            await until_cut(anyone)
        assert await refused(daemon, "anyone") == 5
        other = await add(config, "t2")
        await until_in(daemon, "t2", other)
        async with connected(daemon, "t1", password) as t1, connected(daemon, "t2", other) as t2:
            await detectd("devices", "revoke", "t1", "--config", config)
            await until_cut(t1)
            await t2.subscribe(topic("t2") + "/+")
            assert await heard(t2, "t2", 1) == "accepted"
        assert await refused(daemon, "t1", password) == 4


async def test_a_damaged_file_lets_nobody_in_who_was_out_and_is_an_error_at_the_start(tmp_path: Path) -> None:
    config = write(tmp_path)
    password = await add(config, "t1")
    async with serving(config) as daemon:
        (daemon.data_dir / FILE).write_text("{")
        await daemon.until_metric("detectd_devices_file_damaged", 1)
        assert await refused(daemon, "x") == 5
        async with connected(daemon, "t1", password):
            pass
        assert await daemon.stop() == 0
        await daemon.start(ready=False)
        assert await daemon.ended() == 3
        assert str(daemon.data_dir / FILE) in daemon.log()


async def test_a_backup_has_the_credentials_so_that_a_restored_daemon_asks_for_them(tmp_path: Path) -> None:
    config = write(tmp_path)
    password = await add(config, "t1")
    async with serving(config) as daemon:
        await detectd("backup", "--config", config, tmp_path / "copy")
        assert await daemon.stop() == 0
    edit(config, data_dir="restored")
    await detectd("restore", "--config", config, tmp_path / "copy")
    assert stat.S_IMODE((tmp_path / "restored" / FILE).stat().st_mode) == 0o600
    async with serving(config) as daemon:
        assert await refused(daemon, "anyone") == 5
        async with connected(daemon, "t1", password):
            pass


async def test_a_gateway_reports_for_its_things_and_a_reload_gives_it_others(tmp_path: Path) -> None:
    embedded = {"mqtt": f"127.0.0.1:{free_port()}"}
    broker = {"embedded": embedded, "devices": {"gateways": {"g": ["site-*"]}}}
    config = write(tmp_path, broker=broker)
    password = await add(config, "g")
    async with serving(config) as daemon:
        async with connected(daemon, "g", password) as gateway:
            await gateway.subscribe(topic("site-1") + "/+")
            assert await heard(gateway, "site-1", 1) == "accepted"
            assert await granted(gateway, topic("t1") + "/+") == 0x80
            edit(config, broker={**broker, "devices": {"gateways": {"g": ["t1"]}}})
            await until_cut(gateway)
        async with connected(daemon, "g", password) as gateway:
            assert await granted(gateway, topic("site-1") + "/+") == 0x80
            await gateway.subscribe(topic("t1") + "/+")
            assert await heard(gateway, "t1", 1) == "accepted"


async def test_a_last_will_is_not_for_the_topics_of_others(tmp_path: Path) -> None:
    config = write(tmp_path)
    password = await add(config, "t1")
    async with serving(config) as daemon:
        will = aiomqtt.Will(topic("t2"), json.dumps(report(1)).encode(), qos=1)
        with pytest.raises(MqttConnectError):
            async with aiomqtt.Client(*daemon.mqtt, identifier="t1", username="t1", password=password, will=will):
                pass
        await until_fact(daemon, "denied", "t1", topic("t2"))


async def test_in_front_of_another_broker_identity_binds_who_that_broker_let_in(tmp_path: Path) -> None:
    mosquitto = Mosquitto(tmp_path / "mosquitto", "allow_anonymous true")
    await mosquitto.start()
    front = free_port()
    broker = {
        "embedded": {"mqtt": f"127.0.0.1:{free_port()}"},
        "sensors": [
            {"name": "plant", "listen": f"127.0.0.1:{front}", "upstream": f"mqtt://127.0.0.1:{mosquitto.port}"}
        ],
        "devices": {"identity": "on"},
    }
    try:
        async with serving(write(tmp_path, broker=broker)) as daemon, mosquitto.client("all") as everyone:
            await everyone.subscribe("#")
            await everyone.subscribe("$aws/#")
            daemon.mqtt = ("127.0.0.1", front)
            assert await refused(daemon, "t2", "", user="t1") == 5
            for version in (aiomqtt.ProtocolVersion.V311, aiomqtt.ProtocolVersion.V5):
                async with connected(daemon, "t1", "any", protocol=version) as t1:
                    await t1.publish(topic("t2"), b"not its own", qos=1)
                    await t1.publish(topic("t1"), b"its own", qos=1)
                    assert await granted(t1, topic("t2") + "/+") in {0x80, 0x87}
                    message = await anext(aiter(everyone.messages))
                    assert (str(message.topic), message.payload) == (topic("t1"), b"its own")
    finally:
        mosquitto.stop()


# ---- certificates ----


class Authority:
    """A CA for devices, and the broker's own certificate, in files."""

    def __init__(self, folder: Path) -> None:
        self._ca, self._folder = trustme.CA(), folder
        server = self._ca.issue_cert("127.0.0.1")
        self._ca.cert_pem.write_to_path(folder / "ca.pem")
        server.cert_chain_pems[0].write_to_path(folder / "server.pem")
        server.private_key_pem.write_to_path(folder / "server.key")

    def tls(self, *, asks: bool = True) -> dict[str, str]:
        return {"cert": "server.pem", "key": "server.key", **({"ca": "ca.pem"} if asks else {})}

    def certificate(self, common_name: str, file: str | None = None) -> ssl.SSLContext:
        """What a client with this certificate connects by; the certificate itself in a file, for `devices add`."""
        made = self._ca.issue_cert(common_name=common_name)
        context = self.nobody()
        made.configure_cert(context)
        if file is not None:
            made.cert_chain_pems[0].write_to_path(self._folder / file)
        return context

    def nobody(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self._folder / "ca.pem")


async def test_a_certificate_says_which_thing_a_device_is(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    broker = {"embedded": {"mqtt": f"127.0.0.1:{free_port()}", "tls": ca.tls()}}
    async with serving(config := write(tmp_path, broker=broker)) as daemon:
        mine = ca.certificate("t1")
        assert await refused(daemon, "t2", tls=mine) == 5
        async with connected(daemon, "t1", tls=mine) as t1:
            await t1.subscribe(topic("t1") + "/+")
            assert await heard(t1, "t1", 1) == "accepted"
            assert await granted(t1, topic("t2") + "/+") == 0x80
            await detectd("devices", "revoke", "t1", "--config", config)
            await until_cut(t1)
        assert await refused(daemon, "t1", tls=mine) == 5
        listed = ca.certificate("AWS IoT Certificate", "t1.pem")
        await detectd("devices", "add", "t1", "--certificate", tmp_path / "t1.pem", "--config", config)
        await until_in(daemon, "t1", tls=listed)
        assert await refused(daemon, "t1", tls=mine) == 5
        async with connected(daemon, "t3", tls=ca.certificate("t3")):  # others come in as before
            pass


async def test_off_loopback_nobody_comes_in_without_credentials(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    port = free_port()
    config = write(tmp_path, broker={"embedded": {"mqtt": f"0.0.0.0:{port}", "tls": ca.tls(asks=False)}})
    async with serving(config) as daemon:
        daemon.mqtt = ("127.0.0.1", port)
        assert await refused(daemon, "t1", tls=ca.nobody()) == 5
        password = await add(config, "t1")
        await until_in(daemon, "t1", password, tls=ca.nobody())


async def granted(client: aiomqtt.Client, topic_filter: str) -> int:
    """The code of the SUBACK."""
    (code,) = await client.subscribe(topic_filter)
    return code if isinstance(code, int) else int(code.value)


async def until_cut(client: aiomqtt.Client) -> None:
    """The broker's end closes the connection."""
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(aiomqtt.MqttError):
            await anext(aiter(client.messages))


async def until_in(daemon: Daemon, name: str, password: str | None = None, **more: Any) -> None:
    """A change of the credentials takes the daemon a moment."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                async with connected(daemon, name, password, **more):
                    return
            except MqttConnectError:
                await asyncio.sleep(0.1)
