"""AWS's own Device Defender agent, unmodified from PyPI, against the daemon: mutual TLS on port 443."""

import asyncio
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import trustme
from aws_agent import Credentials, agent
from environments import cannot
from mqtt_load import connect_packet
from system_tools import DEADLINE_S, Daemon, Hooks, profile, serving, until, write

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

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


@dataclass(frozen=True, slots=True)
class Certificates:
    """The device's authority is another one than the broker's, as it is on AWS."""

    broker: dict[str, str]  # a `tls` block
    device: Credentials


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
    return Certificates(tls, Credentials(folder / "broker-ca.pem", folder / "device.pem", folder / "device.key"))


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
                async with agent(agent_python, certificates.device, thing, form, out):
                    await until(partial(_is_answered_twice, out), partial(_story, out, daemon))
                    ports = await hooks.seen(thing, "only-443", "in-alarm", within_s=DEADLINE_S)
                    await hooks.seen(thing, "busy", "in-alarm")
                    assert b'"ports":[' in ports.body
                    assert "REJECTED" not in out.read_text()
                    assert await daemon.metric("detectd_reports_rejected_total") == 0


def _is_answered_twice(out: Path) -> bool:
    return out.read_text().count("ACCEPTED") >= 2


def _story(out: Path, daemon: Daemon) -> str:
    return f"two replies; {out.read_text()}\n{daemon.log()}"


async def test_a_client_without_a_certificate_is_turned_away(tmp_path: Path, certificates: Certificates) -> None:
    config = write(tmp_path, broker={"embedded": {"mqtt": "127.0.0.1:443", "tls": certificates.broker}})
    context = ssl.create_default_context(cafile=certificates.device.broker_ca)
    async with serving(config) as daemon:
        reader, writer = await asyncio.open_connection("127.0.0.1", 443, ssl=context, server_hostname="localhost")
        writer.write(connect_packet("none"))
        # With TLS 1.3 a client learns it only now; not always with a reason, as event loops may drop the alert.
        with suppress(ssl.SSLError, ConnectionResetError):
            assert await reader.read(4) == b""
        writer.close()
        with suppress(ssl.SSLError, ConnectionResetError):
            await writer.wait_closed()
        await daemon.until_metric("detectd_sensor_handshakes_failed_total", 1)
