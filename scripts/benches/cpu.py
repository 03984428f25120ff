"""CPU per report of the whole process tree, MQTT QoS 1 in, against mosquitto + mosquitto_sub on the same messages."""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import fleet
import machine
import serving
import settings

ROUNDS: Final = 3
RATE: Final = 20_000  # per second: what both sustain on two cores, the publisher included
TARGET: Final = 1.5
PATH: Final = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
SETTLE_S: Final = 1.0


def main(count: int, rounds: int) -> None:
    binaries = [shutil.which(name, path=PATH) for name in ("mosquitto", "mosquitto_sub")]
    if None in binaries:
        raise SystemExit("mosquitto and mosquitto_sub are not installed (scripts/peers)")
    theirs: list[tuple[float, ...]] = []
    ours: list[tuple[float, ...]] = []
    with tempfile.TemporaryDirectory(prefix="detectd-bench-", ignore_cleanup_errors=True) as folder:
        for number in range(rounds):  # in turn
            theirs.append(mosquitto(Path(folder), [str(name) for name in binaries], count))
            ours.append(detectd(Path(folder) / f"ours-{number}", count))
    machine.note(f"{count:,} reports, {fleet.THINGS:,} things, {RATE:,}/s over 20 connections, medians of {rounds}")
    machine.note("detectd: guard, log, 10 behaviors, answers, durable events, checkpoints; idle cost taken off both")
    peer = machine.median(sum(run) for run in theirs)
    machine.line("mosquitto + mosquitto_sub -q 1", _parts(theirs, peer))
    own = machine.median(sum(run) for run in ours)
    machine.line(
        "nats-server + detectd", _parts(ours, own), f"{own / peer:.2f} ×", f"≤ {TARGET} ×", met=own <= TARGET * peer
    )


def _parts(runs: list[tuple[float, ...]], total: float) -> str:
    parts = " + ".join(f"{machine.median(part):.1f}" for part in zip(*runs, strict=True))
    return f"{parts} = {total:.1f} µs CPU each"


def mosquitto(folder: Path, binaries: list[str], count: int) -> tuple[float, ...]:
    """µs per message of the broker and of one subscriber."""
    port, config = settings.free_port(), folder / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 0\n"
    )
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    broker = subprocess.Popen([binaries[0], "-c", str(config)], **quiet)
    time.sleep(SETTLE_S)
    topic = "$aws/things/+/defender/metrics/json"
    subscriber = subprocess.Popen([binaries[1], "-p", str(port), "-q", "1", "-t", topic, "-C", str(count)], **quiet)
    time.sleep(SETTLE_S)
    try:
        before = [machine.cpu_s(pid) for pid in (broker.pid, subscriber.pid)]
        usage = _children_cpu_s()
        serving.publish(port, count, RATE)
        publisher = _children_cpu_s() - usage
        subscriber.wait(60)  # it has all: -C; now it is an ended child
        after = [machine.cpu_s(broker.pid), before[1] + _children_cpu_s() - usage - publisher]
    finally:
        for child in (broker, subscriber):
            child.kill()
            child.wait()
    return tuple(1e6 * (b - a) / count for a, b in zip(before, after, strict=True))


def _children_cpu_s() -> float:
    times = os.times()
    return times.children_user + times.children_system


def detectd(folder: Path, count: int) -> tuple[float, ...]:
    """µs per report of nats-server and of the daemon."""
    config = settings.write(folder, broker={"embedded": {"mqtt": "127.0.0.1:0"}})
    with serving.serving(config) as daemon:
        time.sleep(SETTLE_S)
        pids = (daemon.nats_pid, daemon.pid)
        before, idle = [machine.cpu_s(pid) for pid in pids], time.monotonic()
        time.sleep(2 * SETTLE_S)
        rest = [(machine.cpu_s(pid) - was) / (time.monotonic() - idle) for pid, was in zip(pids, before, strict=True)]
        before, began = [machine.cpu_s(pid) for pid in pids], time.monotonic()
        serving.publish(daemon.mqtt_port, count, RATE)
        found = daemon.wait_for("detectd_reports_received_total", count)
        took = time.monotonic() - began
        after = [machine.cpu_s(pid) for pid in pids]
        if found["detectd_reports_accepted_total"] < count or found["detectd_replies_sent_total"] < count:
            raise SystemExit(f"not all accepted and answered: {found}")
    return tuple(1e6 * (b - a - took * r) / count for a, b, r in zip(before, after, rest, strict=True))


if __name__ == "__main__":
    quick = machine.is_quick()
    main(30_000 if quick else 100_000, 1 if quick else ROUNDS)
