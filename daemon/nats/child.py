"""One nats-server process with its configuration, its door and the daemon's own connection to it.

It can be started, or found again after the daemon was killed; devices can be let in; it can be ended. What has to
happen before devices come in is not known here (daemon/nats/server.py).
"""

import asyncio
import os
import signal
import socket
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Final

import nats
from nats.aio.client import Client
from nats.errors import Error as NatsError

from config.address import Address, address_of
from config.model import Embedded, Log
from daemon import whole_file
from daemon.nats.binary import Binary, find_binary
from daemon.nats.conf import (
    DAEMON_USER,
    DEVICE_USER,
    OTHERS_BYTES_MAX,
    PUBLISH_DENIED,
    SUBSCRIBE_DENIED,
    BrokerConf,
    Password,
    render,
)
from daemon.nats.named_devices import NamedDevices
from daemon.nats.process import Process
from daemon.nats.server_log import ServerLog, last_words
from daemon.nats.state import (
    Keys,
    Running,
    forget_running,
    read_keys,
    read_running,
    write_keys,
    write_running,
)

LOOPBACK: Final = "127.0.0.1"
_PORT_TRIES: Final = 5
_READY_S: Final = 120.0  # a large log takes its time to be read after a crash
_ADOPT_S: Final = 20.0  # one that was left behind has had its time
_STOP_S: Final = 10.0


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
    mqtt: str  # HOST:PORT of nats-server's MQTT as it really is
    pid: int
    device: tuple[str, Password] = field(repr=False)  # who speaks MQTT there, where a sensor does it for all


@dataclass(frozen=True, slots=True)
class Started:
    """Its door is shut."""

    nc: Client


@dataclass(frozen=True, slots=True)
class Adopted:
    """It runs since before this daemon; `is_open`: devices may be inside."""

    nc: Client
    is_open: bool


@dataclass(frozen=True, slots=True)
class Unfit:
    """One was left behind, and was ended."""

    pid: int
    reason: str


