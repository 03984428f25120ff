"""A fleet on a stock Mosquitto, watched through its log file alone: no bridge, no agent, nothing moved."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from mosquitto import Mosquitto
from system_tools import Hooks, serving, write

pytestmark = pytest.mark.system


def behavior(name: str, metric: str, most: int) -> dict[str, Any]:
    criteria = {"comparisonOperator": "less-than-equals", "value": {"count": most}, "durationSeconds": 2}
    return {"name": name, "metric": metric, "criteria": criteria}


PROFILE = {
    "securityProfileName": "seen",
    "targets": ["all/things"],
    "behaviors": [
        behavior("sent", "aws:num-messages-sent", 20),
        behavior("denied", "aws:num-authorization-failures", 0),
        {"name": "home", "metric": "aws:source-ip-address",
         "criteria": {"comparisonOperator": "in-cidr-set", "value": {"cidrs": ["192.0.2.0/24"]}}},
    ],
}  # fmt: skip


async def pub(broker: Mosquitto, client: str, topic: str, count: int) -> None:
    """Connects, sends so often, leaves. A Mosquitto that denies a message ends the connection; then it comes again."""
    child = await asyncio.create_subprocess_exec(
        "mosquitto_pub", "-p", str(broker.port), "-i", client, "-q", "1", "-t", topic, "-l",
        stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    await asyncio.wait_for(child.communicate(b"x\n" * count), 30)


async def test_flood_refusals_and_strange_addresses_raise_alarms_that_clear(tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("topic readwrite ok/#\n")
    log = tmp_path / "mosquitto.log"
    types = [f"log_type {one}" for one in ("error", "notice", "information", "debug")]
    broker = Mosquitto(tmp_path / "mosquitto", f"log_dest file {log}", f"acl_file {tmp_path}/acl", *types)
    await broker.start()
    try:
        async with Hooks() as hooks:
            config = write(
                tmp_path, hooks, profiles=[PROFILE],
                limits={"durations": "any", "cloud_window_s": 2, "grace_s": 2},
            )  # fmt: skip
            body = json.loads(config.read_text())
            config = write(
                tmp_path, hooks, profiles=[PROFILE], limits=body["limits"],
                broker=body["broker"] | {"mosquitto_logs": [{"name": "plant", "path": str(log)}]},
            )  # fmt: skip
            async with serving(config) as daemon:
                await daemon.until_metric("detectd_source_connected", 1)
                await pub(broker, "flood", "ok/a", 500)
                await pub(broker, "curious", "no/a", 1)
                for behavior_, thing in (("sent", "flood"), ("denied", "curious"), ("home", "flood")):
                    await hooks.seen(thing, behavior_, "in-alarm")
                for _ in range(4):  # quiet again
                    await pub(broker, "flood", "ok/a", 1)
                    await asyncio.sleep(2)
                await hooks.seen("flood", "sent", "alarm-cleared")
                assert ("curious", "sent", "in-alarm") not in hooks.keys()
    finally:
        broker.kill()
