"""What actors formed of the brokers' events is in the history: once, of whom, and as what."""

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from builders import START, rules, world

from actors.entries import frames_of
from actors.events import EMBEDDED, SUBJECT, Event, packed
from actors.group import GroupActor
from actors.messages import Frames, Moment
from actors.series import Series
from actors.world import World
from config.model import NS, Dimension, MetricDimension, MetricToRetain, Rules, SecurityProfile
from daemon.checkpoint import frozen
from daemon.clock import SystemClock
from daemon.formed import Keeper
from daemon.history import waiting
from daemon.history.points import Key, Points
from daemon.history.recorder import History
from daemon.pipeline import Cut
from daemon.recovery import Checkpointer
from daemon.taps import Taps
from daemon.telemetry import Telemetry

SENT, SIZE = "aws:num-messages-sent", "aws:message-byte-size"
ADDRESS, AWAY = "aws:source-ip-address", "aws:disconnect-duration"
LATER = START + 10**6 * NS
GRACE_S = 30

Entry = tuple[int, int, str, bytes, None, int]


def retaining(
    *metrics: str,
    name: str = "kept",
    targets: Sequence[str] = ("all/things",),
    dimension: str = "",
    operator: Any = None,
) -> SecurityProfile:
    of = MetricDimension(dimension, operator) if dimension else None
    retained = tuple(MetricToRetain(metric, of) for metric in metrics)
    return SecurityProfile(name, additional_metrics_to_retain_v2=retained, targets=tuple(targets))


def event(kind: Any, at: float = 0, client: str = "d1", **more: Any) -> Event:
    return Event(event=kind, client_id=client, time=START + round(at * NS), **more)


def published(at: float, client: str = "d1", *, sizes: Sequence[int] = (1,), topic: str = "") -> Event:
    return event(
        "published", at, client, topic=topic, count=len(sizes), bytes=sum(sizes), bytes_min=min(sizes),
        bytes_max=max(sizes),
    )  # fmt: skip


def told(position: int, at: float, *events: Event) -> Entry:
    return position, START + round(at * NS), SUBJECT + EMBEDDED, packed(events), None, 0


def tick(position: int, at: float) -> Entry:
    return position, START + round(at * NS), "detectd.log.tick", b"", None, 0


class Run:
    """A world whose actors tell a history what they form, as in the daemon."""

    def __init__(self, history: History, one: World, after: int = 0) -> None:
        self.history, self.world, self.keeper = history, one, Keeper(history)
        self._taps = Taps(history, self.keeper)
        self._taps.begin(after, one)

    def hear(self, *entries: Entry) -> None:
        """One batch."""
        routed = self.world.router.route(frames_of(entries))
        self._taps.take(routed)
        for key, share in routed.shares.items():
            self.world.actors[key].handle(share)
        self.hand_on(self.world.actors)

    def hand_on(self, actors: Mapping[str, GroupActor]) -> None:
        for key, actor in actors.items():
            if formed := actor.taken():
                self.keeper(key, formed)

    def change(self, position: int, at: float, to: Rules) -> None:
        """As the pipeline does it."""
        actors = dict(self.world.actors)
        self.world.change(to, Moment(position, START + round(at * NS)))
        self._taps.follow(position, self.world)
        self.hand_on(actors)
        self.hand_on(self.world.actors)


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[History]:
    history = await History.open(folder / "history.db", backoff=lambda _: 0.01)
    await history.adopt("log", 10**9)
    task = asyncio.create_task(history.run(unread, undefined))
    try:
        yield history
    finally:
        task.cancel()
        await asyncio.wait([task])
        await history.close()


async def unread(_first: int, _last: int) -> AsyncIterator[Frames]:
    for _ in ():
        yield frames_of([])
    pytest.fail("the log was read again")


async def undefined(_: str) -> Rules:
    pytest.fail("no rules are asked for")


async def values(history: History, thing: str, series: Series, field: Any = "count") -> list[tuple[float, Any]]:
    """(seconds since START, value), oldest first."""
    found, more = await history.values(thing, series, field, 0, LATER, None, 10_000)
    assert more is None
    return [((datum.time_ns - START) / NS, datum.value) for datum in found][::-1]


