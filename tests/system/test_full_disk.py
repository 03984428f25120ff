"""A disk that fills up under the running daemon: a clear state, nothing that was acknowledged lost, and recovery."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiomqtt
import pytest
from system_tools import DEADLINE_S, Daemon, Hooks, report, send, serving, write

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

SIZE_MIB = 96


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"can't mount a small tmpfs: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Leaves not a byte."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            try:
                while file.write(b"x" * size) == size:
                    pass
            except OSError:
                continue
    return ballast


async def send_until_refused(daemon: Daemon) -> int:
    """Reports one after the other until the broker takes no more; how many it took."""
    taken = 0
    body = report(1, ports=[22]) | {"padding": "x" * 20_000}
    try:
        while taken < 2000:
            fields = body | {"header": {"report_id": taken + 1, "version": "1.0"}}
            await asyncio.wait_for(send(daemon.mqtt, "t1", fields), 3)
            taken += 1
    except (aiomqtt.MqttError, TimeoutError, OSError):
        pass
    return taken


async def test_a_full_disk_is_said_and_survived(tmp_path: Path, disk: Path) -> None:
    async with Hooks() as hooks:
        config = write(
            tmp_path, hooks, data_dir=str(disk / "data"), log={"max_bytes": 32 * 1024**2, "guard_bytes": 8 * 1024**2}
        )
        async with serving(config) as daemon:
            await send(daemon.mqtt, "t0", report(1, ports=[4444]))
            await hooks.seen("t0", "ports", "in-alarm")
            ballast = fill(disk)
            taken = await send_until_refused(daemon)
            await not_ready(daemon)
            assert not daemon.has_ended, daemon.log()
            os.truncate(ballast, 0)
            await daemon.until_ready()
            await say(daemon, "t0", 2)
            await hooks.seen("t0", "ports", "alarm-cleared")
            await daemon.until_metric("detectd_reports_received_total", taken + 2)
            assert hooks.keys() == [("t0", "ports", "in-alarm"), ("t0", "ports", "alarm-cleared")]
            assert await daemon.stop() == 0
            # And nothing is damaged: it starts again, and the next alarm is judged and told.
            await daemon.start()
            await say(daemon, "t2", 1, ports=[4444])
            await hooks.seen("t2", "ports", "in-alarm")


async def not_ready(daemon: Daemon) -> None:
    """`/-/ready` says no, and why."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            status, answer = await daemon.get("/-/ready")
            if status == 503:
                assert answer["reasons"]
                return
            await asyncio.sleep(0.05)


async def say(daemon: Daemon, thing: str, number: int, ports: list[int] | None = None) -> None:
    """A report, as often as it takes: a broker that starts again turns clients away meanwhile."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                return await send(daemon.mqtt, thing, report(number, ports=ports or [22]))
            except aiomqtt.MqttError:
                await asyncio.sleep(0.2)
