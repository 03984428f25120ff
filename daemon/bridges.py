"""The bridges of the configuration: one task each; a reload touches only those that changed."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec

from actors.controls import RESUMED, Pause
from config.model import NS, Bridge, Settings
from daemon import brokers
from daemon.brokers._base import Entry, Log, Source, Surroundings
from daemon.clock import Clock
from daemon.telemetry import Telemetry

OUTAGE_NS: Final = 60 * NS  # a source that was out of reach for longer did not fall silent (design.md §4)


class Bridges:
    """Starts, stops and finds bridges by name. Hears how each fares (`brokers._base.Listener`)."""

    def __init__(self, writer: Log, telemetry: Telemetry, clock: Clock, random: Callable[[], float]) -> None:
        self._writer, self._telemetry, self._clock, self._random = writer, telemetry, clock, random
        self._running: dict[str, tuple[Bridge, Source, asyncio.Task[None]]] = {}

    def by_name(self) -> dict[str, Source]:
        return {name: source for name, (_, source, _) in self._running.items()}

    def status(self) -> dict[str, Any]:
        return {name: dict(source.status()) for name, source in self.by_name().items()}

    def unready(self) -> list[str]:
        """Why the daemon is not ready for want of a bridge, in words: of `required` ones only."""
        why = []
        for name, (options, source, _) in self._running.items():
            if options.required and not source.counts.connected:
                why.append(f"bridge {name}: {source.status()['why']}")
            elif options.required and source.counts.silent:
                why.append(f"bridge {name}: silent")
        return why

    async def apply(self, settings: Settings) -> None:
        """Run exactly these: removed and changed ones end first, so that no two share a session."""
        wanted = {bridge.name: bridge for bridge in settings.broker.bridges}
        sources = {
            name: brokers.build(bridge, self._surroundings(settings))
            for name, bridge in wanted.items()
            if name not in self._running or self._running[name][0] != bridge
        }
        for name in [name for name in self._running if name in sources or name not in wanted]:
            await self._end(name)
        for name, source in sources.items():
            self._start(wanted[name], source)

    async def stop(self) -> None:
        for name in list(self._running):
            await self._end(name)

    # ---- what a bridge tells (brokers._base.Listener) ----

    async def up(self, bridge: str, since_ns: int | None) -> None:
        """Subscribed; a long outage is written into the log before what comes after it."""
        if since_ns is not None and self._clock.now_ns() - since_ns > OUTAGE_NS:
            entry = msgspec.json.encode(Pause(since=since_ns, source=bridge))
            await self._writer.append_many([Entry(RESUMED, entry)])

    def down(self, bridge: str, why: str) -> None:
        """Nothing to do: the bridge says so itself, and its numbers are read where it keeps them."""

    def _surroundings(self, settings: Settings) -> Surroundings:
        return Surroundings(self._writer, self, self._clock, self._random, settings.rules.limits.payload_bytes_max)

    def _start(self, options: Bridge, source: Source) -> None:
        self._telemetry.watch_bridge(options.name, source.counts)
        task = asyncio.create_task(source.run(), name=f"bridge {options.name}")
        self._running[options.name] = (options, source, task)

    async def _end(self, name: str) -> None:
        _, _, task = self._running.pop(name)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self._telemetry.forget_bridge(name)
