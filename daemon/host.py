"""Where the log lives: the embedded nats-server, or a cluster that is not ours; reading, writing and answering on it.

Before anything else enters the log after an outage, it says how long nothing could be heard: `started` at a start,
`resumed` when the server was away for more than a minute (design.md §4).
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Final

import msgspec
import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError

from actors.controls import RESUMED, STARTED, Pause
from actors.messages import Frames
from actors.topics import subject_of_topic
from config.address import Address
from config.model import NS, Settings
from daemon import cancellation
from daemon.clock import Clock, sleep
from daemon.log.echo import Echo
from daemon.log.reader import Gap, LogInfo, LogReader, LogWriter
from daemon.log.streams import REPORTS, JetStreamError, LogIdentity, api, ensure, instant_ns
from daemon.log.wire import Access, publish_all
from daemon.logs import RateLimited
from daemon.nats.guard import reconcile
from daemon.nats.server import NatsServer
from daemon.reach import access, control
from daemon.telemetry import Telemetry

OUTAGE_NS: Final = 60 * NS
OFTEN: Final = frozenset({"publish_refused", "subscribe_refused", "mqtt5_refused", "login_refused", "payload_refused"})
BAD: Final = frozenset({"died", "ended", "failed", "refused", "dropped", "stalled", "mark_failed"})

log = structlog.get_logger(__name__)


class Prologue:
    """Writes the first entry after an outage."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.started = False

    async def __call__(self, nc: Client, identity: LogIdentity) -> None:
        since = await _last_time_ns(nc, identity.stream)
        if self.started and self._clock.now_ns() - since <= OUTAGE_NS:
            return
        subject = RESUMED if self.started else STARTED
        entry = msgspec.json.encode(Pause(since=since or self._clock.now_ns()))
        await nc.request(subject, entry, timeout=10)  # JetStream's answer: it is stored
        self.started = True


class Gate:
    """Whether the embedded server lets devices in, for the sensor in front of it (daemon.sensor.sensor.Gate)."""

    def __init__(self) -> None:
        self._open, self._shut = asyncio.Event(), asyncio.Event()

    async def opened(self) -> None:
        await self._open.wait()

    async def shut(self) -> None:
        await self._shut.wait()

    def turn(self, *, is_open: bool) -> None:
        now, before = (self._open, self._shut) if is_open else (self._shut, self._open)
        before.clear()
        now.set()


class LogHost:
    """One log. `access` says how to reach it, `identity` which one it is."""

    def __init__(
        self, access: Access, identity: LogIdentity, server: "NatsServer | Cluster", news: "News", clock: Clock
    ) -> None:
        self.identity, self.access, self.gate = identity, access, news.gate
        self.front: Address | None = None  # of the sensor, once it listens
        self._server = server
        # It takes entries at their word on their time.
        self.echo = Echo(clock.now_ns, REPORTS) if access.timed else None
        self.reader = LogReader(access, identity.stream, on_state=news.reading, echo=self.echo)
        self.writer = LogWriter(access, echo=self.echo)
        news.pokes = (self.reader.poke, self.writer.poke)

    @property
    def embedded(self) -> NatsServer | None:
        """The server, where it is ours."""
        return self._server if isinstance(self._server, NatsServer) else None

    @property
    def mqtt(self) -> str | None:
        """Where devices connect; None on a cluster that is not ours."""
        if self.front is not None:
            return str(self.front)
        return self._server.endpoint.mqtt if isinstance(self._server, NatsServer) else None

    async def append(self, subject: str, payload: bytes) -> int:
        """Store one entry; its position."""
        return await self.writer.append(subject, payload)

    def tell(self, topic: str, payload: bytes) -> bool:
        """A message to whoever is subscribed to a topic, at most once, not stored; whether it leaves."""
        return self.writer.replies(publish_all([(subject_of_topic(topic).encode(), payload)]), 0)

    def read_range(self, first: int, last: int) -> AsyncIterator[Frames | Gap]:
        return self.reader.read_range(first, last)

    async def info(self) -> LogInfo:
        """Raises as `LogReader.info`."""
        return await self.reader.info()

    async def last_seq(self) -> int:
        """Waits for a server that is away."""
        return await self.reader.last_seq()

    async def watch(self) -> None:
        """Look after the server, for ever."""
        await self._server.watch()

    def kill(self) -> None:
        """End the server's process at once; the log survives that."""
        if isinstance(self._server, NatsServer):
            with suppress(ProcessLookupError):
                os.kill(self._server.endpoint.pid, signal.SIGKILL)

    async def stop(self) -> None:
        await self.writer.close()
        if isinstance(self._server, NatsServer):
            await self._server.stop()


