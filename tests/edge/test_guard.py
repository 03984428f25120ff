"""The comparison of guard and log, on a real server whose log is made to lack what a crash would have taken."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from mqtt_load import Publisher
from nats.aio.client import Client
from nats_rig import SMALL, Device, Rig, body, connect, device, entries, number_of, running, topic

from config.model import NS
from daemon.clock import SystemClock, VirtualClock
from daemon.log.stream_read import Entry
from daemon.log.streams import GUARD, LogIdentity, api, ensure
from daemon.nats.guard import BARRIER_SUBJECT, FIRST_TIME, MARK_SUBJECT, Placed, last_mark, reconcile, settle
from daemon.nats.server import Pace

NO_MARKS = Pace(mark_s=1e9)  # the tests lay their own


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(tmp_path, pace=NO_MARKS) as rig:
        yield rig


@pytest.fixture
async def nc(rig: Rig) -> AsyncIterator[Client]:
    client = await connect(rig.endpoint)
    yield client
    await client.close()


@pytest.fixture
async def sender(rig: Rig) -> AsyncIterator[Device]:
    async with device(rig.endpoint) as sender:
        yield sender


@pytest.fixture
def identity(rig: Rig) -> LogIdentity:
    return rig.server.identity


async def reports(nc: Client) -> list[Entry]:
    return await entries(nc, SMALL.stream, ["$aws.things.>"])


async def forget(nc: Client, *numbers: int) -> None:
    """Take reports out of the log, as a crash takes what is still in its queue."""
    for entry in await reports(nc):
        if number_of(entry) in numbers:
            await api(nc, f"STREAM.MSG.DELETE.{SMALL.stream}", {"seq": entry.seq})


async def mark(nc: Client, identity: LogIdentity) -> Placed:
    last = await last_mark(nc, identity)
    assert last is not None
    # Later than any store of before could still be on its way, so that the next mark may build on this one.
    later = VirtualClock(last.ts_ns + 10 * NS)
    return await settle(nc, identity, last, later, unless=lambda: False)


async def test_what_the_log_lacks_is_copied_in_order_with_its_first_time(
    nc: Client, sender: Device, identity: LogIdentity
) -> None:
    for number in range(6):
        await sender.publish(topic("p1"), body(number))
    guarded = {number_of(entry): str(entry.ts_ns) for entry in await entries(nc, GUARD, ["$MQTT.msgs.>"])}
    await forget(nc, 3, 4, 5)
    assert (await reconcile(nc, identity, SystemClock())).copied == 3
    log = await reports(nc)
    assert [number_of(entry) for entry in log] == [0, 1, 2, 3, 4, 5]
    assert [entry.headers.get(FIRST_TIME) for entry in log] == [None] * 3 + [guarded[n] for n in (3, 4, 5)]
    assert {entry.subject for entry in log} == {"$aws.things.p1.defender.metrics.json"}


async def test_a_complete_log_is_left_as_it_is(nc: Client, sender: Device, identity: LogIdentity) -> None:
    for number in range(3):
        await sender.publish(topic("p1"), body(number))
    done = await reconcile(nc, identity, SystemClock())
    assert (done.copied, done.looked_at) == (0, 3)


async def test_an_interrupted_reconcile_copies_only_the_rest(
    rig: Rig, nc: Client, sender: Device, identity: LogIdentity
) -> None:
    for number in range(4):
        await sender.publish(topic("p1"), body(number))
    await forget(nc, 1, 2, 3)
    done = await reconcile(nc, identity, SystemClock())
    # As if all had been killed before the mark and the last copy were stored.
    await api(nc, f"STREAM.MSG.DELETE.{SMALL.stream}", {"seq": done.placed.seq})
    await forget(nc, 3)
    os.kill(rig.endpoint.pid, signal.SIGKILL)
    assert (await rig.events.seen("reconciled", times=2))["copied"] == 1
    assert [number_of(entry) for entry in await rig.log()] == [0, 1, 2, 3]


async def test_equal_messages_are_counted_not_matched_once(nc: Client, sender: Device, identity: LogIdentity) -> None:
    for _ in range(3):
        await sender.publish(topic("p1"), body(7))
    last = (await reports(nc))[-1]
    await api(nc, f"STREAM.MSG.DELETE.{SMALL.stream}", {"seq": last.seq})
    assert (await reconcile(nc, identity, SystemClock())).copied == 1


async def test_a_twin_at_qos_0_does_not_stand_in_for_a_promised_report(
    nc: Client, sender: Device, identity: LogIdentity
) -> None:
    await sender.publish(topic("p1"), body(1), qos=0)
    await sender.publish(topic("p1"), body(1), qos=1)
    promised = next(entry for entry in await reports(nc) if entry.headers["Nmqtt-Pub"] == "1")
    await api(nc, f"STREAM.MSG.DELETE.{SMALL.stream}", {"seq": promised.seq})
    assert (await reconcile(nc, identity, SystemClock())).copied == 1


async def test_a_report_at_qos_2_is_guarded(nc: Client, sender: Device, identity: LogIdentity) -> None:
    await sender.publish(topic("p1"), body(1), qos=2)
    await forget(nc, 1)
    assert (await reconcile(nc, identity, SystemClock())).copied == 1


async def test_the_same_report_of_another_thing_does_not_stand_in(
    nc: Client, sender: Device, identity: LogIdentity
) -> None:
    await sender.publish(topic("p1"), body(1))
    await sender.publish(topic("p2"), body(2))
    await sender.publish(topic("p2"), body(1))
    await api(nc, f"STREAM.MSG.DELETE.{SMALL.stream}", {"seq": (await reports(nc))[0].seq})
    assert (await reconcile(nc, identity, SystemClock())).copied == 1
    assert (await reports(nc))[-1].subject == "$aws.things.p1.defender.metrics.json"


async def test_ordinary_topics_are_not_copied_into_the_log(nc: Client, sender: Device, identity: LogIdentity) -> None:
    await sender.publish("factory/line/1", body(1))
    await sender.publish("$aws/things/p1/shadow/update", body(2))
    done = await reconcile(nc, identity, SystemClock())
    assert (done.copied, done.looked_at, await reports(nc)) == (0, 0, [])


@pytest.mark.parametrize("name", ["a.b", "ünï", "%2F%20", "it's", "a:b=c,d", "$x", "x" * 128, "*x", "q?#".strip("#")])
async def test_a_copy_has_the_subject_of_its_original(
    nc: Client, sender: Device, identity: LogIdentity, name: str
) -> None:
    await sender.publish(topic(name, "cbor"), body(0))
    await sender.publish(topic(name, "cbor"), body(1))
    await forget(nc, 1)
    assert (await reconcile(nc, identity, SystemClock())).copied == 1
    first, second = await reports(nc)
    assert first.subject == second.subject


async def test_what_a_mark_settled_is_not_looked_for_again(nc: Client, sender: Device, identity: LogIdentity) -> None:
    for number in range(4):
        await sender.publish(topic("p1"), body(number))
    await mark(nc, identity)
    await sender.publish(topic("p1"), body(4))
    await forget(nc, 2, 3, 4)
    assert (await reconcile(nc, identity, SystemClock())).copied == 1
    assert [number_of(entry) for entry in await reports(nc)] == [0, 1, 4]


async def test_an_old_equal_report_does_not_stand_in_for_one_after_the_mark(
    nc: Client, sender: Device, identity: LogIdentity
) -> None:
    await sender.publish(topic("p1"), body(9))
    await mark(nc, identity)
    await sender.publish(topic("p1"), body(1))
    await mark(nc, identity)
    await sender.publish(topic("p1"), body(9))
    last = (await reports(nc))[-1]
    await api(nc, f"STREAM.MSG.DELETE.{SMALL.stream}", {"seq": last.seq})
    assert (await reconcile(nc, identity, SystemClock())).copied == 1


async def test_a_comparison_begins_one_mark_before_the_last(nc: Client, sender: Device, identity: LogIdentity) -> None:
    for number in range(3):
        await sender.publish(topic("p1"), body(number))
        await mark(nc, identity)
    assert (await reconcile(nc, identity, SystemClock())).looked_at == 1


async def test_a_mark_too_soon_after_another_goes_further_back(
    nc: Client, sender: Device, identity: LogIdentity
) -> None:
    await sender.publish(topic("p1"), body(0))
    first = await mark(nc, identity)
    await sender.publish(topic("p1"), body(1))
    second = await settle(nc, identity, first, VirtualClock(first.ts_ns + NS), unless=lambda: False)
    assert second.mark.guard_seq == 2
    assert (second.mark.since_guard, second.mark.since_log) == (first.mark.since_guard, first.mark.since_log)


async def test_no_mark_is_laid_while_the_server_may_have_lost_something(
    nc: Client, sender: Device, identity: LogIdentity
) -> None:
    await sender.publish(topic("p1"), body(1))
    last = await last_mark(nc, identity)
    assert last is not None
    assert await settle(nc, identity, last, SystemClock(), unless=lambda: True) == last
    assert await last_mark(nc, identity) == last


async def test_an_idle_guard_lays_no_marks(nc: Client, identity: LogIdentity) -> None:
    first = await mark(nc, identity)
    assert await mark(nc, identity) == first


async def test_reconciling_while_devices_publish_doubles_nothing(rig: Rig, nc: Client, identity: LogIdentity) -> None:
    sender = Publisher(rig.endpoint.mqtt, "busy", topic("p1"), lambda n: body(n, 200), window=100)
    task = asyncio.create_task(sender.run())
    copied = [(await reconcile(nc, identity, SystemClock())).copied for _ in range(3)]
    sender.stop()
    await task
    assert copied == [0] * 3
    assert len(sender.acked) > 0


async def test_what_the_logs_own_limits_dropped_is_not_brought_back(rig: Rig, nc: Client, sender: Device) -> None:
    publisher = Publisher(rig.endpoint.mqtt, "bulk", topic("p1"), lambda n: body(n, 1000), count=2000, window=100)
    await publisher.run()
    identity = await ensure(nc, msgspec.structs.replace(SMALL, max_bytes=200_000))
    kept = [number_of(entry) for entry in await reports(nc)]
    assert kept[0] > 0
    await forget(nc, 1999)
    assert (await reconcile(nc, identity, SystemClock())).copied == 1
    assert [number_of(entry) for entry in await reports(nc)][-3:] == [1997, 1998, 1999]


async def test_a_log_that_dropped_all_it_had_gets_nothing_back(nc: Client, sender: Device) -> None:
    for number in range(20):
        await sender.publish(topic("p1"), body(number, 500))
    identity = await ensure(nc, msgspec.structs.replace(SMALL, max_bytes=4096))
    for _ in range(40):
        await nc.jetstream().publish("detectd.log.test", b"x" * 300)
    assert await reports(nc) == []
    assert (await reconcile(nc, identity, SystemClock())).copied == 0


async def test_a_new_log_is_not_filled_with_an_older_guard(nc: Client, sender: Device) -> None:
    for number in range(3):
        await sender.publish(topic("p1"), body(number))
    await api(nc, f"STREAM.DELETE.{SMALL.stream}")
    identity = await ensure(nc, SMALL)
    assert (await reconcile(nc, identity, SystemClock())).copied == 0
    await sender.publish(topic("p1"), body(3))
    await forget(nc, 3)
    assert (await reconcile(nc, identity, SystemClock())).copied == 1


async def test_a_guard_that_overflowed_says_how_much_it_could_not_compare(rig: Rig, nc: Client) -> None:
    identity = await ensure(nc, msgspec.structs.replace(SMALL, guard_bytes=50_000))
    publisher = Publisher(rig.endpoint.mqtt, "bulk", topic("p1"), lambda n: body(n, 1000), count=200, window=50)
    await publisher.run()
    await forget(nc, 198, 199)
    done = await reconcile(nc, identity, SystemClock())
    assert (done.copied, done.unguarded + done.looked_at) == (2, 200)
    assert done.unguarded > 100


async def test_a_guard_made_anew_is_compared_from_its_beginning(nc: Client, sender: Device) -> None:
    for number in range(3):
        await sender.publish(topic("p1"), body(number))
    await api(nc, f"STREAM.DELETE.{GUARD}")
    identity = await ensure(nc, SMALL)
    # The MQTT part of nats-server has consumers on the old guard; new devices use the new one.
    await sender.publish(topic("p1"), body(3))
    assert (await reconcile(nc, identity, SystemClock())).copied == 0


async def test_all_of_it_is_visible_in_the_log(nc: Client, sender: Device, identity: LogIdentity) -> None:
    await sender.publish(topic("p1"), body(1))
    done = await reconcile(nc, identity, SystemClock())
    own = await entries(nc, SMALL.stream, ["detectd.log.>"])
    assert [entry.subject for entry in own[-2:]] == [BARRIER_SUBJECT, MARK_SUBJECT]
    assert own[-1].seq == done.placed.seq


async def test_a_guard_without_new_reports_needs_no_look_at_the_log(
    nc: Client, sender: Device, identity: LogIdentity
) -> None:
    await sender.publish(topic("p1"), body(1), qos=0)
    await sender.publish("factory/line/1", body(2))
    assert (await reconcile(nc, identity, SystemClock())).looked_at == 0


async def test_after_a_long_time_without_marks_only_the_end_of_the_log_is_compared(
    rig: Rig, nc: Client, identity: LogIdentity
) -> None:
    for _ in range(101):
        for _ in range(1000):
            await nc.publish("detectd.log.filler", b"")
        await nc.flush()
    publisher = Publisher(rig.endpoint.mqtt, "bulk", topic("p1"), lambda n: body(n, 10), count=50, window=10)
    await publisher.run()
    await forget(nc, 47, 48, 49)
    assert (await reconcile(nc, identity, SystemClock())).copied == 3
    assert [number_of(entry) for entry in await reports(nc)] == list(range(50))
