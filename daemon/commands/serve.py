"""`detectd serve`: run until SIGTERM or SIGINT; a second one ends at once; SIGHUP reloads."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import structlog

from actors.metrics import kinds
from config.load import ConfigError, load
from config.model import Settings
from daemon import logs
from daemon.app import App
from daemon.lock import DirectoryInUse
from daemon.server_binary import NoServer
from daemon.server_child import ServerFailed
from daemon.store import StoreError

log = structlog.get_logger(__name__)


def serve(options: argparse.Namespace) -> int:
    """0 after a signal, 1 the configuration is bad, 3 it could not start or something broke."""
    try:
        loaded = load(options.config, kinds())
    except ConfigError as problem:
        print(problem, file=sys.stderr)
        return 1
    logs.configure(loaded.settings.logging)
    for warning in loaded.warnings:
        log.warning("config.warning", problem=str(warning))
    try:
        _run(_serve(options.config, loaded.settings))
    except BaseExceptionGroup as group:
        for error in _leaves(group):
            log.error("serve.failed", error=str(error), exc_info=error)
        return 3
    except (DirectoryInUse, StoreError, NoServer, ServerFailed, OSError) as error:
        log.error("serve.failed", error=str(error))
        return 3
    return 0


def _run(main: Coroutine[Any, Any, None]) -> None:
    """On uvloop; where it is missing, on asyncio's own loop."""
    try:
        import uvloop  # noqa: PLC0415  # not there on every platform
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


async def _serve(config: Path, settings: Settings) -> None:
    app = App(config, settings)
    loop = asyncio.get_running_loop()
    stopped = False

    def stop(number: signal.Signals) -> None:
        nonlocal stopped
        if stopped:
            app.abandon()
            os._exit(128 + number)
        stopped = True
        app.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    loop.add_signal_handler(signal.SIGHUP, app.reload_soon)
    await app.run()
