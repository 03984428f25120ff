"""The history in the whole daemon: readable at once, whole after kills and a restart, in a backup and its restore."""

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from system_tools import DETECTD, Daemon, profile, report, send, serving, write

pytestmark = pytest.mark.system
OUT = "aws:all-bytes-out"
ALL_TIME = {"startTime": datetime(2020, 1, 1, tzinfo=UTC), "endTime": datetime(2037, 1, 1, tzinfo=UTC)}
SOON_S = 1.0


@contextmanager
def client(url: str) -> Iterator[Any]:
    iot = boto3.client("iot", endpoint_url=url, region_name="local", aws_access_key_id="a", aws_secret_access_key="b")
    yield iot
    iot.close()


def kept(folder: Path) -> Path:
    retained = {"additionalMetricsToRetainV2": [{"metric": OUT}]}
    return write(folder, profiles=[profile() | retained], limits={"report_interval_s": 0})


async def counts(daemon: Daemon, thing: str = "t1") -> list[int]:
    """All values of a thing, oldest first."""

    def ask() -> list[int]:
        with client(daemon.url) as iot:
            pages = iot.get_paginator("list_metric_values").paginate(thingName=thing, metricName=OUT, **ALL_TIME)
            return [datum["value"]["count"] for page in pages for datum in page["metricDatumList"]][::-1]

    return await asyncio.to_thread(ask)


def reports(numbers: range) -> list[dict[str, Any]]:
    return [report(n, bytes_out=n) for n in numbers]


async def test_a_value_is_readable_within_a_second_of_its_acceptance(tmp_path: Path) -> None:
    async with serving(kept(tmp_path)) as daemon:
        assert await counts(daemon) == []
        for number in range(1, 6):
            await send(daemon.mqtt, "t1", report(number, bytes_out=number))
            acknowledged = time.monotonic()
            while (await counts(daemon))[-1:] != [number]:
                assert time.monotonic() - acknowledged < SOON_S
        assert await counts(daemon) == [1, 2, 3, 4, 5]
        assert await daemon.metric("detectd_history_rows_total") == 5


async def test_no_value_is_missing_or_there_twice_after_kills_a_stop_and_a_start(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    print("seed", seed)
    chance = random.Random(seed)
    async with serving(kept(tmp_path)) as daemon:
        number = 1
        for _ in range(4):
            more = range(number, number + chance.randrange(20, 400))
            number = more.stop
            await send(daemon.mqtt, "t1", *reports(more))
            await asyncio.sleep(chance.random() * 1.5)  # a checkpoint may be under way, or a commit
            await daemon.kill()
            await daemon.start()
        assert await daemon.stop() == 0
        await daemon.start()
        assert await counts(daemon) == list(range(1, number))
        assert await daemon.metric("detectd_history_holes_total") == 0


async def test_a_backup_has_the_values_and_a_restored_daemon_shows_them(tmp_path: Path) -> None:
    config, elsewhere, copy = kept(tmp_path / "here"), kept(tmp_path / "there"), tmp_path / "copy"
    async with serving(config) as daemon:
        await send(daemon.mqtt, "t1", *reports(range(1, 50)))
        while len(await counts(daemon)) < 49:
            await asyncio.sleep(0.05)
        await run("backup", "--config", str(config), str(copy))
    await run("restore", "--config", str(elsewhere), str(copy))
    async with serving(elsewhere) as daemon:
        await send(daemon.mqtt, "t1", report(50, bytes_out=50))
        while len(await counts(daemon)) < 50:
            await asyncio.sleep(0.05)
        assert await counts(daemon) == list(range(1, 51))


async def run(*words: str) -> None:
    child = await asyncio.create_subprocess_exec(DETECTD, *words, stderr=asyncio.subprocess.PIPE)
    _, said = await asyncio.wait_for(child.communicate(), 60)
    assert child.returncode == 0, said.decode()
