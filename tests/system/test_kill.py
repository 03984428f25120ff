"""kill -9 of daemon and nats-server at random moments under load: nothing acknowledged is lost, nothing told twice."""

import asyncio
import json
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, Final

import aiomqtt
import nats
import pytest
from mqtt_load import Gated
from nats_rig import entries
from system_tools import (
    DEADLINE_S,
    PORTS,
    Daemon,
    Hooks,
    free_port,
    profile,
    report,
    send,
    serving,
    stored_events,
    topic,
    until,
    write,
)

from daemon.nats.conf import DAEMON_USER
from daemon.nats.state import read_keys

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

KILLS: Final = 22
THINGS: Final = 20
# Together 240 in flight. A thing's last 16 ids are remembered, so what one publisher may send again is recognised.
WINDOW: Final = 12
MOOD_REPORTS: Final = 60
LEVEL: Final = {
    "name": "level",
    "metric": "level",
    "criteria": {
        "comparisonOperator": "less-than",
        "value": {"number": 50},
        "consecutiveDatapointsToAlarm": 3,
        "consecutiveDatapointsToClear": 2,
    },
}
RULES: Final[dict[str, Any]] = {
    "profiles": [profile(PORTS, LEVEL)],
    "custom_metrics": [{"metricName": "level", "metricType": "number"}],
    "log": {"max_bytes": 1024**3, "guard_bytes": 128 * 1024**2},
}


def body(number: int) -> bytes:
    """The `number`th report of a thing: its ports are wrong for a while, then good; its level likewise, out of step."""
    is_wrong = number // MOOD_REPORTS % 2 == 1
    level = 80 if number // (MOOD_REPORTS + 7) % 2 == 1 else 20
    fields = report(number + 1, ports=[22, 4444] if is_wrong else [22, 443])
    return json.dumps(fields | {"custom_metrics": {"level": [{"number": level}]}}).encode()


class Load:
    """Twenty publishers, each for a thing of its own."""

    def __init__(self, mqtt: tuple[str, int], counts: Sequence[int] | None = None) -> None:
        self.gate = asyncio.Event()
        self.publishers = []
        for i in range(THINGS):
            count = {} if counts is None else {"count": counts[i]}
            publisher = Gated(f"{mqtt[0]}:{mqtt[1]}", f"load-{i}", topic(f"k{i}"), body, window=WINDOW, **count)
            publisher.gate = self.gate
            self.publishers.append(publisher)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Afterwards all that was sent has been acknowledged."""
        async with asyncio.timeout(200), asyncio.TaskGroup() as tasks:
            for publisher in self.publishers:
                tasks.create_task(publisher.run())
            yield
            for publisher in self.publishers:
                publisher.stop()

    def acked(self) -> int:
        return sum(len(publisher.acked) for publisher in self.publishers)

    def in_flight(self) -> int:
        return sum(len(publisher.in_flight) for publisher in self.publishers)


async def kill_at_a_random_moment(daemon: Daemon, load: Load, rng: Random) -> int:
    """Under load; returns how many messages were in flight. Afterwards the daemon is starting, or its server is."""
    before = load.acked()
    load.gate.set()
    await until(lambda: load.acked() > before + 200, lambda: f"acknowledgements; {daemon.log()}")
    await asyncio.sleep(rng.uniform(0, 0.15))  # the random moment
    in_flight = load.in_flight()
    victim = rng.choice(["daemon", "server", "server", "both", "server, then daemon"])
    if victim != "daemon":
        daemon.kill_nats()
    if victim == "server, then daemon":
        await asyncio.sleep(rng.uniform(0, 0.3))  # somewhere in the middle of its repair
    if victim != "server":
        await daemon.kill()
    load.gate.clear()
    if victim != "server":
        await daemon.start(ready=False)
    print(
        f"{asyncio.get_running_loop().time():.1f} killed {victim}, {in_flight} in flight, {load.acked()} acknowledged"
    )
    return in_flight


async def ready_again(daemon: Daemon) -> None:
    """A daemon whose server was killed while it was being prepared may end: then start it, as systemd does."""
    async with asyncio.timeout(DEADLINE_S):
        while not await daemon.is_ready():
            if daemon.has_ended:
                await daemon.start(ready=False)
            await asyncio.sleep(0.02)


async def settled(daemon: Daemon, hooks: Hooks) -> None:
    """Everything published before has been judged and told."""
    await say_the_end(daemon)
    await hooks.seen("the-end", "ports", "in-alarm", within_s=100)
    # The end was judged after all the others, but is told beside them.
    events = len(stored_events(daemon))
    await until(lambda: len(hooks.notices) >= events, lambda: f"{events} webhooks; {daemon.log()}", within_s=100)


async def say_the_end(daemon: Daemon) -> None:
    """A report from a last thing. The server may just have been killed, unnoticed yet: then try again."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                return await send(daemon.mqtt, "the-end", report(1, ports=[4444]))
            except aiomqtt.MqttError:
                await asyncio.sleep(0.1)


Events = dict[str, list[tuple[str, str]]]


