"""Devices that say a user name, as AWS's SDKs do, at a real nats-server."""

import asyncio
import json
from pathlib import Path

import pytest
from nats_rig import body, device, number_of, running, topic

from daemon.nats.conf import PUBLISH_DENIED, SUBSCRIBE_DENIED
from daemon.nats.named_devices import NamedDevices

AGENT = (
    "?SDK=IoTDeviceSDK/Python&Platform=Unix&Metadata=(CRTVersion=0.36.1;IoTSDKVersion=1.31.0;"
    "IoTSDKFeature=F/3,G/A,I/A;IoTSDKMetricsVersion=1)"
)


@pytest.mark.parametrize("name", [AGENT, "?SDK=Python&Version=1.5.5", "anybody", "détecteur ☂"])
async def test_a_device_with_a_user_name_reports_and_hears_the_answer(tmp_path: Path, name: str) -> None:
    async with running(tmp_path) as rig, device(rig.endpoint, "p1", user=name) as p1:
        assert await p1.subscribe(topic("p1") + "/accepted") == 1
        await p1.publish(topic("p1"), body(7))
        assert [number_of(entry) for entry in await rig.log()] == [7]


async def test_a_device_with_a_user_name_may_not_touch_what_is_the_servers(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, device(rig.endpoint, "p1", user=AGENT) as p1:
        await p1.publish(topic("p1"), body(1))
        for forbidden in (
            "$JS/API/STREAM/PURGE/LOG",
            "$SYS/REQ/USER/AUTH",
            "detectd/log/tick",
            topic("p2") + "/accepted",
        ):
            await p1.publish(forbidden, b"")
        assert await p1.subscribe(topic("p2")) == 0x80
        assert await p1.subscribe("$SYS/REQ/USER/AUTH") == 0x80
        await rig.events.seen("publish_refused")
        assert [number_of(entry) for entry in await rig.log()] == [1]


async def test_a_client_with_a_user_name_that_does_not_speak_mqtt_is_turned_away(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        # A socket of our own: nats-py leaves the one of a refused connection open.
        reader, writer = await asyncio.open_connection(*rig.endpoint.url.removeprefix("nats://").split(":"))
        writer.write(b'CONNECT {"verbose": true, "user": "anybody"}\r\nPING\r\n')
        assert b"-ERR" in await asyncio.wait_for(reader.read(), 30)
        writer.close()
        await writer.wait_closed()


async def test_devices_with_a_user_name_come_back_after_a_crash_of_the_server(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        await rig.server._child.kill()
        await rig.events.seen("opened", times=2)
        async with device(rig.endpoint, "p1", user=AGENT) as p1:
            await p1.publish(topic("p1"), body(1))


def test_a_question_that_cannot_be_read_gets_no_answer() -> None:
    named = NamedDevices(bytes(32), PUBLISH_DENIED, SUBSCRIBE_DENIED)
    for question in (
        b"",
        b"a.b",
        b"a.b.c",
        b"...",
        b"a.W10.c",
        b"a.e30.c",
        b"a.\xff\xfe.c",
        b"." + b"[" * 100_000 + b".",
    ):
        assert named.answer(question) is None


def test_an_issuer_is_an_account_key_as_nats_spells_it() -> None:
    issuer = NamedDevices(bytes(32), PUBLISH_DENIED, SUBSCRIBE_DENIED).issuer
    assert (issuer[0], len(issuer), json.dumps(issuer)) == ("A", 56, f'"{issuer}"')
