"""kill -9 around an alarm's way to SNS: published at least once, as the same event, to the topic it was made for."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import aiohttp
import pytest
from aiohttp import web
from moto_server import REGION, Queue, client
from system_tools import PORTS, Hooks, profile, report, send, serving, until, write

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("aws_credentials"), pytest.mark.timeout(180)]

ROLE = "arn:aws:iam::123456789012:role/alarms"
IN_TIME_S = 10.0
"""A webhook's alarms, on a machine that does other things too; the topic beside it answers after 15 s at the least."""


class Relay:
    """In front of moto. While it holds, nobody gets an answer: requests stay here, or they reach moto all the same."""

    def __init__(self, upstream: str, where: Literal["before moto", "after moto"]) -> None:
        self.url = ""
        self.held = 0
        self._upstream, self._where = upstream, where
        self._go_on = asyncio.Event()

    def let_go(self) -> None:
        self._go_on.set()

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self._go_on.is_set() or self._where == "after moto":
            answer = await self._forward(request, body)
        self.held += 1
        await self._go_on.wait()
        return answer  # to nobody, where it was held before moto: whoever asked is dead

    async def _forward(self, request: web.Request, body: bytes) -> web.Response:
        kept = {name: request.headers[name] for name in ("Authorization", "Content-Type", "X-Amz-Date")}
        async with aiohttp.ClientSession() as session:
            async with session.post(self._upstream + "/", data=body, headers=kept) as answer:
                return web.Response(status=answer.status, body=await answer.read(), content_type="text/xml")


@asynccontextmanager
async def relaying(upstream: str, where: Literal["before moto", "after moto"]) -> AsyncIterator[Relay]:
    relay = Relay(upstream, where)
    app = web.Application()
    app.router.add_post("/", relay.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    relay.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield relay
    relay.let_go()
    await runner.cleanup()


def told(topic: str) -> dict[str, Any]:
    return profile(PORTS) | {"alertTargets": {"SNS": {"alertTargetArn": topic, "roleArn": ROLE}}}


def key(message: dict[str, Any]) -> tuple[str, str, str]:
    return message["thingName"], message["violationId"], message["violationEventType"]


@pytest.mark.parametrize(("where", "times"), [("before moto", 1), ("after moto", 2)])
async def test_what_was_on_its_way_when_the_daemon_was_killed_is_published_as_the_same_event(
    tmp_path: Path, moto_url: str, where: Literal["before moto", "after moto"], times: int
) -> None:
    queue = Queue(moto_url, f"killed-{times}")
    async with Hooks() as hooks, relaying(moto_url, where) as relay:
        config = write(tmp_path, hooks, profiles=[told(queue.topic)], aws={"endpoint_urls": {"sns": relay.url}})
        async with serving(config) as daemon:
            began = monotonic()
            for thing in ("t1", "t2", "t3"):
                await send(daemon.mqtt, thing, report(1, ports=[80]), report(2))
            for thing in ("t1", "t2", "t3"):  # beside a topic that does not answer
                await hooks.seen(thing, "ports", "alarm-cleared")
            assert monotonic() - began < IN_TIME_S
            await until(lambda: relay.held == 3, "one request per thing, the next one waits for its answer")
            await daemon.kill()
            relay.let_go()
            await daemon.start()
            await queue.seen(3 * times + 3, within_s=60)
            await daemon.until_metric("detectd_deliveries_total", 6)
    by_hook = {key(json.loads(one.body)["data"]) for one in hooks.notices}
    assert len(by_hook) == 6
    assert {key(message) for message in queue.messages} == by_hook
    kinds = {
        thing: [m["violationEventType"] for m in queue.messages if m["thingName"] == thing]
        for thing in "t1 t2 t3".split()
    }
    assert kinds == dict.fromkeys(("t1", "t2", "t3"), ["in-alarm"] * times + ["alarm-cleared"])
    queue.close()


async def test_a_profile_made_by_the_api_is_heard_by_its_topic_after_a_kill_and_to_its_end(
    tmp_path: Path, moto_url: str
) -> None:
    queue = Queue(moto_url, "by-api")
    account = {"id": "123456789012", "region": REGION}
    config = write(tmp_path, profiles=[], aws={"endpoint_urls": {"sns": moto_url}}, account=account)
    async with serving(config) as daemon:
        iot = client("iot", daemon.url)
        made = {"behaviors": [PORTS], "alertTargets": {"SNS": {"alertTargetArn": queue.topic, "roleArn": ROLE}}}
        await asyncio.to_thread(iot.create_security_profile, securityProfileName="p", **made)
        everything = f"arn:aws:iot:{REGION}:123456789012:all/things"
        await asyncio.to_thread(
            iot.attach_security_profile, securityProfileName="p", securityProfileTargetArn=everything
        )
        await daemon.kill()
        await daemon.start()
        await send(daemon.mqtt, "t1", report(1, ports=[80]))
        await queue.seen(1, within_s=60)
        await asyncio.to_thread(iot.delete_security_profile, securityProfileName="p")
        first, last = await queue.seen(2, within_s=60)
        iot.close()
    assert [first["violationEventType"], last["violationEventType"]] == ["in-alarm", "alarm-invalidated"]
    assert first["violationId"] == last["violationId"]
    queue.close()
