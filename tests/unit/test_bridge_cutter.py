"""Packets out of a byte stream: however it is cut, whatever is in it, in bounded memory."""

import random

import mqtt5
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_mqtt import varint

from daemon.brokers._cutter import Cutter
from daemon.brokers._wire import Arrived

NOW = 5


def publish(topic: str, payload: bytes, *, qos: int = 1, mid: int = 7, properties: bytes | None = b"\0") -> bytes:
    """`properties` None: MQTT 3.1.1."""
    body = len(topic.encode()).to_bytes(2) + topic.encode() + (mid.to_bytes(2) if qos else b"") + (properties or b"")
    return bytes([0x30 | qos << 1]) + varint(len(body) + len(payload)) + body + payload


def fed(cutter: Cutter, data: bytes, size: int) -> list[Arrived | bytes]:
    return [one for at in range(0, len(data), size) for one in cutter.feed(data[at : at + size], NOW)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100, 10**6])
@pytest.mark.parametrize("properties", [b"\0", b"\x05\x26\0\0\0\0", None])
def test_however_the_stream_is_cut_the_same_packets_come_out(size: int, properties: bytes | None) -> None:
    stream = b"".join(
        [
            publish("a/b", b"x" * 10, properties=properties),
            b"\xd0\0",
            publish("ü", b"", qos=0, properties=properties),
            b"\x40\x02\0\x09",
            publish("long", b"y" * 20_000, mid=65_535, properties=properties),
        ]
    )
    cutter = Cutter(has_properties=properties is not None)
    assert fed(cutter, stream, size) == [
        Arrived("a/b", b"x" * 10, 1, 7, dup=False, retain=False, received_ns=NOW),
        b"\xd0\0",
        Arrived("ü", b"", 0, 0, dup=False, retain=False, received_ns=NOW),
        b"\x40\x02\0\x09",
        Arrived("long", b"y" * 20_000, 1, 65_535, dup=False, retain=False, received_ns=NOW),
    ]
    assert cutter.problem is None
    assert cutter.held == 0


@pytest.mark.parametrize("size", [1, 10, 1000, 10**6])
def test_of_a_message_that_is_too_long_the_beginning_is_kept_and_the_rest_dropped(size: int) -> None:
    stream = publish("t", b"x" * 5000) + publish("t", b"next")
    cutter = Cutter(has_properties=True, packet_bytes_max=1000)
    found = fed(cutter, stream, size)
    assert [len(one.payload) for one in found if isinstance(one, Arrived)] == [1000 - 6, 4]
    assert cutter.cut == 1


def test_what_is_held_of_a_packet_is_bounded_whatever_it_claims() -> None:
    cutter = Cutter(has_properties=True, packet_bytes_max=1000)
    claimed = b"\x32" + varint(268_435_455) + b"\0\1t\0\1\0"
    held = []
    for chunk in (claimed, *[b"x" * 999] * 100):
        cutter.feed(chunk, NOW)
        held.append(cutter.held)
    assert max(held) <= 1000 + 999 + 5


def test_the_flags_of_a_message_are_told_apart() -> None:
    head = b"\0\1t\0\1\0"
    flags = [bytes([first, len(head)]) + head for first in (0x32, 0x33, 0x3A, 0x3B)]
    messages = Cutter(has_properties=True).feed(b"".join(flags), NOW)
    assert [(one.dup, one.retain) for one in messages if isinstance(one, Arrived)] == [
        (False, False), (False, True), (True, False), (True, True),
    ]  # fmt: skip


def test_what_came_before_nonsense_is_not_lost_with_it() -> None:
    cutter = Cutter(has_properties=True)
    assert len(cutter.feed(publish("t", b"good") + b"\x36\x03\0\1t", NOW)) == 1
    assert "not MQTT" in str(cutter.problem)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(1, 50), st.booleans())
def test_no_bytes_make_it_raise_or_hold_more_than_a_packet(data: bytes, size: int, has_properties: bool) -> None:
    cutter = Cutter(has_properties=has_properties, packet_bytes_max=64)
    fed(cutter, data, size)
    assert cutter.held <= 64 + 5 + size


def test_it_reads_what_another_implementation_writes() -> None:
    rng = random.Random(5)
    for _ in range(300):
        qos = rng.choice([mqtt5.QoS.AT_MOST_ONCE, mqtt5.QoS.AT_LEAST_ONCE])
        asked = qos == mqtt5.QoS.AT_LEAST_ONCE
        packet = mqtt5.PublishPacket(
            "t/" + "ä" * rng.randrange(40),
            rng.randbytes(rng.choice([0, 1, 100, 127, 128, 16_384])),
            qos=qos,
            retain=rng.random() < 0.5,
            packet_id=rng.randrange(1, 65_536) if asked else None,
            duplicate=asked and rng.random() < 0.5,
            content_type="x" * rng.randrange(300),
            user_properties=[("k", "v" * rng.randrange(50))] * rng.randrange(3),
        )
        (message,) = Cutter(has_properties=True).feed(packet.write(), NOW)
        assert isinstance(message, Arrived)
        assert (message.topic, message.payload, message.mid) == (packet.topic, packet.payload, packet.packet_id or 0)
        assert (message.dup, message.retain) == (packet.duplicate, packet.retain)
