"""MiniStack as AWS IoT Core: a child process with its registry on loopback and its MQTT broker on port 443.

Its broker takes connections on every address, whatever it is told: start it in a network of its own
(tests/own_network.py), before anything else there needs port 443.
"""

import asyncio
import json
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import aiomqtt
import boto3
from aws_agent import Credentials
from botocore.config import Config
from system_tools import DEADLINE_S, HTTP, free_port, until

NAME: Final = "ministack"
VERSION: Final = "1.5.33"
ALPN: Final = "x-amzn-mqtt-ca"  # what AWS wants to be asked for on port 443
MQTT_PORT: Final = 443
REGION: Final = "us-east-1"
KEYS: Final = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
ALL: Final = "*"  # what a certificate may use


@dataclass(frozen=True)
class MiniStack:
    """A running one; certificates are kept in `folder`."""

    url: str
    folder: Path
    log_path: Path

    def log(self) -> str:
        return "\n".join(["MiniStack's last lines:", *self.log_path.read_text(errors="replace").splitlines()[-20:]])

    async def credentials(self, thing: str, may_be: str = ALL) -> Credentials:
        """A certificate for a thing of the registry, made as a fleet's operator makes it; `may_be`: client ids."""
        made = await asyncio.to_thread(self._enroll, thing, may_be)
        files = {f"{thing}.pem": made["certificatePem"], f"{thing}.key": made["keyPair"]["PrivateKey"]}
        for name, text in {"ca.pem": await self._authority(), **files}.items():
            path = self.folder / name
            path.touch(mode=0o600)
            path.write_text(text)
        return Credentials(self.folder / "ca.pem", self.folder / f"{thing}.pem", self.folder / f"{thing}.key")

    def device(self, credentials: Credentials, name: str) -> aiomqtt.Client:
        """By TLS, under this client id; MQTT 5, in which a refusal is said."""
        context = ssl.create_default_context(cafile=credentials.broker_ca)
        context.load_cert_chain(credentials.device, credentials.device_key)
        return aiomqtt.Client(
            "localhost", MQTT_PORT, identifier=name, tls_context=context, timeout=DEADLINE_S,
            protocol=aiomqtt.ProtocolVersion.V5,
        )  # fmt: skip

    def client(self, name: str, ip: str) -> aiomqtt.Client:
        """From this address, by WebSocket: of those that come by TLS MiniStack says that they came from 127.0.0.1."""
        host, _, port = self.url.removeprefix("http://").partition(":")
        return aiomqtt.Client(
            host, int(port), identifier=name, bind_address=ip, timeout=DEADLINE_S, transport="websockets",
            websocket_path="/mqtt", websocket_headers={"Host": f"test-ats.iot.{REGION}.localhost"},
            protocol=aiomqtt.ProtocolVersion.V311,
        )  # fmt: skip

    def _enroll(self, thing: str, may_be: str) -> Mapping[str, Any]:
        iot = boto3.client(
            "iot", endpoint_url=self.url, region_name=REGION, config=Config(retries={"total_max_attempts": 1}), **KEYS
        )
        try:
            iot.create_thing(thingName=thing)
            made: dict[str, Any] = iot.create_keys_and_certificate(setAsActive=True)
            iot.create_policy(policyName=thing, policyDocument=_policy(may_be))
            iot.attach_policy(policyName=thing, target=made["certificateArn"])
            iot.attach_thing_principal(thingName=thing, principal=made["certificateArn"])
            return made
        finally:
            iot.close()

    async def _authority(self) -> str:
        async with (
            aiohttp.ClientSession(timeout=HTTP) as session,
            session.get(f"{self.url}/_ministack/iot/ca.pem") as answer,
        ):
            assert answer.status == 200
            return await answer.text()


def _policy(may_be: str) -> str:
    connect = {"Effect": "Allow", "Action": "iot:Connect", "Resource": f"arn:aws:iot:*:*:client/{may_be}"}
    rest = {"Effect": "Allow", "Action": ["iot:Publish", "iot:Subscribe", "iot:Receive"], "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [connect, rest]})


@asynccontextmanager
async def ministack(python: Path, folder: Path, *, strict: bool = False) -> AsyncIterator[MiniStack]:
    """Ready for devices; ended by force. `strict`: policies hold, as on AWS."""
    folder.mkdir()
    port, log_path = free_port(), folder / "ministack.log"
    settings = {
        "BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "IOT_MTLS_PORT": str(MQTT_PORT),
        "MINISTACK_REGION": REGION, "TMPDIR": str(folder), "AUTH": "true" if strict else "false",
        **{name.upper(): value for name, value in KEYS.items()},
    }  # fmt: skip
    with log_path.open("wb") as log:
        child = await asyncio.create_subprocess_exec(
            python.with_name("ministack"), env={**os.environ, **settings}, stdin=asyncio.subprocess.DEVNULL,
            stdout=log, stderr=log, cwd=folder,
        )  # fmt: skip
    running = MiniStack(f"http://127.0.0.1:{port}", folder, log_path)
    try:
        await until(lambda: child.returncode is not None or _listens(MQTT_PORT, port), running.log)
        assert child.returncode is None, running.log()
        yield running
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


def _listens(*ports: int) -> bool:
    """Whether all of them are listened on in this thread's network."""
    rows = [line.split() for line in Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]]
    open_ports = {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A"}
    return open_ports.issuperset(ports)
