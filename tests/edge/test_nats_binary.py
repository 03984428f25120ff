"""Which nats-server is run, and with what text."""

from pathlib import Path

import pytest

from config.model import Tls
from daemon.nats.binary import NoServer, find_binary
from daemon.nats.conf import BrokerConf, Password, render


def program(folder: Path, says: str) -> Path:
    path = folder / "nats-server"
    path.write_text(f"#!/bin/sh\n{says}\n")
    path.chmod(0o755)
    return path


def test_a_new_enough_server_on_the_path_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = program(tmp_path, "echo nats-server: v2.12.0")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert (find_binary().path, find_binary().version) == (own, (2, 12, 0))


@pytest.mark.parametrize("says", ["echo nats-server: v2.11.9", "echo hello", "exit 1", "exec /nonexistent"])
def test_an_old_or_broken_one_gives_way_to_the_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    own = program(tmp_path, says)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = find_binary()
    assert found.path != own
    assert found.version >= (2, 12, 0)


def test_without_any_the_error_says_what_was_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = program(tmp_path, "echo nats-server: v2.9.1")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("daemon.nats.binary._in_wheel", lambda: None)
    monkeypatch.setattr("daemon.nats.binary._beside_python", lambda: None)
    with pytest.raises(NoServer, match=rf"2\.12 or newer: {own} is 2\.9\.1"):
        find_binary()


def conf(**changes: object) -> BrokerConf:
    base: dict[str, object] = {
        "nats": ("127.0.0.1", 4222),
        "mqtt": ("127.0.0.1", 1883),
        "tls": None,
        "folder": Path("/data/nats"),
        "file_bytes_max": 10,
        "sync_interval_s": None,
        "daemon_password": Password("d" * 20),
        "device_password": Password("e" * 20),
        "callout_issuer": "A" * 56,
    }
    return BrokerConf(**(base | changes))  # type: ignore[arg-type]  # a test's shorthand


def test_a_shut_door_admits_devices_in_no_way_that_is_served() -> None:
    shut, opened = render(conf(), door_open=False), render(conf(), door_open=True)
    assert '"MQTT"' not in shut
    assert shut.replace('["LEAFNODE"]', '["MQTT", "MQTT_WS"]') == opened


def test_an_ipv6_address_is_bracketed() -> None:
    assert 'listen: "[::1]:1883"' in render(conf(mqtt=("::1", 1883)), door_open=True)


def test_a_path_with_quotes_and_spaces_stays_one_word() -> None:
    assert r'log_file: "/a \"b\" c/server.log"' in render(conf(folder=Path('/a "b" c')), door_open=True)


@pytest.mark.parametrize(
    ("interval_s", "line"),
    [(0.0, "sync_interval: always"), (0.5, 'sync_interval: "500ms"'), (90.0, 'sync_interval: "90000ms"')],
)
def test_how_often_the_log_reaches_the_disk_is_said(interval_s: float, line: str) -> None:
    assert line in render(conf(sync_interval_s=interval_s), door_open=True)


def test_nothing_is_said_of_it_where_nats_servers_own_pace_will_do() -> None:
    assert "sync_interval" not in render(conf(), door_open=True)


def test_client_certificates_are_asked_for_only_with_an_authority() -> None:
    one = Tls(cert=Path("/c"), key=Path("/k"))
    two = Tls(cert=Path("/c"), key=Path("/k"), ca=Path("/a"))
    assert "verify: true" not in render(conf(tls=one), door_open=True)
    assert "verify: true" in render(conf(tls=two), door_open=True)
