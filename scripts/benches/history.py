"""Metric values: writing, a thing's 14 days, a training run's columns, bytes; packed chunks, rows, and DuckDB.

Three ways to keep the same values of 1,024 things (10 metrics every 300 s, 14 days: 41 million), each in a process of
its own. DuckDB is left out where it isn't installed. What is said for 40 million values of one metric is measured on a
tenth of them, and multiplied.
"""

import asyncio
import importlib.util
import multiprocessing
import resource
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import fleet
import machine
import msgspec
import numpy as np
import numpy.typing as npt

from actors.entries import frames_of
from actors.messages import I8
from actors.metrics import kinds
from actors.router import Routed
from actors.series import Series
from actors.world import World
from config.kinds import ValueField
from config.model import NS, Limits, Rules, SecurityProfile
from daemon.history import compaction, packer, reader, tables
from daemon.history.codec import keys_of
from daemon.history.points import Key, Points, points_of
from daemon.history.reader import Wanted
from daemon.history.recorder import History
from daemon.history.tail import Tail

EVERY_MS: Final = 300_000
START_MS: Final = 1_767_312_000_000
DAY_ROUNDS: Final = 288
TRAINING: Final = 40_000_000
LOOKS: Final = 15
VALUE_MS_MAX, BYTES_MAX = 200, 4.0
PORT_SETS: Final = [msgspec.msgpack.encode(ports) for ports in ([22, 443], [22, 80, 443], [443], [22, 443, 8080])]
COUNTERS: Final = ("all-bytes-in", "all-bytes-out", "all-packets-in", "all-packets-out")
TOTALS: Final = ("num-listening-tcp-ports", "num-listening-udp-ports", "num-established-tcp-connections")
NUMBERS: Final = ("temperature", "cpu_usage")
FIELDS: Final[dict[str, ValueField]] = {
    **{f"aws:{name}": "count" for name in (*COUNTERS, *TOTALS)},
    **dict.fromkeys(NUMBERS, "number"),
    "aws:listening-tcp-ports": "ports",
}
READ: Final = "aws:all-bytes-out"


@dataclass(frozen=True, slots=True)
class Size:
    things: int
    rounds: int


@dataclass(frozen=True, slots=True)
class Round:
    """What all things reported in 300 s, in the order of time."""

    things: npt.NDArray[np.int64]
    ms: I8
    columns: dict[str, npt.NDArray[Any]]  # counts int64, numbers float64, ports: a number of PORT_SETS


@dataclass(frozen=True, slots=True)
class Result:
    rows_per_s: float
    thing_ms: float  # of 14 days of one metric of one thing
    training_s: float  # for 40 million values
    bytes_each: float
    peak_mb: float
    note: str = ""


def invented(size: Size) -> Iterator[Round]:
    """Rates that differ from thing to thing and follow the day, noise, jitter, reports that fail to come."""
    chance = np.random.default_rng(1)
    n = size.things
    phase_ms = chance.integers(0, EVERY_MS, n)
    rates = {
        name: chance.lognormal(np.log(scale), 1.0, n)
        for name, scale in zip(COUNTERS, (5e4, 2e4, 400, 300), strict=True)
    }
    tcp, udp, sets = chance.integers(2, 6, n), chance.integers(0, 3, n), chance.integers(0, len(PORT_SETS), n)
    temperature, cpu = chance.normal(45, 8, n), chance.uniform(5, 60, n)
    for at in range(size.rounds):
        day = 1 + 0.6 * np.sin(2 * np.pi * at / DAY_ROUNDS)
        columns: dict[str, npt.NDArray[Any]] = {
            f"aws:{name}": (rate * day * chance.lognormal(0, 0.25, n)).astype(np.int64) for name, rate in rates.items()
        }
        temperature += 0.05 * (45 + 5 * day - temperature) + chance.normal(0, 0.3, n)
        cpu += 0.1 * (30 * day - cpu) + chance.normal(0, 3, n)
        for column in (tcp, udp, sets):
            changed = chance.random(n) < 0.001
            column[changed] = chance.integers(0, len(PORT_SETS), changed.sum())
        columns |= {"temperature": np.round(temperature, 1), "cpu_usage": np.round(np.clip(cpu, 0, 100), 1)}
        columns |= {f"aws:{TOTALS[0]}": tcp.copy(), f"aws:{TOTALS[1]}": udp.copy()}
        columns |= {f"aws:{TOTALS[2]}": chance.poisson(4 * day, n), "aws:listening-tcp-ports": sets.copy()}
        ms = START_MS + at * EVERY_MS + phase_ms + chance.normal(0, 2000, n).astype(np.int64)
        order = np.argsort(ms)[chance.random(n) > 0.005]
        yield Round(order, ms[order], {name: column[order] for name, column in columns.items()})


