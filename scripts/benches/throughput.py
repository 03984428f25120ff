"""Reports a second, stored → judged → events durable, against nats-py alone draining the same stream."""

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import fleet
import machine
import nats
import settings
import uvloop
from log_server import LogServer

from daemon.log.reader import Entry, LogWriter

ROUNDS: Final = 3
WRONG_SHARE: Final = 0.002
WORKER: Final = Path(__file__).with_name("worker.py")
WAIT_S: Final = 120


@dataclass(frozen=True)
class Run:
    wall_s: float
    cpu_s: float


async def main(count: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="detectd-bench-", ignore_cleanup_errors=True) as folder:
        server = LogServer(Path(folder))
        try:
            await server.start()
            await measure(server, Path(folder), count, rounds)
        finally:
            server.stop()


async def measure(server: LogServer, folder: Path, count: int, rounds: int) -> None:
    config = await prepared(server, folder)
    size = await filled(server, count)
    last = (await server.ask("STREAM.INFO.LOG"))["state"]["last_seq"]
    alone: list[Run] = []
    silent: list[Run] = []
    answering: list[Run] = []
    for number in range(rounds):  # in turn, so that a busy neighbour hits all three
        alone.append(await nats_py(server, last))
        silent.append(judged(config, folder / f"silent-{number}", last, replies=False))
        answering.append(judged(config, folder / f"answering-{number}", last, replies=True))
    machine.note(f"{count:,} reports of {size:,} bytes, {fleet.THINGS:,} things, 10 behaviors, medians of {rounds}")
    show("nats-py alone, counting", alone, alone, count)
    show("detectd, without replies", silent, alone, count, 0.5)
    show("detectd, with replies", answering, alone, count, 0.35)


def show(what: str, runs: list[Run], peers: list[Run], count: int, target: float | None = None) -> None:
    wall, cpu = (machine.median(getattr(run, key) for run in runs) for key in ("wall_s", "cpu_s"))
    ratio = machine.median(peer.wall_s / run.wall_s for peer, run in zip(peers, runs, strict=True))
    value = f"{count / wall:>9,.0f}/s {1e6 * cpu / count:>6.2f} µs CPU each"
    if target is None:
        machine.line(what, value)
    else:
        machine.line(what, value, f"× {ratio:.2f}", f"≥ {target:.2f}", met=ratio >= target)


async def prepared(server: LogServer, folder: Path) -> Path:
    """A data directory whose rules are in the log before any report."""
    broker = settings.elsewhere(folder, server.access.urls[0], server.access.user, server.access.password)
    config = settings.write(folder, broker=broker)
    work(config, folder / "prepared.json", 1, replies=False)
    return config


async def filled(server: LogServer, count: int) -> int:
    """Fill the log; the mean size of a report."""
    entries = [
        Entry(fleet.subject(number), body) for number, body in enumerate(fleet.reports(count, wrong_share=WRONG_SHARE))
    ]
    async with LogWriter(server.access) as writer:
        await writer.append("detectd.log.tick", b"")
        await writer.append_many(entries)
    return sum(len(entry.payload) for entry in entries) // count


async def nats_py(server: LogServer, last: int) -> Run:
    nc = await nats.connect(server.access.urls[0], user=server.access.user, password=server.access.password)
    done, seen = asyncio.Event(), 0

    async def counting(_message: object) -> None:
        nonlocal seen
        seen += 1
        if seen >= last:
            done.set()

    wall, cpu = time.perf_counter(), time.process_time()
    subscription = await nc.jetstream().subscribe(">", stream="LOG", cb=counting, ordered_consumer=True)
    await done.wait()
    run = Run(time.perf_counter() - wall, time.process_time() - cpu)
    await subscription.unsubscribe()
    await nc.close()
    return run


def judged(config: Path, folder: Path, last: int, *, replies: bool) -> Run:
    """A daemon on a copy of the prepared data directory: it has the rules, and nothing else yet."""
    shutil.copytree(config.parent / "data", folder / "data")
    shutil.copy(config.parent / "nats.credentials", folder)
    shutil.copy(config, folder)
    found = work(folder / config.name, folder / "result.json", last, replies=replies)
    if replies != (found["answered"] > 0):
        raise SystemExit(f"answers: {found}")
    return Run(found["wall_s"], found["cpu_s"])


def work(config: Path, result: Path, until: int, *, replies: bool) -> dict[str, float]:
    arguments = [str(config), str(result), f"--until={until}", "--replies", "on" if replies else "off"]
    log = config.parent / "daemon.log"
    with log.open("ab") as out:
        done = subprocess.run([sys.executable, WORKER, *arguments], stdout=out, stderr=out, timeout=WAIT_S, check=False)
    if done.returncode:
        raise SystemExit("\n".join(log.read_text().splitlines()[-20:]))
    found: dict[str, float] = json.loads(result.read_text())
    return found


if __name__ == "__main__":
    quick = machine.is_quick()
    uvloop.run(main(20_000 if quick else 200_000, 1 if quick else ROUNDS))
