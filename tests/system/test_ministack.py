"""AWS's own agent on an AWS-like broker: MiniStack carries its reports and tells who comes and goes.

All of it, the daemon too, in a network of its own: MiniStack listens on every address, the agent knows port 443 only.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiomqtt
import pytest
from aws_agent import agent
from environments import cannot, environment
from ministack import ALPN, MQTT_PORT, NAME, VERSION, MiniStack, ministack
from own_network import own_network
from system_tools import Daemon, Hooks, profile, serving, write

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

WINDOW_S: Final = 2
BACK_DOOR: Final = 4444  # a port on which no good device listens


def none_of(name: str, metric: str) -> dict[str, Any]:
    criteria = {"comparisonOperator": "less-than-equals", "value": {"count": 0}, "durationSeconds": WINDOW_S}
    return {"name": name, "metric": metric, "criteria": criteria}


BEHAVIORS: Final = [
    none_of("attempts", "aws:num-connection-attempts"),
    none_of("leaves", "aws:num-disconnects"),
    {
        "name": "origin",
        "metric": "aws:source-ip-address",
        "criteria": {"comparisonOperator": "in-cidr-set", "value": {"cidrs": ["127.0.0.2/32"]}},
    },
    {
        "name": "back-door",
        "metric": "aws:listening-tcp-ports",
        "criteria": {"comparisonOperator": "not-in-port-set", "value": {"ports": [BACK_DOOR]}},
    },
]


@pytest.fixture(scope="module")
def ministack_python() -> Path:
    """The Python of an environment that has MiniStack, and what its broker needs for TLS."""
    return environment(".venv-ministack", f"{NAME}=={VERSION}", "cryptography")


@pytest.fixture
def _alone(ministack_python: Path, agent_python: Path) -> Iterator[None]:
    """In a network of our own; what is installed comes before, since no registry is in there."""
    with ExitStack() as network:
        try:
            network.enter_context(own_network())
        except OSError as problem:
            why = f"can't make a network namespace: {problem}"
            if os.geteuid() == 0:
                cannot(why)
            pytest.skip(f"{why}; root may")
        yield


@asynccontextmanager
async def aws(
    folder: Path, python: Path, *things: str, strict: bool = False
) -> AsyncIterator[tuple[MiniStack, Hooks, Daemon]]:
    """MiniStack, a receiver, and a daemon that is bridged to it and watches these things."""
    async with ministack(python, folder / "aws", strict=strict) as stack, Hooks() as hooks:
        ours = await stack.credentials("detectd")
        bridge = {
            "name": "aws", "url": f"mqtts://localhost:{MQTT_PORT}", "alpn": [ALPN], "events": ["presence"],
            "ca": str(ours.broker_ca), "cert": str(ours.device), "key": str(ours.device_key),
        }  # fmt: skip
        config = write(
            folder, hooks,
            broker={"embedded": {"mqtt": "127.0.0.1:0"}, "bridges": [bridge]},
            fleet={"things": list(things)},
            profiles=[profile(*BEHAVIORS, targets=["all/registered-things"])],
            custom_metrics=[{"metricName": "cpu_usage", "metricType": "number"}],
            limits={"report_interval_s": 0, "durations": "any", "cloud_window_s": WINDOW_S, "grace_s": 1.5},
        )  # fmt: skip
        async with serving(config) as daemon:
            await daemon.until_metric("detectd_bridge_connected", 1)
            yield stack, hooks, daemon


async def raised_and_cleared(hooks: Hooks, thing: str, behavior: str) -> None:
    await hooks.seen(thing, behavior, "in-alarm")
    await hooks.seen(thing, behavior, "alarm-cleared")


@pytest.mark.usefixtures("_alone")
async def test_what_the_agent_reports_and_its_comings_and_goings_alarm_and_clear_through_an_aws_like_broker(
    tmp_path: Path, ministack_python: Path, agent_python: Path
) -> None:
    async with aws(tmp_path, ministack_python, "t1") as (stack, hooks, _):
        device = await stack.credentials("t1")
        async with agent(agent_python, device, "t1", "json", tmp_path / "agent.txt"):
            await raised_and_cleared(hooks, "t1", "attempts")
            async with await asyncio.start_server(lambda *_: None, "127.0.0.1", BACK_DOOR):
                await hooks.seen("t1", "back-door", "in-alarm")
            await hooks.seen("t1", "back-door", "alarm-cleared")
            await hooks.seen("t1", "origin", "in-alarm")
        await hooks.seen("t1", "leaves", "in-alarm")
        async with stack.client("t1", ip="127.0.0.2"):
            await hooks.seen("t1", "leaves", "alarm-cleared")
            await hooks.seen("t1", "origin", "alarm-cleared")
        assert {notice.thing for notice in hooks.notices} == {"t1"}


@pytest.mark.usefixtures("_alone")
async def test_a_broker_that_takes_no_replies_is_said_to_and_reports_in_both_formats_are_read_all_the_same(
    tmp_path: Path, ministack_python: Path, agent_python: Path
) -> None:
    async with aws(tmp_path, ministack_python, "t-json", "t-cbor") as (stack, _, daemon):
        outs = []
        for number, form in enumerate(("json", "cbor"), start=1):
            out, device = tmp_path / f"{form}.txt", await stack.credentials(f"t-{form}")
            async with agent(agent_python, device, f"t-{form}", form, out):
                await daemon.until_metric("detectd_reports_received_total", 2 * number)
            outs.append(out.read_text())
        assert await daemon.metric("detectd_reports_rejected_total") == 0
        bridge = (await daemon.get("/-/status"))[1]["bridges"]["aws"]
        assert (bridge["connected"], bridge["replies"]) == (True, False)
        assert "refuses our replies" in bridge["self_test"]
        assert bridge["self_test"] in daemon.log_path.read_text()
        assert await daemon.is_ready()
        assert not [said for said in outs if "ACCEPTED" in said or "REJECTED" in said]


@pytest.mark.usefixtures("_alone")
async def test_who_comes_with_a_certificate_of_another_thing_is_an_attempt_of_the_thing_that_was_meant(
    tmp_path: Path, ministack_python: Path
) -> None:
    """MiniStack holds each to its policy here, as AWS does, and tells of those that it does not let in."""
    async with aws(tmp_path, ministack_python, "t1", "t2", strict=True) as (stack, hooks, _):
        other, own = await stack.credentials("t1", "t1"), await stack.credentials("t2", "t2")
        with pytest.raises(aiomqtt.MqttError, match="Not authorized"):
            async with stack.device(other, "t2"):
                pass
        await hooks.seen("t2", "attempts", "in-alarm")
        async with stack.device(own, "t2"):
            await hooks.seen("t2", "attempts", "alarm-cleared")
        assert {notice.thing for notice in hooks.notices} == {"t2"}
