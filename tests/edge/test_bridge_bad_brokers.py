"""Brokers that flood, lie, refuse, hang up and send monsters: bounded memory, words, and back without a restart."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
from bad_broker import BadBroker, Connection
from bridging import ListenerDouble, LogDouble, running, source, until

from config.model import Bridge
from daemon.brokers._base import Entry, Source
from daemon.brokers.mqtt import MqttBridge

TOPIC = "$aws/things/p1/defender/metrics/json"
MB = 1024 * 1024
VERSIONS = pytest.mark.parametrize("version", ["5", "3.1.1"])


def plant(broker: BadBroker, **options: object) -> Bridge:
    return Bridge(name="plant", url=broker.url, **{"replies": "off", **options})  # type: ignore[arg-type]


def speaking(version: str, bridge: Source) -> Source:
    """From the first attempt, as it does once a broker has refused the other version."""
    assert isinstance(bridge, MqttBridge)
    bridge._version = version  # type: ignore[assignment]
    return bridge


class Counting(LogDouble):
    """Keeps no entry: what memory grows by is the bridge's."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.last = b""

    async def append_many(self, entries: Sequence[Entry], /) -> Sequence[int]:
        await self.gate.wait()
        first = self.count + 1
        self.count += len(entries)
        self.last = entries[-1].payload
        return range(first, self.count + 1)


