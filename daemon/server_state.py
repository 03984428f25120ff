"""What is remembered of the embedded nats-server from one start to the next: its keys and ports, and who runs."""

import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from daemon.broker_conf import Password
from daemon.process import Identity


@dataclass(frozen=True, slots=True)
class Keys:
    """Made at the first start. A port is 0 until one was chosen; clients find the server where it was."""

    daemon_password: Password = field(repr=False)
    device_password: Password = field(repr=False)
    callout_seed: bytes = field(repr=False)  # of the key that signs who may come in
    nats_port: int = 0
    mqtt_port: int = 0


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
    write_private(folder / "keys.json", msgspec.json.encode(keys))


def read_running(folder: Path) -> Running | None:
    """The server started last, dead or alive; None after a clean stop. A damaged file counts as none."""
    try:
        return msgspec.json.decode((folder / "server.json").read_bytes(), type=Running)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def write_running(folder: Path, running: Running) -> None:
    write_private(folder / "server.json", msgspec.json.encode(running))


def forget_running(folder: Path) -> None:
    (folder / "server.json").unlink(missing_ok=True)


def write_private(path: Path, content: bytes) -> None:
    """Replace a file at once and whole, readable by its owner only."""
    beside = path.with_name(f"{path.name}.new")
    beside.unlink(missing_ok=True)
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
