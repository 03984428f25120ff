"""A fleet on a broker of its own: a real Mosquitto, bridged, gives the same alarm as the embedded broker."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from mosquitto import Mosquitto
from system_tools import PORTS, Daemon, Hooks, Notice, device, profile, report, send, serving, topic, write

pytestmark = pytest.mark.system

# What is one thing's own, or this moment's.
OWN = ("thingName", "violationId", "violationEventTime")


def alarm(notice: Notice) -> dict[str, Any]:
    data = json.loads(notice.body)["data"]
    return {key: value for key, value in data.items() if key not in OWN}


def config(folder: Path, hooks: Hooks, mosquitto: Mosquitto, **bridge: Any) -> Path:
    body = json.loads(write(folder, hooks, profiles=[profile(PORTS)]).read_text())
    bridges = [{"name": "plant", "url": f"mqtt://127.0.0.1:{mosquitto.port}", **bridge}]
    return write(folder, hooks, broker=body["broker"] | {"bridges": bridges})


async def until_connected(daemon: Daemon) -> None:
    await daemon.until_metric("detectd_bridge_connected", 1)


async def test_a_report_over_mosquitto_raises_and_clears_the_same_alarm(tmp_path: Path) -> None:
    mosquitto = Mosquitto(tmp_path / "mosquitto")
    await mosquitto.start()
    try:
        async with Hooks() as hooks, serving(config(tmp_path, hooks, mosquitto)) as daemon:
            await until_connected(daemon)
            for address, thing in ((daemon.mqtt, "here"), (("127.0.0.1", mosquitto.port), "there")):
                await send(address, thing, report(1, ports=[22, 4444]), report(2, ports=[22]))
            for kind in ("in-alarm", "alarm-cleared"):
                here, there = await hooks.seen("here", "ports", kind), await hooks.seen("there", "ports", kind)
                assert alarm(here) == alarm(there)
            assert len(hooks.arrivals) == 4
    finally:
        mosquitto.kill()


async def test_a_device_on_mosquitto_hears_the_answer_in_the_format_of_its_report(tmp_path: Path) -> None:
    mosquitto = Mosquitto(tmp_path / "mosquitto")
    await mosquitto.start()
    try:
        async with Hooks() as hooks, serving(config(tmp_path, hooks, mosquitto)) as daemon:
            await until_connected(daemon)
            async with device(("127.0.0.1", mosquitto.port), "p1") as p1:
                await p1.subscribe(topic("p1") + "/+", qos=1)
                await p1.publish(topic("p1"), json.dumps(report(7)).encode(), qos=1)
                accepted = await _next(p1)
                await p1.publish(topic("p1"), b"{}", qos=1)
                rejected = await _next(p1)
        assert (accepted["status"], accepted["reportId"], accepted["thingName"]) == ("ACCEPTED", 7, "p1")
        assert (rejected["status"], rejected["statusDetails"]["ErrorCode"]) == ("REJECTED", "InvalidPayload")
    finally:
        mosquitto.kill()


async def test_what_mosquitto_kept_while_the_daemon_was_killed_is_judged_once_it_is_back(tmp_path: Path) -> None:
    mosquitto = Mosquitto(tmp_path / "mosquitto")
    await mosquitto.start()
    try:
        async with Hooks() as hooks, serving(config(tmp_path, hooks, mosquitto)) as daemon:
            await until_connected(daemon)
            await daemon.kill()
            await send(("127.0.0.1", mosquitto.port), "t1", report(1, ports=[4444]), report(2, ports=[22]))
            await daemon.start()
            await hooks.seen("t1", "ports", "alarm-cleared")
            assert hooks.keys() == [("t1", "ports", "in-alarm"), ("t1", "ports", "alarm-cleared")]
    finally:
        mosquitto.kill()


async def _next(client: aiomqtt.Client) -> dict[str, Any]:
    message = await asyncio.wait_for(anext(aiter(client.messages)), 30)
    assert isinstance(message.payload, bytes)
    return dict(json.loads(message.payload))