class Cluster:
    """A server that is not ours to start: what we do at each start of our own is done when the connection is back.

    Devices are in already, so a report that is copied then stands behind younger ones of its thing (design.md §2).
    """

    def __init__(self, settings: Settings, prologue: Prologue, news: "News", clock: Clock) -> None:
        self.there = access(settings)
        self._log, self._prologue, self._news, self._clock = settings.log, prologue, news, clock

    async def prepare(self) -> LogIdentity:
        """The log, created where it is missing, and whole. Raises JetStreamError, nats.errors.Error, OSError."""
        async with control(self.there) as nc:
            identity = await ensure(nc, self._log)
            await self._prologue(nc, identity)
            done = await reconcile(nc, identity, self._clock)
        self._news.server("reconciled", done.counts())
        return identity

    async def watch(self) -> None:
        """For ever."""
        while True:
            cancellation.heed()
            await self._news.back.wait()
            self._news.back.clear()
            try:
                await self.prepare()
            except (JetStreamError, NatsError, TimeoutError, OSError) as problem:
                log.warning("log.not-reconciled", why=str(problem) or repr(problem))
                await sleep(self._clock, 1)
                self._news.back.set()


class News:
    """What becomes of the server and of the connection to it, as states, log lines and counters."""

    def __init__(self, on_state: Callable[[str], None], telemetry: Telemetry, clock: Clock) -> None:
        self._on_state, self._telemetry, self._clock = on_state, telemetry, clock
        self._refusals = RateLimited(per_s=1)
        self.pokes: tuple[Callable[[], None], ...] = ()
        self.back = asyncio.Event()  # the connection was lost, and is there again
        self.gate = Gate()
        self._connection = "starting"
        self._door = ""  # why devices can't come in; "" = they can
        self._trouble = ""  # what the server was ended for, or does not start for

    def reading(self, state: str, why: str) -> None:
        """Of the reader's connection."""
        if state == "connected" and self._connection.startswith("disconnected"):
            self.back.set()
        self._connection = state if state == "connected" else f"{state}: {why}"
        self._tell()
        (log.info if state == "connected" else log.warning)("log.reading", state=state, why=why or None)

    def server(self, event: str, facts: dict[str, object]) -> None:
        """Of the embedded server (`daemon.nats.server.OnEvent`)."""
        count = int(str(facts.get("count", 1)))
        match event:
            case "died":
                self._telemetry.nats_restarts.inc()
                self._door = self._trouble or "nats-server died"
                self.gate.turn(is_open=False)
            case "opened":
                self._door = self._trouble = ""
                self.gate.turn(is_open=True)
            case "reconciled":
                self._telemetry.guard_copied.inc(int(str(facts.get("copied", 0))))
                self._telemetry.guard_unguarded.inc(int(str(facts.get("unguarded", 0))))
            case "started":
                self._door = "devices are let in when the log is whole"
                for poke in self.pokes:
                    poke()
            case "publish_refused" | "subscribe_refused":
                self._telemetry.nats_violations.inc(count)
            case "dropped" | "stalled" | "mark_failed" | "failed":
                self._telemetry.nats_trouble.labels(event).inc(count)
                if event in ("stalled", "failed"):
                    self._door = self._trouble = f"nats-server: {facts.get('reason') or facts.get('error')}"
            case "mqtt5_refused":
                self._telemetry.nats_mqtt5_refused.inc(count)
        self._tell()
        if event in OFTEN:
            self._refusals.warning(log, f"broker.{event}", self._clock.monotonic_ns(), **facts)
        else:
            level = log.warning if event in BAD else log.info
            level(f"broker.{event}", **facts)

    def _tell(self) -> None:
        self._on_state(self._door or self._connection)


async def open_host(settings: Settings, clock: Clock, telemetry: Telemetry, on_state: Callable[[str], None]) -> LogHost:
    """Start or adopt the embedded server, or reach the one that the configuration names.

    Raises: what `NatsServer.start` raises; nats.errors.Error where a cluster can't be reached.
    """
    news = News(on_state, telemetry, clock)
    prologue = Prologue(clock)
    if settings.broker.nats is not None:
        cluster = Cluster(settings, prologue, news, clock)
        return await _started(LogHost(cluster.there, await cluster.prepare(), cluster, news, clock))
    assert settings.broker.embedded is not None
    server = NatsServer(settings.broker.embedded, settings.log, settings.data_dir, news.server, prologue=prologue)
    endpoint = await server.start()
    there = Access((endpoint.url,), endpoint.user, endpoint.password, timed=True)
    if not prologue.started:  # a server that was adopted with its devices in it: nothing had to be prepared
        async with control(there) as nc:
            await prologue(nc, server.identity)
    return await _started(LogHost(there, server.identity, server, news, clock))


async def _started(host: LogHost) -> LogHost:
    await host.writer.start()
    return host


async def _last_time_ns(nc: Client, stream: str) -> int:
    """When the log's last entry was stored, ns; 0 for an empty log."""
    state = (await api(nc, f"STREAM.INFO.{stream}"))["state"]
    if not state["messages"]:
        return 0
    return instant_ns(state["last_ts"])
