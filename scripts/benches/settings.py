"""The daemon's configuration files of the benches."""

import json
import socket
from pathlib import Path
from typing import Any

import fleet


def write(folder: Path, *, receivers: dict[str, Any] | None = None, **more: Any) -> Path:
    """A configuration with everything on, in `folder`; no floor between reports, as a bench has no 5 minutes."""
    body = {
        "data_dir": "data",
        "http": {"listen": f"127.0.0.1:{free_port()}"},
        "profiles": [fleet.profile()],
        "limits": {"report_interval_s": 0},
        "logging": {"format": "json"},
        "receivers": receivers or {},
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "detectd.yaml"
    path.write_text(json.dumps(body | more))
    return path


def elsewhere(folder: Path, url: str, user: str, password: str) -> dict[str, Any]:
    """`broker` of a configuration on a nats-server that the bench has started."""
    keys = folder / "nats.credentials"
    keys.touch(mode=0o600)
    keys.write_text(f"{user}:{password}")
    return {"nats": {"url": url, "credentials_file": keys.name}}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
