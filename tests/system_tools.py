"""What the system tests stand on: the installed daemon as a process, a receiver that verifies, and patience."""

import asyncio
import base64
import json
import os
import secrets
import signal
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
import aiomqtt
import pytest
from aiohttp import web
from standardwebhooks import Webhook

DEADLINE_S: Final = 60.0
READY_S: Final = 110.0  # the first start on a machine compiles the kernels
HTTP: Final = aiohttp.ClientTimeout(total=10)
DETECTD: Final = Path(sys.executable).with_name("detectd")


async def until(is_so: Callable[[], object], what: str | Callable[[], str], within_s: float = DEADLINE_S) -> None:
    """Polls; fails by saying what never happened."""
    try:
        async with asyncio.timeout(within_s):
            while not is_so():
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"never happened within {within_s:.0f} s: {what if isinstance(what, str) else what()}")


def free_port() -> int:
    """A port that no outgoing connection is given by itself, so that it can be listened on again after a kill."""
    while True:
        port = secrets.randbelow(10_000) + 20_000
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


# ---- the receiver ----


@dataclass(frozen=True, slots=True)
class Notice:
    """A webhook whose signature was good."""

    webhook_id: str
    type: str  # in-alarm …
    thing: str
    profile: str
    behavior: str
    violation_id: str
    time_ms: int
    body: bytes = field(repr=False)

    @property
    def key(self) -> tuple[str, str, str]:
        """What an undisturbed run has in common with a disturbed one."""
        return self.thing, self.behavior, self.type


class Hooks:
    """A webhook receiver that believes what is signed by `secret`; `status` is its answer to that."""

    def __init__(self) -> None:
        self.secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        self.notices: list[Notice] = []  # the first arrival of each id
        self.arrivals: list[str] = []  # ids, repeats too
        self.status = 204
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/hook", self._receive)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/hook"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def keys(self) -> list[tuple[str, str, str]]:
        return [notice.key for notice in self.notices]

    async def seen(self, thing: str, behavior: str, kind: str, within_s: float = DEADLINE_S) -> Notice:
        wanted = (thing, behavior, kind)
        await until(lambda: wanted in self.keys(), lambda: f"{wanted} among {self.keys()}", within_s)
        return next(notice for notice in self.notices if notice.key == wanted)

    async def _receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        # Raises where the signature is bad: the daemon then gets a 500, and the test never its notice.
        message = Webhook(self.secret).verify(body, dict(request.headers))
        if self.status // 100 == 2:
            self._take(request.headers["webhook-id"], message, body)
        return web.Response(status=self.status)

    def _take(self, webhook_id: str, message: Mapping[str, Any], body: bytes) -> None:
        if webhook_id not in self.arrivals:
            data = message["data"]
            self.notices.append(
                Notice(
                    webhook_id=webhook_id,
                    type=message["type"].removeprefix("alarm."),
                    thing=data["thingName"],
                    profile=data["securityProfileName"],
                    behavior=data["behavior"]["name"],
                    violation_id=data["violationId"],
                    time_ms=data["violationEventTime"],
                    body=body,
                )
            )
        self.arrivals.append(webhook_id)


# ---- the configuration ----


PORTS: Final = {
    "name": "ports",
    "metric": "aws:listening-tcp-ports",
    "criteria": {"comparisonOperator": "in-port-set", "value": {"ports": [22, 443]}},
}
BYTES: Final = {
    "name": "bytes",
    "metric": "aws:all-bytes-out",
    "criteria": {"comparisonOperator": "less-than-equals", "value": {"count": 1000}, "durationSeconds": 1},
}


def profile(*behaviors: Mapping[str, Any], name: str = "p", targets: Sequence[str] = ("all/things",)) -> dict[str, Any]:
    return {"securityProfileName": name, "targets": list(targets), "behaviors": list(behaviors)}


def write(folder: Path, hooks: Hooks | None = None, **settings: Any) -> Path:
    """A configuration in `folder`: JSON, which is YAML too. `settings` overrides whole top-level keys."""
    folder.mkdir(parents=True, exist_ok=True)
    body: dict[str, Any] = {
        "data_dir": "data",
        "http": {"listen": f"127.0.0.1:{free_port()}"},
        "broker": {"embedded": {"mqtt": f"127.0.0.1:{free_port()}"}},
        "profiles": [profile(PORTS)],
        "limits": {"report_interval_s": 0, "durations": "any"},
        "log": {"max_bytes": 256 * 1024**2, "guard_bytes": 64 * 1024**2},
        "logging": {"format": "json"},
        "checkpoint": {"every_s": 1},
    }
    if hooks is not None:
        secret = folder / "hook.secret"
        secret.touch(mode=0o600)
        secret.write_text(hooks.secret)
        body["receivers"] = {"webhooks": [{"name": "test", "url": hooks.url, "secret_file": "hook.secret"}]}
    path = folder / "detectd.yaml"
    path.write_text(json.dumps(body | settings, indent=1))
    return path


def edit(path: Path, **settings: Any) -> None:
    """Replace top-level keys of a configuration, in one rename as an editor does it."""
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(json.loads(path.read_text()) | settings, indent=1))
    beside.replace(path)


# ---- the daemon ----