# ---- packed chunks: what the daemon does ----


def chunks(folder: Path, size: Size) -> Result:
    con = tables.open_to_write(folder / "history.db")
    keys = {name: Key(Series(name), field) for name, field in FIELDS.items()}
    numbers: dict[Key, int] = {}
    known: dict[bytes, int] = {}
    names = [b"thing-%05d" % n for n in range(size.things)]
    tail, rows, took = Tail(), 0, 0.0
    for one in invented(size):
        values = np.empty((len(one.ms), len(keys)), np.int64)
        for at, name in enumerate(keys):
            column = one.columns[name]
            values[:, at] = keys_of(column) if FIELDS[name] == "number" else column
        points = Points([names[n] for n in one.things.tolist()], one.ms, tuple(keys.values()), values, PORT_SETS)
        began = time.process_time()
        con.execute("BEGIN IMMEDIATE")
        stored = tables.store(con, [points], {"reports": rows}, known, numbers, size.things)
        con.execute("COMMIT")
        known |= stored.things
        numbers |= stored.series
        for batch in stored.rows:
            tail.append(batch, frozenset(number for key, number in numbers.items() if key.is_set))
        if len(tail) >= packer.PACK_ROWS or tail.last_ms - tail.first_ms >= packer.PACK_AGE_MS:
            pack(con, tail, numbers)
            tail = Tail()
        took += time.process_time() - began
        rows += len(one.ms)
    con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    used = tables.used_bytes(con)
    by_key = {key.series.metric: (key, number) for key, number in numbers.items()}
    return Result(
        rows / took,
        looked(lambda n: thing_of_chunks(con, tail, by_key[READ], known[names[n]]), size),
        training_of_chunks(con, tail, by_key[READ], rows),
        used / rows / len(keys),
        peak_mb(),
        f"{len(tail):,} rows are not packed yet",
    )


def pack(con: sqlite3.Connection, tail: Tail, numbers: dict[Key, int]) -> None:
    fields = {number: key.field for key, number in numbers.items()}
    seen = tail.seen()
    packed = compaction.pack_tail(seen, fields)
    in_transaction(con, lambda: compaction.put_tail(con, seen, packed))
    while merges := compaction.due_merges(con):
        for merge in merges:
            made = compaction.pack_merge(con, merge, fields)
            in_transaction(con, partial(compaction.put_merge, con, merge, made))
    con.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def in_transaction(con: sqlite3.Connection, work: Callable[[], object]) -> None:
    con.execute("BEGIN IMMEDIATE")
    work()
    con.execute("COMMIT")


def thing_of_chunks(con: sqlite3.Connection, tail: Tail, series: tuple[Key, int], thing: int) -> int:
    """All pages of 250, as a client asks for them."""
    key, number = series
    wanted = Wanted(thing, number, 0, 2**60)
    found, place = reader.values(con, [tail.seen()], key, wanted, None, 250)
    count = len(found)
    while place is not None:
        found, place = reader.values(con, [tail.seen()], key, wanted, place, 250)
        count += len(found)
    return count


def training_of_chunks(con: sqlite3.Connection, tail: Tail, series: tuple[Key, int], rows: int) -> float:
    key, number = series
    began, count = time.perf_counter(), 0
    for piece in reader.columns(con, [tail.seen()], key, number, 0, 2**60):
        count += len(piece.values)
    assert count == rows, (count, rows)
    return (time.perf_counter() - began) * TRAINING / count


