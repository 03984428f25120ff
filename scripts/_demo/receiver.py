"""A webhook receiver that believes nothing unsigned: what it hands on was verified (Standard Webhooks)."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Self

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

SEEN_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class Delivery:
    """A notice that arrived, its signature verified. `received_s` is the wall clock's."""

    webhook_id: str
    type: str  # in-alarm, alarm-cleared, alarm-invalidated
    thing: str
    profile: str
    behavior: str
    value: dict[str, Any] | None
    violation_id: str
    received_s: float


class Receiver:
    """Listens on a free port of 127.0.0.1. Counts what it refused and what came again."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[Delivery], None]] = []
        self._secret: Webhook | None = None
        self._seen: dict[str, None] = {}  # a set that keeps order: the oldest is forgotten
        self.url = ""
        self.forged = self.repeated = 0
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/hook", self._receive)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/hook"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None, "entered before it is left"
        await self._runner.cleanup()

    def trust(self, secret: str) -> None:
        """Before this, nothing is believed."""
        self._secret = Webhook(secret)

    async def _receive(self, request: web.Request) -> web.Response:
        message = self._verified(await request.read(), dict(request.headers))
        if message is None:
            self.forged += 1
            return web.Response(status=401)
        webhook_id = request.headers["webhook-id"]
        if webhook_id in self._seen:
            self.repeated += 1  # at least once is what a webhook promises: the same id is the same notice
        else:
            self._remember(webhook_id)
            self._tell(_delivery(webhook_id, message))
        return web.Response(status=204)

    def _verified(self, body: bytes, headers: dict[str, str]) -> dict[str, Any] | None:
        if self._secret is None:
            return None
        try:
            message: dict[str, Any] = self._secret.verify(body, headers)
        except WebhookVerificationError:
            return None
        return message

    def _tell(self, delivery: Delivery) -> None:
        for listener in self.listeners:
            listener(delivery)

    def _remember(self, webhook_id: str) -> None:
        self._seen[webhook_id] = None
        if len(self._seen) > SEEN_MAX:
            del self._seen[next(iter(self._seen))]


def _delivery(webhook_id: str, message: dict[str, Any]) -> Delivery:
    data = message["data"]
    return Delivery(
        webhook_id=webhook_id,
        type=message["type"].removeprefix("alarm."),
        thing=data["thingName"],
        profile=data["securityProfileName"],
        behavior=data["behavior"]["name"],
        value=data.get("metricValue"),
        violation_id=data["violationId"],
        received_s=time.time(),
    )
