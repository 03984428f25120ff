"""The embedded nats-server: found or started, guarded, opened to devices, watched, started again, stopped.

Devices come in only after what they were promised before is in the log (daemon/nats/guard.py): the server starts with
its door shut, the log is reconciled, the door opened.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, assert_never

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError

from config.address import Address
from config.model import NS, Embedded, Log
from daemon import cancellation
from daemon.clock import Clock, SystemClock
from daemon.log.streams import JetStreamError, LogIdentity, bound_mqtt, ensure
from daemon.nats.child import Adopted, Endpoint, ServerChild, ServerFailed, Unfit
from daemon.nats.guard import Placed, last_mark, reconcile, settle
from daemon.nats.server_log import ServerLog

Prologue = Callable[[Client, LogIdentity], Awaitable[None]]
"""Called after each start of a server, before anything is copied into the log and before devices are let in."""

OnEvent = Callable[[str, dict[str, object]], None]
"""Told with its fields, at the moment it happens; must return at once.

started {pid, url}: the log can be read again · adopted {pid, open} · ended {pid, reason}: one that was left behind ·
reconciled {copied, looked_at, unguarded} · opened {mqtt}: devices can connect · died {code, lived_s} ·
failed {error}: tried again soon · stalled {reason}: it is ended, and started again · mark_failed {error} · and, with
{count}, what its log says: dropped, publish_refused, subscribe_refused, mqtt5_refused, login_refused, payload_refused.
"""

_REFUSALS_MAX: Final = 3
# nats-server repeats its warning about dropped messages no more often than this: between two, more may be lost.
_WARNED_AGAIN_S: Final = 5.0
_TOLD: Final = frozenset(
    {"publish_refused", "subscribe_refused", "mqtt5_refused", "login_refused", "payload_refused", "dropped"}
)
_TROUBLE: Final = (JetStreamError, NatsError, TimeoutError, OSError)


@dataclass(frozen=True, slots=True)
class Pace:
    """How often the daemon looks after its server, in seconds."""

    log_s: float = 1.0
    mark_s: float = 10.0  # under 6, a comparison would go further back, see guard.py
    retry_first_s: float = 0.1
    retry_max_s: float = 5.0
    stable_s: float = 30.0  # a server that lived this long is started again without delay


class NatsServer:
    """Owns one nats-server and the folder `data_dir/nats`. Call `start`, run `watch` as a task, cancel it, `stop`."""

    def __init__(
        self, settings: Embedded, log: Log, data_dir: Path, on_event: OnEvent, pace: Pace | None = None,
        *, prologue: Prologue | None = None, clock: Clock | None = None,
    ) -> None:  # fmt: skip
        self._child = ServerChild(settings, log, data_dir / "nats")
        self._log = log
        self._tell = on_event
        self._pace = pace or Pace()
        self._prologue = prologue
        self._clock = clock or SystemClock()
        self._nc: Client | None = None
        self._identity: LogIdentity | None = None
        self._placed: Placed | None = None  # known only while the server is whole: reconciled, and devices let in
        self._mark_at = 0.0
        self._refusals = 0  # of marks, in a row
        self._troubled_at = -1  # the log's last position when a mark failed last
        self._server_log = ServerLog(data_dir / "nats" / "server.log")
        self._lossy_until = 0.0

    @property
    def endpoint(self) -> Endpoint:
        """Where the server is; the same after it was started again, but for the pid."""
        return self._child.endpoint

    @property
    def front(self) -> Address:
        """Where devices are to connect: a sensor's address, where one stands in front."""
        return self._child.front

    def remember_front(self, port: int) -> None:
        self._child.remember_front(port)

    @property
    def identity(self) -> LogIdentity:
        """The log, as of the last start."""
        assert self._identity is not None
        return self._identity

    async def start(self) -> Endpoint:
        """Adopt the server that a killed daemon left, or start one; open to devices when this returns.

        Raises NoServer, ServerFailed, JetStreamError, nats.errors.Error, TimeoutError, OSError.
        """
        await self._child.set_up()
        try:
            await self._adopt_or_launch()
        except BaseException:
            await self.stop()
            raise
        return self.endpoint

    async def watch(self) -> None:
        """Until cancelled: start a dead server again, write marks, read the server's log."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._revive(), name="nats.revive")
            tasks.create_task(self._look_after(), name="nats.look_after")

    async def stop(self) -> None:
        """End the server; when this returns its process is gone. `watch` must have been cancelled before."""
        await self._disconnect()
        await self._child.end()
        self._server_log.close()

    # Starting

    async def _adopt_or_launch(self) -> None:
        match await self._child.adopt():
            case Adopted(nc, is_open):
                self._nc = nc
                self._tell("adopted", {"pid": self.endpoint.pid, "open": is_open})
                await self._while_alive(self._take_over(nc) if is_open else self._prepare(nc))
            case Unfit(pid, reason):
                self._tell("ended", {"pid": pid, "reason": reason})
                await self._launch()
            case None:
                await self._launch()
            case never:
                assert_never(never)

    async def _take_over(self, nc: Client) -> None:
        """Nothing to copy: the log's queue is alive in the server, and devices are in."""
        self._identity = await ensure(nc, self._log)
        placed = await last_mark(nc, self._identity) or (await reconcile(nc, self._identity, self._clock)).placed
        # The daemon before may have died between noting the door as open and opening it.
        await self._open(placed)

    async def _launch(self) -> None:
        self._nc = (await self._child.launch()).nc
        self._tell("started", {"pid": self.endpoint.pid, "url": self.endpoint.url})
        await self._while_alive(self._prepare(self._nc))

    async def _while_alive(self, work: Coroutine[None, None, None]) -> None:
        """Do `work`; give it up when the server dies: nats-py would wait for answers that can't come any more."""
        doing = asyncio.ensure_future(work)
        dying = asyncio.ensure_future(self._child.died())
        try:
            await asyncio.wait({doing, dying}, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                await self._child.require_alive()
        finally:
            doing.cancel()
            dying.cancel()
            await asyncio.wait({doing, dying})
        doing.result()

    async def _prepare(self, nc: Client) -> None:
        await bound_mqtt(nc)
        self._identity = await ensure(nc, self._log)
        if self._prologue is not None:
            await self._prologue(nc, self._identity)
        done = await reconcile(nc, self._identity, self._clock)
        self._tell("reconciled", done.counts())
        await self._open(done.placed)

    async def _open(self, placed: Placed) -> None:
        await self._child.open_door()
        self._tell("opened", {"mqtt": self.endpoint.mqtt})
        self._read_log()
        self._placed, self._refusals, self._lossy_until = placed, 0, 0.0
        self._mark_at = self._now_s() + self._pace.mark_s

    # Watching

    async def _revive(self) -> None:
        delay_s = self._pace.retry_first_s
        while True:
            cancellation.heed()
            since = self._now_s()
            code = await self._child.died()
            lived_s = self._now_s() - since
            self._tell("died", {"code": code, "lived_s": round(lived_s, 3)})
            delay_s = self._pace.retry_first_s if lived_s >= self._pace.stable_s else delay_s
            await self._relaunch(0.0 if lived_s >= self._pace.stable_s else delay_s)
            delay_s = min(2 * delay_s, self._pace.retry_max_s)

    async def _relaunch(self, delay_s: float) -> None:
        """Try until it works. While it doesn't, the door is shut, and no device is promised anything."""
        while True:
            await self._disconnect()
            cancellation.heed()
            await self._child.end()
            await asyncio.sleep(delay_s)
            delay_s = min(max(2 * delay_s, self._pace.retry_first_s), self._pace.retry_max_s)
            try:
                return await self._launch()
            except (ServerFailed, *_TROUBLE) as error:
                self._tell("failed", {"error": _said(error)})

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(self._pace.log_s)
            seen = self._read_log()
            if seen["disabled"] or seen["write_failed"]:
                # It does not recover by itself, not even when there is room again (tried on a full disk).
                await self._give_up_on_it("JetStream can't write: is the disk full?")
            if self._placed is not None and self._now_s() >= self._mark_at:
                self._mark_at = self._now_s() + self._pace.mark_s
                await self._mark()
            if self._refusals >= _REFUSALS_MAX:
                self._refusals = 0
                await self._give_up_on_it("JetStream stores nothing")

    def _read_log(self) -> Counter[str]:
        seen = self._server_log.read()
        if seen["dropped"]:
            self._lossy_until = self._now_s() + _WARNED_AGAIN_S
        if self._placed is None:
            del seen["login_refused"]  # our own doing: the door is shut
        for word in sorted(_TOLD & seen.keys()):
            self._tell(word, {"count": seen[word]})
        return seen

    async def _give_up_on_it(self, why: str) -> None:
        """End a server that can't store: started again it can, once there is room. `_revive` sees to that."""
        self._tell("stalled", {"reason": why})
        await self._child.kill()

    async def _mark(self) -> None:
        """Keep the next reconcile short. Where the server dropped messages, reconcile at once."""
        nc, placed = self._nc, self._placed
        assert nc is not None
        assert placed is not None
        try:
            placed = await self._next_mark(nc, placed)
        except _TROUBLE as error:
            await self._note_trouble(nc, error)
            return
        if nc is self._nc:
            self._placed, self._refusals = placed, 0

    async def _next_mark(self, nc: Client, placed: Placed) -> Placed:
        if not self._is_lossy():
            return await settle(nc, self.identity, placed, self._clock, unless=self._is_lossy)
        done = await reconcile(nc, self.identity, self._clock)
        self._tell("reconciled", done.counts())
        return done.placed

    async def _note_trouble(self, nc: Client, error: Exception) -> None:
        if nc is not self._nc or nc.is_closed:
            return  # the server died meanwhile, which is told elsewhere
        self._tell("mark_failed", {"error": _said(error)})
        if isinstance(error, JetStreamError | NoRespondersError) or not await self._log_grows(nc):
            self._refusals += 1

    async def _log_grows(self, nc: Client) -> bool:
        """Whether the log has stored anything since the last trouble: a flood only makes it slow to answer."""
        before = self._troubled_at
        with suppress(*_TROUBLE):
            self._troubled_at = (await ensure(nc, self._log)).last_seq
        return self._troubled_at != before

    def _is_lossy(self) -> bool:
        """Whether the log may lack what the guard has by now: the server says so before it fills the guard."""
        self._read_log()
        return self._now_s() < self._lossy_until

    def _now_s(self) -> float:
        return self._clock.monotonic_ns() / NS

    async def _disconnect(self) -> None:
        self._placed = None
        nc, self._nc = self._nc, None
        if nc is not None:
            await nc.close()


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