class Daemon:
    """`detectd serve` as a child process. Its log is `log_path`, appended from start to start."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.folder = config.parent
        self.log_path = self.folder / "daemon.log"
        settings = json.loads(config.read_text())
        self.url = "http://" + settings["http"]["listen"]
        self.data_dir = self.folder / settings["data_dir"]
        host, _, port = settings.get("broker", {}).get("embedded", {}).get("mqtt", "127.0.0.1:0").rpartition(":")
        self.mqtt = (host, int(port))
        self._child: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    async def start(self, *, ready: bool = True) -> None:
        with self.log_path.open("ab") as log:
            self._child = await asyncio.create_subprocess_exec(
                str(DETECTD),
                "serve",
                "--config",
                str(self.config),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if ready:
            await self.until_ready()

    async def until_ready(self) -> None:
        try:
            async with asyncio.timeout(READY_S):
                while not await self.is_ready():
                    if self.has_ended:
                        pytest.fail(f"the daemon ended with {await self.ended()}; {self.log()}")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pytest.fail(f"not ready within {READY_S:.0f} s; {self.log()}")

    async def is_ready(self) -> bool:
        try:
            return (await self.get("/-/ready"))[0] == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    @property
    def has_ended(self) -> bool:
        return self._child is not None and self._child.returncode is not None

    def signal(self, number: signal.Signals) -> None:
        assert self._child is not None
        self._child.send_signal(number)

    async def ended(self, within_s: float = DEADLINE_S) -> int:
        """Its exit status; negative: the signal that ended it."""
        assert self._child is not None
        try:
            async with asyncio.timeout(within_s):
                return await self._child.wait()
        except TimeoutError:
            pytest.fail(f"still running after {within_s:.0f} s; {self.log()}")

    async def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return await self.ended()

    async def kill(self) -> None:
        """kill -9 of the daemon alone: its nats-server lives on."""
        self.signal(signal.SIGKILL)
        await self.ended()

    def kill_nats(self) -> None:
        for pid in self.nats_pids():
            os.kill(pid, signal.SIGKILL)

    def nats_pids(self) -> list[int]:
        """Every process whose command line names this data directory, the daemon aside."""
        return [pid for pid in children_of(self.data_dir) if self._child is None or pid != self._child.pid]

    async def get(self, path: str) -> tuple[int, Any]:
        return await self.ask("GET", path)

    async def ask(self, method: str, path: str) -> tuple[int, Any]:
        async with aiohttp.ClientSession(timeout=HTTP) as session, session.request(method, self.url + path) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if answer.content_type == "application/json" else text

    async def metric(self, name: str) -> float:
        """The sum over its labels; 0 where it has no sample."""
        _, text = await self.get("/metrics")
        return sum(
            float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith((name + "{", name + " "))
        )

    async def until_metric(self, name: str, at_least: float, within_s: float = DEADLINE_S) -> None:
        try:
            async with asyncio.timeout(within_s):
                while (value := await self.metric(name)) < at_least:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pytest.fail(f"{name} is {value}, not {at_least}; {self.log()}")

    def log(self) -> str:
        lines = self.log_path.read_text(errors="replace").splitlines() if self.log_path.exists() else []
        return "\n".join(["the last lines of its log:", *lines[-30:]])

    async def clean_up(self) -> None:
        """Whatever the test left."""
        if self._child is not None and self._child.returncode is None:
            self.signal(signal.SIGKILL)
            await self._child.wait()
        self.kill_nats()


@asynccontextmanager
async def serving(config: Path) -> AsyncIterator[Daemon]:
    """A daemon that is ready; ended afterwards, by force if need be."""
    daemon = Daemon(config)
    try:
        await daemon.start()
        yield daemon
    finally:
        await daemon.clean_up()


def stored_events(daemon: Daemon) -> list[str]:
    """Event ids in the order in which they were stored."""
    with closing(sqlite3.connect(f"file:{daemon.data_dir}/detectd.sqlite?mode=ro", uri=True)) as store:
        return [row[0] for row in store.execute("SELECT event_id FROM events ORDER BY rowid")]


def children_of(folder: Path) -> list[int]:
    """Processes whose command line has a path inside `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if f"{folder}/".encode() in command:
                found.append(int(entry.name))
    return found


# ---- devices ----


def report(number: int, ports: Sequence[int] = (22,), bytes_out: int = 10) -> dict[str, Any]:
    return {
        "header": {"report_id": number, "version": "1.0"},
        "metrics": {
            "listening_tcp_ports": {"ports": [{"port": port} for port in ports], "total": len(ports)},
            "network_stats": {"bytes_in": 1, "bytes_out": bytes_out, "packets_in": 1, "packets_out": 1},
        },
    }


def topic(thing: str, form: str = "json", prefix: str = "$aws") -> str:
    return f"{prefix}/things/{thing}/defender/metrics/{form}"


@asynccontextmanager
async def device(address: tuple[str, int], name: str) -> AsyncIterator[aiomqtt.Client]:
    """A connected MQTT 3.1.1 client."""
    async with aiomqtt.Client(
        address[0], address[1], identifier=name, protocol=aiomqtt.ProtocolVersion.V311, timeout=DEADLINE_S
    ) as client:
        yield client


async def send(address: tuple[str, int], thing: str, *bodies: Mapping[str, Any]) -> None:
    """Reports at QoS 1, in order, each acknowledged before the next."""
    async with device(address, f"client-of-{thing}") as client:
        for body in bodies:
            await client.publish(topic(thing), json.dumps(body).encode(), qos=1)
