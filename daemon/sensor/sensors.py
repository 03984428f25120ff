"""All sensors of the daemon: in front of the embedded broker, and of others that the configuration names."""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

import structlog

from actors.events import EMBEDDED
from config.address import Address, address_of
from config.model import Embedded, Settings, Tls
from config.model import Sensor as Options
from daemon.brokers._where import PORTS
from daemon.clock import Clock
from daemon.host import LogHost
from daemon.nats.conf import PUBLISH_DENIED
from daemon.nats.server import NatsServer
from daemon.sensor import tls as contexts
from daemon.sensor.denied import own_refusals
from daemon.sensor.door import Doorman
from daemon.sensor.sensor import Sensor
from daemon.sensor.upstream import Upstream
from daemon.telemetry import Telemetry

RESTART_S: Final = 10.0  # a nats-server that died is back within this

log = structlog.get_logger(__name__)


class Sensors:
    """`start` makes them listen and work, `stop` ends them; `watch` raises what breaks one."""

    def __init__(
        self, settings: Settings, host: LogHost, doorman: Callable[[str], Doorman], telemetry: Telemetry, clock: Clock
    ) -> None:
        self._settings, self._host, self._telemetry, self._clock = settings, host, telemetry, clock
        self._doorman = doorman  # of a sensor, by its name
        self._running: dict[Sensor, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Raises OSError: an address is taken, a file of TLS can't be used. What has begun by then, `stop` ends."""
        embedded = self._settings.broker.embedded
        server = self._host.embedded
        if embedded is not None and embedded.sensor and server is not None:
            await self._in_front_of_ours(embedded, server)
        for options in self._settings.broker.sensors:
            await self._in_front_of(options)

    async def _in_front_of_ours(self, embedded: Embedded, server: NatsServer) -> None:
        user, password = server.endpoint.device
        sensor = Sensor(
            EMBEDDED,
            Upstream(
                lambda: address_of(server.endpoint.mqtt), login=(user.encode(), password.encode()), patience_s=RESTART_S
            ),
            self._doorman(EMBEDDED),
            self._host.writer,
            self._clock,
            tls=_listener(embedded.tls),
            gate=self._host.gate,
            refuses=own_refusals(PUBLISH_DENIED),
            reports=self._host.writer,
        )
        wanted = address_of(embedded.mqtt)
        front = await self._listen(sensor, server.front, may_move=not wanted.port)
        server.remember_front(front.port)
        self._host.front = front
        self._begin(sensor)

    async def _in_front_of(self, options: Options) -> None:
        url = urlsplit(options.upstream)
        to = Address(url.hostname or "", url.port or PORTS[url.scheme])
        context = contexts.upstream(options.upstream_ca) if url.scheme == "mqtts" else None
        sensor = Sensor(
            options.name, Upstream(lambda: to, context), self._doorman(options.name), self._host.writer, self._clock,
            tls=_listener(options.tls),
        )  # fmt: skip
        await self._listen(sensor, address_of(options.listen), may_move=False)
        self._begin(sensor)

    async def _listen(self, sensor: Sensor, address: Address, *, may_move: bool) -> Address:
        """`may_move`: the port is one that we chose the last time, and someone else may have it now."""
        try:
            found = await sensor.listen(address)
        except OSError:
            if not may_move:
                raise
            found = await sensor.listen(Address(address.host, 0))
        log.info("sensor.listening", sensor=sensor.name, address=str(found))
        return found

    def _begin(self, sensor: Sensor) -> None:
        self._telemetry.watch_sensor(sensor.name, sensor.counts)
        self._running[sensor] = asyncio.create_task(sensor.run(), name=f"sensor {sensor.name}")

    async def watch(self) -> None:
        """For ever, or until one breaks: raises why."""
        await asyncio.gather(*self._running.values())

    async def stop(self) -> None:
        """Clients are disconnected, what was heard of them is booked. Again is harmless."""
        running, self._running = self._running, {}
        for sensor, task in running.items():
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):  # `watch` has told why
                await task
            await sensor.stop()

    def status(self) -> dict[str, Any]:
        return {sensor.name: dict(sensor.status()) for sensor in self._running}


def _listener(tls: Tls | None) -> ssl.SSLContext | None:
    return contexts.listener(tls) if tls is not None else None
