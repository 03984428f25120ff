"""What every kind of broker source must do, run over whatever kinds there are; today Mosquitto stands for `mqtt`."""

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from bridging import ListenerDouble, LogDouble, running, source, until
from mosquitto import Mosquitto, free_port

from config.model import Bridge, Tap
from daemon import brokers
from daemon.brokers._base import Counts, Feed, Kind
from daemon.brokers._tally import Tally

MODULES = sorted({inspect.getmodule(kind.build) for kind in brokers.kinds().values()}, key=repr)


PEERS = {"mqtt": "protocol mqtt", "ws": "protocol websockets"}
"""Scheme -> how Mosquitto serves it. A kind that Mosquitto can't stand for brings a peer of its own here."""


@pytest.fixture(params=sorted(PEERS))
async def options(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bridge]:
    """A bridge of each kind to a broker that is running."""
    port = free_port()
    # Mosquitto 2.0.11 won't start with a WebSocket listener alone: this is its second one.
    broker = Mosquitto(tmp_path / "broker", f"listener {port} 127.0.0.1", PEERS[request.param])
    await broker.start()
    yield Bridge(name="plant", url=f"{request.param}://127.0.0.1:{port}")
    broker.kill()


def test_every_kind_has_a_peer_to_be_tested_with() -> None:
    assert all(set(kind.schemes) & set(PEERS) for kind in brokers.kinds().values())


def test_the_schemes_of_the_configuration_are_served() -> None:
    assert {"mqtt", "mqtts", "ws", "wss"} <= set(brokers.kinds())


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_a_kind_says_what_it_is(module: object) -> None:
    assert inspect.getdoc(module)


@pytest.mark.parametrize("kind", brokers.kinds().values(), ids=brokers.kinds())
def test_building_touches_no_network_and_no_file(kind: Kind, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    bridge = Bridge(name="plant", url=f"{kind.schemes[0]}://203.0.113.1:1", password_file=nowhere, ca=nowhere)
    built = source(bridge, LogDouble())
    assert built.name == "plant"
    assert not built.counts.connected


async def test_it_connects_tells_and_its_status_is_json(options: Bridge) -> None:
    listener = ListenerDouble()
    bridge = source(options, LogDouble(), listener)
    async with running(bridge):
        assert listener.ups == [None]
        assert json.loads(json.dumps(bridge.status()))["connected"] is True
    assert listener.downs == []


async def test_cancelling_ends_it_and_leaves_no_task(options: Bridge) -> None:
    before = asyncio.all_tasks()
    async with running(source(options, LogDouble())):
        assert asyncio.all_tasks() > before
    await until(lambda: asyncio.all_tasks() <= before)


async def test_it_can_be_run_again_by_a_successor_at_once(options: Bridge) -> None:
    for _ in range(5):
        async with running(source(options, LogDouble())):
            pass


async def test_a_reply_without_a_connection_is_dropped_and_counted(options: Bridge) -> None:
    bridge = source(options, LogDouble())
    await bridge.reply("p1", "json", True, b"yes")
    assert (bridge.counts.replies_sent, bridge.counts.replies_dropped) == (0, 1)


async def test_a_reply_to_a_name_that_is_no_topic_is_dropped_and_harms_nobody(options: Bridge) -> None:
    bridge = source(options, LogDouble())
    async with running(bridge):
        await bridge.reply("p/#", "json", True, b"yes")
        await until(lambda: bridge.counts.replies_dropped == 1)
        await bridge.reply("p1", "json", True, b"yes")
        await until(lambda: bridge.counts.replies_sent == 1)
        assert bridge.counts.connected


LISTENING = Bridge(
    name="plant", url="mqtt://127.0.0.1", events=("presence", "emqx"), tap=Tap(topics=("fleet/{clientId}/#",))
)


@pytest.mark.parametrize("make", brokers.feeds().values(), ids=brokers.feeds())
def test_a_feed_names_what_to_subscribe_to(make: Callable[[Bridge], Feed]) -> None:
    topics = make(LISTENING).topics
    assert topics
    assert all(topic and "{" not in topic and "#" not in topic[:-1] for topic in topics)


@pytest.mark.parametrize("make", brokers.feeds().values(), ids=brokers.feeds())
@pytest.mark.parametrize(
    "topic", ["", "/", "somewhere/else", "$aws/things/p1/defender/metrics/json", "\ud800", "a" * 65_535], ids=range(6)
)
def test_a_feed_leaves_alone_what_is_not_its_own(make: Callable[[Bridge], Feed], topic: str) -> None:
    feed, tally = make(LISTENING), Tally()
    assert not feed.hear(topic, b"\xff", 1, tally)
    assert (len(tally), feed.unreadable) == (0, 0)


@pytest.mark.parametrize("make", brokers.feeds().values(), ids=brokers.feeds())
@pytest.mark.parametrize(
    "payload", [b"", b"{", b"null", b"[]", b"\xff\xfe", b'{"clientId": {}}', b"[" * 100_000], ids=range(7)
)
def test_a_feed_survives_any_payload_on_its_topics(make: Callable[[Bridge], Feed], payload: bytes) -> None:
    feed = make(LISTENING)
    for topic in feed.topics:
        feed.hear(topic.replace("+", "x").replace("#", "connected/c1"), payload, 1, Tally())


def test_counts_start_at_nothing() -> None:
    assert all(not getattr(Counts(), name) for name in Counts.__slots__)
