"""`detectd replay`: events on stdout, a progress bar on a terminal's stderr. Exit 0 with or without alarms."""

import argparse
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

from actors.metrics import kinds
from config.load import load
from daemon.commands._moment import seconds_of
from daemon.replay import Unreadable, epoch_ns, event_of
from daemon.replay import replay as events


def replay(options: argparse.Namespace) -> int:
    """0 done, 1 the configuration is bad, 2 the input can't be read."""
    settings = load(options.config, kinds()).settings
    try:
        until_ns = _instant_ns(options.until) if options.until else None
    except ValueError as problem:
        print(f"--until: {problem}", file=sys.stderr)
        return 2
    try:
        with _opened(options.input) as source, _progress(options.input) as bar:
            encoder = msgspec.json.Encoder()
            for event in events(
                source, settings.rules, kinds(), until_ns=until_ns, what_if=options.what_if, progress=_advance(bar)
            ):
                sys.stdout.buffer.write(encoder.encode(event_of(event)) + b"\n")
        sys.stdout.flush()
    except (Unreadable, OSError, ValueError) as problem:
        print(f"{options.input}: {problem}", file=sys.stderr)
        return 2
    return 0


def _instant_ns(text: str) -> int:
    """Raises ValueError."""
    return epoch_ns(seconds_of(text))


def _opened(path: Path) -> AbstractContextManager[BinaryIO]:
    return nullcontext(sys.stdin.buffer) if str(path) == "-" else path.open("rb")


def _progress(path: Path) -> AbstractContextManager[Progress | None]:
    if not sys.stderr.isatty() or str(path) == "-":
        return nullcontext()
    bar = Progress(BarColumn(), DownloadColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True)
    bar.add_task("replay", total=path.stat().st_size)
    return bar


def _advance(bar: Progress | None) -> Any:
    if bar is None:
        return lambda _: None
    return lambda read: bar.advance(bar.task_ids[0], read)
