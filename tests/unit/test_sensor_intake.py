"""Reports on the short way into the log: stored in order, acknowledged after that, bounded."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from naive_mqtt import publish
from sensing import LogDouble, until

from daemon.clock import SystemClock
from daemon.log.window import Refused
from daemon.sensor.counts import Counts
from daemon.sensor.intake import COST, Intake
from daemon.sensor.packets import REPORTS
from daemon.sensor.stream import Room, Stream, table_of
from daemon.sensor.valve import FULL, Valve

TOPIC = b"$aws/things/p1/defender/metrics/json"


class Client:
    """A link, as far as an intake knows it."""

    def __init__(self) -> None:
        self.told = b""
        self.valve = Valve()
        self.closed = False

    def say(self, answer: bytes) -> None:
        self.told += answer

    def close(self) -> None:
        self.closed = True


class Rig:
    def __init__(self, log: LogDouble, bytes_max: int = 1_000_000) -> None:
        self.log, self.counts = log, Counts()
        self.intake = Intake("plant", log, SystemClock(), self.counts, bytes_max)

    def take(self, client: Client, *numbers: int, payload: bytes = b"{}") -> None:
        for number in numbers:
            whole = publish(TOPIC, payload, 1 if number else 0, number)
            rows = Stream(REPORTS, Room()).read(whole)
            assert self.intake.take(client, whole, table_of(rows)) == len(whole)  # type: ignore[arg-type]

    def stored(self) -> list[tuple[str, bytes]]:
        return [(entry.subject, entry.payload) for entry in self.log.entries]


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig(LogDouble())
    yield rig
    await rig.intake.close()


def acks(*numbers: int) -> bytes:
    return b"".join(b"\x40\2" + number.to_bytes(2) for number in numbers)


async def test_a_report_is_acknowledged_when_the_log_has_it(rig: Rig) -> None:
    client, other = Client(), Client()
    rig.log.hung.clear()
    rig.take(client, 7)
    rig.take(other, 300)
    rig.take(client, 0)  # QoS 0: nobody waits for an answer
    for _ in range(5):
        await asyncio.sleep(0)
    assert (client.told, other.told) == (b"", b"")
    rig.log.hung.set()
    await until(lambda: rig.counts.reports == 3)
    assert (client.told, other.told) == (acks(7), acks(300))
    assert rig.stored() == [("$aws.things.p1.defender.metrics.json", b"{}")] * 3


async def test_what_comes_while_the_log_is_busy_is_one_batch_and_keeps_its_order() -> None:
    class Counting(LogDouble):
        calls = 0

        async def append_many(self, entries: Any, /) -> Any:
            self.calls += 1
            return await super().append_many(entries)

    rig, client = Rig(log := Counting()), Client()
    log.hung.clear()
    for number in range(1, 301):
        rig.take(client, number, payload=b"%d" % number)
        if number % 50 == 0:
            await asyncio.sleep(0)
    log.hung.set()
    await until(lambda: rig.counts.reports == 300)
    assert client.told == acks(*range(1, 301))
    assert [payload for _, payload in rig.stored()] == [b"%d" % number for number in range(1, 301)]
    assert log.calls == 2


async def test_while_the_log_is_away_reports_are_kept_and_come_once(rig: Rig) -> None:
    rig.log.away = True
    client = Client()
    rig.take(client, 1, 2)
    await until(lambda: rig.log.refusals >= 1)
    rig.take(client, 3)
    rig.log.away = False
    await until(lambda: rig.counts.reports == 3)
    assert client.told == acks(1, 2, 3)
    assert len(rig.stored()) == 3


async def test_a_client_waits_where_there_is_no_room_and_goes_on_when_there_is() -> None:
    rig = Rig(LogDouble(), bytes_max=3 * (COST + len(publish(TOPIC, b"{}", 1, 1))))
    rig.log.hung.clear()
    first, second = Client(), Client()
    rig.take(first, 1)
    rig.take(second, 1, 2, 3)
    assert (first.valve.shut, second.valve.shut) == (0, FULL)
    assert rig.counts.report_waits == 1
    rig.log.hung.set()
    await until(lambda: not second.valve.shut)
    assert second.told == acks(1, 2, 3), "what it had said by then was taken all the same"


async def test_what_the_log_will_never_take_costs_its_client_the_connection_and_nobody_else() -> None:
    class Strict(LogDouble):
        async def append_many(self, entries: Any, /) -> Any:
            if any(b"bad" in entry.payload for entry in entries):
                raise Refused("too large")
            return await super().append_many(entries)

    rig, client, other = Rig(Strict()), Client(), Client()
    rig.take(client, 1, payload=b"bad")
    await until(lambda: client.closed)
    rig.take(other, 2)
    await until(lambda: rig.counts.reports == 1)
    assert (client.told, other.told, other.closed) == (b"", acks(2), False)


async def test_at_the_end_what_was_taken_is_stored_and_acknowledged(rig: Rig) -> None:
    client = Client()
    rig.take(client, 1)
    await rig.intake.close()
    assert client.told == acks(1)
    assert len(rig.stored()) == 1


async def test_at_the_end_a_log_that_is_away_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.sensor.intake.LAST_S", 0.05)
    rig, client = Rig(LogDouble()), Client()
    rig.log.hung.clear()
    rig.take(client, 1)
    await rig.intake.close()
    assert client.told == b"", "it comes again"
