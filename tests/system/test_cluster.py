"""A nats-server that is not ours to start carries the log: the same alarms, and what it lost in a crash is copied."""

import json
from pathlib import Path

import pytest
from log_server import LogServer
from system_tools import Hooks, report, send, serving, until, write

pytestmark = pytest.mark.system


async def test_a_server_of_the_operators_own_carries_the_log_over_its_crashes(tmp_path: Path) -> None:
    server = LogServer(tmp_path)
    await server.start()
    (tmp_path / "credentials").write_text("daemon:s3cret\n")
    there = {"url": f"nats://127.0.0.1:{server.port}", "credentials_file": "credentials"}
    mqtt = ("127.0.0.1", server.mqtt_port)
    try:
        async with Hooks() as hooks, serving(write(tmp_path, hooks, broker={"nats": there})) as daemon:
            await send(mqtt, "t1", report(1, ports=[4444]))
            await hooks.seen("t1", "ports", "in-alarm")
            server.kill()
            await server.start()
            await daemon.until_ready()
            await send(mqtt, "t1", report(2, ports=[22]))
            await hooks.seen("t1", "ports", "alarm-cleared")
            await until(lambda: daemon.log_path.read_text().count("broker.reconciled") >= 2, "compared again")
            assert (await daemon.get("/-/status"))[1]["broker"]["mqtt"] is None
            assert await daemon.stop() == 0
            assert "s3cret" not in daemon.log_path.read_text() + json.dumps(hooks.arrivals)
    finally:
        server.stop()
