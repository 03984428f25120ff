"""The whole daemon in a process of its own, until the effects of a log position are durable; says what that took.

    python worker.py CONFIG RESULT --until POSITION --replies on|off

It is `detectd serve` but for two things: it ends by itself, and whether reports are answered is decided here instead
of by their age, since a stream that was filled beforehand is older than what the daemon answers.
"""

import argparse
import asyncio
import json
import time
from pathlib import Path

from machine import ROOT  # noqa: F401  # sets the path

import daemon.pipeline
from actors.metrics import kinds
from config.load import load
from daemon import logs
from daemon.app import App

ALWAYS_NS = 10**18
POLL_S = 0.002


async def main(config: Path, result: Path, until: int, replies: bool) -> None:
    daemon.pipeline.ANSWER_WITHIN_NS = ALWAYS_NS if replies else 0  # type: ignore[misc]
    loaded = load(config, kinds())
    logs.configure(loaded.settings.logging)
    app = App(config, loaded)
    running = asyncio.create_task(app.run())
    watching = asyncio.create_task(watch(app, until))
    await asyncio.wait([running, watching], return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
        app.stop()
    await running
    result.write_text(json.dumps(await watching))


async def watch(app: App, until: int) -> dict[str, float]:
    """Wall and CPU seconds from the first batch on, and the events that were stored."""
    while not hasattr(app, "_after") or app.pipeline.position <= app._after:  # noqa: SLF001
        await asyncio.sleep(POLL_S)
    first, wall, cpu = app.pipeline.position, time.perf_counter(), time.process_time()
    while app.pipeline.position < until or min(app.performer.stored.values(), default=0) < until:
        await asyncio.sleep(POLL_S)
    took = {"first": first, "wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    return took | {"answered": app.host.writer.replied, "unanswered": app.host.writer.dropped}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--until", type=int, default=0)
    parser.add_argument("--replies", choices=["on", "off"], default="off")
    given = parser.parse_args()
    from contextlib import suppress

    runner = asyncio.run
    with suppress(ImportError):
        import uvloop

        runner = uvloop.run
    runner(main(given.config, given.result, given.until, given.replies == "on"))