class ServerChild:
    """At most one process at a time. Its keys and ports stay the same from start to start."""

    def __init__(self, settings: Embedded, log: Log, folder: Path) -> None:
        self.folder = folder
        self._settings = settings
        self._file_bytes_max = log.max_bytes + log.guard_bytes + OTHERS_BYTES_MAX
        self._process: Process | None = None
        self._keys: Keys  # from `set_up` on
        self._pid = 0
        self._log_start = 0

    @property
    def endpoint(self) -> Endpoint:
        conf = self._conf
        return Endpoint(
            f"nats://{Address(*conf.nats)}",
            DAEMON_USER,
            conf.daemon_password,
            str(Address(*conf.mqtt)),
            self._pid,
            (DEVICE_USER, conf.device_password),
        )

    @property
    def front(self) -> Address:
        """Where devices are to connect, port 0 where none was chosen yet: a sensor listens there, if there is one."""
        wanted = address_of(self._settings.mqtt)
        return Address(wanted.host, wanted.port or self._keys.mqtt_port)

    def remember_front(self, port: int) -> None:
        """Devices find the sensor where it was."""
        if not address_of(self._settings.mqtt).port and port != self._keys.mqtt_port:
            self._keys = replace(self._keys, mqtt_port=port)
            write_keys(self.folder, self._keys)

    async def set_up(self) -> None:
        """Find the binary, keys and ports; nothing is started. Raises NoServer, OSError."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._binary = await asyncio.to_thread(find_binary)
        self._keys = read_keys(self.folder)
        self.named = NamedDevices(self._keys.callout_seed, PUBLISH_DENIED, SUBSCRIBE_DENIED)
        self._conf = self._with_ports()

    async def adopt(self) -> Adopted | Unfit | None:
        """Take over a server that runs as it should; end one that runs otherwise; None: there is none."""
        was = read_running(self.folder)
        process = Process.find(was.identity) if was is not None else None
        if was is None or process is None:
            return None
        self._process, self._pid = process, was.identity.pid
        if was.digest != _digest(self._binary, self._conf):
            await self.end()
            return Unfit(was.identity.pid, "its settings differ")
        try:
            return Adopted(await self._connect(_ADOPT_S), was.is_open)
        except (ServerFailed, TimeoutError):
            await self.end()
            return Unfit(was.identity.pid, "it does not answer")

    async def launch(self) -> Started:
        """Start a server, door shut. Raises ServerFailed, TimeoutError, OSError."""
        for _ in range(_PORT_TRIES - 1):
            try:
                return Started(await self._spawn())
            except PortTaken:
                if not self._choose_other_ports():
                    raise
        return Started(await self._spawn())

    async def open_door(self) -> None:
        """Let devices in; again is harmless. Raises ServerFailed, TimeoutError, OSError."""
        assert self._process is not None
        # Noted first: a door noted as shut would be prepared again, with devices inside.
        self._note(is_open=True)
        self._write_conf(self.folder / "server.conf", door_open=True)
        log = ServerLog(self.folder / "server.log")
        try:
            self._process.send(signal.SIGHUP)
            await self._reloaded(log)
        finally:
            log.close()
        self.named.is_open = True

    async def died(self) -> int | None:
        """Wait for the end of the process; its exit code, None where another daemon started it."""
        assert self._process is not None
        return await self._process.ended()

    async def kill(self) -> None:
        """End the process, and leave what follows to the one that waits in `died`."""
        if self._process is not None:
            await self._process.end(_STOP_S)

    async def end(self) -> None:
        """End the process if there is one; nothing of it is left behind."""
        process, self._process = self._process, None
        if process is not None:
            await process.end(_STOP_S)
            process.close()
            forget_running(self.folder)

    def _with_ports(self) -> BrokerConf:
        """The configuration, with a free port where 0 was asked for: the one of last time if there was one."""
        nats_at = address_of(self._settings.nats)
        nats_port = nats_at.port or self._keys.nats_port or _free_port(nats_at.host)
        self._keys = replace(self._keys, nats_port=self._keys.nats_port if nats_at.port else nats_port)
        mqtt = self._behind() if self._settings.sensor else self._at_the_front()
        write_keys(self.folder, self._keys)
        return BrokerConf(
            nats=(nats_at.host, nats_port),
            mqtt=mqtt,
            tls=None if self._settings.sensor else self._settings.tls,
            folder=self.folder.absolute(),
            file_bytes_max=self._file_bytes_max,
            sync_interval_s=self._settings.sync_interval_s,
            daemon_password=self._keys.daemon_password,
            device_password=self._keys.device_password,
            callout_issuer=None if self._settings.sensor else self.named.issuer,
        )

    def _at_the_front(self) -> tuple[str, int]:
        at = address_of(self._settings.mqtt)
        port = at.port or self._keys.mqtt_port or _free_port(at.host)
        self._keys = replace(self._keys, mqtt_port=self._keys.mqtt_port if at.port else port)
        return at.host, port

    def _behind(self) -> tuple[str, int]:
        self._keys = replace(self._keys, behind_port=self._keys.behind_port or _free_port(LOOPBACK))
        return LOOPBACK, self._keys.behind_port

    def _choose_other_ports(self) -> bool:
        """Forget ports that we chose ourselves; False where the settings name them all."""
        sensor = self._settings.sensor
        if address_of(self._settings.nats).port and (address_of(self._settings.mqtt).port and not sensor):
            return False
        self._keys = replace(self._keys, nats_port=0, behind_port=0, mqtt_port=self._keys.mqtt_port if sensor else 0)
        self._conf = self._with_ports()
        return True

    def _write_conf(self, path: Path, *, door_open: bool) -> None:
        whole_file.write(path, render(self._conf, door_open=door_open).encode(), whole_file.PRIVATE)

    async def _spawn(self) -> Client:
        path = self.folder / "server.conf"
        self.named.is_open = False
        self._write_conf(path, door_open=False)
        self._log_start = _size(self.folder / "server.log")
        await self._end_strays(path)
        command = [str(self._binary.path), "-c", str(path)]
        self._process = Process.spawn(command, self.folder / "server.err", {"GOMAXPROCS": str(_threads())})
        self._pid = self._process.identity.pid
        self._note(is_open=False)
        return await self._connect()

    async def _end_strays(self, path: Path) -> None:
        """A daemon that was killed between starting a server and noting it left one that holds ports and store."""
        for stray in Process.strays(["-c", str(path)]):
            await stray.end(_STOP_S)
            stray.close()

    async def _connect(self, patience_s: float = _READY_S) -> Client:
        """The daemon's own connection, as soon as the server answers. Raises ServerFailed, TimeoutError."""
        async with asyncio.timeout(patience_s):
            while True:
                await self.require_alive()
                try:
                    nc = await self._try_to_connect()
                    if not self._settings.sensor:
                        await self.named.serve(nc)
                except (NatsError, OSError):
                    await asyncio.sleep(0.02)
                else:
                    return nc

    async def _try_to_connect(self) -> Client:
        return await nats.connect(
            self.endpoint.url,
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

    async def require_alive(self) -> None:
        """Raises ServerFailed with the server's last words when it has died; PortTaken where that was why."""
        assert self._process is not None
        if self._process.is_alive():
            return
        code = await self._process.ended()
        why = last_words(self.folder / "server.err", 0) or last_words(self.folder / "server.log", self._log_start)
        await self.end()
        kind = PortTaken if "address already in use" in why else ServerFailed
        raise kind(f"nats-server ended at its start (exit code {code}): {why or 'it said nothing'}")

    async def _reloaded(self, log: ServerLog) -> None:
        async with asyncio.timeout(_READY_S):
            while True:
                seen = log.read()
                if seen["reload_failed"]:
                    raise ServerFailed(f"nats-server refused to reload: {last_words(self.folder / 'server.log', 0)}")
                if seen["reloaded"]:
                    return
                await self.require_alive()
                await asyncio.sleep(0.005)

    def _note(self, *, is_open: bool) -> None:
        assert self._process is not None
        digest = _digest(self._binary, self._conf)
        write_running(self.folder, Running(self._process.identity, digest, is_open))


def _digest(binary: Binary, conf: BrokerConf) -> str:
    """What a left-behind server must have been started with, to be taken over."""
    text = f"{binary.path} {binary.version} {render(conf, door_open=True)}"
    return sha256(text.encode()).hexdigest()


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def _threads() -> int:
    """On how many cores Go is to run at once: half of them, the daemon being busy on the others.

    With more threads than it has work for, the server spends a third of its time on looking for some.
    """
    return max(1, len(os.sched_getaffinity(0)) // 2)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


async def _ignore(error: Exception) -> None:
    """nats-py would log each failed attempt; the caller sees them as exceptions."""
