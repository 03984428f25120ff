"""Publish (MQTT QoS 1) → webhook received, at 1,000 reports/s of which 5 % raise or clear an alarm."""

import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import fleet
import machine
import serving
import settings
import uvloop
from aiohttp import web
from publisher import is_flapping

RATE: Final = 1_000
FLAPPING: Final = 0.05
THINGS: Final = 2_000  # so that each reports several times within the run
TARGETS_MS: Final = {"p50": (0.50, 3.0), "p99": (0.99, 15.0)}
WAIT_S: Final = 60.0


class Receiver:
    """Takes notices; when each came, by thing, in order. A notice that comes twice counts once."""

    def __init__(self) -> None:
        self.came: dict[str, list[tuple[float, int]]] = defaultdict(list)  # thing -> (at, event time ms)
        self.url = ""
        self._ids: set[str] = set()

    @contextlib.asynccontextmanager
    async def listening(self) -> Any:
        app = web.Application()
        app.router.add_post("/hook", self._take)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        try:
            yield self
        finally:
            await runner.cleanup()

    @property
    def count(self) -> int:
        return len(self._ids)

    async def _take(self, request: web.Request) -> web.Response:
        body, now = await request.read(), time.time()
        if request.headers["webhook-id"] not in self._ids:
            self._ids.add(request.headers["webhook-id"])
            data = json.loads(body)["data"]
            self.came[data["thingName"]].append((now, data["violationEventTime"]))
        return web.Response(status=204)


async def main(count: int, rounds: int) -> None:
    found: list[list[float]] = []
    stages: list[dict[str, float]] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="detectd-bench-", ignore_cleanup_errors=True) as folder:
            async with Receiver().listening() as receiver:
                took, parts = await one(Path(folder), receiver, count)
        found.append(took)
        stages.append(parts)
    machine.note(
        f"{count:,} reports at {RATE:,}/s, {THINGS:,} things, {len(found[0]):,} notices, durable store, a checkpoint "
        f"every second; medians of {rounds}"
    )
    for name, (share, target) in TARGETS_MS.items():
        value = 1e3 * machine.median(machine.percentile(took, share) for took in found)
        machine.line(
            f"{name}, publish → webhook received", f"{value:.2f} ms", "", f"≤ {target:g} ms", met=value <= target
        )
    for stage in stages[0]:
        machine.line(f"  {stage}", f"{1e3 * machine.median(parts[stage] for parts in stages):.2f} ms on average")


async def one(folder: Path, receiver: Receiver, count: int) -> tuple[list[float], dict[str, float]]:
    config = settings.write(
        folder,
        broker={"embedded": {"mqtt": "127.0.0.1:0"}},
        receivers={"webhooks": [{"name": "bench", "url": receiver.url}]},
        checkpoint={"every_s": 1},
    )
    daemon, times = serving.Serving(config), folder / "times.json"
    try:
        await asyncio.to_thread(daemon.start)
        before = await asyncio.to_thread(daemon.metrics)
        sent = await published(daemon.mqtt_port, count, times)
        wanted = [n for n in range(count) if is_flapping(n % THINGS, FLAPPING)]
        async with asyncio.timeout(WAIT_S):
            while receiver.count < len(wanted):
                await asyncio.sleep(0.05)
        after = await asyncio.to_thread(daemon.metrics)
    finally:
        await asyncio.to_thread(daemon.stop)
    left = json.loads(times.read_text())
    pairs = list(matched(receiver, wanted, left))
    took = [at - left for left, at, _ in pairs]
    return took, shares(before, after, pairs) | {"(PUBACK, median)": sent["ack_p50_s"]}


async def published(port: int, count: int, times: Path) -> dict[str, float]:
    options = ["--connections=20", f"--things={THINGS}", f"--flapping={FLAPPING}", f"--times={times}"]
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, str(serving.PUBLISHER), str(port), str(count), str(RATE), *options),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await child.communicate()
    if child.returncode:
        raise SystemExit("the publisher failed")
    found: dict[str, float] = json.loads(out)
    return found


def matched(receiver: Receiver, wanted: list[int], left: list[float]) -> Any:
    """(left at, came at, event's time) of every notice: those of one thing are in order on both sides."""
    by_thing: dict[str, list[float]] = defaultdict(list)
    for number in wanted:
        by_thing[fleet.name(number % THINGS)].append(left[number])
    for thing, starts in by_thing.items():
        for start, (at, event_ms) in zip(starts, receiver.came[thing], strict=True):
            yield start, at, event_ms / 1e3


def shares(
    before: dict[str, float], after: dict[str, float], pairs: list[tuple[float, float, float]]
) -> dict[str, float]:
    """Seconds of each stage, on average. Receipt is known to the millisecond: half of one is added."""

    def mean(name: str) -> float:
        total, number = (after[f"detectd_{name}_{end}"] - before[f"detectd_{name}_{end}"] for end in ("sum", "count"))
        return total / number if number else 0.0

    whole = sum(at - left for left, at, _ in pairs) / len(pairs)
    receipt = sum(event - left for left, _, event in pairs) / len(pairs) + 0.0005
    stored = mean("report_latency_seconds")
    worked = [mean(f"{name}_seconds") for name in ("decode", "handle", "store_commit")]
    return {
        "publish → received by the log": receipt,
        "received → handed to the router": stored - sum(worked),
        "decoded, admitted, routed (a batch)": worked[0],
        "judged (a batch)": worked[1],
        "stored, durable (a transaction)": worked[2],
        "stored → webhook received": whole - receipt - stored,
    }


if __name__ == "__main__":
    quick = machine.is_quick()
    uvloop.run(main(5_000 if quick else 15_000, 1 if quick else 3))
