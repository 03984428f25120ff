"""What the history keeps, for whom and for how long: over a real file, packed or not, before a restart and after."""

import asyncio
import random
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from builders import START, Said, behavior, frames, numbered, profile, report, rules, world

from actors.messages import Frames
from actors.router import Routed
from actors.series import Series
from actors.world import World
from config.model import NS, Dimension, MetricDimension, MetricToRetain, Rules, SecurityProfile
from daemon.history import chunks, packer
from daemon.history.points import Key, Points
from daemon.history.recorder import History
from daemon.history.tables import HistoryError

BYTES = behavior("aws:all-bytes-out", "less-than", 1000, duration=300)
PORTS = behavior("aws:listening-tcp-ports", "in-port-set", [22], name="ports")
LATER = START + 10**6 * NS


def retaining(*metrics: str, **more: Any) -> Rules:
    return rules(SecurityProfile("kept", additional_metrics_to_retain=metrics, targets=("all/things",)), **more)


@asynccontextmanager
async def opened(folder: Path, first: Rules | World, after: int = 0) -> AsyncIterator[tuple[History, World]]:
    """A history that runs, and the world that it was told of."""
    one = first if isinstance(first, World) else world(first)
    history = await History.open(folder / "history.db", backoff=lambda _: 0.01)
    await history.adopt("log", 10**9)
    history.begin(after, one)
    task = asyncio.create_task(history.run(unread, undefined))
    try:
        yield history, one
    finally:
        task.cancel()
        await asyncio.wait([task])
        await history.close()


async def unread(_first: int, _last: int) -> AsyncIterator[Frames]:
    pytest.fail("the log was read again")
    yield frames([])


async def undefined(_: str) -> Rules:
    pytest.fail("no rules are asked for")


async def heard(history: History, one: World, log: Iterable[Said], after: int = 0) -> None:
    """Told as the entries behind position `after`, and durable."""
    placed = [replace(said, position=said.position + after) for said in numbered(log)]
    history.take(one.router.route(frames(placed)))
    assert await history.settled()


def put(history: History, key: Key, ms: int, position: int) -> None:
    """A closed window of p1, as an actor formed it; its value is the position."""
    points = Points([b"p1"], np.array([ms]), (key,), np.array([[position]]), [])
    history.put_later("group", lambda: points, len(points), position)


async def values(
    history: History, thing: str, metric: str, field: Any = "count", since: int = 0, until: int = LATER
) -> list[tuple[float, Any]]:
    """(seconds since START, value), newest first, gathered from pages of 3."""
    found: list[tuple[float, Any]] = []
    place = None
    while True:
        page, place = await history.values(thing, Series(metric), field, since, until, place, 3)
        assert len(page) == 3 or place is None
        found += [((datum.time_ns - START) / NS, datum.value) for datum in page]
        if place is None:
            return found


async def pack(history: History) -> None:
    await history.packer.packed()  # what may have become due by itself
    history.packer.pack_soon()
    await history.packer.packed()
    assert history.state == "ok"


async def test_a_report_is_a_datapoint_of_the_metrics_that_behaviors_name_and_of_no_other(tmp_path: Path) -> None:
    async with opened(tmp_path, rules(profile(BYTES, PORTS))) as (history, one):
        await heard(history, one, [report("p1", 0, bytes_out=7, bytes_in=9, tcp=(443, 22, 443))])
        assert await values(history, "p1", "aws:all-bytes-out") == [(0, 7)]
        assert await values(history, "p1", "aws:listening-tcp-ports", "ports") == [(0, [443, 22])]
        assert await values(history, "p1", "aws:all-bytes-in") == []


