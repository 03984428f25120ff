"""Cloud-side values by boto3, and the export of metrics as a subscriber sees it: on a whole daemon, short windows."""

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
from app_runner import mqtt, running
from mosquitto import Mosquitto
from system_tools import Daemon, device, report, send, serving, until, write

from daemon import app as daemon_app
from daemon.app import App
from daemon.export.exporter import Exporter
from daemon.export.selection import exports_of

pytestmark = pytest.mark.system

OUT, SENT, SIZE = "aws:all-bytes-out", "aws:num-messages-sent", "aws:message-byte-size"
ADDRESS, AWAY = "aws:source-ip-address", "aws:disconnect-duration"
REPORTS = "$aws/things/d1/defender/metrics/json"
ROLE = "arn:aws:iam::123456789012:role/export"
ALL_TIME = {"startTime": datetime(2020, 1, 1, tzinfo=UTC), "endTime": datetime(2037, 1, 1, tzinfo=UTC)}
# A grace that is shorter than the second for which a sensor gathers would lose what it tells last.
LIMITS = {"report_interval_s": 0, "durations": "any", "cloud_window_s": 2, "grace_s": 2}
DIMENSIONS = [{"name": "Up", "type": "TOPIC_FILTER", "stringValues": ["dt/+/up"]}]


def profile(*metrics: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "securityProfileName": "p", "targets": ["all/things"], "additionalMetricsToRetainV2": list(metrics), **more
    }  # fmt: skip


def configured(folder: Path, *profiles: dict[str, Any], **more: Any) -> Path:
    return write(folder, profiles=list(profiles), limits=LIMITS, dimensions=DIMENSIONS, **more)


@contextmanager
def client(url: str) -> Iterator[Any]:
    iot = boto3.client("iot", endpoint_url=url, region_name="local", aws_access_key_id="a", aws_secret_access_key="b")
    yield iot
    iot.close()


async def listed(url: str, metric: str, thing: str = "d1", **dimension: str) -> list[dict[str, Any]]:
    """Oldest first."""

    def ask() -> list[dict[str, Any]]:
        with client(url) as iot:
            wanted = {"thingName": thing, "metricName": metric, **ALL_TIME, **dimension}
            pages = iot.get_paginator("list_metric_values").paginate(**wanted)
            return [datum for page in pages for datum in page["metricDatumList"]][::-1]

    return await asyncio.to_thread(ask)


async def total(url: str, metric: str, **dimension: str) -> int:
    return sum(datum["value"]["count"] for datum in await listed(url, metric, **dimension))


async def eventually(ask: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 30
    while not await ask():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.1)


UP = {"dimensionName": "Up"}
OFF = {"dimensionName": "Up", "operator": "NOT_IN"}


async def test_boto3_reads_what_the_broker_saw_with_and_without_a_dimension_and_kills_double_nothing(
    tmp_path: Path,
) -> None:
    kept = profile(
        {"metric": SENT}, {"metric": SENT, "metricDimension": UP}, {"metric": SENT, "metricDimension": OFF},
        {"metric": SIZE}, {"metric": ADDRESS}, {"metric": AWAY},
    )  # fmt: skip
    async with serving(configured(tmp_path, kept)) as daemon:
        async with device(daemon.mqtt, "d1") as d1:
            for topic, size in (("dt/d1/up", 10), ("dt/d1/up", 20), ("elsewhere", 5)):
                await d1.publish(topic, b"x" * size, qos=1)
            await eventually(lambda: _is(total(daemon.url, SENT), 3), "three messages")
        assert await total(daemon.url, SENT, dimensionName="Up") == 2
        assert await total(daemon.url, SENT, dimensionName="Up", dimensionValueOperator="NOT_IN") == 1
        assert max(datum["value"]["count"] for datum in await listed(daemon.url, SIZE)) == 20
        assert [datum["value"] for datum in await listed(daemon.url, ADDRESS)] == [{"cidrs": ["127.0.0.1"]}]
        ends = [datum["timestamp"].timestamp() for datum in await listed(daemon.url, SENT)]
        assert all(end % 2 == 0 for end in ends)
        assert len(set(ends)) == len(ends)

        async def is_away() -> bool:
            return bool((await listed(daemon.url, AWAY))[-1]["value"]["count"])

        assert (await listed(daemon.url, AWAY))[0]["value"] == {"count": 0}
        await eventually(is_away, "d1 has left")
        before = await listed(daemon.url, SENT)
        for _ in range(2):
            await daemon.kill()
            await daemon.start()
            assert (await listed(daemon.url, SENT))[: len(before)] == before
        ends = [datum["timestamp"] for datum in await listed(daemon.url, AWAY)]
        assert len(set(ends)) == len(ends)


