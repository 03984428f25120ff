"""Runs the daemon on an event loop, and turns signals into what they mean."""

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, Final

import structlog
from nats.errors import Error as NatsError

from config.load import Loaded
from daemon import garbage
from daemon.app import App
from daemon.control.rulebook import RulesConflict
from daemon.devices.credentials import DamagedDevices
from daemon.history.tables import HistoryError
from daemon.lock import DirectoryInUse
from daemon.log.reader import LogWentBack, NotStored
from daemon.log.streams import JetStreamError
from daemon.nats.binary import NoServer
from daemon.nats.child import ServerFailed
from daemon.notifiers import ReceiverError
from daemon.store.store import StoreError

SWITCH_S: Final = 0.0005
EXPECTED: Final = (
    DirectoryInUse, StoreError, NoServer, ServerFailed, ReceiverError, LogWentBack, NotStored, JetStreamError,
    NatsError, OSError, LookupError, RulesConflict, HistoryError, DamagedDevices,
)  # fmt: skip
"""What can be wrong with the surroundings: said in one line. Anything else is a bug, and shows where it was."""

log = structlog.get_logger(__name__)


def run(config: Path, loaded: Loaded) -> int:
    """0 after a signal; 1 the files don't go with what the API made; 3 it could not start, or something broke."""
    # The writer's thread and the loop hand the interpreter to each other: with Python's 5 ms a commit can wait as long.
    # Measured at 1 000 reports/s: p99 from publish to webhook 9 ms instead of 15 ms.
    sys.setswitchinterval(SWITCH_S)
    try:
        _on_a_loop(_serve(config, loaded))
    except BaseException as error:  # the last boundary: said in the log, told by the exit code
        found = list(_leaves(error))
        for one in found:
            if isinstance(one, EXPECTED):
                log.critical("serve.failed", error=str(one) or repr(one))
            else:
                log.critical("serve.failed", error=repr(one), exc_info=one)
        return 1 if all(isinstance(one, RulesConflict) for one in found) else 3  # to start again would not help
    return 0


def _on_a_loop(main: Coroutine[Any, Any, None]) -> None:
    """On uvloop; where it is missing, on asyncio's own loop."""
    try:
        import uvloop  # noqa: PLC0415  # not there on every platform
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error


async def _serve(config: Path, loaded: Loaded) -> None:
    app = App(config, loaded, when_built=garbage.settle)
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
