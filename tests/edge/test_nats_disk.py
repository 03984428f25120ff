"""A disk that fills up under the embedded nats-server: no promise that isn't kept, and back when there is room."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mqtt_load import Publisher
from nats_rig import body, number_of, running, topic, until

from config.model import Log

ROOMY = Log(max_bytes=1024**3, guard_bytes=1024**3)  # more than the disk has


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("can't mount a tmpfs (needs root)")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk_loses_nothing_acknowledged_and_is_recovered_from(disk: Path) -> None:
    ballast = disk / "ballast"
    ballast.write_bytes(b"x" * 20 * 1024**2)
    async with running(disk, log=ROOMY) as rig:
        publisher = Publisher(rig.endpoint.mqtt, "p1", topic("p1"), lambda number: body(number, 4000), window=50)
        task = asyncio.create_task(publisher.run())
        assert "disk full" in str((await rig.events.seen("stalled"))["reason"])
        await rig.events.seen("failed")
        ballast.unlink()
        await rig.events.seen("opened", times=2)
        acked = len(publisher.acked)
        await until(lambda: len(publisher.acked) > acked, "reports are acknowledged again")
        publisher.stop()
        await asyncio.wait_for(task, 30)
        assert set(publisher.acked) <= {number_of(entry) for entry in await rig.log()}
