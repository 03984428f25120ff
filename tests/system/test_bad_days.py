"""Days on which something is lost, hostile or broken: each has an answer that is stated."""

import asyncio
import json
import random
import sqlite3
import time
from pathlib import Path
from typing import Any

import nats
import pytest
from mqtt_load import Publisher
from system_tools import DETECTD, PORTS, Daemon, Hooks, free_port, profile, report, send, serving, topic, until, write

from daemon.nats.conf import DAEMON_USER
from daemon.nats.state import read_keys

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]


async def test_a_log_that_overran_us_is_a_stated_gap_and_not_ready_until_the_rest_is_read(tmp_path: Path) -> None:
    config = write(tmp_path, broker=open_broker(), log={"max_bytes": 1024**2, "guard_bytes": 1024**2})
    async with serving(config) as daemon:
        await send(daemon.mqtt, "t1", report(1))
        await daemon.until_metric("detectd_reports_accepted_total", 1)
        stored = (await daemon.get("/-/status"))[1]["log"]["position"]
        await daemon.kill()  # nats-server lives on, and takes 5 MiB
        await _overrun(daemon)
        await daemon.start()
        assert await daemon.metric("detectd_log_gaps_total") == 1
        gap = (await daemon.get("/-/status"))[1]["log"]["gap"]
        assert gap["first"] <= stored + 1
        assert gap["last"] > gap["first"] + 300
        assert await daemon.metric("detectd_log_gap_entries_total") == gap["last"] - gap["first"] + 1
        assert '"log.gap"' in daemon.log_path.read_text()
        # Ready came after the rest had been read.
        assert await daemon.metric("detectd_reports_received_total") > 50


async def test_what_a_gap_lost_is_not_the_devices_silence(tmp_path: Path) -> None:
    async with Hooks() as hooks:
        config = write(
            tmp_path,
            hooks,
            broker=open_broker(),
            log={"max_bytes": 1024**2, "guard_bytes": 1024**2},
            limits={"report_interval_s": 0, "durations": "any", "silence_s": 6},
        )
        async with serving(config) as daemon:
            await send(daemon.mqtt, "t1", report(1, ports=[4444]))
            await hooks.seen("t1", "ports", "in-alarm")
            checkpoints = await daemon.metric("detectd_checkpoint_seconds_count")
            await daemon.until_metric("detectd_checkpoint_seconds_count", checkpoints + 2)
            await daemon.kill()
            await _overrun(daemon)
            await daemon.start()
            await send(daemon.mqtt, "t1", report(2, ports=[22]))
            await hooks.seen("t1", "ports", "alarm-cleared")
            assert [notice.type for notice in hooks.notices] == ["in-alarm", "alarm-cleared"]


async def test_an_alarm_whose_origin_was_lost_before_any_checkpoint_is_invalidated(tmp_path: Path) -> None:
    async with Hooks() as hooks:
        small = {"max_bytes": 1024**2, "guard_bytes": 1024**2}
        config = write(tmp_path, hooks, broker=open_broker(), log=small, checkpoint={"every_s": 600})
        async with serving(config) as daemon:
            await send(daemon.mqtt, "t1", report(1, ports=[4444]))
            await hooks.seen("t1", "ports", "in-alarm")
            await daemon.kill()
            await _overrun(daemon)
            await daemon.start()
            await hooks.seen("t1", "ports", "alarm-invalidated")


async def test_a_burst_of_garbage_is_counted_and_delays_no_good_report(tmp_path: Path) -> None:
    seed = time.time_ns()
    print(f"seed {seed}")
    rng = random.Random(seed)
    kinds = [
        rng.randbytes(200),
        b"[" * 5000,
        b'{"header":{"report_id":1e400,"version":"1.0"}}',
        b'{"a":' * 2000 + b"1" + b"}" * 2000,
        b'{"header":{"report_id":NaN,"version":"1.0"}}',
        b"",
        b"\x9b" + b"\xff" * 8,  # CBOR: an array of 2^64-1
    ]
    count = 20_000
    async with Hooks() as hooks, serving(write(tmp_path, hooks)) as daemon:
        address = "{}:{}".format(*daemon.mqtt)
        floods = [
            Publisher(
                address, f"g{i}", topic(f"g{i}", kind), lambda n: kinds[n % len(kinds)], count=count // 4, window=200
            )
            for i, kind in enumerate(("json", "cbor", "json", "cbor"))
        ]
        await asyncio.gather(*(flood.run() for flood in floods))
        await send(daemon.mqtt, "good", report(1, ports=[4444]))
        await hooks.seen("good", "ports", "in-alarm")
        assert await daemon.metric("detectd_reports_rejected_total") == count
        lines = daemon.log_path.read_text().count("report.rejected")
        assert lines < 200, "a log line per message"
        assert await daemon.metric("detectd_log_lines_suppressed_total") > count - 200


