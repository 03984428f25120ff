"""A plain nats-server with a log, as a child process: for tests and benchmarks of the log alone."""

import asyncio
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from daemon.log.reader import Access
from daemon.log.wire import NOBODY, RequestError, WireError, connect

SUBJECTS = ["$aws.things.*.defender.metrics.json", "$aws.things.*.defender.metrics.cbor", "detectd.log.>"]
UP_WITHIN_S = 20.0


class LogServer:
    """`start` and `kill` as often as you like: port and store stay the same."""

    def __init__(self, folder: Path, *, extra: str = "", tls: ssl.SSLContext | None = None) -> None:
        self.port, self.mqtt_port = _free_port(), _free_port()
        self.access = Access((f"nats://127.0.0.1:{self.port}",), "daemon", "s3cret", tls)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._config = folder / "server.conf"
        self._config.write_text(
            f"server_name: log\nlisten: 127.0.0.1:{self.port}\n"
            f'jetstream {{ store_dir: "{folder}/js" }}\n'
            f"mqtt {{ listen: 127.0.0.1:{self.mqtt_port}, no_auth_user: device }}\n"
            "authorization { users: [\n"
            "  { user: daemon, password: s3cret },\n"
            '  { user: device, password: x, permissions: { publish: { allow: ["$aws.>", "$MQTT.>", "other"] } } } ] }\n'
            f"{extra}\n"
        )

    async def start(self) -> None:
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen([_binary(), "-c", str(self._config)], stdout=log, stderr=log)
        async with asyncio.timeout(UP_WITHIN_S):
            while not await self._is_up():
                await asyncio.sleep(0.02)

    def kill(self) -> None:
        """As a power switch would; the page cache stays."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It hangs: connections stay, nothing moves."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    async def ask(self, subject: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """One request of JetStream's API."""
        wire = await connect(self.access, NOBODY, "test")
        try:
            return await wire.request(f"$JS.API.{subject}", body)
        finally:
            wire.close()

    async def create_log(self, name: str = "LOG", **more: Any) -> None:
        config = {"name": name, "subjects": SUBJECTS, "storage": "file", "retention": "limits", "discard": "old"}
        await self.ask(f"STREAM.CREATE.{name}", {**config, **more})

    async def _is_up(self) -> bool:
        try:
            await self.ask("INFO")
        except (OSError, WireError, RequestError, TimeoutError):
            return False
        return True

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(timeout=20)
            self._process = None


def _binary() -> str:
    beside = Path(sys.executable).with_name("nats-server")
    return str(beside) if beside.exists() else shutil.which("nats-server") or "nats-server"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