async def test_only_things_among_the_targets_are_kept_and_each_for_its_own_profiles(tmp_path: Path) -> None:
    ours = rules(
        profile(BYTES, targets=["thinggroup/site"]), profile(PORTS, name="q", targets=["all/unregistered-things"]),
        groups={"site": [], "pumps": ["p1"]}, parents={"pumps": "site"}, things=["p2"],
    )  # fmt: skip
    async with opened(tmp_path, ours) as (history, one):
        await heard(history, one, [report(thing, 0, bytes_out=1, tcp=(22,)) for thing in ("p1", "p2", "stranger")])
        assert await values(history, "p1", "aws:all-bytes-out") == [(0, 1)]
        assert await values(history, "p1", "aws:listening-tcp-ports", "ports") == []
        assert await values(history, "p2", "aws:all-bytes-out") == []
        assert await values(history, "stranger", "aws:all-bytes-out") == []
        assert await values(history, "stranger", "aws:listening-tcp-ports", "ports") == [(0, [22])]


async def test_a_metric_that_is_only_retained_is_kept_in_either_form(tmp_path: Path) -> None:
    kept = (
        MetricToRetain("aws:all-bytes-in"),
        MetricToRetain("aws:num-messages-sent", MetricDimension("D")),  # of the cloud's side: no report has it
    )
    v2 = SecurityProfile("v2", additional_metrics_to_retain_v2=kept, targets=("all/things",))
    v1 = SecurityProfile("v1", additional_metrics_to_retain=("aws:all-packets-in",), targets=("all/things",))
    async with opened(tmp_path, rules(v1, v2)) as (history, one):
        await heard(history, one, [report("p1", 0, bytes_in=5, packets_in=6)])
        assert await values(history, "p1", "aws:all-bytes-in") == [(0, 5)]
        assert await values(history, "p1", "aws:all-packets-in") == [(0, 6)]


async def test_a_report_that_was_turned_away_is_no_datapoint(tmp_path: Path) -> None:
    async with opened(tmp_path, world(rules(profile(BYTES)), interval_default_s=300)) as (history, one):
        await heard(history, one, [report("p1", 0, bytes_out=1), report("p1", 5, bytes_out=2)])
        assert await values(history, "p1", "aws:all-bytes-out") == [(0, 1)]


async def test_a_set_is_kept_whole_whatever_behaviors_name_of_it(tmp_path: Path) -> None:
    types = {"ss": "string-list", "ips": "ip-address-list"}
    named = behavior("ss", "in-set", ["on"])
    async with opened(tmp_path, rules(profile(named), retaining("ips").profiles[0], custom=types)) as (history, one):
        said = {
            "ss": ("string-list", ["on", "unheard-of", "on"]),
            "ips": ("ip-address-list", ["10.0.0.1", "2001:db8::1"]),
        }
        none = {"ss": ("string-list", [])}
        await heard(history, one, [report("p1", 0, said), report("p1", 300, none)])
        for _ in range(2):
            assert await values(history, "p1", "ss", "strings") == [(300, []), (0, ["on", "unheard-of"])]
            assert await values(history, "p1", "ips", "cidrs") == [(0, ["10.0.0.1", "2001:db8::1"])]
            await pack(history)


