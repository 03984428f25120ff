"""The exporter at work: when it publishes, what it holds, what becomes of it; and through a bridge to Mosquitto."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bridging import LogDouble, running, source, until
from builders import START, Said, frames, numbered, report, rules, world
from mosquitto import Mosquitto, free_port
from structlog.testing import capture_logs

from actors.effects import Formed
from actors.entries import frames_of
from actors.events import EMBEDDED, SUBJECT, Event, packed
from actors.series import Series
from actors.world import World
from config.model import NS, Bridge, MetricsExportConfig, MetricToRetain, Rules, SecurityProfile
from daemon.clock import VirtualClock
from daemon.export import exporter
from daemon.export.exporter import Exporter
from daemon.export.selection import Destination

OUT, SENT, AWAY = "aws:all-bytes-out", "aws:num-messages-sent", "aws:disconnect-duration"
ROLE = "arn:aws:iam::123456789012:role/export"
HERE = Destination("", "fleet/metrics")
KEY = "all/things"


def exporting(*metrics: str, topic: str = "fleet/metrics", name: str = "p") -> SecurityProfile:
    retained = tuple(MetricToRetain(metric, None, True) for metric in metrics)
    config = MetricsExportConfig(topic, ROLE)
    return SecurityProfile(
        name, additional_metrics_to_retain_v2=retained, metrics_export_config=config, targets=(KEY,)
    )  # fmt: skip


class Rig:
    """An exporter under a virtual clock, and a broker that takes what it says, or is away."""

    def __init__(self, first: Rules) -> None:
        self.clock = VirtualClock(START)
        self.sent: list[tuple[Destination, dict[str, Any]]] = []
        self.is_away = False
        self.exporter = Exporter(self._send, self.clock)
        self.world = world(first)
        self._position = 0

    def _send(self, place: Destination, message: bytes) -> bool:
        if self.is_away:
            return False
        self.sent.append((place, json.loads(message)))
        return True

    @property
    def values(self) -> list[tuple[str, Any]]:
        """(thing, value) of all that was sent."""
        metrics = [each for _, message in self.sent for each in message["metrics"]]
        return [(each["thing"], next(iter(each["value"].values()))) for each in metrics]

    def hear(self, *log: Said) -> None:
        placed = numbered(log)
        self.exporter.take(self.world.router.route(frames(placed)))

    async def spelled(self) -> None:
        """All that was heard is JSON."""
        await until(lambda: not self.exporter._work)


@asynccontextmanager
async def at_work(*profiles: SecurityProfile, **fleet: Any) -> AsyncIterator[Rig]:
    rig = Rig(rules(*profiles, **fleet))
    rig.exporter.begin(0, rig.world)
    task = asyncio.create_task(rig.exporter.run())
    try:
        yield rig
    finally:
        task.cancel()
        await asyncio.wait([task])


def window(*counts: int, end_s: float = 300, position: int = 1, metric: str = SENT) -> Formed:
    """Of things d0, d1 …"""
    things = tuple(b"d%d" % k for k in range(len(counts)))
    return Formed(Series(metric), START + round(end_s * NS), position, things, np.array([counts], np.int64), ())


# ---- in time ----


async def test_all_of_five_minutes_goes_out_together_and_once() -> None:
    async with at_work(exporting(OUT, SENT)) as rig:
        rig.hear(report("p1", 0, bytes_out=7), report("p2", 1, bytes_out=8))
        rig.exporter(KEY, [window(1, 2)])
        await rig.spelled()
        await rig.clock.advance(299)
        assert rig.sent == []
        await rig.clock.advance(2)
        assert [place for place, _ in rig.sent] == [HERE]
        assert rig.values == [("p1", 7), ("p2", 8), ("d0", 1), ("d1", 2)]
        await rig.clock.advance(3000)
        assert len(rig.sent) == 1
        assert (rig.exporter.counters.datapoints, rig.exporter.counters.messages) == (4, 1)
        assert rig.exporter.batches.bytes == 0


async def test_a_flush_sends_at_once_what_was_heard_just_before() -> None:
    async with at_work(exporting(OUT)) as rig:
        rig.hear(report("p1", 0, bytes_out=7))
        await rig.exporter.flush()
        assert rig.values == [("p1", 7)]


async def test_messages_of_a_large_batch_go_one_by_one() -> None:
    async with at_work(exporting(SENT)) as rig:
        rig.exporter(KEY, [window(*range(3000))])
        await rig.spelled()
        await rig.clock.advance(300)
        assert len(rig.sent) == 1
        await rig.clock.advance(1)
        assert len(rig.sent) > 2
        assert rig.values == [(f"d{k}", k) for k in range(3000)]


async def test_where_nothing_is_exported_nothing_is_kept() -> None:
    unmarked = SecurityProfile("p", additional_metrics_to_retain=(OUT, SENT), targets=(KEY,))
    async with at_work(unmarked) as rig:
        rig.hear(report("p1", 0, bytes_out=7))
        rig.exporter(KEY, [window(1)])
        assert rig.exporter._waiting == 0
        await rig.clock.advance(301)
        assert rig.sent == []


# ---- again, and under new rules ----


async def test_what_an_actor_tells_again_after_a_rebuild_does_not_go_out_again() -> None:
    async with at_work(exporting(SENT)) as rig:
        rig.exporter(KEY, [window(1, position=5), window(2, end_s=600, position=9)])
        rig.exporter(KEY, [window(1, position=5), window(2, end_s=600, position=9), window(3, end_s=900, position=12)])
        await rig.exporter.flush()
        assert [value for _, value in rig.values] == [1, 2, 3]


async def test_what_was_judged_before_the_start_goes_out_only_if_it_is_of_the_last_five_minutes() -> None:
    rig = Rig(rules(exporting(OUT, SENT)))
    rig.exporter.told_before = 3
    rig.exporter.begin(0, rig.world)
    old, young, later = (report("p1", at, bytes_out=at + 400) for at in (-400, -200, 10))
    for position, said in ((1, old), (2, young), (4, later)):
        rig.exporter.take(rig.world.router.route(frames([replace(said, position=position)])))
    rig.exporter(KEY, [window(1, end_s=-301, position=2), window(2, end_s=-299, position=3)])
    rig.exporter(KEY, [window(3, end_s=-301, position=4)])
    await rig.exporter.flush()
    assert rig.values == [("p1", 200), ("p1", 410), ("d0", 2), ("d0", 3)]


async def test_a_window_goes_where_the_rules_of_its_place_send_it() -> None:
    async with at_work(exporting(SENT)) as rig:
        rig.exporter.follow(10, World(rules(exporting(SENT, topic="new")), rig.world.kinds, "test"))
        rig.exporter(KEY, [window(1, position=10), window(2, end_s=600, position=11)])
        await rig.spelled()
        await rig.clock.advance(301)
        assert [(place.topic, message["metrics"][0]["value"]) for place, message in rig.sent] == [
            ("fleet/metrics", {"count": 1}), ("new", {"count": 2}),
        ]  # fmt: skip


async def test_a_connection_is_told_at_once_and_again_in_no_batch() -> None:
    async with at_work(exporting(AWAY)) as rig:
        events = [Event(event="connected", client_id="d1", time=START + NS)]
        rig.exporter.take(
            rig.world.router.route(frames_of([(1, START + NS, SUBJECT + EMBEDDED, packed(events), None, 0)]))
        )
        await rig.exporter.flush()
        assert rig.values == [("d1", 0)]
        await rig.exporter.flush()
        assert len(rig.sent) == 1


async def test_a_refused_topic_is_said_once_a_change_of_rules() -> None:
    with capture_logs() as lines:
        async with at_work(exporting(OUT, topic="$JS/API/STREAM/DELETE/LOG", name="bad")) as rig:
            rig.hear(report("p1", 0, bytes_out=7))
            await rig.exporter.flush()
            assert rig.sent == []
    assert [(line["event"], line["profile"]) for line in lines] == [("export.refused", "bad")]


# ---- bounds ----


async def test_what_is_held_has_a_bound_and_the_rest_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "HELD_BYTES_MAX", 1000)
    async with at_work(exporting(SENT)) as rig:
        rig.exporter(KEY, [window(*range(100))])
        await rig.exporter.flush()
        assert 0 < len(rig.values) < 15
        assert len(rig.values) + rig.exporter.batches.dropped == 100
        rig.exporter(KEY, [window(7, end_s=600, position=2)])  # there is room again
        await rig.exporter.flush()
        assert rig.values[-1] == ("d0", 7)


async def test_what_waits_to_be_spelled_has_a_bound_and_the_rest_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "WAITING_MAX", 10)
    rig = Rig(rules(exporting(SENT)))  # nobody spells
    rig.exporter.begin(0, rig.world)
    for position in range(1, 5):
        rig.exporter(KEY, [window(1, 2, 3, 4, end_s=300 * position, position=position)])
    assert rig.exporter.counters.passed_over == 8
    await rig.exporter.flush()
    assert len(rig.values) == 8


async def test_a_broker_that_is_away_is_counted_and_said_once_and_again_when_it_is_back() -> None:
    with capture_logs() as lines:
        async with at_work(exporting(SENT)) as rig:
            rig.is_away = True
            for position in (1, 2):
                rig.exporter(KEY, [window(1, 2, end_s=300 * position, position=position)])
                await rig.exporter.flush()
            rig.is_away = False
            for position in (3, 4):
                rig.exporter(KEY, [window(5, end_s=300 * position, position=position)])
                await rig.exporter.flush()
    assert rig.exporter.counters.unsent == 4
    assert rig.values == [("d0", 5), ("d0", 5)]
    assert [line["event"] for line in lines] == ["export.unsent", "export.sent"]


async def test_a_bug_costs_its_batch_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    async with at_work(exporting(OUT, SENT)) as rig:
        with monkeypatch.context() as patch, capture_logs() as lines:
            patch.setattr(exporter, "entries_of_reports", broken)
            rig.hear(report("p1", 0, bytes_out=7))
            await rig.spelled()
        rig.exporter(KEY, [window(1)])
        await rig.exporter.flush()
        assert rig.values == [("d0", 1)]
        assert rig.exporter.counters.failed == 1
        assert [line["event"] for line in lines] == ["export.failed"]


# ---- through a bridge ----


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    made = Mosquitto(tmp_path / "mosquitto")
    await made.start()
    yield made
    made.kill()


@pytest.mark.parametrize("scheme", ["mqtt", "ws"])
async def test_a_message_goes_out_through_a_bridge_also_where_replies_do_not(tmp_path: Path, scheme: str) -> None:
    lines = [] if scheme == "mqtt" else [f"listener {(web := free_port())} 127.0.0.1", "protocol websockets"]
    mosquitto = Mosquitto(tmp_path / "mosquitto", *lines)
    await mosquitto.start()
    port = mosquitto.port if scheme == "mqtt" else web
    bridge = source(Bridge(name="plant", url=f"{scheme}://127.0.0.1:{port}", replies="off"), LogDouble())
    try:
        async with mosquitto.client("reader") as reader, running(bridge):
            await reader.subscribe("fleet/metrics")
            assert bridge.publish("fleet/metrics", b"x" * 131072)
            assert bridge.publish("fleet/metrics", b"two")
            got = [await anext(aiter(reader.messages)) for _ in range(2)]
        assert [len(bytes(message.payload)) for message in got] == [131072, 3]
        assert (bridge.counts.exports_sent, bridge.counts.exports_dropped) == (2, 0)
    finally:
        mosquitto.kill()


async def test_a_message_for_a_broker_that_is_away_or_a_topic_with_wildcards_is_dropped_and_counted(
    broker: Mosquitto,
) -> None:
    bridge = source(Bridge(name="plant", url=f"mqtt://127.0.0.1:{broker.port}"), LogDouble())
    assert not bridge.publish("a", b"")
    async with running(bridge):
        assert bridge.publish("a/+", b"")
        assert bridge.publish("a", b"")
        await until(lambda: bridge.counts.exports_sent == 1)
        broker.kill()
        await until(lambda: not bridge.counts.connected)
        assert not bridge.publish("a", b"")
    assert bridge.counts.exports_dropped == 3
