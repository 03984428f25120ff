"""What brokers see, by the installed daemon: wrong passwords, refusals, floods, absences and strange addresses alarm.

One daemon, three brokers at a time: the embedded one, a Mosquitto behind a sensor, a Mosquitto whose log file is read.
"""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import aiomqtt
import pytest
from aiomqtt.exceptions import MqttError
from mosquitto import Mosquitto
from system_tools import DEADLINE_S, DETECTD, Hooks, free_port, profile, serving, write

pytestmark = pytest.mark.system

WINDOW_S = 2
Version = Literal["3.1.1", "5"]


def limit(name: str, metric: str, most: int, *, duration: int | None = WINDOW_S) -> dict[str, Any]:
    criteria = {"comparisonOperator": "less-than-equals", "value": {"count": most}}
    return {"name": name, "metric": metric, "criteria": criteria | ({"durationSeconds": duration} if duration else {})}


BEHAVIORS = [
    limit("refusals", "aws:num-authorization-failures", 0),
    limit("attempts", "aws:num-connection-attempts", 1),
    limit("flood", "aws:num-messages-sent", 20) | {"metricDimension": {"dimensionName": "telemetry"}},
    limit("sizes", "aws:message-byte-size", 1000, duration=None),
    limit("received", "aws:num-messages-received", 0),
    limit("leaves", "aws:num-disconnects", 0),
    limit("away", "aws:disconnect-duration", 3, duration=None),
    {
        "name": "origin",
        "metric": "aws:source-ip-address",
        "criteria": {"comparisonOperator": "not-in-cidr-set", "value": {"cidrs": ["127.0.0.2/32"]}},
    },
]


@dataclass(frozen=True)
class Door:
    """A way to a broker for one thing, and what its source can tell."""

    thing: str
    port: int
    password: str | None
    version: Version
    forbidden: str  # a topic that this thing may not use
    names_failed_logins: bool = True

    @asynccontextmanager
    async def connected(self, password: str | None = None, ip: str = "127.0.0.1") -> AsyncIterator[aiomqtt.Client]:
        word = password or self.password
        protocol = aiomqtt.ProtocolVersion.V5 if self.version == "5" else aiomqtt.ProtocolVersion.V311
        async with aiomqtt.Client(
            "127.0.0.1", self.port, identifier=self.thing, username=self.thing if word else None, password=word,
            protocol=protocol, timeout=DEADLINE_S, bind_address=ip,
        ) as client:  # fmt: skip
            yield client


class Story:
    """What one thing does, and what must come of it."""

    def __init__(self, door: Door, hooks: Hooks) -> None:
        self._door, self._hooks = door, hooks

    async def told(self, behavior: str, kind: str) -> None:
        await self._hooks.seen(self._door.thing, behavior, kind)

    async def raised_and_cleared(self, *behaviors: str) -> None:
        for behavior in behaviors:
            await self.told(behavior, "in-alarm")
        for behavior in behaviors:
            await self.told(behavior, "alarm-cleared")

    async def play(self) -> None:
        door = self._door
        await (self.comes_with_wrong_passwords() if door.names_failed_logins else self.publishes_what_it_may_not())
        async with door.connected() as client:
            await self.raised_and_cleared("refusals", *["attempts"] * door.names_failed_logins)
            await client.subscribe("dt/back", qos=0)
            for _ in range(50):
                await client.publish(f"dt/{door.thing}/up", b"x", qos=1)
            await client.publish("dt/back", b"x" * 2000, qos=1)
            await self.raised_and_cleared("flood", "received")
            await self.told("sizes", "in-alarm")
            await client.publish("dt/back", b"x", qos=1)
            await self.told("sizes", "alarm-cleared")
        await self.told("leaves", "in-alarm")
        await self.told("away", "in-alarm")
        async with door.connected(ip="127.0.0.2"):
            await self.told("origin", "in-alarm")
            await self.told("leaves", "alarm-cleared")
            await self.told("away", "alarm-cleared")
        async with door.connected():
            await self.told("origin", "alarm-cleared")

    async def publishes_what_it_may_not(self) -> None:
        """Mosquitto 2.0.11 ends the connection for it."""
        with suppress(MqttError):
            async with self._door.connected() as client:
                await client.publish(self._door.forbidden, b"x", qos=0)
                await self.told("refusals", "in-alarm")

    async def comes_with_wrong_passwords(self) -> None:
        """Three attempts: at least two of them are in one window."""
        for _ in range(3):
            with pytest.raises(MqttError):
                async with self._door.connected("wrong"):
                    pass


