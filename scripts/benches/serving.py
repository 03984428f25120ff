"""`detectd serve` as a child: started, waited for, asked for its numbers, ended; and publishers that load it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import machine

READY_S: Final = 120.0
STOP_S: Final = 30.0
POLL_S: Final = 0.01
PUBLISHER: Final = Path(__file__).with_name("publisher.py")


class Serving:
    """One daemon on one configuration."""

    def __init__(self, config: Path) -> None:
        settings = json.loads(config.read_text())
        self.url = f"http://{settings['http']['listen']}"
        self.data_dir = config.parent / settings["data_dir"]
        self.log = config.parent / "daemon.log"
        self._config = config
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    @property
    def nats_pid(self) -> int:
        running = json.loads((self.data_dir / "nats" / "server.json").read_text())
        return int(running["identity"]["pid"])

    @property
    def mqtt_port(self) -> int:
        return int(json.loads((self.data_dir / "nats" / "keys.json").read_text())["mqtt_port"])

    def start(self) -> float:
        """Returns when it is ready: the seconds that took, from the start of the process."""
        began = time.perf_counter()
        with self.log.open("ab") as out:
            command = [sys.executable, "-m", "daemon", "serve", "--config", str(self._config)]
            self._child = subprocess.Popen(
                command, cwd=machine.ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        while not self.is_ready():
            if self._child.poll() is not None or time.perf_counter() - began > READY_S:
                raise SystemExit("\n".join(["the daemon did not start:", *self.log.read_text().splitlines()[-20:]]))
            time.sleep(POLL_S)
        return time.perf_counter() - began

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def metrics(self) -> dict[str, float]:
        """Every sample of /metrics; those with labels are added up."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        found: dict[str, float] = {}
        for name, value in re.findall(r"^(\w+)(?:\{[^}]*\})? (\S+)$", text, re.MULTILINE):
            found[name] = found.get(name, 0.0) + float(value)
        return found

    def wait_for(self, metric: str, at_least: float, within_s: float = 120.0) -> dict[str, float]:
        """Poll until a number is reached; all numbers then."""
        deadline = time.monotonic() + within_s
        while (found := self.metrics()).get(metric, 0.0) < at_least:
            if time.monotonic() > deadline:
                raise SystemExit(f"{metric} is {found.get(metric)}, not {at_least}")
            time.sleep(0.1)
        return found

    def said(self, event: str) -> list[dict[str, Any]]:
        """The lines of its log with this message."""
        lines = (json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{"))
        return [line for line in lines if line["msg"] == event]

    def kill(self) -> None:
        assert self._child is not None
        self._child.kill()
        self._child.wait()

    def stop(self) -> None:
        """SIGTERM; what does not end in time is killed, its nats-server too."""
        if self._child is None:
            return
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)
            try:
                self._child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()
        if (self.data_dir / "nats" / "server.json").exists():  # left behind: it was not stopped in good order
            os.kill(self.nats_pid, signal.SIGKILL)


@contextmanager
def serving(config: Path) -> Iterator[Serving]:
    """A daemon that is ready."""
    daemon = Serving(config)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.stop()


def publish(port: int, count: int, rate: float, *more: str) -> dict[str, float]:
    """Load a broker from another process; returns when all is acknowledged."""
    done = subprocess.run(
        [sys.executable, PUBLISHER, str(port), str(count), str(rate), *more], stdout=subprocess.PIPE, check=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found
