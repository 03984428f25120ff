"""The history of metric values: what reports said, by thing and time, however it was packed, killed or expired."""

import asyncio
import json
import random
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.entries import frames_of
from actors.messages import Frames
from actors.metrics import kinds
from actors.series import Series
from actors.world import World
from config.kinds import ValueField
from config.model import NS, CustomMetric, Fleet, Group, Limits, Rules, SecurityProfile
from daemon.history import recorder, waiting
from daemon.history.recorder import RETENTION_NS, History

START_NS = 1_767_312_000 * NS
MS = 1_000_000
CHILD = Path(__file__).parents[1] / "history_child.py"
OUT, PORTS, PEERS = "aws:all-bytes-out", "aws:listening-tcp-ports", "aws:destination-ip-addresses"
KINDS: dict[str, ValueField] = {
    OUT: "count", PORTS: "ports", PEERS: "cidrs", "load": "number", "words": "strings", "list": "numbers",
}  # fmt: skip


def rules(*metrics: str, targets: tuple[str, ...] = ("all/things",), fleet: Fleet | None = None) -> Rules:
    """One profile that keeps these metrics, and judges nothing."""
    retained = [{"metric": name} for name in metrics or KINDS]
    profile = {"securityProfileName": "K", "targets": targets, "additionalMetricsToRetainV2": retained}
    custom = (("load", "number"), ("words", "string-list"), ("list", "number-list"))
    return Rules(
        profiles=(msgspec.convert(profile, SecurityProfile),),
        custom_metrics=tuple(CustomMetric(metric_name=name, metric_type=kind) for name, kind in custom),  # type: ignore[arg-type]  # literals
        fleet=fleet or Fleet(),
        limits=Limits(report_interval_s=0),
    )