async def test_random_histories_read_the_same_from_memory_from_chunks_and_after_a_restart(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    print("seed", seed)
    chance = random.Random(seed)
    one, position, at_ms = world(rules(profile(BYTES, PORTS))), 0, 0
    expected: dict[tuple[str, str], list[tuple[float, Any]]] = {}
    for _ in range(6):
        async with opened(tmp_path, one, position) as (history, _):
            for _ in range(chance.randrange(1, 30)):
                log = []
                for _ in range(chance.randrange(1, 40)):
                    at_ms += chance.choice((0, 1, 1000, 300_000))
                    thing, value = f"p{chance.randrange(5)}", chance.choice((0, 3, 10**6, 2**62))
                    ports = chance.choice((None, (), (22,), (443, 22)))
                    log.append(report(thing, at_ms / 1000, bytes_out=value, tcp=ports))
                    expected.setdefault((thing, "aws:all-bytes-out"), []).insert(0, (at_ms / 1000, value))
                    if ports is not None:
                        expected.setdefault((thing, "aws:listening-tcp-ports"), []).insert(0, (at_ms / 1000, [*ports]))
                await heard(history, one, log, position)
                position += len(log)
                if chance.random() < 0.6:
                    await pack(history)
            for (thing, metric), wanted in expected.items():
                field = "count" if "bytes" in metric else "ports"
                assert await values(history, thing, metric, field) == wanted


async def test_a_range_has_both_its_ends(tmp_path: Path) -> None:
    async with opened(tmp_path, rules(profile(BYTES))) as (history, one):
        await heard(history, one, [report("p1", at, bytes_out=at) for at in (0, 10, 20, 30)])
        for _ in range(2):
            found = await values(history, "p1", "aws:all-bytes-out", since=START + 10 * NS, until=START + 20 * NS)
            assert found == [(20, 20), (10, 10)]
            await pack(history)


async def test_pages_are_stable_while_datapoints_come_and_are_packed(tmp_path: Path) -> None:
    async with opened(tmp_path, rules(profile(BYTES))) as (history, one):
        await heard(history, one, [report("p1", at // 4, bytes_out=at) for at in range(20)])  # four an instant
        series, place, found = Series("aws:all-bytes-out"), None, []
        for turn in range(100):
            page, place = await history.values("p1", series, "count", 0, START + 4 * NS, place, 3)
            found += [datum.value for datum in page]
            if place is None:
                break
            await heard(history, one, [report("p1", 4, bytes_out=99)], after=20 + turn)
            await pack(history)
        assert found == list(range(19, -1, -1))


async def test_a_checkpoint_beyond_the_history_is_a_hole_that_is_counted(tmp_path: Path) -> None:
    async with opened(tmp_path, rules(profile(BYTES))) as (history, one):
        await heard(history, one, [report("p1", 0, bytes_out=1)])
        assert history.counters.holes == 0
    async with opened(tmp_path, rules(profile(BYTES)), after=5) as (history, _):
        assert history.counters.holes == 1


async def test_a_log_that_lost_its_end_is_gone_on_with_where_it_ends(tmp_path: Path) -> None:
    async with opened(tmp_path, rules(profile(BYTES))) as (history, one):
        await heard(history, one, [report("p1", at, bytes_out=at) for at in range(9)])
        assert [await history.adopt("log", last) for last in (9, 4, 9)] == [9, 4, 4]


async def test_a_custom_metric_that_is_gone_takes_its_values_along(tmp_path: Path) -> None:
    without = world(retaining("aws:all-bytes-in"))
    async with opened(tmp_path, retaining("n", "aws:all-bytes-in", custom={"n": "number"})) as (history, one):
        await heard(history, one, [report("p1", 0, {"n": ("number", 1)}, bytes_in=1)])
        await pack(history)
        await heard(history, one, [report("p1", 1, {"n": ("number", 2)}, bytes_in=2)], after=1)
        history.follow(3, without)
        history.follow(4, one)
        assert await history.settled()
        assert await values(history, "p1", "n", "number") == []
        assert await values(history, "p1", "aws:all-bytes-in") == [(1, 2), (0, 1)]
        await heard(history, one, [report("p1", 2, {"n": ("number", 3)})], after=4)
        await pack(history)
        assert await values(history, "p1", "n", "number") == [(2, 3)]
        history.follow(4, without)  # read again: what came after it is here already
        assert await history.settled()
        assert await values(history, "p1", "n", "number") == [(2, 3)]


async def test_a_dimension_that_is_gone_takes_its_values_along(tmp_path: Path) -> None:
    key, whole = (Key(Series("aws:num-messages-sent", *more), "count") for more in (("D", "IN"), ()))
    without = retaining("aws:all-bytes-in")
    with_it = world(msgspec.structs.replace(without, dimensions=(Dimension("D", string_values=("a",)),)))
    async with opened(tmp_path, with_it) as (history, _):
        put(history, key, 1, 1)
        put(history, whole, 2, 2)
        history.follow(3, world(without))
        history.follow(4, with_it)
        assert await history.settled()
        found = [await history.values("p1", each.series, "count", 0, NS, None, 9) for each in (key, whole)]
        assert [[datum.value for datum in page] for page, _ in found] == [[], [2]]


async def test_a_file_that_did_not_note_when_a_series_began_learns_it_from_what_it_holds(tmp_path: Path) -> None:
    series = Series("aws:all-bytes-out")
    async with opened(tmp_path, rules(profile(BYTES))) as (history, one):
        await heard(history, one, [report("p1", at, bytes_out=at) for at in (5, 9)])
        await pack(history)
        assert await history.since_ns(series, "count") == START + 5 * NS
        assert await history.since_ns(series, "number") is None
    with closing(sqlite3.connect(tmp_path / "history.db")) as con:
        con.executescript("ALTER TABLE series DROP COLUMN since_ms; PRAGMA user_version = 1")
    async with opened(tmp_path, rules(profile(BYTES)), after=2) as (history, one):
        assert await history.since_ns(series, "count") == START + 5 * NS
        assert await values(history, "p1", "aws:all-bytes-out") == [(9, 9), (5, 5)]


async def test_windows_of_actors_have_positions_of_their_own(tmp_path: Path) -> None:
    key = Key(Series("aws:num-messages-sent", "D", "NOT_IN"), "count")
    async with opened(tmp_path, rules(profile(BYTES))) as (history, one):
        await heard(history, one, [report("p1", 0, bytes_out=1)])
        for at in (1, 1, 2):  # the second time it is read again
            put(history, key, at, at)
        history.passed(2)
        assert await history.settled()
        page, _ = await history.values("p1", key.series, "count", 0, NS, None, 9)
        assert [datum.value for datum in page] == [2, 1]


async def test_a_thing_that_came_back_after_it_was_forgotten_is_kept_again(tmp_path: Path) -> None:
    async with opened(tmp_path, rules(profile(BYTES))) as (history, one):
        await heard(history, one, [report("gone", 0, bytes_out=1), report("p1", 0, bytes_out=1)])
        await pack(history)
        await heard(history, one, [report("p1", 864_000, bytes_out=2)], after=2)
        await history.expire(START + (14 * 86_400 + 1) * NS)
        assert history.counters.expired == 2  # the times and the values of one run
        assert await values(history, "p1", "aws:all-bytes-out") == [(864_000, 2)]
        assert await values(history, "gone", "aws:all-bytes-out") == []
        await heard(history, one, [report("gone", 864_001, bytes_out=3)], after=3)
        assert await values(history, "gone", "aws:all-bytes-out") == [(864_001, 3)]


async def test_things_beyond_the_most_are_counted_and_not_kept(tmp_path: Path) -> None:
    async with opened(tmp_path, rules(profile(BYTES), things_max=5)) as (history, one):
        one.router.gate._things_max = 100  # which would have turned them away
        await heard(history, one, [report(f"p{n}", 0, bytes_out=n) for n in range(8)])
        assert history.counters.refused == 3
        assert await values(history, "p4", "aws:all-bytes-out") == [(0, 4)]
        assert await values(history, "p5", "aws:all-bytes-out") == []


async def test_twelve_runs_become_one_and_nothing_is_lost_on_the_way(tmp_path: Path) -> None:
    async with opened(tmp_path, rules(profile(BYTES, PORTS))) as (history, one):
        for turn in range(13):
            log = [report(f"p{n}", 300 * turn, bytes_out=turn, tcp=(22, turn + 1)) for n in range(3)]
            await heard(history, one, log, after=3 * turn)
            await pack(history)
        with closing(sqlite3.connect(history.path)) as con:
            runs = con.execute("SELECT level, count(*) FROM chunks WHERE series = 0 GROUP BY level").fetchall()
        assert runs == [(0, 1), (1, 1)]
        ports = [(300.0 * turn, [22, turn + 1]) for turn in range(12, -1, -1)]
        assert await values(history, "p1", "aws:listening-tcp-ports", "ports") == ports


async def test_whole_columns_come_thing_by_thing_with_what_was_just_reported(tmp_path: Path) -> None:
    found: dict[str, list[tuple[float, float]]] = {}
    async with opened(tmp_path, retaining("n", custom={"n": "number"})) as (history, one):

        def read() -> None:
            for piece in history.columns(Series("n"), "number", START + NS, START + 10**4 * NS):
                for who, ts, value in zip(piece.who, piece.ts, piece.values, strict=True):
                    found.setdefault(piece.things[who], []).append(((int(ts) - START) / NS, float(value)))

        await heard(history, one, [report(f"p{n % 300}", n, {"n": ("number", n / 2)}) for n in range(600)])
        await pack(history)
        await heard(history, one, [report("p1", 600, {"n": ("number", 0.25)})], after=600)
        await asyncio.to_thread(read)
    assert found["p1"] == [(1, 0.5), (301, 150.5), (600, 0.25)]
    assert found["p0"] == [(300, 150)]  # the very first was before
    assert sum(map(len, found.values())) == 600


async def test_a_database_of_somebody_else_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "history.db")) as con:
        con.execute("CREATE TABLE theirs (x)")
    with pytest.raises(HistoryError, match="not a history"):
        await History.open(tmp_path / "history.db")


async def test_a_bug_ends_the_history_and_neither_the_pipeline_nor_its_checkpoints(tmp_path: Path) -> None:
    async with opened(tmp_path, rules(profile(BYTES))) as (history, one):
        await history._writer.submit(lambda con: con.execute("DROP TABLE tail"))
        history.take(one.router.route(frames(numbered([report("p1", 0, bytes_out=1)]))))
        async with asyncio.timeout(10):
            while history.state != "failed":
                await asyncio.sleep(0.01)
        history.take(one.router.route(frames([replace(report("p1", 1, bytes_out=1), position=2)])))
        await history.room()
        assert await history.settled()
        assert not history._waiting


async def test_ticks_cost_no_commits(tmp_path: Path) -> None:
    async with opened(tmp_path, rules(profile(BYTES))) as (history, one):
        for position in range(1, 9):
            history.take(one.router.route(frames([Said(START + position, position=position)])))
        assert not history._waiting
        assert await history.settled()
        assert await history.adopt("log", 100) == 8


async def test_a_thing_that_just_reported_again_is_not_forgotten_for_its_long_silence(tmp_path: Path) -> None:
    back = 14 * 86_400 + 60
    async with opened(tmp_path, rules(profile(BYTES))) as (history, one):
        await heard(history, one, [report("p1", 0, bytes_out=1)])
        await pack(history)
        await heard(history, one, [report("p1", back, bytes_out=2)], after=1)  # not packed yet
        await history.expire(START + (back + 60) * NS)
        await heard(history, one, [report("p1", back + 90, bytes_out=3)], after=2)
        told = [(back + 90, 3), (back, 2)]
        assert await values(history, "p1", "aws:all-bytes-out", until=2 * LATER) == told
        await pack(history)
        assert await values(history, "p1", "aws:all-bytes-out", until=2 * LATER) == told


async def test_a_series_goes_with_its_last_datapoint_and_may_come_again(tmp_path: Path) -> None:
    """Or names of dimensions that came and went would pile up."""
    key = Key(Series("aws:num-messages-sent", "D", "IN"), "count")
    async with opened(tmp_path, rules(profile(BYTES))) as (history, one):

        async def sent(position: int, ms: int) -> None:
            put(history, key, ms, position)
            assert await history.settled()

        await heard(history, one, [report("p1", 0, bytes_out=1)])
        await sent(1, START // 10**6)
        await history.expire(START + NS)
        assert key in history._series  # its datapoint is not packed yet
        await pack(history)
        await heard(history, one, [report("p1", 14 * 86_400, bytes_out=2)], after=1)
        await history.expire(START + (14 * 86_400 + 60) * NS)
        assert [each.series.metric for each in history._series] == ["aws:all-bytes-out"]
        await sent(2, START // 10**6 + 14 * 86_400_000)
        page, _ = await history.values("p1", key.series, "count", 0, 2 * LATER, None, 9)
        assert [datum.value for datum in page] == [2]


async def test_new_rules_do_not_hide_what_a_failed_history_lost(tmp_path: Path) -> None:
    wanted = rules(profile(BYTES))
    async with opened(tmp_path, wanted) as (history, one):
        await heard(history, one, [report("p1", 0, bytes_out=1)])
        routed = one.router.route(frames([replace(report("p1", 1, bytes_out=1), position=2)]))
        history.take(Puzzling(**{name: getattr(routed, name) for name in routed.__slots__}))
        async with asyncio.timeout(10):
            while history.state != "failed":
                await asyncio.sleep(0.01)
        history.follow(9, one)
        await history._flush()
    history = await History.open(tmp_path / "history.db")
    assert await history.adopt("log", 100) == 1
    history.begin(9, world(wanted))
    assert history.counters.holes == 1
    await history.close()


class Puzzling(Routed):
    """A batch that nobody thought of: taken, and then not to be read."""

    @property
    def rejected(self) -> Any:  # that is the bug
        raise RuntimeError("a bug")

    @rejected.setter
    def rejected(self, _: Any) -> None: ...


async def test_a_commit_that_is_under_way_when_the_daemon_stops_is_not_made_twice(tmp_path: Path) -> None:
    wanted, hold = rules(profile(BYTES)), threading.Event()
    history, one = await History.open(tmp_path / "history.db"), world(wanted)
    await history.adopt("log", 10**9)
    history.begin(0, one)
    running = asyncio.create_task(history.run(unread, undefined))
    await heard(history, one, [report("p1", 0, bytes_out=1)])
    blocked = asyncio.ensure_future(history._writer.submit(lambda _: hold.wait(20)))
    history.take(one.router.route(frames([replace(report("p1", 1, bytes_out=2), position=2)])))
    async with asyncio.timeout(10):
        while history._writer.pending < 2:
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait([running])
    stopping = asyncio.create_task(history.close())
    async with asyncio.timeout(10):
        while history._writer.pending < 3:
            await asyncio.sleep(0.01)
    hold.set()
    await asyncio.gather(stopping, blocked)
    async with opened(tmp_path, wanted) as (again, _):
        assert await values(again, "p1", "aws:all-bytes-out") == [(1, 2), (0, 1)]


async def test_large_sets_are_packed_before_they_fill_the_memory_and_are_not_gathered_in_one_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packer, "PACK_WORDS_BYTES", 20_000)
    monkeypatch.setattr(chunks, "MERGED_WORDS_BYTES", 10_000)
    sent = []
    async with opened(tmp_path, retaining("w", custom={"w": "string-list"})) as (history, one):
        for turn in range(15):
            words = [f"{turn}-{n}-{'x' * 90}" for n in range(250)]
            await heard(history, one, [report("p1", turn, {"w": ("string-list", words)})], after=turn)
            await history.packer.packed()
            sent.append((turn, words))
        assert len(history.packer.tail) == 0
        assert await values(history, "p1", "w", "strings") == sent[::-1]
        with closing(sqlite3.connect(history.path)) as con:
            assert con.execute("SELECT count(*) FROM chunks WHERE series = 0").fetchall() == [(15,)]
