"""A fleet on the air: each device has an MQTT connection of its own, reports on its own beat, and hears the answers."""

import asyncio
import json
import ssl
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from random import Random
from typing import Final, Literal

import aiomqtt
import cbor2
from device import Device, report

from daemon import cancellation

RECONNECT_S: Final = 1.0
CONNECT_TOGETHER: Final = 50
"""Connections being opened at a time: a broker's backlog is not endless."""


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the fleet reports to, and how."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    prefix: str = "$aws"


@dataclass(slots=True)
class Fleet:
    """Devices, which of them are ill, and counts of what happened. `ill` may be changed while it runs."""

    broker: Broker
    devices: Sequence[Device]
    every_s: float
    seed: int
    encoding: Literal["json", "cbor"] = "json"
    note: Callable[[str], None] = print
    ill: set[str] = field(default_factory=set)
    connected: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)  # reports, accepted, rejected, disconnects
    _ids: dict[str, int] = field(default_factory=dict)
    _complained: set[str] = field(default_factory=set)
    _gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CONNECT_TOGETHER))

    async def run(self) -> None:
        """Until cancelled; a lost connection is made again."""
        async with asyncio.TaskGroup() as tasks:
            for i, device in enumerate(self.devices):
                delay_s = self.every_s * i / len(self.devices)  # spread over one beat, as a fleet is by itself
                tasks.create_task(self._keep_reporting(device, delay_s), name=f"device-{device.thing}")

    async def _keep_reporting(self, device: Device, delay_s: float) -> None:
        rng = Random(f"{self.seed}/reports/{device.thing}")
        await asyncio.sleep(delay_s)
        while True:
            cancellation.heed()
            try:
                await self._session(device, rng)
            except aiomqtt.MqttError as problem:
                self.counts["disconnects"] += 1
                self._complain(f"{device.thing}: {problem}")
            finally:
                self.connected.discard(device.thing)
            await asyncio.sleep(RECONNECT_S + rng.random())

    async def _session(self, device: Device, rng: Random) -> None:
        async with AsyncExitStack() as stack:
            async with self._gate:
                client = await stack.enter_async_context(self._client(device))
            await client.subscribe([(f"{self._topic(device)}/{answer}", 1) for answer in ("accepted", "rejected")])
            self.connected.add(device.thing)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._report(client, device, rng))
                    tasks.create_task(self._listen(client, device))
            except* aiomqtt.MqttError as problems:
                raise aiomqtt.MqttError(str(problems.exceptions[0])) from problems

    def _client(self, device: Device) -> aiomqtt.Client:
        return aiomqtt.Client(
            self.broker.host,
            self.broker.port,
            identifier=device.thing,
            username=self.broker.username,
            password=self.broker.password,
            protocol=aiomqtt.ProtocolVersion.V311,
            clean_session=True,
            timeout=10,
            tls_context=self.broker.tls,
        )

    async def _report(self, client: aiomqtt.Client, device: Device, rng: Random) -> None:
        while True:
            cancellation.heed()
            body = report(device, self._next_id(device.thing), rng, ill=device.thing in self.ill)
            payload = json.dumps(body).encode() if self.encoding == "json" else cbor2.dumps(body)
            await client.publish(self._topic(device), payload, qos=1)
            self.counts["reports"] += 1
            await asyncio.sleep(self.every_s * rng.uniform(0.95, 1.05))

    async def _listen(self, client: aiomqtt.Client, device: Device) -> None:
        async for message in client.messages:
            answer = str(message.topic).rpartition("/")[2]
            self.counts[answer] += 1
            if answer == "rejected" and isinstance(message.payload, bytes):
                self._complain(f"{device.thing}: {self._why(message.payload)}")

    def _why(self, payload: bytes) -> str:
        body = json.loads(payload) if self.encoding == "json" else cbor2.loads(payload)
        return f"rejected: {body['statusDetails']['ErrorMessage']}"

    def _complain(self, text: str) -> None:
        """Once per text: a fleet that can't connect would fill the screen."""
        if text not in self._complained and len(self._complained) < 100:
            self._complained.add(text)
            self.note(text)

    def _topic(self, device: Device) -> str:
        return f"{self.broker.prefix}/things/{device.thing}/defender/metrics/{self.encoding}"

    def _next_id(self, thing: str) -> int:
        """Epoch seconds, as AWS's agent does, and never the same twice."""
        self._ids[thing] = max(int(time.time()), self._ids.get(thing, 0) + 1)
        return self._ids[thing]
