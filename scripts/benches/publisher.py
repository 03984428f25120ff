"""Devices in a process of their own: reports over MQTT 3.1.1 QoS 1 at a steady rate, and when each left.

    python publisher.py PORT COUNT RATE [--connections N] [--flapping SHARE] [--times FILE]

Raw packets: a client library would cost more than the servers that are measured.
"""

import argparse
import asyncio
import json
import random
import time
from pathlib import Path
from typing import Final

import fleet
import uvloop
from machine import ROOT  # noqa: F401  # sets the path
from mqtt_load import connect_packet, publish_packet

TURN_S: Final = 0.005  # at high rates; at low ones each report leaves alone
IN_FLIGHT_MAX: Final = 2_000  # per connection
PATIENCE_S: Final = 60


class Device(asyncio.Protocol):
    """One connection; counts acknowledgements."""

    def __init__(self) -> None:
        self.acknowledged = 0
        self.sent: list[float] = []
        self.waits_s: list[float] = []
        self.ready = asyncio.get_running_loop().create_future()
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(connect_packet(f"bench-{id(self)}"))  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        whole = len(data) // 4  # CONNACK and PUBACK are 4 bytes each
        self._rest = data[4 * whole :]
        now = time.time()
        for at in range(0, 4 * whole, 4):
            if data[at] == 0x20:
                self.ready.set_result(None)
            else:
                self.waits_s.append(now - self.sent[self.acknowledged])
                self.acknowledged += 1

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(ConnectionError("refused"))


async def main(options: argparse.Namespace) -> None:
    packets = prepared(options.count, options.flapping, options.first_id)
    loop = asyncio.get_running_loop()
    devices = []
    for _ in range(options.connections):
        _, device = await loop.create_connection(Device, "127.0.0.1", options.port)
        await device.ready
        devices.append(device)
    left = await paced(packets, devices, options.rate)
    async with asyncio.timeout(PATIENCE_S):
        while sum(device.acknowledged for device in devices) < len(packets):
            await asyncio.sleep(TURN_S)
    waits = sorted(wait for device in devices for wait in device.waits_s)
    if options.times:
        options.times.write_text(json.dumps(left))
    print(json.dumps({"acknowledged": len(waits), "ack_p50_s": waits[len(waits) // 2], "took_s": left[-1] - left[0]}))


def prepared(count: int, flapping: float, first_id: int) -> list[bytes]:
    """Report n is of thing n. Those of the `flapping` things are wrong and right in turn: each is an event."""
    chance = random.Random(1)
    packets = []
    for number in range(count):
        thing, turn = number % fleet.THINGS, number // fleet.THINGS
        wrong = is_flapping(thing, flapping) and turn % 2 == 0
        body = fleet.report(number + first_id, chance, wrong=wrong)
        packets.append(publish_packet(fleet.topic(number).decode(), body, qos=1, packet_id=number % 65_535 + 1))
    return packets


def is_flapping(thing: int, share: float) -> bool:
    return share > 0 and thing % round(1 / share) == 0


async def paced(packets: list[bytes], devices: list[Device], rate: float) -> list[float]:
    """Send at `rate`; the epoch second at which each left. Waits where too much is unacknowledged."""
    began, at = time.perf_counter(), 0
    left = [0.0] * len(packets)
    # A loop's timers count milliseconds: to sleep for less is not to sleep, and takes a core from who is measured.
    turn_s = TURN_S if rate > 2_000 else max(0.001, 1 / rate / 2)
    while at < len(packets):
        due = min(len(packets), int((time.perf_counter() - began) * rate) + 1)
        while at < due:
            device = devices[at % len(devices)]
            while len(device.sent) - device.acknowledged >= IN_FLIGHT_MAX:
                await asyncio.sleep(TURN_S)
            left[at] = time.time()
            device.sent.append(left[at])
            device.transport.write(packets[at])  # type: ignore[attr-defined]
            at += 1
        await asyncio.sleep(turn_s)
    return left


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("rate", type=float)
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--things", type=int, default=fleet.THINGS)
    parser.add_argument("--first-id", type=int, default=1)
    parser.add_argument("--flapping", type=float, default=0.0)
    parser.add_argument("--times", type=Path)
    given = parser.parse_args()
    fleet.THINGS = given.things  # type: ignore[misc]
    uvloop.run(main(given))
