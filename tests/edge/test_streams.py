"""The log and the guard as streams: made, kept, brought up to date."""

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from nats.aio.client import Client
from nats_rig import SMALL, Rig, body, connect, device, number_of, running, topic, until

from daemon.log.streams import GUARD, IDENTITY_KEY, JetStreamError, api, ensure


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(tmp_path) as rig:
        yield rig


@pytest.fixture
async def nc(rig: Rig) -> AsyncIterator[Client]:
    client = await connect(rig.endpoint)
    yield client
    await client.close()


async def test_the_guard_is_a_bounded_history_that_does_not_age(nc: Client) -> None:
    config = (await api(nc, f"STREAM.INFO.{GUARD}"))["config"]
    wanted = {"retention": "limits", "storage": "file", "discard": "old", "max_age": 0, "max_bytes": SMALL.guard_bytes}
    assert {key: config[key] for key in wanted} == wanted


async def test_a_connected_device_leaves_the_guard_as_it_was_made(rig: Rig, nc: Client) -> None:
    before = (await api(nc, f"STREAM.INFO.{GUARD}"))["config"]
    async with device(rig.endpoint) as sender:
        await sender.publish(topic("p1"), body(1))
    info = await api(nc, f"STREAM.INFO.{GUARD}")
    assert (info["config"], info["state"]["messages"]) == (before, 1)


async def test_the_log_has_an_identity_of_128_bits(nc: Client) -> None:
    identity = (await ensure(nc, SMALL)).identity
    assert len(bytes.fromhex(identity)) == 16


async def test_making_the_log_again_changes_nothing(nc: Client) -> None:
    await nc.jetstream().publish("detectd.log.test", b"kept")
    first = await ensure(nc, SMALL)
    assert await ensure(nc, SMALL) == first
    assert first.last_seq >= 1


async def test_two_logs_have_different_identities(nc: Client) -> None:
    first = await ensure(nc, SMALL)
    await api(nc, f"STREAM.DELETE.{SMALL.stream}")
    assert (await ensure(nc, SMALL)).identity != first.identity


async def test_new_limits_apply_to_an_existing_log(nc: Client) -> None:
    first = await ensure(nc, SMALL)
    await nc.jetstream().publish("detectd.log.test", b"kept")
    again = await ensure(nc, msgspec.structs.replace(SMALL, max_age_s=30.0, max_bytes=2**20, guard_bytes=2**21))
    config = (await api(nc, f"STREAM.INFO.{SMALL.stream}"))["config"]
    guard = (await api(nc, f"STREAM.INFO.{GUARD}"))["config"]
    assert (config["max_age"], config["max_bytes"], guard["max_bytes"]) == (30_000_000_000, 2**20, 2**21)
    assert (again.identity, again.last_seq) == (first.identity, first.last_seq + 1)


async def test_a_log_that_someone_else_made_is_given_an_identity(nc: Client) -> None:
    await api(nc, f"STREAM.DELETE.{SMALL.stream}")
    await api(nc, f"STREAM.CREATE.{SMALL.stream}", {"name": SMALL.stream, "metadata": {"owner": "ops"}})
    identity = (await ensure(nc, SMALL)).identity
    metadata = (await api(nc, f"STREAM.INFO.{SMALL.stream}"))["config"]["metadata"]
    assert (metadata[IDENTITY_KEY], metadata["owner"]) == (identity, "ops")


async def test_a_guard_that_nats_server_made_is_turned_into_a_history(rig: Rig, nc: Client) -> None:
    await api(nc, f"STREAM.DELETE.{GUARD}")
    own = {"name": GUARD, "subjects": ["$MQTT.msgs.>"], "retention": "interest", "storage": "file"}
    await api(nc, f"STREAM.CREATE.{GUARD}", own)
    await ensure(nc, SMALL)
    async with device(rig.endpoint) as sender:
        await sender.publish(topic("p1"), body(1))
    assert (await api(nc, f"STREAM.INFO.{GUARD}"))["state"]["messages"] == 1


async def test_a_refusal_of_jetstream_says_what_was_asked(nc: Client) -> None:
    with pytest.raises(JetStreamError, match=r"STREAM\.INFO\.NONE: stream not found"):
        await api(nc, "STREAM.INFO.NONE")


async def test_what_devices_make_mqtt_keep_is_bounded_and_still_works(rig: Rig, nc: Client) -> None:
    async with device(rig.endpoint, "one") as one, device(rig.endpoint, "two") as two:
        await one.publish("kept/a", b"retained", retain=True)
        await one.publish("kept/b", b"exactly once", qos=2)
        await two.subscribe("kept/+", qos=2)
        await until(lambda: ("kept/a", b"retained") in two.received, "the retained message")
        await one.publish("kept/b", b"exactly once", qos=2)
        await until(lambda: ("kept/b", b"exactly once") in two.received, "the QoS 2 message")
    names = (await api(nc, "STREAM.NAMES"))["streams"]
    bounds = {name: (await api(nc, f"STREAM.INFO.{name}"))["config"]["max_bytes"] for name in names}
    assert set(bounds) == {"LOG", GUARD, "$MQTT_sess", "$MQTT_rmsgs", "$MQTT_out", "$MQTT_qos2in"}
    assert all(bound > 0 for bound in bounds.values())


async def test_a_session_outlives_a_crash_in_the_bounded_store(rig: Rig) -> None:
    async with device(rig.endpoint, "stays", keep=True) as stays:
        await stays.subscribe("news", qos=1)
    os.kill(rig.endpoint.pid, signal.SIGKILL)
    await rig.events.seen("opened", times=2)
    async with device(rig.endpoint, "other") as other:
        await other.publish("news", b"while away")
    async with device(rig.endpoint, "stays", keep=True) as stays:
        await until(lambda: stays.received == [("news", b"while away")], "the message")


async def test_retained_messages_of_devices_leave_the_log_its_room(rig: Rig, nc: Client) -> None:
    await api(
        nc, "STREAM.UPDATE.$MQTT_rmsgs", (await api(nc, "STREAM.INFO.$MQTT_rmsgs"))["config"] | {"max_bytes": 2**20}
    )
    async with device(rig.endpoint) as hoarder:
        for number in range(30):
            await hoarder.publish(f"hoard/{number}", b"x" * 100_000, retain=True)
        assert (await api(nc, "STREAM.INFO.$MQTT_rmsgs"))["state"]["bytes"] <= 2**20
        await hoarder.publish(topic("p1"), body(1))
    assert [number_of(entry) for entry in await rig.log()] == [1]


async def test_but_for_their_bounds_they_are_what_nats_server_makes_itself(rig: Rig, nc: Client) -> None:
    names = ("$MQTT_sess", "$MQTT_rmsgs", "$MQTT_out", "$MQTT_qos2in")
    ours = {name: (await api(nc, f"STREAM.INFO.{name}"))["config"] for name in names}
    for name in names:
        await api(nc, f"STREAM.DELETE.{name}")
    async with device(rig.endpoint):
        theirs = {name: (await api(nc, f"STREAM.INFO.{name}"))["config"] for name in names}
    assert {name: config | {"max_bytes": -1} for name, config in ours.items()} == theirs
