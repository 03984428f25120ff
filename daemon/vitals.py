"""What the outside may know of the running daemon: ready or why not, its status, its numbers."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import structlog

from config.model import NS
from daemon.bridges import Bridges
from daemon.clock import Clock
from daemon.delivery.dispatch import Crashed, Died, Dispatch, Failed, News, Sent, Switched
from daemon.history.recorder import History
from daemon.host import LogHost
from daemon.http import ops
from daemon.http.noise import NOISE
from daemon.log.reader import Gap
from daemon.log.wire import RequestError, WireError
from daemon.perform import Performer
from daemon.pipeline import Pipeline
from daemon.recovery import Checkpointer
from daemon.reload import Reloader
from daemon.sensor.sensors import Sensors
from daemon.sources import Sources
from daemon.store.outbox import Backlog
from daemon.store.store import Store
from daemon.supervisor import Supervisor
from daemon.telemetry import Telemetry

EMPTY: Final = Backlog(queued=0, orphaned=0, dead=0, oldest_ns=None)

log = structlog.get_logger(__name__)


class Whole(Protocol):
    """The running daemon, as far as it is built: parts appear in the order of its start, `reloader` last."""

    telemetry: Telemetry
    address: str
    store: Store
    dispatch: Dispatch
    performer: Performer
    supervisor: Supervisor
    history: History
    bridges: Bridges
    sensors: Sensors
    sources: Sources
    pipeline: Pipeline
    checkpointer: Checkpointer
    reloader: Reloader

    @property
    def host(self) -> LogHost: ...

    async def reload(self) -> ops.Answer: ...


class Vitals:
    """Answers the operations endpoints from memory; hears of the parts' news and turns them into logs and metrics."""

    def __init__(self, app: Whole, clock: Clock) -> None:
        self._app, self._clock = app, clock
        self.catching_up: int | None = 0  # the log's end at the start, or at the last gap; None: all of it is judged
        self.stopping = False
        self._storage: tuple[str, str] = ("ok", "")
        self._gap: Gap | None = None
        self._broker = "starting"
        self._receivers: set[str] = set()  # that have metrics
        self._actors: set[str] = set()

    # ---- what the endpoints ask (daemon/http/ops.py) ----

    def unready(self) -> Sequence[str]:
        """Why not, in words."""
        why = []
        if self.stopping:
            why.append("stopping")
        if self._storage[0] != "ok":
            why.append(f"storage: {self._storage[0]}: {self._storage[1]}")
        if self._broker not in ("open", "connected"):
            why.append(f"log: {self._broker}")
        if self.catching_up == 0:
            why.append("starting")
        elif self.catching_up is not None:
            why.append(f"reading the log: at {self._position()} of {self.catching_up}")
        else:
            why += [f"actor {key} is not running" for key in self._app.supervisor.failed()]
        if not self.stopping and hasattr(self._app, "bridges"):
            why += self._app.bridges.unready()
        return why

    def status(self) -> Mapping[str, Any]:
        """JSON, no secrets."""
        app = self._app
        known: dict[str, Any] = {
            "ready": not self.unready(),
            "reasons": list(self.unready()),
            "http": app.address,
            "storage": {"state": self._storage[0], "detail": self._storage[1]},
            "broker": {"state": self._broker},
        }
        if not hasattr(app, "reloader"):
            return known
        known["broker"] |= {"mqtt": app.host.mqtt, "identity": app.host.identity.identity}
        known["history"] = {"state": app.history.state, "rows": app.history.counters.rows}
        known["generation"] = app.reloader.generation
        known["config_problems"] = list(app.reloader.last_problems)
        known["log"] = {"position": self._position(), "stored": dict(app.performer.stored)}
        if self._gap is not None:
            known["log"]["gap"] = {"first": self._gap.first, "last": self._gap.last}
        known["actors"] = [
            {"key": key, "state": seat.state, "things": len(seat.actor.roster), "alarms": len(seat.actor.alarms)}
            for key, seat in app.supervisor.seats.items()
        ]
        known["receivers"] = [
            {
                "name": one.name,
                "condition": one.condition,
                "why": one.why,
                "delivered": one.stats.delivered,
                "dead": one.stats.dead,
            }
            for one in app.dispatch.status()
        ]
        known["bridges"] = app.bridges.status()
        known["sensors"] = app.sensors.status()
        known["sources"] = app.sources.status()
        return known

    def metrics(self) -> bytes:
        return self._app.telemetry.render()

    async def reload(self) -> ops.Answer:
        return await self._app.reload()

    # ---- what the parts tell ----

    def storage(self, condition: str, detail: str) -> None:
        """The store can or can't write."""
        if condition != self._storage[0]:
            (log.info if condition == "ok" else log.error)("storage", state=condition, detail=detail)
        self._storage = (condition, detail)
        self._app.telemetry.store_full.set(condition != "ok")

    def values_storage(self, condition: str, detail: str) -> None:
        """The history of metric values can or can't be written: alarms don't wait for it."""
        (log.info if condition == "ok" else log.error)("history.storage", state=condition, detail=detail)

    def broker(self, state: str) -> None:
        """The log's host: starting, open, died, …"""
        self._broker = state
        self._app.telemetry.log_connected.set(state in ("open", "connected"))

    def lost(self, gap: Gap) -> None:
        """Entries are gone: not ready until what is left has been read."""
        self._gap = gap
        self.catching_up = gap.last

    def delivery(self, news: News) -> None:
        """One attempt of dispatch."""
        deliveries = self._app.telemetry.deliveries
        match news:
            case Sent(receiver=receiver, recovered=recovered):
                deliveries.labels(receiver, "delivered").inc()
                if recovered:
                    log.info("receiver.recovered", receiver=receiver)
            case Failed(receiver=receiver, reason=reason, why=why, first=first):
                deliveries.labels(receiver, "failed").inc()
                if first:  # once when it starts to fail, once when it recovers
                    log.warning("receiver.failing", receiver=receiver, reason=str(reason), why=why)
            case Died(receiver=receiver, notice=notice, why=why, first=first):
                deliveries.labels(receiver, "dead").inc()
                if first:
                    log.error("delivery.dead", receiver=receiver, webhook_id=notice.webhook_id, why=why)
            case Switched(receiver=receiver, enabled=enabled, why=why):
                log.warning("receiver.switched", receiver=receiver, enabled=enabled, why=why)
            case Crashed(receiver=receiver, error=error):
                log.error("receiver.crashed", receiver=receiver, exc_info=error)

    async def look(self) -> None:
        """Gauges that have to be asked for: the log's end, and what waits in the outbox."""
        app, telemetry = self._app, self._app.telemetry
        await self._look_at_the_outbox()
        try:
            last = (await app.host.info()).last
        except (WireError, RequestError, TimeoutError):
            return  # the reader's own state says that the log is away
        telemetry.log_last_seq.set(last)
        telemetry.log_lag.set(max(0, last - self._position()))
        if held := app.pipeline.held_back():
            log.warning("log.suppressed", lines=dict(held))

    async def _look_at_the_outbox(self) -> None:
        """Of every receiver, one whose queue has emptied included, and removed ones for as long as something waits."""
        app, telemetry, now = self._app, self._app.telemetry, self._clock.now_ns()
        shown = {one.name: EMPTY for one in app.dispatch.status()} | await app.dispatch.backlogs()
        for receiver, backlog in shown.items():
            telemetry.outbox_depth.labels(receiver).set(backlog.queued + backlog.orphaned)
            oldest = backlog.oldest_ns
            telemetry.outbox_oldest_age.labels(receiver).set((now - oldest) / NS if oldest else 0)
        for receiver in self._receivers - shown.keys():
            telemetry.forget_receiver(receiver)
        self._receivers = set(shown)

    def watch_counters(self) -> None:
        """Counters that others keep, read when scraped."""
        app, telemetry = self._app, self._app.telemetry
        telemetry.replies_sent.read_from(lambda: float(app.host.writer.replied))
        telemetry.replies_dropped.read_from(lambda: float(app.host.writer.dropped))
        telemetry.entries_resent.read_from(lambda: float(app.host.writer.resent))
        if (echo := app.host.echo) is not None:
            telemetry.entries_echoed.read_from(lambda: float(echo.taken))
            telemetry.echo_breaks.read_from(lambda: float(echo.breaks))
        telemetry.store_broken_off.read_from(lambda: float(app.store.broken_off))
        telemetry.store_waits.read_from(lambda: float(app.store.writer.waits))
        telemetry.events_repeated.read_from(lambda: float(app.store.counters.repeats))
        telemetry.poison_refused.read_from(lambda: float(app.store.counters.poison_refused))
        telemetry.watch_history(app.history.counters)
        telemetry.watch_events(app.pipeline.world.router)
        telemetry.logs_suppressed.read_from(lambda: float(app.pipeline.suppressed + NOISE.suppressed))

    def refresh(self) -> None:
        """Gauges that are cheaper to set once a second than at every change."""
        app = self._app
        telemetry, position = app.telemetry, self._position()
        telemetry.log_position.set(min(app.performer.stored.values(), default=position))
        telemetry.ready.set(not self.unready())
        telemetry.actor_failures.set(len(app.supervisor.failed()))
        telemetry.history_failing.set(app.history.state != "ok")
        telemetry.store_queue_depth.set(app.store.writer.pending)
        for key in self._actors - app.supervisor.seats.keys():
            telemetry.forget_actor(key)
        self._actors = set(app.supervisor.seats)
        for key, seat in app.supervisor.seats.items():
            telemetry.rows.labels(key).set(len(seat.actor.roster))
            telemetry.values_merged.labels(key).set(sum(judge.merged for judge in seat.actor.judges.values()))
            telemetry.events_late.labels(key).set(seat.actor.meter.late)
            telemetry.addresses_crowded.labels(key).set(seat.actor.meter.crowded)
            telemetry.mailbox_depth.labels(key).set(len(seat.mailbox))
        if app.checkpointer.written_ns is not None:
            telemetry.checkpoint_age.set((self._clock.monotonic_ns() - app.checkpointer.written_ns) / NS)

    def _position(self) -> int:
        pipeline = getattr(self._app, "pipeline", None)
        return pipeline.position if pipeline is not None else 0