@asynccontextmanager
async def mosquitto(folder: Path, *settings: str) -> AsyncIterator[Mosquitto]:
    broker = Mosquitto(folder, *settings)
    await broker.start()
    try:
        yield broker
    finally:
        broker.kill()


async def devices_add(config: Path, name: str) -> str:
    child = await asyncio.create_subprocess_exec(
        str(DETECTD), "devices", "add", name, "--generate", "--config", str(config), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(child.communicate(), DEADLINE_S)
    assert child.returncode == 0
    return out.decode().strip()


def passwords(folder: Path, name: str) -> list[str]:
    """Mosquitto's settings for one user whose password is its name."""
    program = shutil.which("mosquitto_passwd", path="/usr/bin:/usr/sbin")
    assert program is not None
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([program, "-b", "-c", str(folder / "passwords"), name, name], check=True, capture_output=True)
    return ["allow_anonymous false", f"password_file {folder / 'passwords'}"]


def log_settings(folder: Path) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "acl").write_text("topic readwrite dt/#\n")
    kinds = [f"log_type {kind}" for kind in ("error", "notice", "information", "debug")]
    return [f"log_dest file {folder / 'events.log'}", *kinds, f"acl_file {folder / 'acl'}"]


def rules(**broker: Any) -> dict[str, Any]:
    return {
        "broker": {"embedded": {"mqtt": f"127.0.0.1:{free_port()}"}, **broker},
        "dimensions": [{"name": "telemetry", "type": "TOPIC_FILTER", "stringValues": ["dt/${iot:ClientId}/up"]}],
        "profiles": [profile(*BEHAVIORS)],
        "limits": {"report_interval_s": 0, "durations": "any", "cloud_window_s": WINDOW_S, "grace_s": 1.5},
    }


async def test_each_misbehaviour_raises_its_alarm_and_clears_it_on_every_kind_of_broker(tmp_path: Path) -> None:
    async with (
        Hooks() as hooks,
        mosquitto(tmp_path / "walled", *passwords(tmp_path / "walled", "s1")) as walled,
        mosquitto(tmp_path / "logged", *log_settings(tmp_path / "logged")) as logged,
    ):
        sensed = free_port()
        config = write(
            tmp_path, hooks,
            **rules(
                sensors=[{"name": "walled", "listen": f"127.0.0.1:{sensed}",
                          "upstream": f"mqtt://127.0.0.1:{walled.port}"}],
                mosquitto_logs=[{"name": "logged", "path": str(tmp_path / "logged" / "events.log")}],
            ),
        )  # fmt: skip
        password = await devices_add(config, "e1")
        async with serving(config) as daemon:
            doors = [
                Door("e1", daemon.mqtt[1], password, "3.1.1", "$aws/things/e2/defender/metrics/json"),
                Door("s1", sensed, "s1", "5", "none"),
                Door("m1", logged.port, None, "3.1.1", "forbidden/x", names_failed_logins=False),
            ]
            await together(Story(door, hooks).play for door in doors)


async def together(plays: Any) -> None:
    async with asyncio.TaskGroup() as tasks:
        for play in plays:
            of: Callable[[], Awaitable[None]] = play
            tasks.create_task(of())  # type: ignore[arg-type]


async def test_one_that_reports_for_another_is_refused_and_alarms_and_changes_nothing_of_the_other(
    tmp_path: Path,
) -> None:
    async with Hooks() as hooks:
        ports = {
            "name": "ports", "metric": "aws:listening-tcp-ports",
            "criteria": {"comparisonOperator": "in-port-set", "value": {"ports": [22]}},
        }  # fmt: skip
        settings = rules() | {"profiles": [profile(limit("refusals", "aws:num-authorization-failures", 0), ports)]}
        config = write(tmp_path, hooks, **settings)
        password = await devices_add(config, "t1")
        async with serving(config) as daemon:
            door = Door("t1", daemon.mqtt[1], password, "3.1.1", "$aws/things/t2/defender/metrics/json")
            async with door.connected() as client:
                body = {"header": {"report_id": 1, "version": "1.0"},
                        "metrics": {"listening_tcp_ports": {"ports": [{"port": 4444}], "total": 1}}}  # fmt: skip
                await client.publish(door.forbidden, json.dumps(body).encode(), qos=1)
                await hooks.seen("t1", "refusals", "in-alarm")
                await hooks.seen("t1", "refusals", "alarm-cleared")
            assert {notice.thing for notice in hooks.notices} == {"t1"}
            assert await daemon.metric("detectd_reports_received_total") == 0
