"""How the daemon starts, ends and refuses, seen from outside."""

import asyncio
import signal
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from system_tools import PORTS, Daemon, Hooks, children_of, profile, report, send, serving, until, write

pytestmark = pytest.mark.system


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    async with Hooks() as hooks, serving(write(tmp_path, hooks)) as daemon:
        assert daemon.nats_pids() != []
        await send(daemon.mqtt, "t1", report(1, ports=[4444]))
        daemon.signal(number)
        assert await daemon.ended() == 0
        assert children_of(daemon.data_dir) == []


async def test_a_report_that_was_acknowledged_before_the_signal_is_judged_by_the_next_start(tmp_path: Path) -> None:
    async with Hooks() as hooks, serving(write(tmp_path, hooks)) as daemon:
        await send(daemon.mqtt, "t1", report(1, ports=[4444]))
        assert await daemon.stop() == 0
        await daemon.start()
        await hooks.seen("t1", "ports", "in-alarm")
        assert len(hooks.arrivals) == 1


async def test_a_signal_ends_a_start_that_waits_for_a_locked_store(tmp_path: Path) -> None:
    async with serving(write(tmp_path)) as daemon:
        assert await daemon.stop() == 0
        with closing(sqlite3.connect(daemon.data_dir / "detectd.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            seen = len(daemon.log_path.read_text())
            await daemon.start(ready=False)
            await until(lambda: "database is locked" in daemon.log_path.read_text()[seen:], "it waits")
            daemon.signal(signal.SIGTERM)
            assert await daemon.ended(within_s=40) == 0
        assert "stop.start-unfinished" in daemon.log_path.read_text()
        assert children_of(daemon.data_dir) == []


async def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    async with serving(write(tmp_path)) as daemon:
        daemon.signal(signal.SIGTERM)
        daemon.signal(signal.SIGTERM)
        # Both may be taken as one where the first was not heard yet: then it is a clean end.
        assert await daemon.ended(within_s=20) in {0, 128 + signal.SIGTERM, -signal.SIGTERM}
        assert children_of(daemon.data_dir) == []


async def test_a_bad_configuration_is_refused_with_every_place(tmp_path: Path) -> None:
    unknown = profile(PORTS | {"metric": "aws:no-such-metric"}, targets=["thinggroup/nowhere"])
    config = write(tmp_path, profiles=[unknown])
    daemon = Daemon(config)
    await daemon.start(ready=False)
    assert await daemon.ended() == 1
    lines = [line for line in daemon.log_path.read_text().splitlines() if line.startswith(f"{config}:")]
    assert any("nowhere" in line for line in lines), daemon.log()
    assert any("aws:no-such-metric" in line for line in lines), daemon.log()
    assert all(line.removeprefix(f"{config}:").split(":")[0].isdigit() for line in lines)
    assert not daemon.data_dir.exists()


async def test_a_port_that_is_taken_is_said_with_its_address(tmp_path: Path) -> None:
    daemon = Daemon(write(tmp_path))
    with socket.create_server(daemon.mqtt):
        await daemon.start(ready=False)
        assert await daemon.ended() == 3
    assert f"{daemon.mqtt[0]}:{daemon.mqtt[1]}: bind: address already in use" in daemon.log_path.read_text()
    assert children_of(daemon.data_dir) == []


async def test_two_daemons_do_not_share_a_data_directory(tmp_path: Path) -> None:
    config = write(tmp_path)
    async with serving(config) as first:
        second = Daemon(write(tmp_path / "two", data_dir=str(first.data_dir)))
        await second.start(ready=False)
        assert await second.ended() == 3
        assert str(first.data_dir) in second.log_path.read_text()
        assert (await first.get("/-/ready"))[0] == 200


async def test_a_reload_asked_for_before_the_configuration_was_read_is_no_end(tmp_path: Path) -> None:
    async with Hooks() as hooks:
        daemon = Daemon(write(tmp_path, hooks))
        await daemon.start(ready=False)
        try:
            await until(lambda: _withstands(daemon.pid, signal.SIGHUP), "SIGHUP is no end any more")
            while not await daemon.is_ready():
                daemon.signal(signal.SIGHUP)
                assert not daemon.has_ended, daemon.log()
                await asyncio.sleep(0.02)
            await send(daemon.mqtt, "t1", report(1, ports=[4444]))
            await hooks.seen("t1", "ports", "in-alarm")
        finally:
            await daemon.stop()


def _withstands(pid: int, number: signal.Signals) -> bool:
    """It is ignored, or has a handler."""
    said = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool((int(said["SigIgn"], 16) | int(said["SigCgt"], 16)) >> (number - 1) & 1)