def by_thing(hooks: Hooks) -> Events:
    """{thing: its events in the order in which they arrived}."""
    events = defaultdict(list)
    for notice in hooks.notices:
        events[notice.thing].append((notice.behavior, notice.type))
    return dict(events)


def first_differences(disturbed: Events, calm: Events) -> dict[str, str]:
    """{thing: where its events begin to differ}; empty: they don't."""
    differences = {}
    for thing in disturbed.keys() | calm.keys():
        ours, theirs = disturbed.get(thing, []), calm.get(thing, [])
        if ours != theirs:
            at = next((i for i, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), -1)
            near = slice(max(0, at - 3), at + 4)
            differences[thing] = f"at {at} of {len(ours)}/{len(theirs)}: {ours[near]} instead of {theirs[near]}"
    return differences


async def logged_numbers(daemon: Daemon) -> dict[str, set[int]]:
    """{subject: the reports that the log has}, by the daemon's own keys."""
    keys = read_keys(daemon.data_dir / "nats")
    nc = await nats.connect(
        f"nats://127.0.0.1:{keys.nats_port}", user=DAEMON_USER, password=keys.daemon_password, allow_reconnect=False
    )
    numbers = defaultdict(set)
    try:
        for entry in await entries(nc, "LOG", ["$aws.things.>"]):
            numbers[entry.subject].add(json.loads(entry.payload)["header"]["report_id"] - 1)
    finally:
        await nc.close()
    return numbers


@pytest.mark.parametrize("delay_s", [0.0, 0.02, 0.06, 0.12, 0.2])
async def test_a_server_that_dies_while_the_daemon_starts_is_started_again(tmp_path: Path, delay_s: float) -> None:
    async with serving(write(tmp_path)) as daemon:
        await daemon.kill()
        daemon.kill_nats()
        await daemon.start(ready=False)
        await until(lambda: "broker.started" in daemon.log().rpartition("http.listening")[2], daemon.log)
        await asyncio.sleep(delay_s)
        daemon.kill_nats()
        await ready_again(daemon)
        assert await daemon.stop() == 0


async def test_events_are_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    seed = int(os.environ.get("KILL_SEED") or Random().randrange(10**6))
    print(f"KILL_SEED={seed}")
    rng = Random(seed)
    async with Hooks() as hooks, Hooks() as calm_hooks:
        async with serving(write(tmp_path / "killed", hooks, **RULES)) as daemon:
            load, in_flight = Load(daemon.mqtt), []
            async with load.running():
                for _ in range(KILLS):
                    in_flight.append(await kill_at_a_random_moment(daemon, load, rng))
                    if rng.random() < 0.8:  # else the next one comes while it is still recovering
                        await ready_again(daemon)
                await ready_again(daemon)
            counts = [len(set(publisher.acked)) for publisher in load.publishers]
            await settled(daemon, hooks)
            logged = await logged_numbers(daemon)
            assert await daemon.stop() == 0
        async with serving(write(tmp_path / "calm", calm_hooks, **RULES)) as calm:
            again = Load(calm.mqtt, counts)
            again.gate.set()
            async with again.running():
                await until(lambda: again.acked() == sum(counts), "the undisturbed run", within_s=100)
            await settled(calm, calm_hooks)
    print(f"{sum(counts)} reports, {len(hooks.notices)} events, in flight at the kills: {in_flight}")
    assert max(in_flight) >= 200, "the load was too light to prove anything"
    for i, publisher in enumerate(load.publishers):
        missing = set(publisher.acked) - logged[f"$aws.things.k{i}.defender.metrics.json"]
        assert not missing, f"acknowledged, and not in the log: {sorted(missing)[:10]} of k{i}"
    assert len(calm_hooks.notices) > 2 * THINGS
    assert first_differences(by_thing(hooks), by_thing(calm_hooks)) == {}
    events = [(notice.violation_id, notice.type) for notice in hooks.notices]
    assert len(set(events)) == len(events), "an event was told again under another webhook-id"


async def test_a_daemon_killed_while_the_receiver_is_away_tells_it_once_later(tmp_path: Path) -> None:
    async with Hooks() as hooks, serving(write(tmp_path, hooks)) as daemon:
        hooks.status = 503
        await send(daemon.mqtt, "t1", report(1, ports=[4444]), report(2, ports=[22]))
        await daemon.until_metric("detectd_events_total", 2)
        await daemon.kill()
        hooks.status = 204
        await daemon.start()
        await hooks.seen("t1", "ports", "alarm-cleared")
        assert hooks.keys() == [("t1", "ports", "in-alarm"), ("t1", "ports", "alarm-cleared")]


async def test_a_killed_daemon_takes_over_the_server_that_it_left(tmp_path: Path) -> None:
    embedded = {"mqtt": f"127.0.0.1:{free_port()}", "sensor": False}
    async with serving(write(tmp_path, broker={"embedded": embedded})) as daemon:
        before = daemon.nats_pids()
        await daemon.kill()
        await send(daemon.mqtt, "t1", report(1))  # devices don't notice
        await daemon.start()
        assert daemon.nats_pids() == before
        assert await daemon.stop() == 0
        assert daemon.nats_pids() == []