@pytest.mark.parametrize("name", ["a b", "x.y", "é%2e", "#", "a" * 200, "\u202etxt", "'; DROP TABLE events; --"])
async def test_a_hostile_thing_name_harms_nobody(tmp_path: Path, name: str) -> None:
    async with Hooks() as hooks, serving(write(tmp_path, hooks)) as daemon:
        try:
            await send(daemon.mqtt, name, report(1, ports=[4444]))
        except Exception as refused:  # the broker may hang up on such a topic; that is an answer too
            print(f"{name!r}: {refused!r}")
        await send(daemon.mqtt, "good", report(1, ports=[4444]))
        await hooks.seen("good", "ports", "in-alarm")
        others = {notice.thing for notice in hooks.notices} - {"good"}
        assert others <= {name}
        assert await daemon.is_ready()


async def test_a_recorded_run_with_reload_kill_and_restart_replays_to_the_very_same_events(tmp_path: Path) -> None:
    config = write(tmp_path, broker=open_broker())
    async with serving(config) as daemon:
        await send(daemon.mqtt, "t1", report(1, ports=[4444]))
        await send(daemon.mqtt, "t2", report(1, ports=[22]))
        await daemon.until_metric("detectd_reports_accepted_total", 2)
        body = json.loads(config.read_text())
        wide = PORTS | {"criteria": {"comparisonOperator": "in-port-set", "value": {"ports": [22, 443, 4444]}}}
        config.write_text(json.dumps(body | {"profiles": [profile(wide), profile(PORTS, name="q")]}))
        assert (await daemon.ask("POST", "/-/reload"))[0] == 200
        await send(daemon.mqtt, "t1", report(2, ports=[4444]))
        await daemon.until_metric("detectd_reports_accepted_total", 3)
        await daemon.kill()
        await send(daemon.mqtt, "t2", report(2, ports=[9999]))
        await daemon.start()
        await send(daemon.mqtt, "t2", report(3, ports=[22]))
        await daemon.until_metric("detectd_reports_accepted_total", 1)
        daemon.kill_nats()
        await daemon.until_metric("detectd_nats_restarts_total", 1)
        await until(lambda: daemon.log_path.read_text().count("broker.opened") >= 2, "devices let in again")
        await daemon.until_ready()
        await send(daemon.mqtt, "t1", report(3, ports=[22]))
        await until(lambda: len(_stored(daemon)) >= 7, lambda: f"events: {_stored(daemon)}")
        recording, replayed = tmp_path / "log.jsonl", tmp_path / "events.jsonl"
        assert await _detectd("record", "--config", str(config), stdout=recording) == 0
        assert await _detectd("replay", "--config", str(config), str(recording), stdout=replayed) == 0
        events = [json.loads(line) for line in replayed.read_text().splitlines()]
        ids = [f"{event['violationId']}-{event['violationEventType']}" for event in events]
        assert ids == _stored(daemon)


async def test_devices_can_touch_nothing_of_ours_through_the_running_daemon(tmp_path: Path) -> None:
    async with serving(write(tmp_path)) as daemon:
        await send(daemon.mqtt, "t1", report(1))
        await daemon.until_metric("detectd_reports_accepted_total", 1)
        before = await _stream(daemon)
        for forged in (
            "$JS/API/STREAM/PURGE/LOG",
            "$JS/API/STREAM/DELETE/LOG",
            "$KV/x/y",
            "detectd/log/tick",
            "$aws/things/t1/defender/metrics/json/accepted",
        ):
            flood = Publisher("{}:{}".format(*daemon.mqtt), "attacker", forged, lambda _: b"{}", count=3)
            await asyncio.wait_for(flood.run(), 30)
        after = await _stream(daemon)
        assert after["state"]["first_seq"] == before["state"]["first_seq"]
        subjects = {name: n for name, n in after["state"]["subjects"].items() if name.startswith("$aws")}
        assert subjects == {"$aws.things.t1.defender.metrics.json": 1}


def open_broker() -> dict[str, Any]:
    """Without a sensor devices come in while the daemon is away."""
    return {"embedded": {"mqtt": f"127.0.0.1:{free_port()}", "sensor": False}}


async def _overrun(daemon: Daemon) -> None:
    """5 MiB into a log of one."""
    flood = Publisher("{}:{}".format(*daemon.mqtt), "flood", topic("t2"), lambda _: b"x" * 10_000, count=520)
    await asyncio.wait_for(flood.run(), 60)


def _stored(daemon: Daemon) -> list[str]:
    """Event ids in the order in which they were stored."""
    connection = sqlite3.connect(f"file:{daemon.data_dir}/detectd.sqlite?mode=ro", uri=True)
    try:
        return [row[0] for row in connection.execute("SELECT event_id FROM events ORDER BY rowid")]
    finally:
        connection.close()


async def _stream(daemon: Daemon) -> dict[str, Any]:
    keys = read_keys(daemon.data_dir / "nats")
    nc = await nats.connect(f"nats://127.0.0.1:{keys.nats_port}", user=DAEMON_USER, password=keys.daemon_password)
    try:
        answer = await nc.request("$JS.API.STREAM.INFO.LOG", json.dumps({"subjects_filter": ">"}).encode())
        return dict(json.loads(answer.data))
    finally:
        await nc.close()


async def _detectd(*arguments: str, stdout: Path | None = None) -> int:
    with (stdout or Path("/dev/null")).open("wb") as out:
        child = await asyncio.create_subprocess_exec(str(DETECTD), *arguments, stdout=out)
        return await asyncio.wait_for(child.wait(), 120)
