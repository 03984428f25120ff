"""kill -9 of the daemon and of Mosquitto under QoS 1 load through a bridge: what is acknowledged is judged, and once.

Mosquitto 2.0.11 answers a publisher before its file has the message: killed in between, it loses the message, which
no bridge has seen. So of what it acknowledged in the last moment before its own death some may be missing.
"""

import asyncio
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, Final

import nats
import pytest
from mosquitto import Mosquitto
from mqtt_load import Gated
from nats_rig import entries
from system_tools import PORTS, Daemon, Hooks, profile, report, serving, topic, until, write

from daemon.nats.conf import DAEMON_USER
from daemon.nats.state import read_keys

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

KILLS: Final = 5
THINGS: Final = 10
WINDOW: Final = 12  # a thing's last 16 ids are remembered
MOOD_REPORTS: Final = 25
# It writes all down after each turn of its loop; of a client it reads one packet in a turn, so it becomes slow.
DURABLE: Final = ("autosave_interval 1", "autosave_on_changes true")


def is_wrong(number: int) -> bool:
    return number // MOOD_REPORTS % 2 == 1


def body(number: int) -> bytes:
    return json.dumps(report(number + 1, ports=[22, 4444] if is_wrong(number) else [22])).encode()


def expected(numbers: Iterable[int]) -> list[str]:
    """The events of a thing whose reports were each judged once, in order."""
    moods = [is_wrong(number) for number in sorted(numbers)]
    changes = [now for before, now in zip([False, *moods], moods, strict=False) if before != now]
    return ["in-alarm" if wrong else "alarm-cleared" for wrong in changes]


def configuration(folder: Path, hooks: Hooks, mosquitto: Mosquitto) -> Path:
    own = json.loads(write(folder, hooks).read_text())["broker"]
    bridges = [{"name": "plant", "url": f"mqtt://127.0.0.1:{mosquitto.port}"}]
    settings: dict[str, Any] = {"broker": own | {"bridges": bridges}, "profiles": [profile(PORTS)]}
    return write(folder, hooks, **settings, log={"max_bytes": 1024**3, "guard_bytes": 64 * 1024**2})


async def logged(daemon: Daemon) -> dict[str, list[int]]:
    """{thing: the numbers of its reports, as they stand in the log}."""
    keys = read_keys(daemon.data_dir / "nats")
    nc = await nats.connect(
        f"nats://127.0.0.1:{keys.nats_port}", user=DAEMON_USER, password=keys.daemon_password, allow_reconnect=False
    )
    numbers = defaultdict(list)
    try:
        for entry in await entries(nc, "LOG", ["detectd.log.report.plant.>"]):
            numbers[entry.subject.split(".")[4]].append(json.loads(entry.payload)["header"]["report_id"] - 1)
    finally:
        await nc.close()
    return numbers


async def kill_one(daemon: Daemon, mosquitto: Mosquitto, victim: str, doubt: Callable[[], None]) -> None:
    """`doubt` is called at the moment of Mosquitto's death."""
    if victim != "mosquitto":
        await daemon.kill()
    if victim != "daemon":
        doubt()
        mosquitto.kill()
        await mosquitto.start()
    if victim != "mosquitto":
        await daemon.start()
    await daemon.until_metric("detectd_bridge_connected", 1)


@pytest.mark.parametrize("victims", [("daemon",), ("mosquitto",), ("daemon", "mosquitto", "both")], ids="-".join)
async def test_what_was_acknowledged_is_judged_once(tmp_path: Path, victims: tuple[str, ...]) -> None:
    seed = int(os.environ.get("KILL_SEED") or Random().randrange(10**6))
    print(f"KILL_SEED={seed}")
    rng = Random(seed)
    mosquitto = Mosquitto(tmp_path / "mosquitto", *(DURABLE if victims != ("daemon",) else ()))
    await mosquitto.start()
    publishers = {
        f"k{i}": Gated(f"127.0.0.1:{mosquitto.port}", f"load-{i}", topic(f"k{i}"), body, window=WINDOW)
        for i in range(THINGS)
    }
    gate = asyncio.Event()
    for publisher in publishers.values():
        publisher.gate = gate
    doubtful: dict[str, set[int]] = {thing: set() for thing in publishers}

    def doubt() -> None:
        for thing, publisher in publishers.items():
            doubtful[thing].update(publisher.acked[-2 * WINDOW :], publisher.in_flight)

    try:
        async with Hooks() as hooks, serving(configuration(tmp_path, hooks, mosquitto)) as daemon:
            await daemon.until_metric("detectd_bridge_connected", 1)
            async with asyncio.timeout(200), asyncio.TaskGroup() as tasks:
                for publisher in publishers.values():
                    tasks.create_task(publisher.run())
                for _ in range(KILLS):
                    gate.set()
                    await some_more(publishers.values(), rng)
                    killing = asyncio.create_task(kill_one(daemon, mosquitto, rng.choice(victims), doubt))
                    await asyncio.sleep(0.05)  # some of it while they are away
                    gate.clear()
                    await killing
                for publisher in publishers.values():
                    publisher.stop()
            acked = {thing: set(publisher.acked) for thing, publisher in publishers.items()}
            await until_quiet(daemon, acked, doubtful)
            have = await logged(daemon)
            wanted = {thing: expected(set(numbers)) for thing, numbers in have.items()}
            await until(lambda: len(hooks.notices) >= sum(map(len, wanted.values())), daemon.log)
            said = {thing: [one.type for one in hooks.notices if one.thing == thing] for thing in wanted}
            assert await daemon.stop() == 0
    finally:
        mosquitto.kill()
    lost = sum(len(acked[thing] - set(have[thing])) for thing in acked)
    repeats = sum(len(numbers) - len(set(numbers)) for numbers in have.values())
    print(f"{sum(map(len, acked.values()))} reports, {repeats} twice in the log, {lost} lost by Mosquitto, {wanted}")
    for thing, numbers in have.items():
        assert said[thing] == wanted[thing], f"{thing}: of {len(numbers)} in the log, at {disorder(numbers)}"
    assert sum(map(len, wanted.values())) > 2 * THINGS, "the load was too light to prove anything"


def disorder(numbers: list[int]) -> list[list[int]]:
    """Where the log does not count up, with what is around."""
    steps = pairwise(numbers)
    return [numbers[max(0, i - 3) : i + 4] for i, (one, next_one) in enumerate(steps) if next_one != one + 1][:5]


async def some_more(publishers: Iterable[Gated], rng: Random) -> None:
    """Load until a random moment."""
    publishers = list(publishers)
    before = sum(len(one.acked) for one in publishers)
    await until(lambda: sum(len(one.acked) for one in publishers) > before + 300 + rng.randrange(300), "load")


async def until_quiet(daemon: Daemon, acked: dict[str, set[int]], doubtful: dict[str, set[int]]) -> None:
    """Until the log has all that it must have: what was acknowledged, but for what Mosquitto itself may have lost."""
    for _ in range(400):  # the bridge may wait a minute between two attempts
        have = await logged(daemon)
        missing = {thing: acked[thing] - doubtful[thing] - set(have[thing]) for thing in acked}
        if not any(missing.values()):
            return
        await asyncio.sleep(0.3)
    bridges = (await daemon.get("/-/status"))[1]["bridges"]
    pytest.fail(f"acknowledged, and not in the log: {missing}; {bridges}; {daemon.log()}")
