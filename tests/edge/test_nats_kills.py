"""kill -9 of nats-server with hundreds of QoS 1 messages in flight: what was acknowledged is in the log, in order.

A flood makes the log's queue long: without the guard every one of these kills would lose thousands.
"""

import asyncio
import json
import os
import signal
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
from mqtt_load import Publisher
from nats_rig import Rig, body, number_of, running, topic, until

from config.model import Log
from daemon.log.stream_read import Entry
from daemon.nats.guard import FIRST_TIME
from daemon.nats.server import Pace

PUBLISHERS = 8
WINDOW = 60  # × 8 publishers = 480 in flight
KILLS = 3
PACE = Pace(log_s=0.1, mark_s=10.0, retry_first_s=0.01)
LARGE = Log(max_bytes=2 * 1024**3, guard_bytes=128 * 1024**2)


async def test_no_acknowledged_report_is_lost_and_none_overtakes_another(tmp_path: Path) -> None:
    async with running(tmp_path, log=LARGE, pace=PACE) as rig, AsyncExitStack() as stack:
        publishers = [await stack.enter_async_context(publishing(rig, f"p{n}")) for n in range(PUBLISHERS)]
        for kill in range(1, KILLS + 1):
            aim = 500 * kill
            async with flood(rig):
                await until(lambda: all(len(p.acked) >= aim for p in publishers), f"{aim} acknowledgements each")
                os.kill(rig.endpoint.pid, signal.SIGKILL)
            in_flight = sum(len(publisher.in_flight) for publisher in publishers)
            assert in_flight >= 200
            await rig.events.seen("opened", times=kill + 1)
        for publisher in publishers:
            publisher.stop()
        await until(lambda: not any(publisher.in_flight for publisher in publishers), "all acknowledged")
        log = await in_log(rig)
        copied = sum(int(str(fields["copied"])) for kind, fields in rig.events.told if kind == "reconciled")
        for publisher in publishers:
            numbers = [number_of(entry) for entry in log[publisher.thing]]
            first_seen = list(dict.fromkeys(numbers))
            assert set(publisher.acked) <= set(numbers)
            assert first_seen == sorted(first_seen)
        # The test would show nothing had the log been complete by itself.
        assert copied > 0
        assert copied == sum(FIRST_TIME in entry.headers for entries in log.values() for entry in entries)


async def test_a_kill_in_the_middle_of_the_repair_repairs_the_rest(tmp_path: Path) -> None:
    """The server dies again as soon as it is up, several times, and has to begin the comparison anew."""
    async with running(tmp_path, log=LARGE, pace=PACE) as rig:
        async with flood(rig):
            publisher = Reporting(rig, "p1", window=400)
            task = asyncio.create_task(publisher.run())
            await until(lambda: len(publisher.acked) >= 2000, "2000 acknowledgements")
            os.kill(rig.endpoint.pid, signal.SIGKILL)
        for times in range(2, 5):
            await rig.events.seen("started", times=times)
            os.kill(rig.endpoint.pid, signal.SIGKILL)
        await rig.events.seen("opened", times=2)
        publisher.stop()
        await asyncio.wait_for(task, 60)
        numbers = [number_of(entry) for entry in (await in_log(rig))["p1"]]
        first_seen = list(dict.fromkeys(numbers))
        assert set(publisher.acked) <= set(numbers)
        assert first_seen == sorted(first_seen)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
async def test_an_orderly_end_of_the_server_loses_nothing_either(tmp_path: Path, number: signal.Signals) -> None:
    async with running(tmp_path, log=LARGE, pace=PACE) as rig:
        async with publishing(rig, "p1") as publisher:
            async with flood(rig):
                await until(lambda: len(publisher.acked) >= 1000, "1000 acknowledgements")
                os.kill(rig.endpoint.pid, number)
            await rig.events.seen("opened", times=2)
            publisher.stop()
            await until(lambda: not publisher.in_flight, "all acknowledged")
        numbers = [number_of(entry) for entry in (await in_log(rig))["p1"]]
        assert set(publisher.acked) <= set(numbers)


class Reporting(Publisher):
    """A publisher that is one thing."""

    def __init__(self, rig: Rig, thing: str, window: int = WINDOW) -> None:
        super().__init__(rig.endpoint.mqtt, thing, topic(thing), lambda number: body(number, 400), window=window)
        self.thing = thing


@asynccontextmanager
async def publishing(rig: Rig, thing: str) -> AsyncIterator[Reporting]:
    publisher = Reporting(rig, thing)
    task = asyncio.create_task(publisher.run())
    try:
        yield publisher
    finally:
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def flood(rig: Rig, connections: int = 2) -> AsyncIterator[None]:
    """Entries that only make the log's queue long: not reports, so nobody has to read them."""
    tasks = [asyncio.create_task(_pour(rig)) for _ in range(connections)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _pour(rig: Rig) -> None:
    host, port = rig.endpoint.url.removeprefix("nats://").split(":")
    login = {"user": rig.endpoint.user, "pass": rig.endpoint.password, "verbose": False}
    packets = f"PUB detectd.log.flood 200\r\n{'x' * 200}\r\n".encode() * 500
    _, writer = await asyncio.open_connection(host, int(port))
    with suppress(OSError):
        try:
            writer.write(f"CONNECT {json.dumps(login)}\r\n".encode())
            while not writer.transport.is_closing():
                writer.write(packets)
                await writer.drain()
        finally:
            writer.transport.abort()


async def in_log(rig: Rig) -> dict[str, list[Entry]]:
    """The reports in the log by thing."""
    found = defaultdict(list)
    for entry in await rig.log():
        found[entry.subject.split(".")[2]].append(entry)
    return found
