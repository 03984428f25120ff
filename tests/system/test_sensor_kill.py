"""kill -9 of the daemon, and its sensor with it: what was acknowledged is in the log, no device is blamed for it."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import nats
import pytest
from mqtt_load import Publisher
from nats_rig import entries
from system_tools import Daemon, Hooks, device, profile, report, serving, topic, until, write

from actors.events import CLIENT, COUNT, KIND, PUBLISHED, SUBJECT, unpacked
from daemon.nats.conf import DAEMON_USER
from daemon.nats.state import read_keys

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

KILLS: Final = 4
THINGS: Final = [f"k{number}" for number in range(20)]
IN_FLIGHT: Final = 12  # of each: 240 in all
WINDOW_S: Final = 2
LEAVES: Final = {
    "name": "leaves",
    "metric": "aws:num-disconnects",
    "criteria": {"comparisonOperator": "less-than-equals", "value": {"count": 0}, "durationSeconds": WINDOW_S},
}


def body(number: int) -> bytes:
    return json.dumps(report(number + 1)).encode()


@asynccontextmanager
async def publishing(daemon: Daemon) -> AsyncIterator[dict[str, Publisher]]:
    """One for each thing. Afterwards all that was sent is acknowledged, and they have left."""
    host, port = daemon.mqtt
    load = {name: Publisher(f"{host}:{port}", name, topic(name), body, window=IN_FLIGHT) for name in THINGS}
    async with asyncio.timeout(200), asyncio.TaskGroup() as tasks:
        for each in load.values():
            tasks.create_task(each.run())
        yield load
        for each in load.values():
            each.stop()


async def killed_under_load(daemon: Daemon, load: Collection[Publisher]) -> int:
    """How many messages were in flight."""
    before = [len(each.acked) for each in load]
    await until(lambda: all(len(each.acked) > was for each, was in zip(load, before, strict=True)), daemon.log)
    await until(lambda: sum(len(each.in_flight) for each in load) >= 200, daemon.log)
    in_flight = sum(len(each.in_flight) for each in load)
    await daemon.kill()
    await daemon.start()
    return in_flight


async def log_of(daemon: Daemon) -> tuple[dict[str, set[int]], Counter[str]]:
    """{thing: the reports that the log has}, {client: how often the sensor says that it published}."""
    keys = read_keys(daemon.data_dir / "nats")
    nc = await nats.connect(
        f"nats://127.0.0.1:{keys.nats_port}", user=DAEMON_USER, password=keys.daemon_password, allow_reconnect=False
    )
    try:
        reports: dict[str, set[int]] = {name: set() for name in THINGS}
        for entry in await entries(nc, "LOG", ["$aws.things.>"]):
            reports[entry.subject.split(".")[2]].add(json.loads(entry.payload)["header"]["report_id"] - 1)
        return reports, _published([entry.payload for entry in await entries(nc, "LOG", [SUBJECT + "embedded"])])
    finally:
        await nc.close()


def _published(payloads: Sequence[bytes]) -> Counter[str]:
    found: Counter[str] = Counter()
    for payload in payloads:
        read = unpacked(payload)
        assert read is not None
        content, table = read
        for row in table.tolist():
            if row[KIND] == PUBLISHED:
                found[content.clients[row[CLIENT]]] += row[COUNT]
    return found


async def test_after_kills_under_load_the_log_has_what_was_acknowledged_and_nobody_is_said_to_have_left(
    tmp_path: Path,
) -> None:
    rules: dict[str, Any] = {
        "profiles": [profile(LEAVES)],
        "limits": {"report_interval_s": 0, "durations": "any", "cloud_window_s": WINDOW_S, "grace_s": 1.5},
        "log": {"max_bytes": 1024**3, "guard_bytes": 128 * 1024**2},
    }
    async with Hooks() as hooks, serving(write(tmp_path, hooks, **rules)) as daemon:
        async with publishing(daemon) as load:
            in_flight = [await killed_under_load(daemon, load.values()) for _ in range(KILLS)]
            async with device(daemon.mqtt, "one-that-leaves"):
                pass
            # When this is told, it is settled what was told of the others in the time before.
            await hooks.seen("one-that-leaves", "leaves", "in-alarm")
            assert hooks.keys() == [("one-that-leaves", "leaves", "in-alarm")]
        for name in THINGS:
            await hooks.seen(name, "leaves", "in-alarm")
        reports, published = await log_of(daemon)
    print(f"{sum(len(each.acked) for each in load.values())} acknowledged, in flight at the kills: {in_flight}")
    for name, each in load.items():
        assert not set(each.acked) - reports[name], "acknowledged, and not in the log"
        sent_at_most = len(each.acked) + IN_FLIGHT * (each.connects - 1)
        assert 0 < published[name] <= sent_at_most, "counted, and not sent"
