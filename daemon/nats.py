"""The embedded nats-server: found or started, guarded, opened to devices, watched, started again, stopped.

Devices come in only after what they were promised before is in the log (daemon/guard.py): the server starts with
its door shut, the log is reconciled, the configuration rewritten with the door open, and the server told.
"""

import asyncio
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Final

import nats
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError

from config.model import Embedded, Log
from daemon.broker_conf import DAEMON_USER, OTHERS_BYTES_MAX, BrokerConf, Password, render
from daemon.guard import Placed, last_mark, reconcile, settle
from daemon.process import Process
from daemon.server_binary import Binary, find_binary
from daemon.server_log import ServerLog, last_words
from daemon.server_state import (
    Running,
    forget_running,
    read_keys,
    read_running,
    write_keys,
    write_private,
    write_running,
)
from daemon.streams import JetStreamError, LogIdentity, ensure

OnEvent = Callable[[str, dict[str, object]], None]
"""Told, in this order: started | adopted, reconciled, opened; and died, ended, failed, refused, dropped, stalled."""

_PORT_TRIES: Final = 5
_REFUSALS_MAX: Final = 3
# nats-server repeats its warning about dropped messages no more often than this: between two, more may be lost.
_WARNED_AGAIN_S: Final = 5.0
_TOLD: Final = frozenset(
    {"publish_refused", "subscribe_refused", "mqtt5_refused", "login_refused", "payload_refused", "dropped"}
)
_TROUBLE: Final = (JetStreamError, NatsError, TimeoutError, OSError)


class ServerFailed(Exception):
    """nats-server did not come up, or ended while it was being prepared."""