# ---- the others ----


def sqlite_rows(folder: Path, size: Size) -> Result:
    """One row per report, by thing and time."""
    con = sqlite3.connect(folder / "rows.db", isolation_level=None)
    con.execute("PRAGMA journal_mode = WAL")
    con.execute("PRAGMA synchronous = NORMAL")
    columns = ", ".join(f'"{name}"' for name in FIELDS)
    con.execute(f"CREATE TABLE h (thing, ms, {columns}, PRIMARY KEY (thing, ms)) WITHOUT ROWID")
    sql = f"INSERT OR IGNORE INTO h VALUES ({', '.join('?' * (2 + len(FIELDS)))})"
    rows, took = 0, 0.0
    for one in invented(size):
        lists = [one.things.tolist(), one.ms.tolist(), *(one.columns[name].tolist() for name in FIELDS)]
        began = time.process_time()
        in_transaction(con, partial(con.executemany, sql, zip(*lists, strict=True)))
        took += time.process_time() - began
        rows += len(one.ms)
    con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    began = time.perf_counter()
    found = con.execute(f'SELECT thing, ms, "{READ}" FROM h').fetchall()
    array = np.array(found)
    training = (time.perf_counter() - began) * TRAINING / len(array)
    look = f'SELECT ms, "{READ}" FROM h WHERE thing = ? ORDER BY ms DESC'
    thing_ms = looked(lambda n: len(con.execute(look, (n,)).fetchall()), size)
    return Result(rows / took, thing_ms, training, tables.used_bytes(con) / rows / len(FIELDS), peak_mb())


def duckdb_table(folder: Path, size: Size) -> Result:
    """One row per report, in the order in which they come: what it compresses and skips by."""
    import duckdb  # noqa: PLC0415  # type: ignore[import-not-found]  # no dependency of ours

    con = duckdb.connect(str(folder / "history.duckdb"))
    types = {"count": "BIGINT", "number": "DOUBLE", "ports": "VARCHAR"}
    columns = ", ".join(f'"{name}" {types[field]}' for name, field in FIELDS.items())
    con.execute(f"CREATE TABLE h (thing INTEGER, ms BIGINT, {columns})")
    spelled = np.array(["22,443", "22,80,443", "443", "22,443,8080"], object)
    rows, took = 0, 0.0
    for one in invented(size):
        batch = {"thing": one.things, "ms": one.ms, **one.columns}
        batch["aws:listening-tcp-ports"] = spelled[batch["aws:listening-tcp-ports"]]
        began = time.process_time()
        con.register("batch", batch)
        con.execute("INSERT INTO h SELECT * FROM batch")
        took += time.process_time() - began
        rows += len(one.ms)
    con.execute("CHECKPOINT")
    began = time.perf_counter()
    found = con.execute(f'SELECT thing, ms, "{READ}" FROM h').fetchnumpy()
    training = (time.perf_counter() - began) * TRAINING / len(found["ms"])
    look = f'SELECT ms, "{READ}" FROM h WHERE thing = ? ORDER BY ms DESC'
    thing_ms = looked(lambda n: len(con.execute(look, (n,)).fetchall()), size)
    con.close()
    used = (folder / "history.duckdb").stat().st_size
    note = "it looks at all rows: with 10,000 things ten times as many"
    return Result(rows / took, thing_ms, training, used / rows / len(FIELDS), peak_mb(), note)


# ---- measuring ----


def looked(look: Callable[[int], int], size: Size) -> float:
    """Median ms of one thing's whole range."""
    took = []
    for turn in range(LOOKS):
        began = time.perf_counter()
        assert look(turn * 61 % size.things) > 0.98 * size.rounds
        took.append(1e3 * (time.perf_counter() - began))
    return machine.median(took)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def alone(way: Callable[[Path, Size], Result], size: Size) -> Result:
    """In a process of its own, for its memory's sake."""
    with (
        tempfile.TemporaryDirectory(prefix="detectd-bench-") as folder,
        multiprocessing.get_context("spawn").Pool(1) as pool,
    ):
        return pool.apply(way, (Path(folder), size))