class Peak:
    """The most memory of this process since `begin`."""

    def begin(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")
        self._start = self._most()

    def grown(self) -> int:
        return self._most() - self._start

    def _most(self) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


@VERSIONS
async def test_a_flood_while_the_log_is_away_fills_no_memory_and_loses_nothing(version: str) -> None:
    many, size = 60_000, 1000

    async def flood(connection: Connection) -> None:
        if len(broker.connections) > 1:
            return
        for number in range(many):
            await connection.publish(TOPIC, b"%d " % number + b"x" * size, mid=number % 65_535 + 1)

    log, peak = Counting(), Peak()
    log.gate.clear()
    async with BadBroker(flood).running() as broker:
        bridge = speaking(version, source(plant(broker), log, waiting_bytes_max=4 * MB))
        peak.begin()
        async with running(bridge):
            await until(lambda: bridge.counts.pauses)
            await stands_still(lambda: broker.connections[0].written)
            assert bridge.counts.received * size < 5 * MB
            assert peak.grown() < 48 * MB
            log.gate.set()
            await until(lambda: log.count == many, deadline_s=60)
            await until(lambda: len(broker.connections[0].acknowledged) == many)
    assert log.last.startswith(b"%d " % (many - 1))
    assert broker.connections[0].acknowledged == [number % 65_535 + 1 for number in range(many)]


async def stands_still(read: Callable[[], int]) -> None:
    """Until a number has not changed for a while: the other side waits."""
    before, same = read(), 0
    while same < 20:
        await asyncio.sleep(0.01)
        now = read()
        before, same = now, same + 1 if now == before else 0


@VERSIONS
async def test_100000_messages_of_qos_0_are_read_as_fast_as_the_log_takes_them(version: str) -> None:
    many = 100_000

    async def flood(connection: Connection) -> None:
        packets = connection.packet(TOPIC.encode(), b"{}", qos=0) * 100
        for _ in range(many // 100):
            await connection.send(packets)

    log, peak = Counting(), Peak()
    async with BadBroker(flood).running() as broker:
        bridge = speaking(version, source(plant(broker), log))
        peak.begin()
        async with running(bridge):
            await until(lambda: log.count == many, deadline_s=60)
    assert peak.grown() < 64 * MB
    assert bridge.counts.reconnects == 0


@VERSIONS
@pytest.mark.parametrize("retained", [True, False])
async def test_a_message_of_256_mb_is_cut_as_it_comes(version: str, retained: bool) -> None:
    """The connection survives it, and what follows is read."""

    async def deed(connection: Connection) -> None:
        await connection.monster(TOPIC, 256 * MB - 100, flags=retained, mid=7)
        await connection.publish(TOPIC, b"after", mid=8)

    log, peak = LogDouble(), Peak()
    async with BadBroker(deed).running() as broker:
        bridge = speaking(version, source(plant(broker), log, payload_bytes_max=1000))
        peak.begin()
        async with running(bridge):
            await until(lambda: b"after" in log.payloads, deadline_s=60)
            await until(lambda: broker.connections[0].acknowledged == [7, 8])
    assert peak.grown() < 32 * MB
    assert [len(payload) for payload in log.payloads] == ([5] if retained else [1001, 5])
    assert bridge.counts.retained == retained
    assert bridge.counts.oversize >= 1
    assert len(broker.connections) == 1


@VERSIONS
async def test_a_connection_that_breaks_inside_a_message_leaves_no_half_of_it(version: str) -> None:
    async def deed(connection: Connection) -> None:
        if len(broker.connections) == 1:
            await connection.publish(TOPIC, b"whole", mid=1)
            await connection.send(connection.packet(TOPIC.encode(), b"never whole" * 10, mid=2)[:-20])
            connection.writer.close()
        else:
            await connection.publish(TOPIC, b"next", mid=3)

    log = LogDouble()
    async with BadBroker(deed).running() as broker:
        bridge = speaking(version, source(plant(broker), log))
        async with running(bridge):
            await until(lambda: b"next" in log.payloads)
    assert log.payloads == [b"whole", b"next"]


def both(kinds: Iterable[str], *, except_311: str) -> list[tuple[str, str]]:
    """Each in both versions, but for the one that aiomqtt sees the other way."""
    pairs = [(version, kind) for kind in kinds for version in ("5", "3.1.1")]
    return [pair for pair in pairs if pair != ("3.1.1", except_311)]


NONSENSE = {
    "a message of QoS 2": lambda c: c.packet(TOPIC.encode(), b"{}", qos=2),
    "a message of QoS 3": lambda c: c.packet(TOPIC.encode(), b"{}", qos=3),
    "packet id 0": lambda c: c.packet(TOPIC.encode(), b"{}", mid=0),
    "a topic longer than its packet": lambda _: b"\x32\x05\xff\xffa\0\1",
    "a packet type that does not exist": lambda _: b"\x00\x00",
    "a length that never ends": lambda _: b"\x30\xff\xff\xff\xff\xff",
    "a long packet that is no message": lambda _: b"\x90\xff\xff\xff\x7f" + b"\0" * 100_000,
    "a second CONNACK that makes no sense": lambda _: b"\x20\xff\x7f" + b"\xff" * 16_383,
}


@pytest.mark.parametrize(("version", "what"), both(NONSENSE, except_311="packet id 0"))
async def test_nonsense_ends_the_connection_and_the_next_one_is_a_new_beginning(version: str, what: str) -> None:
    async def deed(connection: Connection) -> None:
        if len(broker.connections) == 1:
            await connection.send(NONSENSE[what](connection))
            await until(connection.writer.is_closing)
        await connection.publish(TOPIC, b"sense", mid=3)

    log, listener = LogDouble(), ListenerDouble()
    async with BadBroker(deed).running() as broker:
        async with running(speaking(version, source(plant(broker), log, listener))):
            await until(lambda: b"sense" in log.payloads)
    assert set(log.payloads) <= {b"sense", b"{}"}
    assert len(listener.downs) <= 1


ODD = {
    "a topic that is no UTF-8": lambda c: c.packet(b"$aws/things/\xff\xfe/defender/metrics/json", b"{}"),
    "an empty topic": lambda c: c.packet(b"", b"{}"),
    "a topic that nobody asked for": lambda c: c.packet(b"somewhere/else", b"{}"),
    "a wildcard in a topic": lambda c: c.packet(b"a/#", b"{}"),
    "an acknowledgement of what was not sent": lambda _: b"\x40\x02\x12\x34",
}


@pytest.mark.parametrize(("version", "what"), both(ODD, except_311="an empty topic"))
async def test_what_is_merely_odd_is_passed_over_and_acknowledged(version: str, what: str) -> None:
    async def deed(connection: Connection) -> None:
        await connection.send(ODD[what](connection))
        await connection.publish(TOPIC, b"sense", mid=3)

    log = LogDouble()
    async with BadBroker(deed).running() as broker:
        bridge = speaking(version, source(plant(broker), log))
        async with running(bridge):
            await until(lambda: log.payloads == [b"sense"])
            await until(lambda: 3 in broker.connections[0].acknowledged)
    assert len(broker.connections) == 1


async def test_a_subscription_that_is_refused_is_asked_for_again_until_it_is_granted() -> None:
    listener, log = ListenerDouble(), LogDouble()
    broker = BadBroker(lambda connection: connection.publish(TOPIC, b"at last"))
    broker.suback = lambda _topic: 0x87
    async with broker.running():
        bridge = source(plant(broker), log, listener)
        async with running(bridge, connected=False):
            await until(lambda: len(broker.connections) >= 3)
            assert "refuses the subscription" in str(bridge.status()["why"])
            broker.suback = lambda _topic: 1
            await until(lambda: b"at last" in log.payloads)
    assert len(listener.downs) == 1


async def test_a_broker_that_turns_down_wills_gets_none_and_no_birth() -> None:
    log = LogDouble()
    broker = BadBroker(lambda connection: connection.publish(TOPIC, b"in"))
    broker.connack = lambda connection: 0x87 if connection.has_will else 0
    async with broker.running():
        async with running(source(plant(broker), log)):
            await until(lambda: log.payloads)
    assert [one.has_will for one in broker.connections] == [True, True, False]
    assert not [topic for one in broker.connections for topic, _ in one.published if topic.endswith("/status")]


async def test_a_broker_that_hangs_up_on_our_birth_hears_it_twice_and_never_again() -> None:
    log = LogDouble()
    broker = BadBroker(lambda connection: connection.publish(TOPIC, b"in"))
    broker.on_publish = lambda _connection, topic: not topic.endswith("/status")
    async with broker.running():
        bridge = source(plant(broker), log)
        async with running(bridge):
            await until(lambda: len(broker.connections) >= 3)
            await until(lambda: bridge.counts.connected and broker.connections[-1].published)
            reconnects = len(broker.connections)
            await stands_still(lambda: len(broker.connections))
    assert len(broker.connections) == reconnects
    assert sum(topic.endswith("/status") for one in broker.connections for topic, _ in one.published) == 2


async def test_silence_is_told_when_it_begins_and_when_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    speak = asyncio.Event()

    async def deed(connection: Connection) -> None:
        await speak.wait()
        await connection.publish(TOPIC, b"still here")

    log = LogDouble()
    async with BadBroker(deed).running() as broker:
        bridge = source(plant(broker, silent_s=0.2), log)
        async with running(bridge):
            await until(lambda: bridge.counts.silent)
            assert bridge.status()["silent"] is True
            speak.set()
            await until(lambda: log.payloads)
            assert not bridge.counts.silent
    told = capsys.readouterr().out
    assert told.count("bridge.silent") == 1
    assert told.count("bridge.heard_again") == 1
