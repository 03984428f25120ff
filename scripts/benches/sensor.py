"""The sensor in front of nats-server: publishes a second against going straight there, and memory per idle client.

QoS 1, small payloads, raw packets. The daemon runs with its sensor, and its nats-server is reached straight with the
sensor's own login: so both ways end in the same server with the same streams, in one run.
"""

import asyncio
import multiprocessing
import resource
import struct
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import machine
import msgspec
import serving
import settings
import uvloop
from machine import line, median, note

MANY: Final = (20, 100)  # clients, publishes in flight of each
FEW: Final = (1_000, 1)
SECONDS: Final = 3.0
WARM_S: Final = 0.5
IDLE: Final = 5_000
TOPIC: Final = "plant/{}/state"
PAYLOAD: Final = b"x" * 100


@dataclass(frozen=True)
class Way:
    """Where to connect, and as whom."""

    port: int
    user: str = ""
    password: str = ""


class Client(asyncio.Protocol):
    """Keeps so many QoS 1 publishes in flight; counts acknowledgements."""

    def __init__(self, name: str, way: Way, window: int) -> None:
        self.acknowledged = 0
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._greeting = connect_packet(name, way)
        self._packet = publish_packet(TOPIC.format(name).encode())
        self._window, self._rest = window, 0
        self.running = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(self._greeting)  # type: ignore[attr-defined]

    def begin(self) -> None:
        self.running = True
        self.transport.write(self._packet * self._window)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if not self.ready.done():
            if data[:4] == b"\x20\x02\x00\x00":
                self.ready.set_result(None)
            return
        whole, self._rest = divmod(self._rest + len(data), 4)  # every PUBACK has 4 bytes
        self.acknowledged += whole
        if self.running and whole:
            self.transport.write(self._packet * whole)  # type: ignore[attr-defined]

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(ConnectionError("refused"))


def connect_packet(name: str, way: Way) -> bytes:
    flags = 0x02 | (0xC0 if way.user else 0)
    login = _text(way.user) + _text(way.password) if way.user else b""
    return _packet(0x10, b"\x00\x04MQTT\x04" + bytes([flags]) + b"\x00\x00" + _text(name) + login)


def publish_packet(topic: bytes) -> bytes:
    return _packet(0x32, struct.pack(">H", len(topic)) + topic + b"\x00\x01" + PAYLOAD)


def _packet(first: int, body: bytes) -> bytes:
    size = bytes([len(body)]) if len(body) < 128 else bytes([len(body) % 128 | 128, len(body) // 128])
    return bytes([first]) + size + body


def _text(text: str) -> bytes:
    return struct.pack(">H", len(text)) + text.encode()


async def load(way: Way, clients: int, window: int, seconds: float) -> float:
    """Acknowledged publishes a second."""
    loop = asyncio.get_running_loop()
    found = []
    for number in range(clients):
        _, client = await loop.create_connection(
            lambda n=number: Client(f"bench-{n}", way, window), "127.0.0.1", way.port
        )
        found.append(client)
        if number % 50 == 49:
            await asyncio.gather(*(each.ready for each in found))
    await asyncio.gather(*(each.ready for each in found))
    for client in found:
        client.begin()
    await asyncio.sleep(WARM_S)
    began, before = time.perf_counter(), sum(each.acknowledged for each in found)
    await asyncio.sleep(seconds)
    rate = (sum(each.acknowledged for each in found) - before) / (time.perf_counter() - began)
    for client in found:
        client.running = False
        client.transport.close()  # type: ignore[attr-defined]
    return rate


def apart(way: Way, clients: int, window: int, seconds: float, answer: "multiprocessing.SimpleQueue[float]") -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    answer.put(uvloop.run(load(way, clients, window, seconds)))


def rate(way: Way, clients: int, window: int, seconds: float) -> float:
    """In a process of its own, as devices are."""
    answer: multiprocessing.SimpleQueue[float] = multiprocessing.SimpleQueue()
    process = multiprocessing.Process(target=apart, args=(way, clients, window, seconds, answer))
    process.start()
    process.join(seconds + 60)
    if process.exitcode != 0:
        process.kill()
        raise SystemExit("the load did not end")
    return answer.get()


async def idle(way: Way, pid: int, clients: int) -> float:
    """Bytes of the daemon for each client that is connected and silent."""
    loop = asyncio.get_running_loop()
    before = machine.rss_bytes(pid)
    found: list[Client] = []
    for number in range(clients):
        _, client = await loop.create_connection(lambda n=number: Client(f"idle-{n}", way, 1), "127.0.0.1", way.port)
        found.append(client)
        if number % 100 == 99:
            await asyncio.gather(*(each.ready for each in found))
    await asyncio.gather(*(each.ready for each in found))
    await asyncio.sleep(2.5)  # what was noted of their coming is in the log
    return (machine.rss_bytes(pid) - before) / clients


def measure(folder: Path, *, quick: bool) -> None:
    config = settings.write(folder, broker={"embedded": {"mqtt": "127.0.0.1:0"}})
    daemon = serving.Serving(config)
    daemon.start()
    try:
        keys = msgspec.json.decode((folder / "data" / "nats" / "keys.json").read_bytes())
        straight = Way(keys["behind_port"], "device", keys["device_password"])
        through = Way(daemon.mqtt_port)
        for (clients, window), least in ((MANY, 0.7), (FEW, 0.5)):
            compare(straight, through, daemon.pid, clients, window, least, quick=quick)
        memory(through, daemon, 500 if quick else IDLE)
    finally:
        daemon.stop()


def compare(straight: Way, through: Way, pid: int, clients: int, window: int, least: float, *, quick: bool) -> None:
    seconds, rounds = (1.0, 1) if quick else (SECONDS, 3)
    pairs, costs = [], []
    for _ in range(rounds):
        alone = rate(straight, clients, window, seconds)
        spent = machine.cpu_s(pid)
        pairs.append((alone, rate(through, clients, window, seconds)))
        costs.append((machine.cpu_s(pid) - spent) / (pairs[-1][1] * (seconds + WARM_S)))
    one, other = median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)
    note(f"{clients:,} clients × {window} in flight, QoS 1, medians of {rounds}")
    line("straight to nats-server", f"{one:,.0f}/s")
    ratio = other / one
    line("through the sensor", f"{other:,.0f}/s", f"{ratio:.2f}", f">= {least}", met=ratio >= least)
    line("the daemon's CPU for a publish", f"{1e6 * median(costs):.1f} µs")


def memory(through: Way, daemon: serving.Serving, clients: int) -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    each = uvloop.run(idle(through, daemon.pid, clients))
    line(f"daemon, per idle client ({clients:,})", f"{each:,.0f} bytes", "", "<= 20 000", met=each <= 20_000)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        measure(Path(place), quick=machine.is_quick())
