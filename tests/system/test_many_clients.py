"""Ten thousand clients on the embedded broker: all are let in and watched, one of them floods, and nobody else pays.

Each takes two descriptors of the daemon, one of nats-server, and one of ours. Where a process may not have that many,
as many as it may have are held at a time, and the rest come in the places of others that left.
"""

import asyncio
import json
import resource
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import pytest
from crowd import AT_ONCE, Member, come, in_waves
from environments import cannot
from system_tools import DEADLINE_S, PORTS, Daemon, Hooks, profile, report, serving, topic, until, write

from daemon.sensor.listener import FILES_KEPT

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

CLIENTS: Final = 10_000
FILES_LEAST: Final = 10_000  # for less there is no crowd
SHELL_FILES: Final = 1024  # what a login shell or a unit file gives
FILES_MORE: Final = 32  # what may have been opened meanwhile, and is not a client's
IDLE_BYTES: Final = 20_000
MESSAGES: Final = 3
FLOOD: Final = 300
WINDOW_S: Final = 10
FLOODER: Final = "c0"

LOUDEST: Final = {
    "name": "loudest",
    "metric": "aws:num-messages-sent",
    "criteria": {
        "comparisonOperator": "less-than-equals",
        "statisticalThreshold": {"statistic": "p99.9"},
        "durationSeconds": WINDOW_S,
    },
}


@pytest.fixture
def hard_limit() -> Iterator[int]:
    """Descriptors that a process may have; ours has as few as a shell gives until `raised`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < FILES_LEAST:
        cannot(f"a process may have {hard} descriptors: ten thousand clients need {2 * CLIENTS + FILES_KEPT}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, SHELL_FILES), hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@asynccontextmanager
async def watching(folder: Path, hooks: Hooks, hard_limit: int) -> AsyncIterator[Daemon]:
    """A daemon that was started from a shell; from then on we may have as many descriptors as there are."""
    config = write(
        folder, hooks,
        profiles=[profile(PORTS, LOUDEST)],
        limits={"report_interval_s": 0, "durations": "any", "cloud_window_s": WINDOW_S, "grace_s": 1.5},
    )  # fmt: skip
    async with serving(config) as daemon:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
        yield daemon


@asynccontextmanager
async def always_ready(daemon: Daemon) -> AsyncIterator[None]:
    """Asked twice a second."""
    answers: list[bool] = []

    async def ask() -> None:
        while True:
            answers.append(await daemon.is_ready())
            await asyncio.sleep(0.5)

    task = asyncio.create_task(ask())
    yield
    task.cancel()
    await asyncio.wait([task])
    assert answers
    assert all(answers), f"{answers.count(False)} of {len(answers)} times not ready; {daemon.log()}"


async def day(member: Member) -> None:
    """What a device has to say: a few messages, and a report."""
    messages = [(f"dt/{member.name}/up", b"21.5")] * (FLOOD if member.name == FLOODER else MESSAGES)
    await member.publish(*messages, (topic(member.name), json.dumps(report(1)).encode()))


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident bytes of the daemon and of its nats-server."""

    daemon: int
    nats: int

    @classmethod
    def of(cls, daemon: Daemon) -> Self:
        return cls(_resident(daemon.pid), sum(_resident(pid) for pid in daemon.nats_pids()))

    def per_client(self, before: "Memory", clients: int) -> "Memory":
        return Memory((self.daemon - before.daemon) // clients, (self.nats - before.nats) // clients)


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def files_of(daemon: Daemon) -> int:
    return len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))


async def until_metric_is(daemon: Daemon, name: str, value: float) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while await daemon.metric(name) != value:
            await asyncio.sleep(0.1)


async def a_window_begins() -> None:
    """The flood and what is compared with it belong into one."""
    await until(lambda: time.time() % WINDOW_S < 1, "a window begins")


async def leave(daemon: Daemon, members: Sequence[Member], *, remain: int) -> None:
    """Every other one without a word."""
    for number, member in enumerate(members):
        (member.leave if number % 2 else member.vanish)()
    await until_metric_is(daemon, "detectd_sensor_connections", remain)


async def test_ten_thousand_clients_are_let_in_and_watched_and_the_one_that_floods_is_told_from_the_rest(
    tmp_path: Path, hard_limit: int
) -> None:
    # Those who are just coming may count twice against the sensor's bound.
    places = min(CLIENTS, (hard_limit - FILES_KEPT) // 2 - AT_ONCE)
    names = [f"c{number}" for number in range(CLIENTS)]
    async with Hooks() as hooks, watching(tmp_path, hooks, hard_limit) as daemon:
        before, files_before = Memory.of(daemon), files_of(daemon)
        async with always_ready(daemon):
            members = await come(daemon.mqtt, names[:places])
            assert all(member.is_in for member in members)
            await until_metric_is(daemon, "detectd_clients", places)
            each = Memory.of(daemon).per_client(before, places)
            print(f"{places} of {CLIENTS} clients held at once; bytes for each: {each}")
            assert each.daemon <= IDLE_BYTES

            await a_window_begins()
            await in_waves(members, day)
            await hooks.seen(FLOODER, "loudest", "in-alarm")
            await hooks.seen(FLOODER, "loudest", "alarm-cleared")

            rest = names[places:]
            await leave(daemon, members[places - len(rest) :], remain=places - len(rest))
            others = await come(daemon.mqtt, rest)
            await in_waves(others, day)
            await until_metric_is(daemon, "detectd_clients", CLIENTS)
            await until_metric_is(daemon, "detectd_reports_accepted_total", CLIENTS)
            present = [*members[: places - len(rest)], *others]
            assert all(member.is_in for member in present)

            await leave(daemon, present, remain=0)
            await until_metric_is(daemon, "detectd_sensor_disconnected_total", CLIENTS)
        assert hooks.keys() == [(FLOODER, "loudest", "in-alarm"), (FLOODER, "loudest", "alarm-cleared")]
        for trouble in ("crowded", "connect_failed", "unreachable", "malformed", "dropped"):
            assert await daemon.metric(f"detectd_sensor_{trouble}_total") == 0, trouble
        sent = CLIENTS + (CLIENTS - 1) * MESSAGES + FLOOD
        assert await daemon.metric("detectd_sensor_published_total") == sent
        await until(lambda: files_of(daemon) <= files_before + FILES_MORE, lambda: f"{files_of(daemon)} descriptors")
        assert await daemon.stop() == 0
        assert daemon.nats_pids() == []


async def test_clients_beyond_the_descriptors_are_turned_away_and_counted_until_others_leave(
    tmp_path: Path, hard_limit: int
) -> None:
    places, more = 100, 50
    async with Hooks() as hooks, watching(tmp_path, hooks, hard_limit) as daemon, always_ready(daemon):
        files = FILES_KEPT + 2 * places
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (files, files))
        members = await come(daemon.mqtt, [f"c{number}" for number in range(places + more)], at_once=1)
        held = [member for member in members if member.is_in]
        assert len(held) == places
        assert await daemon.metric("detectd_sensor_crowded_total") == more
        await in_waves(held, day)  # who is in, stays in and is served

        await leave(daemon, held[:more], remain=places - more)
        others = await come(daemon.mqtt, [f"d{number}" for number in range(more)], at_once=1)
        assert all(member.is_in for member in [*held[more:], *others])
        await leave(daemon, [*held[more:], *others], remain=0)
