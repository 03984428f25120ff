"""AWS's own Device Defender agent, unmodified from PyPI, against the daemon: mutual TLS on port 443."""

import asyncio
import functools
import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import trustme
from system_tools import DEADLINE_S, Hooks, profile, serving, until, write

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

AGENT: Final = "AWSIoTDeviceDefenderAgentSDK"
VERSION: Final = "2.0.0"
ENVIRONMENTS: Final = Path(__file__).parents[2] / ".venv-agent"
INSTALL_S: Final = 180
PORT_S: Final = 90.0  # longer than the system remembers a connection

ONLY_443: Final = {
    "name": "only-443",
    "metric": "aws:listening-tcp-ports",
    "criteria": {"comparisonOperator": "in-port-set", "value": {"ports": [443]}},
}
BUSY: Final = {
    "name": "busy",
    "metric": "cpu_usage",
    "criteria": {"comparisonOperator": "greater-than", "value": {"number": 1000}},
}


def cannot(why: str) -> None:
    """Skipped, loudly; in CI it fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture(scope="session")
def agent_python() -> Path:
    """The Python of an environment that has the agent; made once per version of both."""
    folder = ENVIRONMENTS / f"{AGENT}-{VERSION}-py{sys.version_info.major}.{sys.version_info.minor}"
    python, stamp = folder / "bin" / "python", folder / "complete"
    if not stamp.exists():
        shutil.rmtree(folder, ignore_errors=True)
        ENVIRONMENTS.mkdir(exist_ok=True)
        (ENVIRONMENTS / ".gitignore").write_text("*\n")
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{AGENT}=={VERSION}"]
        try:
            for command in ([sys.executable, "-m", "venv", folder], install):
                subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_S)
        except (subprocess.SubprocessError, OSError) as problem:
            cannot(f"can't install {AGENT}: {getattr(problem, 'stderr', '') or problem}")
        stamp.touch()
    return python


@dataclass(frozen=True, slots=True)
class Certificates:
    """Paths. The device's authority is another one than the broker's, as it is on AWS."""

    broker_ca: Path
    broker: dict[str, str]  # a `tls` block
    device: Path
    device_key: Path


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    broker_ca, device_ca = trustme.CA(), trustme.CA()
    broker, device = (
        broker_ca.issue_cert("localhost"),
        device_ca.issue_cert("thing1", common_name="AWS IoT Certificate"),
    )
    folder = tmp_path / "tls"
    folder.mkdir()
    for name, blob in {
        "broker-ca.pem": broker_ca.cert_pem,
        "devices-ca.pem": device_ca.cert_pem,
        "broker.pem": broker.cert_chain_pems[0],
        "broker.key": broker.private_key_pem,
        "device.pem": device.cert_chain_pems[0],
        "device.key": device.private_key_pem,
    }.items():
        blob.write_to_path(folder / name)
    tls = {"cert": "tls/broker.pem", "key": "tls/broker.key", "ca": "tls/devices-ca.pem"}
    return Certificates(folder / "broker-ca.pem", tls, folder / "device.pem", folder / "device.key")


@pytest.fixture(autouse=True)
async def _port_443_is_ours() -> None:
    """The agent knows no other port. What a test before this one left there may take the system a while to clear."""
    problem: OSError | None = None
    with suppress(TimeoutError):
        async with asyncio.timeout(PORT_S):
            while (problem := _why_not_443()) is not None:
                await asyncio.sleep(0.1)
    if problem is not None:
        cannot(f"can't listen on port 443, the only one that the agent knows: {problem}")


def _why_not_443() -> OSError | None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 443))
        except OSError as problem:
            return problem
    return None


@asynccontextmanager
async def agent(python: Path, certificates: Certificates, thing: str, form: str, out: Path) -> AsyncIterator[None]:
    """The agent, reporting every 2 s; what it prints is in `out`."""
    options = [
        "-e",
        "localhost",
        "-r",
        certificates.broker_ca,
        "-c",
        certificates.device,
        "-k",
        certificates.device_key,
    ]
    with out.open("wb") as file:
        child = await asyncio.create_subprocess_exec(
            python, "-u", "-m", f"{AGENT}.agent", *options, "-id", thing, "-f", form, "-i", "2", "-cm",
            stdout=file, stderr=file, cwd=out.parent,
        )  # fmt: skip
    try:
        yield
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


async def test_the_agent_is_answered_and_its_listening_ports_raise_an_alarm(
    tmp_path: Path, agent_python: Path, certificates: Certificates
) -> None:
    """Both formats against one daemon."""
    async with Hooks() as hooks:
        config = write(
            tmp_path,
            hooks,
            broker={"embedded": {"mqtt": "127.0.0.1:443", "tls": certificates.broker}},
            custom_metrics=[{"metricName": "cpu_usage", "metricType": "number"}],
            profiles=[profile(ONLY_443, BUSY)],
        )
        async with serving(config) as daemon:
            for form in ("json", "cbor"):
                thing, out = f"thing-{form}", tmp_path / f"{form}.txt"
                async with agent(agent_python, certificates, thing, form, out):
                    said = out.read_text
                    replied = functools.partial(lambda said: said().count("ACCEPTED") >= 2, said)
                    await until(replied, lambda said=said: f"two replies; {said()}\n{daemon.log()}")
                    ports = await hooks.seen(thing, "only-443", "in-alarm", within_s=DEADLINE_S)
                    await hooks.seen(thing, "busy", "in-alarm")
                    assert b'"ports":[' in ports.body
                    assert "REJECTED" not in said()
                    assert await daemon.metric("detectd_reports_rejected_total") == 0


async def test_a_client_without_a_certificate_is_turned_away(tmp_path: Path, certificates: Certificates) -> None:

    config = write(tmp_path, broker={"embedded": {"mqtt": "127.0.0.1:443", "tls": certificates.broker}})
    context = ssl.create_default_context(cafile=certificates.broker_ca)
    async with serving(config):
        reader, writer = await asyncio.open_connection("127.0.0.1", 443, ssl=context, server_hostname="localhost")
        writer.write(b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04none")
        with pytest.raises(ssl.SSLError):
            await reader.read(4)
        writer.close()
        with pytest.raises(ssl.SSLError):
            await writer.wait_closed()
