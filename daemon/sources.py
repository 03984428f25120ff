"""The sources of broker events that are neither a sensor nor a bridge: log files, and a cluster's system account.

Each is one task. What they are follows from the configuration at the start: a reload does not change them.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from config.model import MosquittoLog, Nats, Settings
from daemon.brokers._base import Listener, Log
from daemon.brokers._log_file import FileTotals, LogFile
from daemon.brokers._outlet import Outlet
from daemon.brokers.nats_system import NAME, NatsSystem, SystemTotals
from daemon.clock import Clock
from daemon.telemetry import Telemetry

FOLDER: Final = "sources"


class Sources:
    """`start` once, `stop` before the log's writer closes."""

    def __init__(
        self,
        settings: Settings,
        writer: Log,
        listener: Listener,
        telemetry: Telemetry,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        """`listener` is told of long outages of the cluster's system account (`Listener.up`)."""
        self._settings, self._writer, self._listener = settings, writer, listener
        self._telemetry, self._clock, self._random = telemetry, clock, random
        self._running: dict[str, tuple[LogFile | NatsSystem, asyncio.Task[None]]] = {}

    def start(self) -> None:
        """Begin to follow; what can't be reached is tried for as long as it takes."""
        broker = self._settings.broker
        for options in broker.mosquitto_logs:
            self._run(self._log_file(options))
        if broker.nats is not None and broker.nats.system_credentials_file is not None:
            self._run(self._system(broker.nats))

    async def stop(self) -> None:
        """End all; what they heard is stored first, as far as the log answers at once."""
        tasks = [task for _, task in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._running.clear()

    def status(self) -> dict[str, Any]:
        """{source: how it fares}: JSON, no secrets."""
        return {name: dict(source.status()) for name, (source, _) in self._running.items()}

    def _run(self, source: LogFile | NatsSystem) -> None:
        self._telemetry.watch_source(source.name, source.totals)
        self._running[source.name] = (source, asyncio.create_task(source.run(), name=f"source {source.name}"))

    def _log_file(self, options: MosquittoLog) -> LogFile:
        totals = FileTotals()
        outlet = Outlet(options.name, self._writer, self._clock, self._random, totals)
        return LogFile(options, self._settings.data_dir / FOLDER, outlet, self._clock, totals)

    def _system(self, nats: Nats) -> NatsSystem:
        totals = SystemTotals()
        outlet = Outlet(NAME, self._writer, self._clock, self._random, totals)
        return NatsSystem(nats, outlet, self._listener, self._clock, totals)
