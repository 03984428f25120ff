"""Other brokers: a bridge storing what Mosquitto kept for it, against mosquitto_sub draining the same."""

import asyncio
import json
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import random
from typing import Final

import machine
import uvloop
from log_server import LogServer
from mosquitto import Mosquitto
from mqtt_load import Publisher

from config.model import Bridge
from daemon.brokers._base import Source, Surroundings
from daemon.brokers.mqtt import MqttBridge, build
from daemon.clock import SystemClock
from daemon.log.reader import LogWriter

ROUNDS: Final = 3
THINGS: Final = 20
IN_FLIGHT: Final = 200
TOPIC: Final = "$aws/things/{}/defender/metrics/json"
DRAINER: Final = "drainer"
WAIT_S: Final = 120
REPORT: Final = json.dumps(
    {
        "header": {"report_id": 1530304554, "version": "1.0"},
        "metrics": {
            "listening_tcp_ports": {"ports": [{"interface": "eth0", "port": port} for port in (22, 443)], "total": 2},
            "network_stats": {"bytes_in": 29358693495, "bytes_out": 26485035, "packets_in": 1013573555},
            "tcp_connections": {"established_connections": {"connections": [], "total": 0}},
        },
    }
).encode()


@dataclass(frozen=True)
class Run:
    wall_s: float
    cpu_s: float


async def main(count: int, rounds: int) -> None:
    """Further rows (events judged, the sensor) are benches of their own: this one needs a Mosquitto."""
    if shutil.which("mosquitto_sub") is None:
        machine.note("mosquitto_sub is not installed: nothing to compare with")
        return
    with tempfile.TemporaryDirectory(prefix="detectd-bench-", ignore_cleanup_errors=True) as folder:
        server, mosquitto = LogServer(Path(folder)), Mosquitto(Path(folder) / "mosquitto", "max_inflight_messages 20")
        try:
            await server.start()
            await server.create_log()
            await mosquitto.start()
            await measure(server, mosquitto, count, rounds)
        finally:
            mosquitto.kill()
            server.stop()


async def measure(server: LogServer, mosquitto: Mosquitto, count: int, rounds: int) -> None:
    peers: list[Run] = []
    fast: list[Run] = []
    slow: list[Run] = []
    async with LogWriter(server.access) as writer:
        for _ in range(rounds):  # in turn, so that a busy neighbour hits all
            peers.append(await drained(mosquitto, count))
            fast.append(await bridged(mosquitto, writer, "fast", count))
            slow.append(await bridged(mosquitto, writer, "slow", count // 4))
    machine.note(f"{count:,} QoS 1 reports of {len(REPORT)} bytes in a kept session, medians of {rounds}")
    show("mosquitto_sub", peers, peers, count, count)
    show("bridge, MQTT 5 (mqtt5), into the log", fast, peers, count, count, 0.5)
    show("bridge, MQTT 3.1.1 (aiomqtt), into the log", slow, peers, count // 4, count)


def show(
    what: str, runs: list[Run], peers: list[Run], count: int, peer_count: int, target: float | None = None
) -> None:
    wall, cpu = (machine.median(getattr(run, key) for run in runs) for key in ("wall_s", "cpu_s"))
    pairs = zip(peers, runs, strict=True)
    ratio = machine.median((peer.wall_s / peer_count) / (run.wall_s / count) for peer, run in pairs)
    value = f"{count / wall:>9,.0f}/s {1e6 * cpu / count:>6.2f} µs CPU each"
    aim, met = (f"≥ {target:.2f}", ratio >= target) if target is not None else ("", None)
    machine.line(what, value, "" if runs is peers else f"× {ratio:.2f}", aim, met=met)


async def drained(mosquitto: Mosquitto, count: int) -> Run:
    """Alone on its session: what Mosquitto can hand out."""
    command = ["mosquitto_sub", "-p", str(mosquitto.port), "-i", DRAINER, "-c", "-q", "1", "-t", TOPIC.format("+")]
    subprocess.run([*command, "-E"], check=True)
    await publish(mosquitto, count)
    began, before = time.perf_counter(), children_cpu_s()
    done = await asyncio.create_subprocess_exec(*command, "-C", str(count), stdout=subprocess.DEVNULL)
    await asyncio.wait_for(done.wait(), WAIT_S)
    run = Run(time.perf_counter() - began, children_cpu_s() - before)
    subprocess.run(
        [*command[:-5], "-t", "none", "-E"], check=True
    )  # a clean session: the next rounds are not queued here
    return run


async def bridged(mosquitto: Mosquitto, writer: LogWriter, name: str, count: int) -> Run:
    """From the start of the bridge until the log has stored all."""
    before = made(mosquitto, writer, name)
    await running(before, lambda: before.counts.connected)
    await publish(mosquitto, count)
    bridge = made(mosquitto, writer, name)
    began, cpu = time.perf_counter(), time.process_time()
    await running(bridge, lambda: bridge.counts.stored >= count)
    run = Run(time.perf_counter() - began, time.process_time() - cpu)
    async with mosquitto.client(f"detectd-{name}", clean_session=True):
        return run  # its session is gone: the next rounds are not queued for it


def made(mosquitto: Mosquitto, writer: LogWriter, name: str) -> Source:
    around = Surroundings(writer, Listener(), SystemClock(), random, 131_072)
    bridge = build(Bridge(name=name, url=f"mqtt://127.0.0.1:{mosquitto.port}", replies="off"), around)
    assert isinstance(bridge, MqttBridge)
    if name == "slow":
        bridge._version = "3.1.1"  # noqa: SLF001  # as with a broker that speaks nothing else
    return bridge


async def running(bridge: Source, enough: Callable[[], bool]) -> None:
    task = asyncio.create_task(bridge.run())
    async with asyncio.timeout(WAIT_S):
        while not enough():
            await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Listener:
    async def up(self, bridge: str, since_ns: int | None) -> None:
        """Nothing."""

    def down(self, bridge: str, why: str) -> None:
        raise SystemExit(f"the bridge {bridge} lost its broker: {why}")


async def publish(mosquitto: Mosquitto, count: int) -> None:
    publishers = [
        Publisher(
            f"127.0.0.1:{mosquitto.port}", f"device-{i}", TOPIC.format(f"thing-{i}"), lambda _: REPORT,
            count=count // THINGS, window=IN_FLIGHT,
        )
        for i in range(THINGS)
    ]  # fmt: skip
    await asyncio.gather(*(publisher.run() for publisher in publishers))


if __name__ == "__main__":
    uvloop.run(main(*((20_000, 1) if machine.is_quick() else (100_000, ROUNDS))))
