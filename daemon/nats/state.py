"""What is remembered of the embedded nats-server from one start to the next: its keys and ports, and who runs."""

import secrets
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from daemon import whole_file
from daemon.nats.conf import Password
from daemon.nats.process import Identity


@dataclass(frozen=True, slots=True)
class Keys:
    """Made at the first start. A port is 0 until one was chosen; clients find the server where it was."""

    daemon_password: Password = field(repr=False)
    device_password: Password = field(repr=False)
    callout_seed: bytes = field(repr=False)  # of the key that signs who may come in
    nats_port: int = 0
    mqtt_port: int = 0  # where devices connect
    behind_port: int = 0  # of nats-server's MQTT, where a sensor stands in front of it


class Running(msgspec.Struct, frozen=True):
    """The server that was started last. `digest` is of its binary and configuration, whatever its door."""

    identity: Identity
    digest: str
    is_open: bool


def read_keys(folder: Path) -> Keys:
    """The keys of this data directory, made now if there are none. Raises OSError."""
    try:
        return msgspec.json.decode((folder / "keys.json").read_bytes(), type=Keys)
    except (FileNotFoundError, msgspec.DecodeError):
        keys = Keys(Password(secrets.token_urlsafe(24)), Password(secrets.token_urlsafe(24)), secrets.token_bytes(32))
        write_keys(folder, keys)
        return keys


def write_keys(folder: Path, keys: Keys) -> None:
    whole_file.write(folder / "keys.json", msgspec.json.encode(keys), whole_file.PRIVATE)


def read_running(folder: Path) -> Running | None:
    """The server started last, dead or alive; None after a clean stop. A damaged file counts as none."""
    try:
        return msgspec.json.decode((folder / "server.json").read_bytes(), type=Running)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def write_running(folder: Path, running: Running) -> None:
    whole_file.write(folder / "server.json", msgspec.json.encode(running), whole_file.PRIVATE)


def forget_running(folder: Path) -> None:
    (folder / "server.json").unlink(missing_ok=True)
