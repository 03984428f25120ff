"""The composition root: builds everything in order, runs it, and undoes it in reverse.

Start: lock → store → HTTP (not ready) → log → sensors → dispatch → recovery → pipeline → bridges → ready when caught
up. Stop: not ready → sensors, bridges and reader stop → mailboxes drain → last checkpoint → dispatch finishes → store →
log → HTTP.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from actors.controls import RETRY, Retry
from actors.delivery import State
from actors.effects import Formed
from actors.metrics import kinds
from config.diff import rules_from_bytes
from config.load import Loaded
from config.model import NS, Rules, Settings
from daemon import sdnotify
from daemon.answers import DeviceAnswers
from daemon.bridges import Bridges
from daemon.cancellation import done_unless
from daemon.clock import Clock, SystemClock, sleep
from daemon.control import audit
from daemon.control.announce import RULES, Announcer
from daemon.control.plane import ControlPlane
from daemon.control.rulebook import Rulebook
from daemon.delivery.dispatch import Dispatch
from daemon.devices.doormen import Doormen
from daemon.export.exporter import Exporter
from daemon.export.selection import Destination
from daemon.formed import Keeper
from daemon.history.recorder import History
from daemon.host import LogHost, open_host
from daemon.http import audit as trail
from daemon.http import guards, ops, outbox, poison
from daemon.http.access import Access
from daemon.http.aws import endpoint
from daemon.http.server import Server, application, context
from daemon.lock import hold
from daemon.log.reader import Gap
from daemon.notifiers import client_session
from daemon.perform import Performer
from daemon.pipeline import Pipeline, ticks
from daemon.recovery import Checkpointer, Recovery, manifests
from daemon.reload import Reloader
from daemon.sensor.sensors import Sensors
from daemon.sources import Sources
from daemon.store.outbox import Row
from daemon.store.store import Store
from daemon.supervisor import Supervisor
from daemon.taps import Taps
from daemon.telemetry import Telemetry
from daemon.vitals import Vitals
from daemon.watch import Watch

STORE: Final = "detectd.sqlite"
HISTORY: Final = "history.sqlite"
CHECKPOINTS: Final = "checkpoints"
START_S: Final = 5.0  # that a start may still take once it was asked to stop
DRAIN_S: Final = 10.0
REFRESH_S: Final = 1.0
LOOK_S: Final = 5.0
EXPIRE_S: Final = 3600.0
EXPIRE_FIRST_S: Final = 60.0  # after the start, which has other things to do

log = structlog.get_logger(__name__)


class App:
    """One running daemon. `run` returns after `stop` was called, or raises what broke it."""

    def __init__(
        self, config: Path, loaded: Loaded, clock: Clock | None = None, *, when_built: Callable[[], None] | None = None
    ) -> None:
        """`when_built`: called once, when all that stays is there."""
        self._when_built = when_built
        self._config, self._loaded, self._settings = config, loaded, loaded.settings
        self._clock = clock or SystemClock()
        self._stop = asyncio.Event()
        self.telemetry = Telemetry()
        self.address = ""  # of HTTP, once it listens
        self._host: LogHost | None = None
        self._is_built = False
        self._gap = asyncio.Event()  # a part of the log was lost; what is left is being read

    @property
    def host(self) -> LogHost:
        """The log's host, once it is there."""
        assert self._host is not None
        return self._host

    def stop(self) -> None:
        """Ask `run` to drain and return."""
        self._stop.set()

    def abandon(self) -> None:
        """End what would outlive us, at once: the second signal."""
        if self._host is not None:
            self._host.kill()

    def reload_soon(self) -> None:
        """Reload, from a signal handler."""
        self._reloading = asyncio.get_running_loop().create_task(self.reload(), name="reload")

    async def run(self) -> None:
        """Start, run until `stop`, drain."""
        self._settings.data_dir.mkdir(parents=True, exist_ok=True)
        async with AsyncExitStack() as stack:
            stack.enter_context(hold(self._settings.data_dir))
            if await done_unless(self._stop, self._start(stack), START_S):
                await self._serve()
            else:
                log.warning("stop.start-unfinished", after_s=START_S, why="what it waits for did not come")
        log.info("stopped")

    # ---- start, in order; each part registers how it ends ----

    async def _start(self, stack: AsyncExitStack) -> None:
        settings, clock, telemetry = self._settings, self._clock, self.telemetry
        self._notify = sdnotify.SdNotify.from_environment()
        self.vitals = Vitals(self, clock)
        self.store = await Store.open(settings.data_dir / STORE, clock=clock.now_ns, on_condition=self.vitals.storage)
        stack.push_async_callback(self.store.close)
        self.rulebook = Rulebook(self.store, kinds(), self._config, clock.now_ns)
        await self.rulebook.begin(settings)
        self.history = await History.open(settings.data_dir / HISTORY, on_condition=self.vitals.values_storage)
        stack.push_async_callback(self.history.close)
        self.plane = ControlPlane(self.store, kinds(), self._in_force, clock.now_ns, self._api_changed)
        self.plane.history = self.history
        self.access = Access(settings, clock.now_ns)
        telemetry.watch_access(self.access.denials, lambda: self.access.evicted)
        self.doormen = Doormen(settings, telemetry, clock)
        app = application(telemetry, self.access)
        ops.add(app, self.vitals)
        poison.add(app, self)
        outbox.add(app, self)
        trail.add(app, self.plane)
        self._api = endpoint.Endpoint(self.plane, telemetry)
        endpoint.add(app, self._api)
        server = Server(app, settings.http.listen, telemetry, tls=context(settings.http.tls))
        self.address = await server.start()
        stack.push_async_callback(server.stop)
        log.info("http.listening", address=self.address)

        self._host = await open_host(settings, clock, telemetry, self.vitals.broker)
        stack.push_async_callback(self.host.stop)
        # From now on: what follows waits for a server that dies meanwhile.
        self._watching = asyncio.create_task(self.host.watch(), name="host")
        stack.push_async_callback(self._unwatch)
        self.sensors = Sensors(settings, self.host, self.doormen.at, telemetry, clock)
        stack.push_async_callback(self.sensors.stop)
        await self.sensors.start()
        self.plane.endpoint = lambda: self.host.mqtt
        if not await self.store.adopt_identity(self.host.identity.identity):
            log.warning("log.other", why="the log is not the one this data directory knew; starting afresh")
            await self.store.put_gap("log", 0, self.host.identity.first_seq - 1, "another log")
            await self.store.put_meta(RULES, "")
            telemetry.gaps.inc()

        session = await stack.enter_async_context(client_session())
        self.dispatch = Dispatch(self.store, clock, session, on_news=self.vitals.delivery)
        stack.push_async_callback(self.dispatch.stop)
        plan = self.dispatch.prepare(settings.receivers, settings.aws)
        for warning in plan.warnings:
            log.warning("config.warning", problem=warning)
        await self.dispatch.use_topics(await self.rulebook.preview(settings.rules))
        await self.dispatch.apply(plan)
        await self._build(settings)
        stack.push_async_callback(self.sources.stop)

    async def _build(self, settings: Settings) -> None:
        clock, telemetry, store = self._clock, self.telemetry, self.store
        folder = settings.data_dir / CHECKPOINTS
        self._poison = await _poison(store)
        self.recovery = Recovery(
            folder, kinds(), self.host.identity.identity, store, self.definition, self.host.read_range,
            self._poison.copy,
            await self._rules_before(), await self.host.last_seq(),
        )  # fmt: skip
        world, after = await self.recovery.world()
        self.performer = Performer(store, telemetry, clock)
        self.keeper, self.exporter = Keeper(self.history), Exporter(self._export, clock)
        self.supervisor = Supervisor(
            self.performer.perform, self.recovery.rebuild, self._set_aside, telemetry,
            lambda: clock.monotonic_ns() / NS, formed=self._formed,
        )  # fmt: skip
        self.bridges = Bridges(self.host.writer, telemetry, clock, random.random)  # noqa: S311  # jitter
        self.sources: Sources = Sources(
            settings,
            self.host.writer,
            self.bridges,
            telemetry,
            clock,
            random.random,  # noqa: S311  # jitter
        )
        answers = DeviceAnswers(self.host.writer.replies, self.bridges.by_name)
        self.pipeline = Pipeline(
            world, self.supervisor, answers, self.definition, self.performer.perform, self._lost, telemetry, clock,
            Taps(self.history, self.keeper, self.exporter),
        )  # fmt: skip
        await self.history.adopt(self.host.identity.identity, await self.host.last_seq())
        self.pipeline.answer_after = await self._last_stored(await self.host.last_seq())
        self.exporter.told_before = self.pipeline.answer_after
        self.checkpointer = Checkpointer(
            folder, self.host.identity.identity, store, telemetry, clock, self.history.settled
        )
        self.reloader = Reloader(
            self._config,
            self._loaded,
            kinds(),
            self.dispatch,
            telemetry,
            self.rulebook,
            self.access,
            self._apply_brokers,
        )
        self._after = after
        self.vitals.watch_counters()
        telemetry.watch_export(self.exporter.counters, self.exporter.batches)
        self.announcer = Announcer(
            settings.rules, store, self.host.append, self.pipeline.reached, clock,
            self.dispatch.use_topics, self.history.settled,
        )  # fmt: skip
        self.rulebook.announcer = self.plane.announcer = self.announcer
        await self.announcer.put(str(self._config))  # files may have changed while we were away: an entry too

    async def _apply_brokers(self, settings: Settings) -> None:
        self.doormen.configure(settings)
        await self.bridges.apply(settings)

    def _in_force(self) -> Settings:
        return self.reloader.settings if self._is_built else self._settings

    def _api_changed(self) -> None:
        if self._is_built:  # else the announcer looks when it begins
            self.announcer.changed()

    async def _rules_before(self) -> Rules:
        """The rules before the log's first entry: none, unless it has dropped the entry that brought them."""
        digest = await self.store.get_meta(RULES)
        return await self.definition(digest) if digest and self.host.identity.first_seq > 1 else Rules()

    async def _last_stored(self, log_last: int) -> int:
        """The last position whose effects are stored; a log that ends before it has lost its end (a power cut)."""
        stored = max((await self.store.positions()).values(), default=0)
        if stored > log_last:
            log.error("log.went-back", stored=stored, log_last=log_last)
            await self.store.put_gap("log", log_last + 1, stored, "the log lost its end; these were judged, not kept")
            await self.store.drop_positions(await self.store.positions())
            self.telemetry.gaps.inc()
        return min(stored, log_last)

    # ---- run ----

    async def _serve(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(coroutine, name=name) for name, coroutine in self._tasks().items()]
            self._is_built = True
            self.announcer.changed()  # by the API, while we started
            await self.bridges.apply(self._settings)
            self.sources.start()
            if self._when_built is not None:
                self._when_built()
            await self._stop.wait()  # a task that ends on its own has failed: the group raises its error here
            self.vitals.stopping = True
            self._notify.stopping()
            log.info("stopping")
            await self.exporter.flush()  # while its subscribers are there
            await self.sensors.stop()
            await self.bridges.stop()
            await self.sources.stop()
            await self._drain(running)

    def _tasks(self) -> Mapping[str, Any]:
        clock = self._clock
        watch = Watch(self._settings.sources or [self._config], self._files_changed, directories=self._loaded.folders)
        self._watch = watch
        return {
            "host": self._watched(),
            "sensors": self.sensors.watch(),
            "devices": self.doormen.run(),
            "announcer": self.announcer.run(),
            "history": self.history.run(self.host.read_range, self.definition),
            "export": self.exporter.run(),
            "pipeline": self.pipeline.run(self.host.reader, self._after),
            "ticks": ticks(self.pipeline, self.host.append, clock, self.telemetry),
            "checkpoints": self.checkpointer.run(self.pipeline.cut, lambda: self.reloader.settings.checkpoint.every_s),
            "refresh": self._every(REFRESH_S, self._refresh),
            "look": self._every(LOOK_S, self.vitals.look),
            "expire": self._every(EXPIRE_S, self.expire, first_s=EXPIRE_FIRST_S),
            "watch": watch.run(),
            "ready": self._keep_ready(),
            "watchdog": self._watchdog(),
        }

    async def _watched(self) -> None:
        await self._watching

    async def _unwatch(self) -> None:
        self._watching.cancel()
        await asyncio.wait([self._watching])

    async def _drain(self, running: Sequence["asyncio.Task[Any]"]) -> None:
        """What is in the mailboxes is judged and stored; the last checkpoint makes the next start quick."""
        for task in running:
            if task.get_name() in ("ticks", "announcer", "checkpoints", "watch", "expire", "ready", "watchdog"):
                task.cancel()
        try:
            async with asyncio.timeout(DRAIN_S):
                await self.supervisor.drained()
                await self.checkpointer.write(await self.pipeline.final_cut(self.host.append))
                await self._refresh()
        except TimeoutError:
            log.warning("stop.drain-unfinished", after_s=DRAIN_S, why="the rest is read again from the log")
        for task in running:
            task.cancel()
        await self.supervisor.stop()

    async def _keep_ready(self) -> None:
        """Ready when all that the log has is judged: at the start, and again after every gap."""
        while True:
            self._gap.clear()
            await self._catch_up()
            self.vitals.catching_up = None
            self._notify.ready(f"listening on {self.address}")
            log.info("ready", http=self.address, mqtt=self.host.mqtt, position=self.pipeline.position)
            await asyncio.to_thread(self._api.prepare)  # not sooner: the start would take 0.2 s longer
            await self._gap.wait()

    async def _catch_up(self) -> None:
        last = self.vitals.catching_up = await self.host.last_seq()
        await self.pipeline.reached(last)
        await self.supervisor.drained()
        await self._end_orphans()

    async def _watchdog(self) -> None:
        interval = sdnotify.watchdog_interval_s()
        while interval is not None:
            self._notify.watchdog()
            await sleep(self._clock, interval / 2)

    async def _end_orphans(self) -> None:
        """End alarms that the store has open and no actor knows: what raised them was lost with a part of the log."""
        stored = {violation.violation_id for violation in await self.store.active_violations()}
        await self.supervisor.drained()
        actors = self.pipeline.world.actors.values()
        known = {name for actor in actors for name in actor.alarms.standing()}
        if stored - known and not self.supervisor.failed():
            reason = "what raised this alarm was lost with a part of the log"
            ended = await self.store.invalidate(stored - known, reason)
            if ended:  # none, where those that were missing have cleared meanwhile
                log.warning("alarms.orphaned", invalidated=len(ended), why=reason)

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]], first_s: float | None = None) -> None:
        await sleep(self._clock, seconds if first_s is None else first_s)
        while True:
            await work()
            await sleep(self._clock, seconds)

    async def _refresh(self) -> None:
        await self.performer.refresh(self.pipeline.world.actors)
        self.vitals.refresh()

    async def expire(self) -> None:
        """Forget what is too old: ended violations, and rules that nothing can name any more."""
        await self.store.expire()
        await self.store.write(audit.forget)
        await self.history.expire(self._clock.now_ns())
        age_s = self.reloader.settings.log.max_age_s
        if age_s:  # 0: the log keeps its entries for ever, and they the rules that they name
            used = [manifest.rules for manifest in await manifests(self.store, self.host.identity.identity)]
            used.append(await self.store.get_meta(RULES) or "")
            await self.store.drop_definitions(self._clock.now_ns() - int(2 * age_s * NS), used)

    # ---- what the parts ask of the whole ----

    async def definition(self, digest: str) -> Rules:
        """The rules that a change in the log names.

        Raises:
            LookupError: the store does not have them: it belongs to another log.
        """
        body = await self.store.definition(digest)
        if body is None:
            raise LookupError(f"the log names rules {digest[:12]}… that the store does not have")
        return rules_from_bytes(body)

    async def _files_changed(self) -> None:
        await self.reload()

    async def reload(self) -> ops.Answer:
        """Reload, however it was asked for. While the daemon starts there is nothing yet that could take new rules."""
        if not self._is_built:
            return ops.Failed("the daemon is still starting; ask again when it is ready")
        self._notify.reloading(self._clock.monotonic_ns())
        try:
            answer = await self.reloader.reload()
            loaded = self.reloader.loaded
            self._watch.follow(loaded.settings.sources or [self._config], loaded.folders)
        finally:
            self._notify.ready()  # systemd waits for it, whatever came of the reload
        return answer

    async def _lost(self, gap: Gap) -> None:
        await self.store.put_gap("log", gap.first, gap.last, "the log dropped them before they were read")
        self.vitals.lost(gap)
        self._gap.set()

    def _formed(self, key: str, formed: Sequence[Formed]) -> None:
        self.keeper(key, formed)
        self.exporter(key, formed)

    def _export(self, place: Destination, message: bytes) -> bool:
        """A batch of metrics to its broker; False where it is away."""
        if not place.bridge:
            return self.host.tell(place.topic, message)
        bridge = self.bridges.by_name().get(place.bridge)
        return bridge is not None and bridge.publish(place.topic, message)

    def _need_all(self) -> None:
        """HTTP is there before the parts that it asks. Raises `guards.Starting`."""
        if not self._is_built:
            raise guards.Starting

    # ---- what was set aside (daemon/http/poison.py) ----

    async def _set_aside(self, actor: str, position: int, entry: bytes, error: str) -> None:
        self._poison.setdefault(actor, set()).add(position)
        subject = ""
        async for frames in self.host.read_range(position, position):
            if not isinstance(frames, Gap):
                # One that was found while an actor was rebuilt comes without its bytes: the log has them.
                subject, entry = frames.subject(0), frames.payload(0)
        await self.store.put_poison(actor, position, subject, entry, error)

    async def poisoned(self) -> Sequence[dict[str, Any]]:
        """What was set aside, oldest first."""
        return [
            {
                "actor": row.actor,
                "position": row.seq,
                "time": row.time_ns / NS,
                "subject": row.subject,
                "bytes": len(row.entry),
                "error": row.error,
            }
            for row in await self.store.poison()
        ]

    async def retry(self, actor: str, position: int) -> bool:
        """Into the log again, for the actor that it broke: there it has a place, live and in every replay."""
        self._need_all()
        row = next((row for row in await self.store.poison() if (row.actor, row.seq) == (actor, position)), None)
        if row is None:
            return False
        await self.host.append(RETRY, msgspec.json.encode(Retry(actor, position, row.subject, row.entry)))
        return await self.drop(actor, position)

    async def drop(self, actor: str, position: int) -> bool:
        """Out of the list. The actor goes on passing it over when it reads the log again."""
        return await self.store.drop_poison(actor, position) is not None

    # ---- what waits for receivers (daemon/http/outbox.py) ----

    async def outbox_rows(self, states: Sequence[State], before_id: int, limit: int) -> Sequence[Row]:
        return await self.store.outbox_list(states, before_id=before_id, limit=limit)

    async def outbox_resend(self, row: int) -> bool:
        self._need_all()
        return bool(await self.dispatch.resend([row]))

    async def outbox_drop(self, row: int) -> bool:
        self._need_all()
        return bool(await self.dispatch.drop([row]))


async def _poison(store: Store) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for row in await store.poison():
        found.setdefault(row.actor, set()).add(row.seq)
    return found