async def _is(asked: Any, wanted: int) -> bool:
    return bool(await asked == wanted)


# ---- the export ----


class Subscriber:
    """mosquitto_sub, and all that it has printed."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self._child = child
        self.messages: list[dict[str, Any]] = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._child.stdout is not None
        async for line in self._child.stdout:
            self.messages.append(json.loads(line))

    def entries(self, name: str, thing: str = "d1") -> list[dict[str, Any]]:
        metrics = [each for message in self.messages for each in message["metrics"]]
        return [each for each in metrics if (each["name"], each["thing"]) == (name, thing)]

    async def end(self) -> None:
        if self._child.returncode is None:
            self._child.kill()  # one that has lost its broker takes its time to hear of SIGTERM
        await self._child.wait()
        await self._reading


@asynccontextmanager
async def subscribed(address: tuple[str, int], topic: str) -> AsyncIterator[Subscriber]:
    binary = shutil.which("mosquitto_sub")
    if binary is None:
        pytest.skip("mosquitto_sub is not installed")
    async with device(address, "probe") as probe:
        await probe.publish(f"{topic}/probe", b"subscribed", qos=1, retain=True)
    topics = ("-t", topic, "-t", f"{topic}/probe")  # in one SUBSCRIBE: what is retained says that it was taken
    child = await asyncio.create_subprocess_exec(
        binary, "-h", address[0], "-p", str(address[1]), "-i", "reader", "-q", "1", *topics,
        stdout=asyncio.subprocess.PIPE, limit=2**20,
    )  # fmt: skip
    assert child.stdout is not None
    async with asyncio.timeout(30):
        assert await child.stdout.readline() == b"subscribed\n"
    subscriber = Subscriber(child)
    try:
        yield subscriber
    finally:
        await subscriber.end()


def exporting(topic: str, **more: Any) -> dict[str, Any]:
    metrics: list[dict[str, Any]] = [
        {"metric": OUT, "exportMetric": True}, {"metric": SIZE, "exportMetric": True},
        {"metric": AWAY, "exportMetric": True}, {"metric": SENT, "metricDimension": UP, "exportMetric": True},
        {"metric": "aws:all-bytes-in"},
    ]  # fmt: skip
    return profile(*metrics, metricsExportConfig={"mqttTopic": topic, "roleArn": ROLE}, **more)


@pytest.fixture
def every_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon_app, "Exporter", partial(Exporter, every_s=1.0))


async def speak(address: tuple[str, int]) -> None:
    """What d1 does: a report and two messages, within a window or two."""
    async with device(address, "d1") as d1:
        await d1.publish(REPORTS, json.dumps(report(1, bytes_out=7)).encode(), qos=1)
        for size in (10, 30):
            await d1.publish("dt/d1/up", b"x" * size, qos=1)


@pytest.mark.usefixtures("every_second")
async def test_a_subscriber_of_the_embedded_broker_hears_what_the_device_and_the_broker_measured(
    tmp_path: Path,
) -> None:
    async with (
        running(configured(tmp_path, exporting("fleet/metrics"))) as app,
        subscribed(mqtt(app), "fleet/metrics") as reader,
    ):
        await speak(mqtt(app))
        await until(lambda: sum(e["value"]["count"] for e in reader.entries(SENT)) == 2, "both messages are counted")
        await until(lambda: len(reader.entries(AWAY)) >= 2, "d1 came and went")
        await until(lambda: reader.entries(OUT), "the report")
    [out] = reader.entries(OUT)
    assert {**out, "timestamp": 0} == {"name": OUT, "thing": "d1", "value": {"count": 7}, "version": 1, "timestamp": 0}
    assert 0 <= time.time() - out["timestamp"] < 60
    sent = [entry for entry in reader.entries(SENT) if entry["value"]["count"]]
    assert all(entry["timestamp"] % 2 == 0 for entry in sent)
    assert sent[0]["dimension"] == {"name": "Up", "operator": "IN"}
    sizes = {kind: [e for e in reader.entries(SIZE) if e["statistic"] == kind] for kind in ("min", "max", "sum")}
    assert min(e["value"]["count"] for e in sizes["min"]) == 10
    assert {len(found) for found in sizes.values()} == {len(sizes["sum"])}
    assert {entry["value"]["count"] for entry in reader.entries(AWAY)} == {0}
    assert {message["version"] for message in reader.messages} == {"1.0"}
    names = {each["name"] for message in reader.messages for each in message["metrics"]}
    assert names == {OUT, SENT, SIZE, AWAY}


@pytest.mark.usefixtures("every_second")
async def test_with_the_tag_it_goes_to_the_bridge_that_the_tag_names(tmp_path: Path) -> None:
    mosquitto = Mosquitto(tmp_path / "mosquitto")
    await mosquitto.start()
    tagged = exporting("fleet/metrics", tags=[{"Key": "detectd:export-bridge", "Value": "plant"}])
    config = configured(tmp_path, tagged)
    broker = json.loads(config.read_text())["broker"]
    broker["bridges"] = [{"name": "plant", "url": f"mqtt://127.0.0.1:{mosquitto.port}"}]
    config = configured(tmp_path, tagged, broker=broker)
    try:
        async with running(config) as app, subscribed(("127.0.0.1", mosquitto.port), "fleet/metrics") as reader:
            await speak(mqtt(app))
            await until(lambda: reader.entries(OUT) and reader.entries(SENT), "both kinds of metrics")
            assert app.bridges.by_name()["plant"].counts.exports_sent >= 1
    finally:
        mosquitto.kill()


@pytest.mark.usefixtures("every_second")
async def test_a_profile_of_the_api_exports_too_and_its_tag_is_followed(tmp_path: Path) -> None:
    mosquitto = Mosquitto(tmp_path / "mosquitto")
    await mosquitto.start()
    config = configured(tmp_path)
    broker = json.loads(config.read_text())["broker"]
    broker["bridges"] = [{"name": "plant", "url": f"mqtt://127.0.0.1:{mosquitto.port}"}]
    try:
        async with running(configured(tmp_path, broker=broker)) as app:
            await asyncio.to_thread(_make_profile, f"http://{app.address}")
            await until(lambda: _bridges(app) == {""}, "the profile is in force")
            async with subscribed(mqtt(app), "fleet/metrics") as here:
                await speak(mqtt(app))
                await until(lambda: here.entries(OUT), "on the embedded broker")
            await asyncio.to_thread(_tag, f"http://{app.address}")
            await until(lambda: _bridges(app) == {"plant"}, "the tag is in force")
            async with subscribed(("127.0.0.1", mosquitto.port), "fleet/metrics") as there:
                await send(mqtt(app), "d2", report(2, bytes_out=9))
                await until(lambda: there.entries(OUT, "d2"), "on the bridge's")
    finally:
        mosquitto.kill()


def _bridges(app: App) -> set[str]:
    """Of the bridges, "" among them, where something is exported."""
    return {place.bridge for place in exports_of(app.pipeline.world).destinations}


def _make_profile(url: str) -> None:
    with client(url) as iot:
        made = iot.create_security_profile(
            securityProfileName="api",
            additionalMetricsToRetainV2=[{"metric": OUT, "exportMetric": True}],
            metricsExportConfig={"mqttTopic": "fleet/metrics", "roleArn": ROLE},
        )
        target = made["securityProfileArn"].replace("securityprofile/api", "all/things")
        iot.attach_security_profile(securityProfileName="api", securityProfileTargetArn=target)


def _tag(url: str) -> None:
    with client(url) as iot:
        arn = iot.describe_security_profile(securityProfileName="api")["securityProfileArn"]
        iot.tag_resource(resourceArn=arn, tags=[{"Key": "detectd:export-bridge", "Value": "plant"}])


async def test_a_daemon_that_is_asked_to_stop_sends_what_it_holds(tmp_path: Path) -> None:
    only_reports = exporting("fleet/metrics", additionalMetricsToRetainV2=[{"metric": OUT, "exportMetric": True}])
    async with serving(configured(tmp_path, only_reports)) as daemon:
        async with subscribed(daemon.mqtt, "fleet/metrics") as reader:
            await send(daemon.mqtt, "d1", report(1, bytes_out=7))
            await until_held(daemon)
            assert reader.messages == []
            assert await daemon.stop() == 0
            await until(lambda: reader.entries(OUT), "the report")
        assert [entry["value"] for entry in reader.entries(OUT)] == [{"count": 7}]


async def until_held(daemon: Daemon) -> None:
    await daemon.until_metric("detectd_export_held_bytes", 1)
