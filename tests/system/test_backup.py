"""Backup and restore: a copy made under load is the same daemon; what fails says so and leaves nothing behind."""

import asyncio
import json
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mqtt_load import Publisher
from system_tools import DEADLINE_S, DETECTD, Hooks, free_port, report, send, serving, topic, until, write

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]


async def test_a_backup_made_under_load_restores_to_the_same_alarms(tmp_path: Path) -> None:
    async with Hooks() as hooks:
        config = write(tmp_path / "old", hooks)
        async with serving(config) as daemon:
            for thing in ("t1", "t2"):
                await send(daemon.mqtt, thing, report(1, ports=[4444]))
                await hooks.seen(thing, "ports", "in-alarm")
            load = Publisher("{}:{}".format(*daemon.mqtt), "load", topic("t3"), _report_bytes)
            running = asyncio.create_task(load.run())
            await until(lambda: len(load.acked) > 200, "load")
            assert await code("backup", config, tmp_path / "copy") == 0
            load.stop()
            await running
            await daemon.stop()
        told = list(hooks.arrivals)
        new = write(tmp_path / "new", hooks)
        assert await code("restore", new, tmp_path / "copy") == 0
        assert await code("restore", new, tmp_path / "copy") == 1, "not empty"
        files = [path for made in ("copy", "new/data") for path in (tmp_path / made).rglob("*") if path.is_file()]
        assert [str(path) for path in files if path.stat().st_mode & 0o077] == []
        async with serving(new) as daemon:
            assert hooks.arrivals == told, "a restored daemon tells nothing twice"
            actor = (await daemon.get("/-/status"))[1]["actors"][0]
            assert actor["alarms"] == 2
            await send(daemon.mqtt, "t1", report(9_000_001, ports=[22]))
            cleared = await hooks.seen("t1", "ports", "alarm-cleared")
            raised = next(n for n in hooks.notices if n.key == ("t1", "ports", "in-alarm"))
            assert cleared.violation_id == raised.violation_id


async def test_only_a_whole_backup_is_put_back_and_a_try_that_failed_is_no_obstacle(tmp_path: Path) -> None:
    config, copy = write(tmp_path / "old"), tmp_path / "copy"
    async with serving(config) as daemon:
        await send(daemon.mqtt, "t1", report(1))
        await daemon.until_metric("detectd_reports_accepted_total", 1)
        assert await code("backup", config, copy) == 0
        assert await code("backup", config, copy) == 1, "not empty"
    taken = free_port()
    embedded = {"mqtt": f"127.0.0.1:{free_port()}", "nats": f"127.0.0.1:{taken}"}
    new = write(tmp_path / "new", broker={"embedded": embedded})
    data = tmp_path / "new" / "data"

    store = (copy / "detectd.sqlite").read_bytes()
    (copy / "detectd.sqlite").write_bytes(store[:-1] + bytes([store[-1] ^ 1]))
    assert (await said("restore", new, copy))[0] == 2
    assert "detectd.sqlite: damaged" in (await said("restore", new, copy))[1]
    (copy / "detectd.sqlite").write_bytes(store)
    assert not data.exists() or list(data.iterdir()) == []

    with socket.create_server(("127.0.0.1", taken)):
        status, text = await said("restore", new, copy)
    assert (status, "Traceback" in text) == (3, False), text
    assert [path.name for path in data.iterdir()] == ["lock"]
    assert await code("restore", new, copy) == 0


async def test_a_backup_that_cannot_be_made_leaves_an_empty_directory(tmp_path: Path) -> None:
    config, copy = write(tmp_path), tmp_path / "copy"
    copy.mkdir()
    status, text = await said("backup", config, copy)
    assert (status, "Traceback" in text) == (3, False), text
    async with serving(config) as daemon:
        assert await daemon.stop() == 0
    _rot(daemon.data_dir / "detectd.sqlite")
    async with serving(config):
        status, text = await said("backup", config, copy)
    assert (status, "Traceback" in text) == (1, False), text
    assert "damaged" in text
    assert list(copy.iterdir()) == []


def _rot(path: Path) -> None:
    """A page of a table that no daemon reads at its start."""
    with closing(sqlite3.connect(path, isolation_level=None)) as store:
        store.execute("CREATE TABLE rotten (x)")
        store.execute("INSERT INTO rotten VALUES ('x')")
        [(page,)] = store.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'rotten'")
        [(size,)] = store.execute("PRAGMA page_size")
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)


async def code(command: str, config: Path, folder: Path) -> int:
    return (await said(command, config, folder))[0]


async def said(command: str, config: Path, folder: Path) -> tuple[int, str]:
    """Exit code and what went to stderr."""
    child = await asyncio.create_subprocess_exec(
        str(DETECTD), command, "--config", str(config), str(folder), stderr=asyncio.subprocess.PIPE
    )
    _, text = await asyncio.wait_for(child.communicate(), DEADLINE_S)
    print(text.decode())
    return int(child.returncode or 0), text.decode()


def _report_bytes(number: int) -> bytes:
    return json.dumps(report(number + 1)).encode()
