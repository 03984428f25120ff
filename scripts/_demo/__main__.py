"""The demo: a daemon, a fleet, a receiver, and what they say to one another, until Ctrl-C."""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import aiohttp
import device
import settings
from board import Board
from fleet import Broker, Fleet
from lines import clock, line
from receiver import Receiver
from rich.console import Console
from serving import Failed, Serving
from story import go_wrong_in_turn, turns
from until import Stop, run_until
from view import keep_drawing

FIRST_S: Final = 1.5
ILL_S: Final = 5.0
REST_S: Final = 6.0
SEED: Final = 4


def main() -> int:
    options = _options()
    console = Console()
    on_screen = console.is_terminal and not console.is_dumb_terminal and not options.plain
    with tempfile.TemporaryDirectory(prefix="detectd-demo-") as folder:
        try:
            asyncio.run(_demo(Path(folder), getattr(options, "for"), console if on_screen else None))
        except Failed as failed:
            print(f"demo: {failed}", file=sys.stderr)
            return 1
    return 0


async def _demo(folder: Path, for_s: float | None, screen: Console | None) -> None:
    """Raises Failed: the daemon did not start, or ended by itself."""
    stop = Stop()
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(Receiver())
        written = settings.write(folder, receiver.url)
        receiver.trust(written.secret)
        serving = Serving(written.path, written.http, folder / "daemon.log")
        stop.hurry = serving.hurry
        stack.push_async_callback(serving.stop)
        _say("starting detectd; the first start compiles its kernels …")
        await run_until(stop, {"start": serving.start()})
        if stop.event.is_set():
            return
        _say(f"ready: {await _page(serving.url)} · MQTT on 127.0.0.1:{written.mqtt_port} · files in {folder}")
        board = _board(written, serving.url, receiver)
        await _play(board, serving, stop, for_s, screen)
        await serving.stop()
        _say(f"ended: {board.raised} alarms raised, {board.ended} ended, {board.fleet.counts['reports']} reports sent")


async def _play(board: Board, serving: Serving, stop: Stop, for_s: float | None, screen: Console | None) -> None:
    note: Callable[[str], None] = board.notes.append if screen else _say
    receiver, fleet = board.receiver, board.fleet
    receiver.listeners.append(board.take)
    fleet.note = note
    order = turns(settings.GROUPS["pumps"], SEED)
    jobs = {
        "daemon": serving.ended(),
        "fleet": fleet.run(),
        "story": go_wrong_in_turn(fleet, order, first_s=FIRST_S, ill_s=ILL_S, rest_s=REST_S, note=note),
        "numbers": board.keep_sampling(),
    }
    if screen:
        jobs["view"] = keep_drawing(board, screen)
    else:
        receiver.listeners.append(lambda delivery: _print(line(delivery)))
    await run_until(stop, jobs, for_s)


def _board(written: settings.Written, url: str, receiver: Receiver) -> Board:
    devices = device.fleet(settings.THINGS, SEED)
    fleet = Fleet(Broker("127.0.0.1", written.mqtt_port), devices, settings.REPORT_EVERY_S, SEED)
    return Board(fleet, settings.GROUPS, receiver, url)


async def _page(url: str) -> str:
    """What to open in a browser: the console where this version has one, else the status."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/console/") as answer:
        return f"console {url}/console/" if answer.status == 200 else f"status {url}/-/status"


def _say(text: str) -> None:
    _print(f"{clock(time.time())} {text}")


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except OSError:
        # `scripts/demo | head`, or a terminal that was closed: nobody reads any more, so it ends as by Ctrl-C.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        signal.raise_signal(signal.SIGTERM)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument(
        "--for", type=float, default=None, metavar="S", help="end S seconds after ready (default: never)"
    )
    parser.add_argument("--plain", action="store_true", help="one line per event on a terminal too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