async def test_a_window_is_a_datapoint_at_its_end_and_of_sizes_it_is_the_largest(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        run = Run(history, world(rules(retaining(SENT, SIZE, ADDRESS, AWAY))))
        run.hear(told(1, 1, event("connected", 1, ip="2001:db8::1"), event("connected", 1, ip="192.0.2.7")))
        run.hear(told(2, 2, published(2, sizes=(5, 70)), published(2, "d2")), told(3, 40, published(40, sizes=(6,))))
        run.hear(told(4, 400, event("disconnected", 399), event("disconnected", 400)), tick(5, 331 + 300))
        assert await history.settled()
        assert await values(history, "d1", Series(SENT)) == [(300, 3), (600, 0)]
        assert await values(history, "d2", Series(SENT)) == [(300, 1)]
        assert await values(history, "d1", Series(SIZE)) == [(300, 70)]
        assert await values(history, "d1", Series(ADDRESS), "cidrs") == [(300, ["2001:db8::1", "192.0.2.7"])]
        assert await values(history, "d1", Series(AWAY)) == [(300, 0), (600, 200)]
        assert history.counters.rows == 3  # one a thing and window, whatever was measured


async def test_what_a_dimension_selects_is_a_series_of_its_own(tmp_path: Path) -> None:
    first = rules(
        retaining(SENT, name="all"), retaining(SENT, name="in", dimension="D"),
        retaining(SENT, name="not", dimension="D", operator="NOT_IN"),
    )  # fmt: skip
    first = msgspec.structs.replace(first, dimensions=(Dimension(name="D", string_values=("a/#",)),))
    async with opened(tmp_path) as history:
        run = Run(history, world(first))
        run.hear(told(1, 1, published(1, sizes=(1, 1), topic="a/b"), published(1, topic="c")), tick(2, 331))
        assert await history.settled()
        for series, count in ((Series(SENT), 3), (Series(SENT, "D", "IN"), 2), (Series(SENT, "D", "NOT_IN"), 1)):
            assert await values(history, "d1", series) == [(300, count)]


async def test_a_thing_of_several_actors_has_one_datapoint_a_window(tmp_path: Path) -> None:
    first = rules(
        retaining(SENT, name="everywhere"),
        retaining(SENT, AWAY, name="pumps", targets=["thinggroup/pumps"]),
        retaining(SENT, name="site", targets=["thinggroup/site"]),
        groups={"pumps": ["d1"], "site": ["d1", "d2"]},
    )
    async with opened(tmp_path) as history:
        run = Run(history, world(first))
        run.hear(told(1, 1, *(event("connected", 1, name) for name in ("d1", "d2", "d3"))), tick(2, 331))
        assert await history.settled()
        for thing in ("d1", "d2", "d3"):
            assert await values(history, thing, Series(SENT)) == [(300, 0)]
        assert await values(history, "d1", Series(AWAY)) == [(300, 0)]  # the pumps' own
        assert await values(history, "d2", Series(AWAY)) == []


async def test_the_window_that_new_rules_end_is_kept_by_the_old_ones(tmp_path: Path) -> None:
    before = rules(
        retaining(SENT, name="pumps", targets=["thinggroup/a"]), retaining(SENT, name="q", targets=["thinggroup/b"]),
        groups={"a": ["d1"], "b": ["d1"]},
    )  # fmt: skip
    after = rules(
        retaining(SENT, SIZE, name="q", targets=["thinggroup/b"]), groups={"a": ["d1"], "b": ["d1"]}, silence_s=7
    )
    async with opened(tmp_path) as history:
        run = Run(history, world(before))
        run.hear(told(1, 1, published(1)))
        run.change(2, 331, after)
        run.hear(told(3, 332, published(332)), tick(4, 700))
        assert await history.settled()
        assert await values(history, "d1", Series(SENT)) == [(300, 1), (600, 1)]


@pytest.mark.parametrize("seed", [random.randrange(10**6) for _ in range(5)])
async def test_nothing_doubles_and_nothing_is_missing_after_kills(tmp_path: Path, seed: int) -> None:
    """Runs over one log, each from a checkpoint that a run before had made, cut into other batches."""
    print("seed", seed)
    chance = random.Random(seed)
    log, wanted = _log(chance)
    first = rules(
        retaining(SENT, name="a"), retaining(SENT, AWAY, name="b", targets=["thinggroup/g"]), groups={"g": ["d0", "d1"]}
    )
    checkpoint: tuple[int, Any] = (0, None)
    for last in [*sorted(chance.randrange(len(log)) for _ in range(4)), len(log)]:
        one = world(first)
        if checkpoint[1] is not None:
            one.load(checkpoint[1])
        async with opened(tmp_path) as history:
            run = Run(history, one, checkpoint[0])
            for batch in _cut(log[checkpoint[0] : max(last, checkpoint[0])], chance):
                run.hear(*batch)
                if chance.random() < 0.4:
                    assert await history.settled()
                    if chance.random() < 0.3:
                        checkpoint = batch[-1][0], frozen(one.dump())
            if last < len(log):
                history._waiting.clear()  # killed: what was not written is gone
    async with opened(tmp_path) as history:
        for thing, counts in wanted.items():
            assert await values(history, thing, Series(SENT)) == sorted(counts.items()), thing
        ends = [at for at, _ in await values(history, "d0", Series(AWAY))]
        assert len(set(ends)) == len(ends)


def _log(chance: random.Random) -> tuple[list[Entry], Mapping[str, dict[float, int]]]:
    """An entry each 20 s, and by thing and end of window the count of messages."""
    log: list[Entry] = []
    wanted: dict[str, dict[float, int]] = {f"d{k}": {} for k in range(3)}
    for position in range(1, 301):
        at = position * 20.0
        events = []
        for thing, counts in wanted.items():
            if chance.random() < 0.3:
                count = chance.randrange(1, 5)
                events.append(published(at, thing, sizes=(1,) * count))
                end = (at // 300 + 1) * 300
                counts[end] = counts.get(end, 0) + count
        log.append(told(position, at, *events) if events else tick(position, at))
    log.append(tick(301, 301 * 20 + 400))
    return log, wanted


def _cut(log: Sequence[Entry], chance: random.Random) -> Iterable[Sequence[Entry]]:
    first = 0
    while first < len(log):
        more = chance.randrange(1, 40)
        yield log[first : first + more]
        first += more


async def test_a_full_queue_turns_away_and_counts_and_does_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "WINDOWS_HELD_MAX", 10)
    history = await History.open(tmp_path / "history.db")
    await history.adopt("log", 10**9)
    run = Run(history, world(rules(retaining(SENT))))  # nobody writes: the disk hangs
    for window in range(4):
        at, position = window * 300, window * 2 + 1
        connected = [event("connected", at, f"d{k}") for k in range(6)] if not window else []
        run.hear(told(position, at + 1, published(at, "d0"), *connected), tick(position + 1, at + 331))
    assert history.counters.turned_away == 18
    assert len(history._waiting) == 1
    await history.close()
    async with opened(tmp_path) as again:
        assert await values(again, "d5", Series(SENT)) == [(300, 0)]


async def test_many_windows_do_not_make_the_reports_fall_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "REPORTS_HELD_MAX", 10)
    async with opened(tmp_path) as history:
        run = Run(history, world(rules(retaining(SENT))))
        run.hear(told(1, 1, *(event("connected", 1, f"d{k}") for k in range(100))), tick(2, 331))
        run.hear(told(3, 332, published(332)))
        assert history.counters.behind == 0
        assert await history.settled()
        assert await values(history, "d99", Series(SENT)) == [(300, 0)]


async def test_settled_waits_for_a_window_that_was_told_behind_later_reports(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        history.begin(0, world(rules(retaining(SENT))))
        key = Key(Series(SENT), "count")
        for position in (9, 5):
            history.put_later(f"windows/{position}", partial(_points, key), 1, position)
        assert await history.settled()
        with sqlite3.connect(tmp_path / "history.db") as con:
            found = dict(con.execute("SELECT source, position FROM positions"))
        con.close()
        assert (found["windows/9"], found["windows/5"]) == (9, 5)


def _points(key: Key) -> Points:
    return Points([b"d1"], np.array([START // 10**6]), (key,), np.array([[1]]), [])


async def test_a_checkpoint_asks_the_history_after_the_actors_have_formed_what_they_can(tmp_path: Path) -> None:
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    asked: list[bool] = []

    async def settled() -> bool:
        asked.append(answer.done())
        return False

    writer = Checkpointer(tmp_path, "log", None, Telemetry(), SystemClock(), settled)  # type: ignore[arg-type]  # not used
    writing = asyncio.create_task(writer.write(Cut(1, rules(), {}, {"all/things": answer})))
    await asyncio.sleep(0)
    answer.set_result({})
    await writing
    assert asked == [True]
