"""A profile's SNS topic hears of its alarms: moto's SNS and SQS, the daemon as a process."""

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from moto_server import Queue, moto
from system_tools import BYTES, PORTS, Hooks, free_port, profile, report, send, serving, write

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("aws_credentials"), pytest.mark.timeout(180)]

ROLE = "arn:aws:iam::123456789012:role/alarms"


def told(topic: str, *behaviors: Any, name: str = "p") -> dict[str, Any]:
    return profile(*behaviors, name=name) | {"alertTargets": {"SNS": {"alertTargetArn": topic, "roleArn": ROLE}}}


async def test_every_event_of_a_profile_is_published_to_its_topic_as_aws_would(tmp_path: Path, moto_url: str) -> None:
    queue = Queue(moto_url, "alarms")
    async with Hooks() as hooks:
        config = write(
            tmp_path,
            hooks,
            profiles=[told(queue.topic, PORTS, BYTES | {"suppressAlerts": True}), profile(BYTES, name="quiet")],
            aws={"endpoint_urls": {"sns": moto_url}},
            limits={"report_interval_s": 0, "durations": "any", "silence_s": 2},
        )
        async with serving(config) as daemon:
            await send(daemon.mqtt, "t1", report(1, ports=[22, 80], bytes_out=5000), report(2), report(3, ports=[80]))
            messages = await queue.seen(4, within_s=60)  # the last falls silent
            await hooks.seen("t1", "ports", "alarm-invalidated")
    kinds = [message["violationEventType"] for message in messages]
    assert kinds == ["in-alarm", "alarm-cleared", "in-alarm", "alarm-invalidated"]
    by_hook = [json.loads(notice.body)["data"] for notice in hooks.notices if notice.behavior == "ports"]
    assert messages == by_hook
    first, last = messages[0], messages[-1]
    assert first == {
        "violationEventTime": first["violationEventTime"],
        "thingName": "t1",
        "behavior": PORTS,
        "violationEventType": "in-alarm",
        "metricValue": {"ports": [22, 80]},
        "violationId": first["violationId"],
        "securityProfileName": "p",
        "verificationState": "UNKNOWN",
    }
    assert isinstance(first["violationEventTime"], int)
    assert 1.7e12 < first["violationEventTime"] < 4e12
    assert "metricValue" not in last
    assert [envelope.get("Subject") for envelope in queue.envelopes] == [None] * 4
    assert not any(envelope.get("MessageAttributes") for envelope in queue.envelopes)
    queue.close()


async def test_what_was_committed_before_a_kill_is_published_after_it(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"  # nobody is there yet
    topic = "arn:aws:sns:eu-west-1:123456789012:late"
    config = write(tmp_path, profiles=[told(topic, PORTS)], aws={"endpoint_urls": {"sns": url}})
    async with serving(config) as daemon:
        await send(daemon.mqtt, "t1", report(1, ports=[80]), report(2))
        await daemon.until_metric("detectd_events_total", 2)
        await daemon.kill()
        with moto(tmp_path, port) as there:
            queue = Queue(there, "late")
            assert queue.topic == topic
            await daemon.start()
            messages = await queue.seen(2, within_s=60)
            queue.close()
    assert [message["violationEventType"] for message in messages[:2]] == ["in-alarm", "alarm-cleared"]
    assert len({message["violationId"] for message in messages}) == 1


async def test_a_topic_that_never_answers_delays_no_webhook_and_a_refused_one_is_a_dead_letter(
    tmp_path: Path, moto_url: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:  # takes connections, says nothing
        async with Hooks() as hooks:
            config = write(
                tmp_path,
                hooks,
                profiles=[told("arn:aws:sns:eu-west-1:123456789012:mute", PORTS)],
                aws={"endpoint_urls": {"sns": f"http://127.0.0.1:{mute.getsockname()[1]}"}},
            )
            async with serving(config) as daemon:
                await send(daemon.mqtt, "t1", report(1, ports=[80]))
                await hooks.seen("t1", "ports", "in-alarm")
                _, text = await daemon.get("/-/status")
                assert [one["name"] for one in text["receivers"]] == [
                    "sns:arn:aws:sns:eu-west-1:123456789012:mute",
                    "test",
                ]


async def test_a_topic_that_does_not_exist_leaves_a_dead_letter_that_says_so(tmp_path: Path, moto_url: str) -> None:
    config = write(
        tmp_path,
        profiles=[told("arn:aws:sns:eu-west-1:123456789012:nowhere", PORTS)],
        aws={"endpoint_urls": {"sns": moto_url}},
    )
    async with serving(config) as daemon:
        await send(daemon.mqtt, "t1", report(1, ports=[80]))
        async with asyncio.timeout(30):
            while "HTTP 404 NotFound" not in json.dumps(await daemon.get("/-/outbox?state=dead")):
                await asyncio.sleep(0.05)
