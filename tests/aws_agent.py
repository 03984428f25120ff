"""AWS's own Device Defender agent as a child process, unmodified from PyPI. It knows no port but 443."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

AGENT: Final = "AWSIoTDeviceDefenderAgentSDK"
VERSION: Final = "2.0.0"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Paths: the broker's authority, the device's certificate and its key."""

    broker_ca: Path
    device: Path
    device_key: Path


@asynccontextmanager
async def agent(python: Path, credentials: Credentials, thing: str, form: str, out: Path) -> AsyncIterator[None]:
    """Reports every 2 s to localhost, cpu_usage too; what it prints is in `out`. Ended by force."""
    tls: list[str | Path] = ["-r", credentials.broker_ca, "-c", credentials.device, "-k", credentials.device_key]
    with out.open("wb") as file:
        child = await asyncio.create_subprocess_exec(
            python, "-u", "-m", f"{AGENT}.agent", "-e", "localhost", *tls, "-id", thing, "-f", form, "-i", "2", "-cm",
            stdout=file, stderr=file, cwd=out.parent,
        )  # fmt: skip
    try:
        yield
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()
