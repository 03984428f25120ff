"""A real Mosquitto as a child of one test, on loopback and a port of its own; skipped without it, required in CI."""

import asyncio
import os
import shutil
import socket
import subprocess
from pathlib import Path

import aiomqtt
import pytest

DEADLINE_S = 20.0


class Mosquitto:
    """Start, stop, kill: the port stays the same, so a client comes back to the same place."""

    def __init__(self, folder: Path, *settings: str) -> None:
        binary = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")
        if binary is None:
            if os.environ.get("CI") == "true":
                pytest.fail("mosquitto is not installed, and CI must have it")
            pytest.skip("mosquitto is not installed")
        self._binary = binary
        self.port = free_port()
        # A further listener is further lines of settings: it is waited for as well.
        self._ports = [self.port, *(int(line.split()[1]) for line in settings if line.startswith("listener "))]
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self._config = folder / "mosquitto.conf"
        lines = [f"listener {self.port} 127.0.0.1", "max_queued_messages 0", "max_inflight_messages 1000"]
        lines += ["allow_anonymous true"] if not any("allow_anonymous" in line for line in settings) else []
        lines += ["persistence true", f"persistence_location {folder}/", "user root"]
        self._config.write_text("\n".join([*lines, *settings, ""]))
        self._child: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        with (self.folder / "mosquitto.log").open("ab") as out:
            self._child = subprocess.Popen([self._binary, "-c", str(self._config)], stdout=out, stderr=out)
        async with asyncio.timeout(DEADLINE_S):
            while not all([await self._listens(port) for port in self._ports]):
                assert self._child.poll() is None, (self.folder / "mosquitto.log").read_text()
                await asyncio.sleep(0.02)

    def stop(self) -> None:
        """SIGTERM: it writes its sessions down first."""
        self._end(kill=False)

    def kill(self) -> None:
        self._end(kill=True)

    def client(self, identifier: str, **options: object) -> aiomqtt.Client:
        return aiomqtt.Client("127.0.0.1", self.port, identifier=identifier, **options)  # type: ignore[arg-type]

    def _end(self, *, kill: bool) -> None:
        if self._child is not None:
            (self._child.kill if kill else self._child.terminate)()
            self._child.wait(timeout=DEADLINE_S)
            self._child = None

    async def _listens(self, port: int) -> bool:
        try:
            _reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
