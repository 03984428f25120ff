"""The lists of violations: every filter, pages that stay put, and no filter that costs a walk through everything."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from transitions import START_NS, behavior, cleared, raised, violation_id

from config.model import NS, Criteria, MlDetectionConfig, StatisticalThreshold
from daemon.store import lists
from daemon.store.lists import SCAN_MAX, EventPlace, ViolationEvent, Wanted, active, events
from daemon.store.store import Store

UNTIL_NS = 2 * START_NS


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await Store.open(tmp_path / "detectd.db", clock=lambda: START_NS)
    yield store
    await store.close()


async def page(
    store: Store, before: EventPlace | None = None, limit: int = 250, **wanted: Any
) -> tuple[list[ViolationEvent], EventPlace | None]:
    return await store.read(lambda con: events(con, 0, UNTIL_NS, Wanted(**wanted), before, limit))


async def test_events_are_paged_newest_first_and_stay_put_while_others_write(store: Store) -> None:
    await store.commit([raised(f"t{n}", time_ns=START_NS + n // 2 * NS) for n in range(8)])
    seen: list[str] = []
    before = None
    for turn in range(4):
        found, before = await page(store, before, limit=3)
        seen += [event.told.thing_name for event in found]
        await store.commit([raised(f"new{turn}", time_ns=START_NS + 99 * NS)])
        if before is None:
            break
    assert seen == ["t7", "t6", "t5", "t4", "t3", "t2", "t1", "t0"]


async def test_events_outside_the_time_are_left_out(store: Store) -> None:
    await store.commit([raised(f"t{n}", time_ns=START_NS + n * NS) for n in range(5)])
    found, place = await store.read(lambda con: events(con, START_NS + NS, START_NS + 3 * NS, Wanted(), None, 250))
    assert ([event.told.thing_name for event in found], place) == (["t3", "t2", "t1"], None)


async def some(store: Store) -> None:
    statistical = Criteria(statistical_threshold=StatisticalThreshold("p90"), duration_seconds=300)
    learned = Criteria(ml_detection_config=MlDetectionConfig(confidence_level="HIGH"))
    await store.commit(
        [
            raised("plain"),
            raised("rank", behavior=behavior(criteria=statistical)),
            raised("model", behavior=behavior(criteria=learned)),
            raised("quiet", behavior=behavior(suppress_alerts=True)),
        ]
    )
    await store.verify(violation_id("rank"), "TRUE_POSITIVE", "seen by hand")


@pytest.mark.parametrize(
    ("wanted", "things"),
    [
        ({}, ["model", "plain", "quiet", "rank"]),
        ({"thing": "plain"}, ["plain"]),
        ({"profile": "none"}, []),
        ({"criteria_type": "STATIC"}, ["plain", "quiet"]),
        ({"criteria_type": "MACHINE_LEARNING"}, ["model"]),
        ({"criteria_type": "STATISTICAL"}, ["rank"]),
        ({"suppressed": True}, ["quiet"]),
        ({"suppressed": False}, ["model", "plain", "rank"]),
        ({"verification_state": "TRUE_POSITIVE"}, ["rank"]),
        ({"verification_state": "UNKNOWN"}, ["model", "plain", "quiet"]),
        ({"verification_state": "TRUE_POSITIVE", "suppressed": True}, []),
    ],
)
async def test_both_lists_know_every_filter(store: Store, wanted: dict[str, Any], things: list[str]) -> None:
    await some(store)
    found, _ = await page(store, **wanted)
    open_ones, _ = await store.read(lambda con: active(con, Wanted(**wanted), None, 250))
    assert sorted(event.told.thing_name for event in found) == things
    assert sorted(violation.thing for violation in open_ones) == things


async def test_all_events_of_a_violation_show_how_it_was_verified(store: Store) -> None:
    await store.commit([raised("t1")])
    await store.verify(violation_id("t1"), "BENIGN_POSITIVE", "a drill")
    await store.commit([cleared("t1", time_ns=START_NS + NS)])
    found, _ = await page(store, verification_state="BENIGN_POSITIVE")
    assert [(one.told.violation_event_type, one.verification_description) for one in found] == [
        ("alarm-cleared", "a drill"),
        ("in-alarm", "a drill"),
    ]


async def test_open_violations_are_paged_newest_first(store: Store) -> None:
    await store.commit([raised(f"t{n}", start_ns=START_NS + n * NS) for n in range(5)])
    await store.commit([cleared("t3", time_ns=START_NS + 9 * NS)])
    first, place = await store.read(lambda con: active(con, Wanted(), None, 2))
    rest, end = await store.read(lambda con: active(con, Wanted(), place, 250))
    assert [one.thing for one in [*first, *rest]] == ["t4", "t2", "t1", "t0"]
    assert end is None


async def test_a_filter_that_nothing_passes_looks_at_a_bounded_number_of_rows_and_goes_on_from_there(
    store: Store,
) -> None:
    await store.commit([raised(f"t{n:04}", time_ns=START_NS + n * NS) for n in range(SCAN_MAX + 10)])
    await store.verify(violation_id("t0003"), "UNKNOWN", "looked at")
    found, place = await page(store, suppressed=True)
    assert (found, place) == ([], None)  # it has an index of its own
    found, place = await page(store, suppressed=False, criteria_type="STATIC", thing=None)
    assert (len(found), place is not None) == (250, True)
    await store.write(lambda con: con.execute("UPDATE events SET profile = 'other' WHERE thing = 't0003'"))
    found, place = await page(store, verification_state="UNKNOWN", criteria_type="STATIC", suppressed=False)
    none, place = await store.read(
        lambda con: events(con, 0, UNTIL_NS, Wanted(suppressed=False, verification_state="UNKNOWN"), place, 1)
    )
    assert none
    assert place is not None


async def test_a_short_page_says_where_the_next_one_goes_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "SCAN_MAX", 4)
    await store.commit([raised(f"t{n}", time_ns=START_NS + n * NS) for n in range(10)])
    await store.write(lambda con: con.execute("UPDATE events SET criteria_type = 'STATISTICAL' WHERE thing <> 't1'"))
    seen, pages, place = [], 0, None
    while pages == 0 or place is not None:
        found, place = await page(store, place, criteria_type="STATIC")
        seen += [event.told.thing_name for event in found]
        pages += 1
    assert (seen, pages) == (["t1"], 3)


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        ({}, "events_by_time"),
        ({"thing": "t1", "profile": "P", "suppressed": True}, "events_of_thing"),
        ({"profile": "P", "suppressed": True}, "events_of_profile"),
        ({"suppressed": True}, "events_suppressed"),
        ({"criteria_type": "MACHINE_LEARNING", "profile": "P"}, "events_not_static"),
        ({"criteria_type": "STATIC"}, "events_by_time"),
        ({"verification_state": "TRUE_POSITIVE", "profile": "P"}, "events_verified"),
        ({"verification_state": "UNKNOWN"}, "events_by_time"),
    ],
)
async def test_every_filter_walks_an_index_in_its_order(store: Store, wanted: dict[str, Any], index: str) -> None:
    scan, values = lists._event_scan(0, UNTIL_NS, Wanted(**wanted), EventPlace(START_NS, 7))
    plan = await store.read(lambda con: con.execute(f"EXPLAIN QUERY PLAN {scan}", values).fetchall())
    assert [row[3].split(" (")[0].replace("COVERING ", "") for row in plan] == [f"SEARCH events USING INDEX {index}"], (
        plan
    )


async def test_a_page_looks_up_its_own_events_and_nothing_else(store: Store) -> None:
    await some(store)

    def plan(con: sqlite3.Connection) -> list[str]:
        asked: list[str] = []
        con.set_trace_callback(asked.append)
        events(con, 0, UNTIL_NS, Wanted(), None, 250)
        con.set_trace_callback(None)
        return [row[3] for row in con.execute(f"EXPLAIN QUERY PLAN {asked[0]}")]

    steps = [step for step in await store.read(plan) if step.startswith(("SEARCH", "USE"))]
    assert steps == [
        "SEARCH events USING COVERING INDEX events_by_time (time_ns>? AND time_ns<?)",
        "SEARCH events USING INTEGER PRIMARY KEY (rowid=?)",
    ]


@pytest.mark.parametrize(("wanted", "index"), [({}, "violations_open"), ({"thing": "t1"}, "violations_open_of_thing")])
async def test_open_violations_walk_an_index_too(store: Store, wanted: dict[str, Any], index: str) -> None:
    scan, values = lists._active_scan(Wanted(**wanted), None)
    plan = await store.read(lambda con: con.execute(f"EXPLAIN QUERY PLAN {scan}", values).fetchall())
    assert plan[0][3].startswith(f"SEARCH violations USING INDEX {index}"), plan
    assert not [row for row in plan if "TEMP B-TREE FOR ORDER BY" in row[3]], plan


def test_a_place_survives_its_way_through_a_token() -> None:
    place = EventPlace(START_NS, 7)
    assert msgspec.json.decode(msgspec.json.encode(place), type=EventPlace) == place