class PortTaken(ServerFailed):
    """Another process listens where nats-server was to listen."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the running server is. The password never shows."""

    url: str  # nats://HOST:PORT
    user: str
    password: Password = field(repr=False)
    mqtt: str  # HOST:PORT as it really is
    pid: int


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient the daemon is with its server, in seconds."""

    ready_s: float = 120.0  # a large log takes its time to be read after a crash
    stop_s: float = 10.0
    log_s: float = 1.0
    mark_s: float = 10.0  # more than 6: see guard.py
    retry_first_s: float = 0.1
    retry_max_s: float = 5.0
    stable_s: float = 30.0  # a server that lived this long is started again without delay


class NatsServer:
    """Owns one nats-server process and the folder `data_dir/nats`. Call `start`, run `watch` as a task, `stop`."""

    def __init__(
        self, settings: Embedded, log: Log, data_dir: Path, on_event: OnEvent, pace: Pace | None = None
    ) -> None:
        self._settings = settings
        self._log = log
        self._folder = data_dir / "nats"
        self._tell = on_event
        self._pace = pace or Pace()
        self._process: Process | None = None
        self._nc: Client | None = None
        self._identity: LogIdentity | None = None
        self._placed: Placed | None = None  # known only while the server is whole: reconciled, and devices let in
        self._pid = 0
        self._log_start = 0
        self._server_log = ServerLog(self._folder / "server.log")
        self._lossy_until = 0.0
        self._mark_at = 0.0
        self._refusals = 0  # of marks, in a row

    @property
    def endpoint(self) -> Endpoint:
        """Where the server is; the same after it was started again, but for the pid."""
        conf = self._conf
        return Endpoint(
            url=f"nats://{_text(*conf.nats)}",
            user=DAEMON_USER,
            password=conf.daemon_password,
            mqtt=_text(*conf.mqtt),
            pid=self._pid,
        )

    @property
    def identity(self) -> LogIdentity:
        """The log, as of the last start."""
        assert self._identity is not None
        return self._identity

    async def start(self) -> Endpoint:
        """Adopt the server that a killed daemon left, or start one; open to devices when this returns.

        Raises NoServer, ServerFailed, JetStreamError, nats.errors.Error, TimeoutError, OSError.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._binary = await asyncio.to_thread(find_binary)
        self._keys = read_keys(self._folder)
        self._conf = self._with_ports()
        try:
            if not await self._adopt():
                await self._launch()
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
        await self._end()
        self._server_log.close()

    # Starting

    def _with_ports(self) -> BrokerConf:
        """The configuration, with a free port where 0 was asked for: the one of last time if there was one."""
        nats_at, mqtt_at = _address(self._settings.nats), _address(self._settings.mqtt)
        nats_port = nats_at[1] or self._keys.nats_port or _free_port(nats_at[0])
        mqtt_port = mqtt_at[1] or self._keys.mqtt_port or _free_port(mqtt_at[0])
        self._keys = replace(self._keys, nats_port=nats_port, mqtt_port=mqtt_port)
        write_keys(self._folder, self._keys)
        return BrokerConf(
            nats=(nats_at[0], nats_port),
            mqtt=(mqtt_at[0], mqtt_port),
            tls=self._settings.tls,
            folder=self._folder.absolute(),
            file_bytes_max=self._log.max_bytes + self._log.guard_bytes + OTHERS_BYTES_MAX,
            sync_interval_s=self._settings.sync_interval_s,
            daemon_password=self._keys.daemon_password,
            device_password=self._keys.device_password,
        )

    async def _adopt(self) -> bool:
        """Take over a server that runs as it should; end one that runs otherwise."""
        was = read_running(self._folder)
        self._process = Process.find(was.identity) if was is not None else None
        if was is None or self._process is None:
            return False
        if was.digest != _digest(self._binary, self._conf):
            return await self._refuse_to_adopt("its settings differ")
        try:
            self._nc = await self._connect()
        except (ServerFailed, TimeoutError):
            return await self._refuse_to_adopt("it does not answer")
        self._pid = was.identity.pid
        self._tell("adopted", {"pid": self._pid, "open": was.is_open})
        await (self._take_over(self._nc) if was.is_open else self._prepare(self._nc))
        return True

    async def _refuse_to_adopt(self, why: str) -> bool:
        assert self._process is not None
        self._tell("ended", {"pid": self._process.identity.pid, "reason": why})
        await self._end()
        return False

    async def _take_over(self, nc: Client) -> None:
        """Nothing to copy: the log's queue is alive in the server, and devices are in."""
        self._identity = await ensure(nc, self._log)
        placed = await last_mark(nc, self._identity) or (await reconcile(nc, self._identity)).placed
        # The daemon before may have died between noting the door as open and opening it.
        await self._open()
        self._hold(placed)

    async def _launch(self) -> None:
        """Start a server, door shut, and prepare it. Raises as `start`."""
        for attempt in range(_PORT_TRIES):
            try:
                self._nc = await self._spawn()
                break
            except PortTaken:
                if attempt == _PORT_TRIES - 1 or not self._choose_other_ports():
                    raise
        assert self._nc is not None
        self._tell("started", {"pid": self.endpoint.pid, "url": self.endpoint.url})
        await self._prepare(self._nc)

    async def _spawn(self) -> Client:
        path = self._folder / "server.conf"
        write_private(path, render(self._conf, door_open=False).encode())
        self._log_start = _size(self._folder / "server.log")
        self._process = Process.spawn([str(self._binary.path), "-c", str(path)], self._folder / "server.err")
        self._pid = self._process.identity.pid
        self._note(is_open=False)
        return await self._connect()

    def _choose_other_ports(self) -> bool:
        """Forget ports that we chose ourselves; False where the settings name them all."""
        chosen = [_address(self._settings.nats)[1] == 0, _address(self._settings.mqtt)[1] == 0]
        if not any(chosen):
            return False
        self._keys = replace(self._keys, nats_port=0, mqtt_port=0)
        self._conf = self._with_ports()
        return True

    async def _connect(self) -> Client:
        """The daemon's own connection, as soon as the server answers. Raises ServerFailed, TimeoutError."""
        async with asyncio.timeout(self._pace.ready_s):
            while True:
                await self._require_alive()
                try:
                    return await nats.connect(
                        f"nats://{_text(*self._conf.nats)}",
                        user=DAEMON_USER,
                        password=self._keys.daemon_password,
                        name="detectd.guard",
                        allow_reconnect=False,
                        connect_timeout=2,
                        # Otherwise nats-py itself waits 2 s for a server that isn't listening yet.
                        reconnect_time_wait=0.02,
                        max_reconnect_attempts=1,
                        error_cb=_ignore,
                    )
                except (NatsError, OSError):
                    await asyncio.sleep(0.02)

    async def _require_alive(self) -> None:
        assert self._process is not None
        if self._process.is_alive():
            return
        code = await self._process.ended()
        why = last_words(self._folder / "server.err", 0) or last_words(self._folder / "server.log", self._log_start)
        await self._end()
        kind = PortTaken if "address already in use" in why else ServerFailed
        raise kind(f"nats-server ended at its start (exit code {code}): {why or 'it said nothing'}")

    async def _prepare(self, nc: Client) -> None:
        self._identity = await ensure(nc, self._log)
        done = await reconcile(nc, self._identity)
        self._tell("reconciled", done.counts())
        await self._open()
        self._hold(done.placed)

    def _hold(self, placed: Placed) -> None:
        self._placed, self._refusals, self._mark_at = placed, 0, time.monotonic() + self._pace.mark_s

    async def _open(self) -> None:
        """Let devices in. Noted first: a door noted as shut would be reconciled again, with devices inside."""
        assert self._process is not None
        self._note(is_open=True)
        write_private(self._folder / "server.conf", render(self._conf, door_open=True).encode())
        log = ServerLog(self._folder / "server.log")
        try:
            self._process.send(signal.SIGHUP)
            await self._reloaded(log)
        finally:
            log.close()
        self._tell("opened", {"mqtt": self.endpoint.mqtt})

    async def _reloaded(self, log: ServerLog) -> None:
        async with asyncio.timeout(self._pace.ready_s):
            while True:
                seen = log.read()
                if seen["reload_failed"]:
                    raise ServerFailed(f"nats-server refused to reload: {last_words(self._folder / 'server.log', 0)}")
                if seen["reloaded"]:
                    return
                await self._require_alive()
                await asyncio.sleep(0.005)

    def _note(self, *, is_open: bool) -> None:
        assert self._process is not None
        digest = _digest(self._binary, self._conf)
        write_running(self._folder, Running(self._process.identity, digest, is_open))

    # Watching

    async def _revive(self) -> None:
        delay_s = self._pace.retry_first_s
        while True:
            assert self._process is not None
            since = time.monotonic()
            code = await self._process.ended()
            lived_s = time.monotonic() - since
            self._tell("died", {"code": code, "lived_s": round(lived_s, 3)})
            if lived_s < self._pace.stable_s:
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, self._pace.retry_max_s)
            else:
                delay_s = self._pace.retry_first_s
            await self._relaunch()

    async def _relaunch(self) -> None:
        """Try until it works. While it doesn't, the door is shut, and no device is promised anything."""
        delay_s = self._pace.retry_first_s
        while True:
            await self._disconnect()
            await self._end()
            try:
                return await self._launch()
            except (ServerFailed, *_TROUBLE) as error:
                self._tell("failed", {"error": _said(error)})
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, self._pace.retry_max_s)

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(self._pace.log_s)
            if self._read_log()["disabled"]:
                await self._give_up_on_it("JetStream is out of resources")
            if self._placed is not None and time.monotonic() >= self._mark_at:
                self._mark_at = time.monotonic() + self._pace.mark_s
                await self._mark()
            if self._refusals >= _REFUSALS_MAX:
                self._refusals = 0
                await self._give_up_on_it("JetStream stores nothing")

    def _read_log(self) -> Counter[str]:
        seen = self._server_log.read()
        if seen["dropped"]:
            self._lossy_until = time.monotonic() + _WARNED_AGAIN_S
        if self._placed is None:
            del seen["login_refused"]  # our own doing: the door is shut
        for word in _TOLD & seen.keys():
            self._tell(word, {"count": seen[word]})
        return seen

    async def _give_up_on_it(self, why: str) -> None:
        """End a server that can't store: started again it can, once there is room. `_revive` sees to that."""
        if self._process is not None:
            self._tell("stalled", {"reason": why})
            await self._process.end(self._pace.stop_s)

    async def _mark(self) -> None:
        """Keep the next reconcile short. Where the server dropped messages, reconcile at once."""
        nc, placed = self._nc, self._placed
        assert nc is not None
        assert placed is not None
        try:
            placed = await self._next_mark(nc, placed)
        except _TROUBLE as error:
            self._note_trouble(nc, error)
            return
        if nc is self._nc:
            self._placed, self._refusals = placed, 0

    async def _next_mark(self, nc: Client, placed: Placed) -> Placed:
        if not self._is_lossy():
            return await settle(nc, self.identity, placed, unless=self._is_lossy)
        done = await reconcile(nc, self.identity)
        self._tell("reconciled", done.counts())
        return done.placed

    def _note_trouble(self, nc: Client, error: Exception) -> None:
        if nc is not self._nc or nc.is_closed:
            return  # the server died meanwhile, which is told elsewhere
        self._tell("mark_failed", {"error": _said(error)})
        # A flood makes the log slow to answer; only an answer that says no is a reason to begin anew.
        self._refusals += isinstance(error, JetStreamError | NoRespondersError)

    def _is_lossy(self) -> bool:
        """Whether the server may have dropped what the guard has by now: it says so before it fills the guard."""
        self._read_log()
        return time.monotonic() < self._lossy_until

    # Ending

    async def _disconnect(self) -> None:
        self._placed = None
        nc, self._nc = self._nc, None
        if nc is not None:
            await nc.close()

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await process.end(self._pace.stop_s)
            process.close()
            forget_running(self._folder)


def _digest(binary: Binary, conf: BrokerConf) -> str:
    """What a left-behind server must have been started with, to be taken over."""
    text = f"{binary.path} {binary.version} {render(conf, door_open=True)}"
    return sha256(text.encode()).hexdigest()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _text(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


async def _ignore(error: Exception) -> None:
    """nats-py would log each failed attempt; the caller sees them as exceptions."""
