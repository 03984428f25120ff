"""kill -9 with 10 minutes of reports after the last checkpoint: time to ready, and how soon the log is read again."""

import asyncio
import os
import signal
import tempfile
import time
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import fleet
import machine
import serving
import settings

from actors.metrics import kinds
from config.load import load
from daemon.log.reader import Gap, LogReader
from daemon.reach import access

REPORTS: Final = 2 * fleet.THINGS  # 10 minutes' worth
RATE: Final = 15_000
AGAIN_S: Final = 1.0
NEVER_S: Final = 3600
NATS_KILLS: Final = 3


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="detectd-bench-", ignore_cleanup_errors=True) as folder:
        config = settings.write(
            Path(folder), broker={"embedded": {"mqtt": "127.0.0.1:0"}}, checkpoint={"every_s": NEVER_S}
        )
        daemon = serving.Serving(config)
        try:
            measure(daemon, config, rounds)
        finally:
            daemon.stop()


def measure(daemon: serving.Serving, config: Path, rounds: int) -> None:
    daemon.start()
    serving.publish(daemon.mqtt_port, fleet.THINGS, RATE)
    daemon.wait_for("detectd_reports_received_total", fleet.THINGS)
    daemon.stop()  # its last checkpoint has every thing
    base = daemon.start()
    serving.publish(daemon.mqtt_port, REPORTS, RATE, f"--first-id={fleet.THINGS + 1}")
    daemon.wait_for("detectd_reports_received_total", REPORTS)
    ready, caught_up, alone = [], [], []
    for _ in range(rounds):
        daemon.kill()
        ready.append(daemon.start())
        caught_up.append(_time(daemon.said("ready")[-1]) - _connected(daemon)[-1])
        alone.append(asyncio.run(reading(config)))
        if daemon.metrics()["detectd_reports_received_total"] < REPORTS:
            raise SystemExit("the reports were not read again")
    again = [read_again(daemon) for _ in range(NATS_KILLS)]
    show(base, ready, caught_up, alone, again)


def show(
    base: float, ready: list[float], caught_up: list[float], alone: list[float], again: list[tuple[float, float]]
) -> None:
    machine.note(f"{fleet.THINGS:,} things, {REPORTS:,} reports after the checkpoint; medians of {len(ready)}")
    whole, late, read = (machine.median(times) for times in (ready, caught_up, alone))
    machine.line("a start with nothing to read (checkpoint)", f"{base:.2f} s")
    machine.line("a start after kill -9, to ready", f"{whole:.2f} s")
    machine.line("of which from the log's first entry to ready", f"{late:.2f} s")
    machine.line("reading them alone (LogReader)", f"{read:.2f} s")
    machine.line("ready / reading alone", "", f"{whole / read:.1f} ×")
    machine.line("catching up / reading alone", "", f"{late / read:.1f} ×")
    up, late = (machine.median(part) for part in zip(*again, strict=True))
    machine.line("nats-server killed → up again", f"{up:.2f} s")
    machine.line("up → the log is read again", f"{late:.3f} s", "", f"≤ {AGAIN_S:g} s", met=late <= AGAIN_S)


async def reading(config: Path) -> float:
    """Seconds to read the last reports of the log, with nothing done about them."""
    reader = LogReader(access(load(config, kinds()).settings))
    after, seen = await reader.last_seq() - REPORTS, 0
    began = time.perf_counter()
    async with aclosing(reader.batches(after)) as batches:
        async for item in batches:
            assert not isinstance(item, Gap)
            seen += len(item)
            if seen >= REPORTS:
                break
    return time.perf_counter() - began


def read_again(daemon: serving.Serving) -> tuple[float, float]:
    """Seconds from the kill of nats-server until it is up, and from then until the reader is connected again."""
    count, killed = len(_connected(daemon)), time.time()
    os.kill(daemon.nats_pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while len(_connected(daemon)) <= count or not daemon.is_ready():
        if time.monotonic() > deadline:
            raise SystemExit("\n".join(["the log was not read again", *daemon.log.read_text().splitlines()[-20:]]))
        time.sleep(0.05)
    up = max(at for at in map(_time, daemon.said("broker.started")))
    return up - killed, max(_connected(daemon)) - up


def _connected(daemon: serving.Serving) -> list[float]:
    return [_time(line) for line in daemon.said("log.reading") if line["state"] == "connected"]


def _time(line: dict[str, Any]) -> float:
    return datetime.fromisoformat(line["ts"]).timestamp()


if __name__ == "__main__":
    main(1 if machine.is_quick() else 3)