def show(name: str, result: Result, *, judged: bool) -> None:
    machine.note(f"{name}{f' ({result.note})' if result.note else ''}")
    machine.line("  reports written per CPU second", f"{result.rows_per_s:,.0f}")
    met = result.thing_ms <= VALUE_MS_MAX if judged else None
    machine.line("  14 days of one thing's metric", f"{result.thing_ms:.1f} ms", "", f"≤ {VALUE_MS_MAX} ms", met=met)
    machine.line("  40 million values of one metric (× ≈ 10)", f"{result.training_s:.1f} s")
    met = result.bytes_each <= BYTES_MAX if judged else None
    machine.line("  bytes per value, time included", f"{result.bytes_each:.2f}", "", f"≤ {BYTES_MAX:g}", met=met)
    machine.line("  peak memory of the process", f"{result.peak_mb:,.0f} MB")


# ---- what it costs the pipeline ----


def tap(batches: int) -> None:
    """`History.take` of 1,024 reports with 4 metrics, and what its own thread then does."""
    retained = tuple(f"aws:{name}" for name in COUNTERS)
    profile = SecurityProfile("kept", additional_metrics_to_retain=retained, targets=("all/things",))
    world = World(Rules(profiles=(profile,), limits=Limits(report_interval_s=0)), kinds(), "bench", 0.0)
    bodies = fleet.reports(batches * 1024)
    routed = []
    for batch in range(batches):
        numbers = range(batch * 1024, (batch + 1) * 1024)
        entries = [(n + 1, NS * (1 + n), fleet.subject(n), next(bodies), None, 0) for n in numbers]
        routed.append(world.router.route(frames_of(entries)))
    asyncio.run(tapped(world, routed))


async def tapped(world: World, routed: list[Routed]) -> None:
    known = -(-fleet.THINGS // 1024)
    with tempfile.TemporaryDirectory(prefix="detectd-bench-") as folder:
        history = await History.open(Path(folder) / "history.db")
        await history.adopt("bench", 2**60)
        history.begin(0, world)
        took: list[float] = []
        for batch in routed[:known]:  # the first report of a thing costs its number
            history.take(batch)
        await history._flush()  # noqa: SLF001
        routed = routed[known:]
        for batch in routed:
            began = time.perf_counter()
            history.take(batch)
            await history.room()
            took.append(time.perf_counter() - began)
        assert history._kept is not None  # noqa: SLF001
        began = time.thread_time()
        for batch in routed:
            points_of(batch, history._kept, 0)  # noqa: SLF001
        extracted = time.thread_time() - began
        began = time.process_time()
        await history._flush()  # noqa: SLF001
        flushed = time.process_time() - began
        reports = 1024 * len(routed)
        assert history.counters.rows == reports + 1024 * known
        await history.close()
    machine.note(f"beside the pipeline: {reports:,} reports in batches of 1,024, 4 metrics kept")
    machine.line("  the pipeline's own part", f"{1e9 * machine.median(took) / 1024:.1f} ns per report")
    machine.line("  taken out of the batch, in a thread", f"{1e9 * extracted / reports:.0f} ns per report")
    machine.line("  all of it: taken out, stored, committed", f"{1e9 * flushed / reports:.0f} ns per report")


def main(size: Size) -> None:
    tap(18 if machine.is_quick() else 40)
    machine.note(f"{size.things:,} things × {len(FIELDS)} metrics × {size.rounds:,} reports each; CPU of one core")
    show("packed chunks in SQLite (the daemon's)", alone(chunks, size), judged=True)
    show("SQLite, a row per report", alone(sqlite_rows, size), judged=False)
    if importlib.util.find_spec("duckdb") is None:
        machine.note("DuckDB isn't installed: left out (pip install duckdb)")
    else:
        show("DuckDB", alone(duckdb_table, size), judged=False)


if __name__ == "__main__":
    with closing(sqlite3.connect(":memory:")) as memory:
        machine.note(f"SQLite {memory.execute('SELECT sqlite_version()').fetchone()[0]}")
    main(Size(256, 2 * DAY_ROUNDS) if machine.is_quick() else Size(1024, 14 * DAY_ROUNDS))
