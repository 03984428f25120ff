"""The bridge against a real Mosquitto: stored before acknowledged, back after every loss, and in its own words."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from bridging import DEADLINE_S, ListenerDouble, LogDouble, running, source, until
from mosquitto import Mosquitto
from mqtt_load import Publisher

from config.model import Bridge
from daemon.brokers._base import Entry
from daemon.log.parcel import MSG_ID

ROOT = Path(__file__).parents[2]
TOPIC = "$aws/things/{}/defender/metrics/{}"


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    made = Mosquitto(tmp_path / "mosquitto")
    await made.start()
    yield made
    made.kill()


def plant(broker: Mosquitto, **options: object) -> Bridge:
    return Bridge(name="plant", url=f"mqtt://127.0.0.1:{broker.port}", **options)  # type: ignore[arg-type]


async def publish(broker: Mosquitto, *reports: tuple[str, str, bytes], qos: int = 1, retain: bool = False) -> None:
    async with broker.client("devices") as client:
        for thing, fmt, payload in reports:
            await client.publish(TOPIC.format(thing, fmt), payload, qos=qos, retain=retain)


def marks(entry: Entry) -> dict[str, str]:
    """Its headers, but for the id of the message."""
    return {name: value for name, value in entry.headers.items() if name != MSG_ID}


async def flood(broker: Mosquitto, many: int) -> None:
    """QoS 1 reports 0, 1, 2 … of one thing, up to 500 in flight."""
    topic = TOPIC.format("p1", "json")
    await Publisher(f"127.0.0.1:{broker.port}", "flood", topic, lambda i: b"%d" % i, count=many, window=500).run()


async def test_json_and_cbor_reports_reach_the_log_under_the_bridges_subject(broker: Mosquitto) -> None:
    log = LogDouble()
    async with running(source(plant(broker), log)):
        await publish(broker, ("p1", "json", b"{}"), ("press 1.a", "cbor", b"\xa0"))
        await until(lambda: len(log.entries) == 2)
    assert [(entry.subject, entry.payload, marks(entry)) for entry in log.entries] == [
        ("detectd.log.report.plant.p1.json", b"{}", {}),
        ("detectd.log.report.plant.press%201%2Ea.cbor", b"\xa0", {}),
    ]


async def test_replies_go_to_the_thing_in_its_format(broker: Mosquitto) -> None:
    bridge = source(plant(broker), LogDouble())
    async with broker.client("device") as device, running(bridge):
        await device.subscribe("$aws/things/p1/defender/metrics/+/+", qos=1)
        await bridge.reply("p1", "json", True, b"yes")
        await bridge.reply("p1", "cbor", False, b"no")
        got = [await anext(aiter(device.messages)) for _ in range(2)]
    assert [(str(message.topic), message.payload) for message in got] == [
        ("$aws/things/p1/defender/metrics/json/accepted", b"yes"),
        ("$aws/things/p1/defender/metrics/cbor/rejected", b"no"),
    ]
    assert (bridge.counts.replies_sent, bridge.counts.replies_dropped) == (2, 0)


async def test_with_replies_off_none_is_sent_and_each_is_counted(broker: Mosquitto) -> None:
    bridge = source(plant(broker, replies="off"), LogDouble())
    async with running(bridge):
        await bridge.reply("p1", "json", True, b"yes")
        assert bridge.status()["replies"] is False
    assert (bridge.counts.replies_sent, bridge.counts.replies_dropped) == (0, 1)


async def test_a_message_is_acknowledged_only_after_it_is_stored(broker: Mosquitto) -> None:
    """Killed before the log has it: the broker still has it, and delivers it to whoever comes back."""
    held = LogDouble()
    held.gate.clear()
    async with running(source(plant(broker), held)):
        await publish(broker, ("p1", "json", b"first"), ("p1", "json", b"second"))
        await until(lambda: held.waiting)
    assert held.entries == []

    log = LogDouble()
    async with running(source(plant(broker), log)):
        await until(lambda: len(log.entries) == 2)
    assert log.payloads == [b"first", b"second"]


async def test_what_was_stored_and_acknowledged_does_not_come_again(broker: Mosquitto) -> None:
    log = LogDouble()
    async with running(source(plant(broker), log)):
        await publish(broker, ("p1", "json", b"stored"))
        await until(lambda: log.entries)
    again = LogDouble()
    async with running(source(plant(broker), again)):
        await publish(broker, ("p1", "json", b"new"))
        await until(lambda: again.entries)
    assert again.payloads == [b"new"]


async def test_a_stored_message_whose_acknowledgement_was_lost_is_not_stored_twice(broker: Mosquitto) -> None:
    log = LogDouble()
    log.gate.clear()
    bridge = source(plant(broker), log)
    async with running(bridge):
        await publish(broker, *(("p1", "json", b"%d" % i) for i in range(50)))
        await until(lambda: log.waiting)
        broker.stop()  # with messages under way to us, none acknowledged
        log.gate.set()
        await until(lambda: log.entries)
        await broker.start()
        await until(lambda: bridge.counts.connected)
        await publish(broker, ("p1", "json", b"live"))
        await until(lambda: b"live" in log.payloads)
    assert log.payloads == [*(b"%d" % i for i in range(50)), b"live"]
    assert bridge.counts.repeated > 0


async def test_what_comes_while_the_log_is_busy_is_stored_in_few_batches(broker: Mosquitto) -> None:
    log = LogDouble()
    log.gate.clear()
    bridge = source(plant(broker), log)
    async with running(bridge):
        await publish(broker, *(("p1", "json", b"%d" % i) for i in range(100)))
        await until(lambda: bridge.counts.received == 100)
        log.gate.set()
        await until(lambda: len(log.entries) == 100)
    assert log.payloads == [b"%d" % i for i in range(100)]
    assert len(log.batches) <= 8


async def test_a_log_that_fails_gets_the_same_entries_again(broker: Mosquitto) -> None:
    log = LogDouble()
    log.failing = 2
    async with running(source(plant(broker), log)):
        await publish(broker, ("p1", "json", b"kept"))
        await until(lambda: log.entries)
    assert log.payloads == [b"kept"]


async def test_the_backlog_of_a_kept_session_is_marked_and_what_follows_is_not(broker: Mosquitto) -> None:
    async with running(source(plant(broker), LogDouble())):
        pass
    await publish(broker, ("p1", "json", b"kept 1"), ("p2", "json", b"kept 2"))

    log = LogDouble()
    bridge = source(plant(broker), log)
    async with running(bridge):
        await until(lambda: "carries" in str(bridge.status()["self_test"]))
        await publish(broker, ("p1", "json", b"live"))
        await until(lambda: len(log.entries) == 3)
    assert [(entry.payload, marks(entry)) for entry in log.entries] == [
        (b"kept 1", {"Detectd-Backlog": "1"}),
        (b"kept 2", {"Detectd-Backlog": "1"}),
        (b"live", {}),
    ]


async def test_after_the_broker_restarts_the_bridge_is_back_and_told_once_each_way(broker: Mosquitto) -> None:
    log, listener = LogDouble(), ListenerDouble()
    bridge = source(plant(broker), log, listener)
    async with running(bridge):
        await publish(broker, ("p1", "json", b"before"))
        await until(lambda: log.entries)
        broker.kill()
        await until(lambda: listener.downs)
        assert not bridge.counts.connected
        await broker.start()
        await until(lambda: bridge.counts.connected)
        await publish(broker, ("p1", "json", b"after"))
        await until(lambda: len(log.entries) == 2)
    assert log.payloads == [b"before", b"after"]
    assert len(listener.downs) == 1
    assert listener.ups[0] is None
    assert listener.ups[1] is not None
    assert bridge.counts.reconnects == 1


async def test_the_listener_hears_of_the_return_before_the_backlog_is_stored(broker: Mosquitto) -> None:
    async with running(source(plant(broker), LogDouble())):
        pass
    await publish(broker, ("p1", "json", b"kept"))

    log, listener = LogDouble(), ListenerDouble()
    stored_at_up: list[int] = []
    listener.before_up = lambda: stored_at_up.append(len(log.entries))
    async with running(source(plant(broker), log, listener)):
        await until(lambda: log.entries)
    assert stored_at_up == [0]


async def test_a_broker_that_is_not_there_at_first_is_found_when_it_comes(broker: Mosquitto) -> None:
    broker.kill()
    listener = ListenerDouble()
    bridge = source(plant(broker), LogDouble(), listener)
    async with running(bridge, connected=False):
        await until(lambda: listener.downs)
        await broker.start()
        await until(lambda: bridge.counts.connected)
    assert len(listener.downs) == 1
    assert listener.ups[0] is not None


async def test_retained_messages_are_ignored_and_counted(broker: Mosquitto) -> None:
    await publish(broker, ("p1", "json", b"old news"), retain=True)
    log = LogDouble()
    bridge = source(plant(broker), log)
    async with running(bridge):
        await publish(broker, ("p1", "json", b"news"))
        await until(lambda: log.entries)
    assert log.payloads == [b"news"]
    assert bridge.counts.retained == 1


async def test_a_report_that_is_too_long_arrives_cut_to_one_byte_too_many(broker: Mosquitto) -> None:
    log = LogDouble()
    bridge = source(plant(broker), log, payload_bytes_max=1000)
    async with running(bridge):
        await publish(broker, ("p1", "json", b"x" * 200_000), ("p1", "json", b"y" * 1000))
        await until(lambda: len(log.entries) == 2)
    assert [len(payload) for payload in log.payloads] == [1001, 1000]
    assert bridge.counts.oversize == 1


async def test_a_name_that_no_thing_can_have_is_ignored_and_counted(broker: Mosquitto) -> None:
    log = LogDouble()
    bridge = source(plant(broker), log)
    async with running(bridge):
        await publish(broker, ("n" * 129, "json", b"{}"), ("n" * 128, "json", b"{}"))
        await until(lambda: log.entries)
    assert [entry.subject for entry in log.entries] == [f"detectd.log.report.plant.{'n' * 128}.json"]
    assert bridge.counts.misnamed == 1


async def test_another_prefix_is_followed_in_both_directions(broker: Mosquitto) -> None:
    log = LogDouble()
    bridge = source(plant(broker, prefix="factory/1"), log)
    async with broker.client("device") as device, running(bridge):
        await device.subscribe("factory/1/things/p1/defender/metrics/json/accepted")
        await device.publish("factory/1/things/p1/defender/metrics/json", b"{}", qos=1)
        await until(lambda: log.entries)
        await bridge.reply("p1", "json", True, b"yes")
        assert (await anext(aiter(device.messages))).payload == b"yes"


@pytest.mark.timeout(120)
async def test_a_flood_of_20000_qos_1_reports_arrives_whole_and_in_order(broker: Mosquitto) -> None:
    log = LogDouble()
    many = 20_000
    async with running(source(plant(broker), log)):
        await flood(broker, many)
        await until(lambda: len(log.entries) == many, deadline_s=90)
    assert log.payloads == [b"%d" % i for i in range(many)]


@pytest.mark.timeout(120)
async def test_a_backlog_of_20000_survives_losing_the_broker_in_its_midst(broker: Mosquitto) -> None:
    async with running(source(plant(broker), LogDouble())):
        pass
    many = 20_000
    await flood(broker, many)
    log = LogDouble()
    bridge = source(plant(broker), log)
    async with running(bridge):
        await until(lambda: len(log.entries) > 2_000)
        broker.stop()
        await broker.start()
        await until(lambda: len(set(log.payloads)) == many, deadline_s=90)
    assert sorted(map(int, log.payloads)) == list(range(many)), "each exactly once"


CHILD = """
import asyncio, sys
from bridging import LogDouble, source
from config.model import Bridge
from daemon.brokers._base import Entry
from daemon.log.parcel import MSG_ID

