"""What systemd would read from our notices, over real datagram sockets."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.sdnotify import SdNotify, watchdog_interval_s


class Manager:
    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(10)
        self._socket.bind(address)

    def heard(self) -> list[str]:
        return self._socket.recv(4096).decode().split("\n")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "path" else f"@detectd-test-{os.getpid()}"


@pytest.fixture
def manager(address: str) -> Iterator[Manager]:
    made = Manager("\0" + address[1:] if address.startswith("@") else address)
    yield made
    made.close()


def test_each_state_is_told_as_systemd_expects_it(address: str, manager: Manager) -> None:
    notify = SdNotify.from_environment({"NOTIFY_SOCKET": address})
    notify.ready("listening on 127.0.0.1:8080")
    assert manager.heard() == ["READY=1", "STATUS=listening on 127.0.0.1:8080"]
    notify.reloading(monotonic_ns=12_345_678_901)
    assert manager.heard() == ["RELOADING=1", "MONOTONIC_USEC=12345678"]
    notify.status("reading the log")
    assert manager.heard() == ["STATUS=reading the log"]
    notify.watchdog()
    assert manager.heard() == ["WATCHDOG=1"]
    notify.stopping()
    assert manager.heard() == ["STOPPING=1"]
    notify.close()


def test_a_line_break_in_a_status_can_not_forge_an_assignment(address: str, manager: Manager) -> None:
    notify = SdNotify(address)
    notify.status("bad file\nSTOPPING=1")
    assert manager.heard() == ["STATUS=bad file STOPPING=1"]
    notify.close()


@pytest.mark.parametrize("address", [None, "", "vsock:2:1234"])
def test_without_a_socket_that_we_know_nothing_happens(address: str | None) -> None:
    notify = SdNotify(address)
    notify.ready()
    notify.close()
    assert notify.lost == 0


def test_a_manager_that_is_gone_stops_nothing_and_is_counted(tmp_path: Path) -> None:
    notify = SdNotify(str(tmp_path / "nobody"))
    notify.ready()
    notify.close()
    notify.watchdog()
    assert notify.lost == 1


def test_a_manager_that_does_not_read_blocks_nothing(tmp_path: Path) -> None:
    deaf = Manager(str(tmp_path / "deaf"))
    notify = SdNotify(str(tmp_path / "deaf"))
    for _ in range(2_000):
        notify.watchdog()
    assert notify.lost > 0
    notify.close()
    deaf.close()


@pytest.mark.parametrize(
    ("environ", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "42"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "43"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
    ],
)
def test_the_watchdog_is_fed_twice_per_period_when_it_is_ours(
    environ: dict[str, str], interval_s: float | None
) -> None:
    assert watchdog_interval_s(environ, pid=42) == interval_s