class Rig:
    """A history fed as the pipeline feeds it, and what it should answer."""

    def __init__(self, history: History, wanted: Rules) -> None:
        self.history, self.world, self.position = history, World(wanted, kinds(), "log"), 0
        self.now_ns = START_NS
        self.told: dict[tuple[str, str], list[tuple[int, Any]]] = {}
        history.begin(0, self.world)

    async def hear(self, *reports: tuple[str, dict[str, Any]], every_ns: int = NS) -> None:
        """One batch: (thing, values by metric) each."""
        entries = []
        for thing, values in reports:
            self.position += 1
            self.now_ns += every_ns
            entries.append(
                (self.position, self.now_ns, f"$aws.things.{thing}.defender.metrics.json", self._body(values), None, 0)
            )
            for metric, value in values.items():
                self.told.setdefault((thing, metric), []).append((self.now_ns // MS * MS, value))
        self.take(frames_of(entries))
        await self.history.room()

    def take(self, frames: Frames) -> None:
        self.history.take(self.world.router.route(frames))

    def _body(self, values: dict[str, Any]) -> bytes:
        metrics: dict[str, Any] = {}
        custom: dict[str, Any] = {}
        for name, value in values.items():
            match name:
                case "aws:all-bytes-out":
                    metrics["network_stats"] = {"bytes_out": value, "bytes_in": 1, "packets_in": 1, "packets_out": 1}
                case "aws:listening-tcp-ports":
                    metrics["listening_tcp_ports"] = {"ports": [{"port": port} for port in value], "total": len(value)}
                case "aws:destination-ip-addresses":
                    peers = [{"remote_addr": f"{peer}:443"} for peer in value]
                    metrics["tcp_connections"] = {
                        "established_connections": {"connections": peers, "total": len(peers)}
                    }
                case "load":
                    custom[name] = [{"number": value}]
                case "words":
                    custom[name] = [{"string_list": value}]
                case "list":
                    custom[name] = [{"number_list": value}]
        header = {"report_id": self.position, "version": "1.0"}
        return json.dumps({"header": header, "metrics": metrics, "custom_metrics": custom}).encode()

    async def values(self, thing: str, metric: str, page: int = 250, since_ns: int = 0) -> list[tuple[int, Any]]:
        """All pages, oldest first."""
        found, place = await self.history.values(thing, Series(metric), KINDS[metric], since_ns, 2**62, None, page)
        seen = list(found)
        while place is not None:
            found, place = await self.history.values(thing, Series(metric), KINDS[metric], since_ns, 2**62, place, page)
            assert found
            seen += found
        return [(datum.time_ns, datum.value) for datum in reversed(seen)]

    async def check(self) -> None:
        for (thing, metric), wanted in self.told.items():
            assert await self.values(thing, metric) == wanted, (thing, metric)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async for one in opened(tmp_path, rules()):
        yield one


async def opened(folder: Path, wanted: Rules) -> AsyncIterator[Rig]:
    history = await History.open(folder / "history.sqlite")
    await history.adopt("log", 2**40)
    running = asyncio.create_task(history.run(nothing, no_rules))
    yield Rig(history, wanted)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await history.close()


async def nothing(first: int, last: int) -> AsyncIterator[Frames]:
    raise AssertionError((first, last))
    yield


async def no_rules(digest: str) -> Rules:
    raise AssertionError(digest)


def invented(chance: random.Random, things: int, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    for _ in range(count):
        values: dict[str, Any] = {
            OUT: chance.randrange(2**40) if chance.random() < 0.1 else chance.randrange(5000),
            PORTS: sorted(chance.sample([22, 80, 443, 8080, 65535], chance.randrange(4))),
            PEERS: [f"10.0.{chance.randrange(3)}.{n}" for n in range(chance.randrange(3))],
            "load": chance.choice([0.0, -1.5, 0.1, 1e300, float(chance.randrange(100))]),
            "words": [f"w{chance.randrange(50)}" for _ in range(1)],
            "list": [float(n) for n in range(chance.randrange(3))],
        }
        for name in list(values):
            if chance.random() < 0.3:
                del values[name]
        yield f"t{chance.randrange(things)}", values


async def test_values_of_every_kind_come_back_from_the_tail_from_chunks_and_across_both(rig: Rig) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    for turn in range(8):
        for _ in range(5):
            await rig.hear(*invented(chance, 5, 40))
        assert await rig.history.settled()
        if turn % 3 != 2:
            rig.history.packer.pack_soon()
        await rig.check()
        await rig.history.packer.packed()
    await rig.check()
    assert rig.history.counters.rows > 0


async def test_pages_of_any_size_give_the_same(rig: Rig) -> None:
    for _ in range(4):
        await rig.hear(*((f"t{n % 2}", {OUT: n}) for n in range(20)), every_ns=MS // 4)  # several in a millisecond
        await rig.history.settled()
        rig.history.packer.pack_soon()
        await rig.history.packer.packed()
    await rig.hear(("t0", {OUT: 99}))
    await rig.history.settled()
    for page in (1, 3, 7, 250):
        assert sorted(await rig.values("t0", OUT, page)) == sorted(rig.told["t0", OUT])


async def test_what_nobody_keeps_is_not_kept(tmp_path: Path) -> None:
    fleet = Fleet(groups={"pumps": Group(None, ("p1",))})
    async for rig in opened(tmp_path, rules(OUT, targets=("thinggroup/pumps",), fleet=fleet)):
        await rig.hear(("p1", {OUT: 1, "load": 2.0}), ("other", {OUT: 3}))
        await rig.history.settled()
        assert [value for _, value in await rig.values("p1", OUT)] == [1]
        assert await rig.values("p1", "load") == []
        assert await rig.values("other", OUT) == []


async def test_a_range_of_time_is_held_to(rig: Rig) -> None:
    await rig.hear(*(("t", {OUT: n}) for n in range(10)))
    await rig.history.settled()
    since = START_NS + 4 * NS
    found, _ = await rig.history.values("t", Series(OUT), "count", since, since + 3 * NS, None, 250)
    assert [datum.value for datum in found] == [6, 5, 4, 3]


async def test_what_is_older_than_fourteen_days_goes_and_the_thing_with_it(rig: Rig) -> None:
    await rig.hear(*(("old", {OUT: n}) for n in range(10)))
    await rig.history.settled()
    rig.history.packer.pack_soon()
    await rig.history.packer.packed()
    rig.now_ns += RETENTION_NS + 3600 * NS
    await rig.hear(("new", {OUT: 1}))
    await rig.history.settled()
    await rig.history.expire(rig.now_ns)
    assert await rig.values("old", OUT) == []
    assert len(await rig.values("new", OUT)) == 1
    assert rig.history.counters.expired > 0


async def test_the_file_keeps_to_its_most_bytes_by_dropping_the_oldest(rig: Rig) -> None:
    chance = random.Random(1)
    rig.history.packer.bytes_max = 200_000
    for _ in range(12):
        for _ in range(4):
            await rig.hear(*((f"t{n}", {OUT: chance.randrange(2**62)}) for n in range(500)), every_ns=NS)
        await rig.history.settled()
        rig.history.packer.pack_soon()
        await rig.history.packer.packed()
    assert rig.history.counters.dropped > 0
    newest = (await rig.values("t0", OUT))[-1]
    assert newest == rig.told["t0", OUT][-1]


async def test_a_full_queue_is_read_again_from_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written for a while (a hung disk): judging goes on, and nothing is missing in the end."""
    monkeypatch.setattr(waiting, "REPORTS_HELD_MAX", 100)
    monkeypatch.setattr(recorder, "ROOM_WAIT_S", 0.01)
    log: list[Frames] = []

    async def read_range(first: int, last: int) -> AsyncIterator[Frames]:
        for frames in log:
            if first <= int(frames.seq[0]) and int(frames.seq[-1]) <= last:
                yield frames

    history = await History.open(tmp_path / "history.sqlite")
    await history.adopt("log", 2**40)
    rig = Rig(history, rules(OUT))
    take = rig.take
    rig.take = lambda frames: (log.append(frames), take(frames))[1]  # type: ignore[method-assign]
    for _ in range(10):  # nobody writes yet
        await rig.hear(*((f"t{n}", {OUT: n}) for n in range(40)))
    assert history.counters.behind == 1
    running = asyncio.create_task(history.run(read_range, no_rules))
    async with asyncio.timeout(30):
        while not await history.settled():
            await asyncio.sleep(0.01)
    await rig.check()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await history.close()


async def test_a_disk_that_fills_up_under_a_checkpoint_is_not_the_daemons_end(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen: the copying of the WAL failed where the commit before it had found room."""

    async def full(_run: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    await rig.hear(("t", {OUT: 1}))
    with monkeypatch.context() as failing:
        failing.setattr(rig.history._readers, "run", full)
        assert not await rig.history.settled()
    assert await rig.history.settled()


async def test_a_damaged_file_is_set_aside_and_a_new_one_begun(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    path.write_bytes(b"this is no database" * 1000)
    history = await History.open(path)
    assert history.counters.started_afresh == 1
    assert (tmp_path / "history.sqlite.broken").exists()
    await history.close()


async def test_a_file_that_is_damaged_behind_its_first_page_is_set_aside_too(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    await (await History.open(path)).close()
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))
    history = await History.open(path)
    assert (history.counters.started_afresh, (tmp_path / "history.sqlite.broken").exists()) == (1, True)
    await history.close()


async def test_another_log_starts_its_positions_afresh_and_keeps_the_values(tmp_path: Path) -> None:
    async for rig in opened(tmp_path, rules(OUT)):
        await rig.hear(("t", {OUT: 1}))
        assert await rig.history.settled()
    history = await History.open(tmp_path / "history.sqlite")
    assert await history.adopt("log", 10) >= 1
    assert await history.adopt("another", 10) == 0
    await history.close()


async def test_reports_that_are_read_from_the_log_again_are_kept_once(tmp_path: Path) -> None:
    async for rig in opened(tmp_path, rules(OUT)):
        await rig.hear(*(("t", {OUT: n}) for n in range(5)))
        assert await rig.history.settled()
        wanted = rig.told
    async for again in opened(tmp_path, rules(OUT)):
        await again.hear(*(("t", {OUT: n}) for n in range(5)))  # the same entries
        await again.hear(("t", {OUT: 5}))
        assert await again.history.settled()
        assert await again.values("t", OUT) == [*wanted["t", OUT], again.told["t", OUT][-1]]


async def test_what_was_acknowledged_is_there_after_each_of_twenty_kills(tmp_path: Path) -> None:
    """A child writes on where the file ends, and says up to where all is durable; it is killed at any moment."""
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    path, acknowledged = tmp_path / "history.sqlite", 0
    for _ in range(20):
        child = await asyncio.create_subprocess_exec(
            sys.executable, str(CHILD), str(path), stdout=asyncio.subprocess.PIPE, cwd=CHILD.parents[1]
        )
        assert child.stdout is not None
        wanted = chance.randrange(1, 12)
        async with asyncio.timeout(60):
            for _ in range(wanted):
                acknowledged = max(acknowledged, int(await child.stdout.readline()))
        await asyncio.sleep(chance.random() * 0.02)  # somewhere within a commit
        child.send_signal(signal.SIGKILL)
        rest = await child.stdout.read()
        await child.wait()
        acknowledged = max([acknowledged, *(int(line) for line in rest.split(b"\n")[:-1])])
    history = await History.open(path)
    await history.adopt("log", 2**40)
    found = []
    place = None
    while not found or place is not None:
        data, place = await history.values("t", Series(OUT), "count", 0, 2**62, place, 10_000)
        found += [datum.value for datum in data]
    await history.close()
    assert found[::-1] == list(range(1, len(found) + 1))  # none missing, none twice
    assert len(found) >= acknowledged > 0
    with closing(sqlite3.connect(path)) as con:
        assert con.execute("PRAGMA integrity_check").fetchone() == ("ok",)