async def main():
    log = LogDouble()
    log.gate.clear()
    bridge = source(Bridge(name="plant", url=sys.argv[1]), log)
    task = asyncio.create_task(bridge.run())
    while not bridge.counts.connected:
        await asyncio.sleep(0.01)
    print("connected", flush=True)
    while not log.waiting:
        await asyncio.sleep(0.01)
    print("holding", flush=True)
    await task

asyncio.run(main())
"""


async def test_a_process_killed_between_receipt_and_storage_loses_nothing(broker: Mosquitto) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, f"mqtt://127.0.0.1:{broker.port}", stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
    )  # fmt: skip
    assert child.stdout is not None
    async with asyncio.timeout(DEADLINE_S):
        assert await child.stdout.readline() != b""  # a log line or "connected": either way it lives
        await publish(broker, *(("p1", "json", b"%d" % i) for i in range(200)))
        while await child.stdout.readline() != b"holding\n":
            continue
    child.kill()
    await child.wait()

    log = LogDouble()
    async with running(source(plant(broker), log)):
        await until(lambda: len(log.entries) == 200)
    assert log.payloads == [b"%d" % i for i in range(200)]


def test_it_does_the_same_on_uvloop(tmp_path: Path) -> None:
    """The daemon runs on uvloop, whose sockets and readers are others."""
    uvloop = pytest.importorskip("uvloop")

    async def story() -> list[bytes]:
        broker = Mosquitto(tmp_path / "uv")
        await broker.start()
        log = LogDouble()
        bridge = source(plant(broker), log, waiting_bytes_max=2_000)
        async with running(bridge):
            await flood(broker, 2_000)
            await until(lambda: len(log.entries) == 2_000)
            broker.kill()
            await until(lambda: not bridge.counts.connected)
            await broker.start()
            await until(lambda: bridge.counts.connected)
            await publish(broker, ("p1", "json", b"after"))
            await until(lambda: len(log.entries) == 2_001)
        broker.kill()
        return log.payloads

    assert uvloop.run(story()) == [*(b"%d" % i for i in range(2_000)), b"after"]
