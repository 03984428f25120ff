"""The store: one transaction for all that a transition changes, recognised when it comes again."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
from transitions import START_NS, behavior, cleared, invalidated, raised, violation_id

from actors.delivery import State
from actors.effects import Transition
from actors.notice import Notice
from config.model import NS, MetricValue
from daemon.store import lists
from daemon.store.lists import ViolationEvent, Wanted
from daemon.store.outbox import Backlog, Mark, queued_of_thing
from daemon.store.outbox import mark as write_marks
from daemon.store.store import POISON_MAX, Store, StoreError
from daemon.store.writer import StoreClosed

NOW_NS = START_NS + 40 * NS


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await open_store(tmp_path)
    yield store
    await store.close()


async def open_store(folder: Path, clock: Callable[[], int] = lambda: NOW_NS) -> Store:
    store = await Store.open(folder / "detectd.db", clock=clock)
    store.route = lambda _: ("ops", "sms")
    return store


async def events_of(store: Store, since_ns: int, until_ns: int) -> list[ViolationEvent]:
    found, _ = await store.read(lambda con: lists.events(con, since_ns, until_ns, Wanted(), None, 250))
    return found


def value_of(event: ViolationEvent) -> MetricValue | None:
    value = event.told.metric_value
    return None if value is msgspec.UNSET else msgspec.json.decode(value, type=MetricValue)


def heard(store: Store) -> list[Notice]:
    """What dispatch is handed, as it comes."""
    notices: list[Notice] = []
    store.on_notices = notices.extend
    return notices


async def settle(store: Store, notice: Notice, state: State) -> None:
    await store.write(lambda con: write_marks(con, [Mark(notice.id, state, 1, 0, "told by a test")], NOW_NS))


async def test_a_commit_stores_event_violation_outbox_and_position_at_once(store: Store) -> None:
    notices = heard(store)
    assert await store.commit([raised()], {"pumps": 7}) == [f"{violation_id('meter-12')}-in-alarm"]
    (violation,) = await store.active_violations()
    (event,) = await events_of(store, 0, 2 * START_NS)
    assert (violation.thing, violation.last_violation_value) == ("meter-12", MetricValue(count=97))
    assert (event.told.violation_event_type, value_of(event), event.time_ns) == (
        "in-alarm",
        MetricValue(count=97),
        START_NS,
    )
    assert [row.receiver for row in await store.outbox_list()] == ["sms", "ops"]
    assert await store.positions() == {"pumps": 7}
    assert [notice.receiver for notice in notices] == ["ops", "sms"]


async def test_a_repeat_after_a_crash_is_recognised_and_told_to_nobody(store: Store) -> None:
    await store.commit([raised(), cleared()], {"pumps": 7})
    notices = heard(store)
    assert await store.commit([raised(), cleared()], {"pumps": 9}) == []
    assert notices == []
    assert len(await store.outbox_list()) == 4
    assert await store.active_violations() == []
    assert await store.positions() == {"pumps": 9}
    assert store.counters.repeats == 2


async def test_what_is_new_among_repeats_is_stored(store: Store) -> None:
    await store.commit([raised()])
    assert await store.commit([raised(), cleared(), raised(episode=1)]) == [
        f"{violation_id('meter-12')}-alarm-cleared",
        f"{violation_id('meter-12', 1)}-in-alarm",
    ]


async def test_a_suppressed_behavior_is_recorded_and_told_to_nobody(store: Store) -> None:
    notices = heard(store)
    assert len(await store.commit([raised(behavior=behavior(suppress_alerts=True))])) == 1
    assert notices == []
    assert await store.outbox_list() == []
    assert len(await store.active_violations()) == 1


async def test_an_end_is_told_only_to_those_who_were_told_of_the_beginning(store: Store) -> None:
    store.route = lambda _: ("ops",)
    await store.commit([raised()])
    store.route = lambda _: ("ops", "late")
    notices = heard(store)
    await store.commit([cleared()])
    assert [notice.receiver for notice in notices] == ["ops"]


async def test_an_end_after_suppression_was_lifted_is_not_told(store: Store) -> None:
    await store.commit([raised(behavior=behavior(suppress_alerts=True))])
    notices = heard(store)
    await store.commit([cleared()])
    assert notices == []


@pytest.mark.parametrize("fate", [State.DEAD, State.DROPPED])
async def test_an_end_whose_beginning_will_never_arrive_is_skipped_and_says_why(store: Store, fate: State) -> None:
    store.route = lambda _: ("ops",)
    notices = heard(store)
    await store.commit([raised()])
    await settle(store, notices.pop(), fate)
    await store.commit([cleared()])
    assert notices == []
    (row, _) = await store.outbox_list()
    assert (row.event_type, row.state, row.why) == ("alarm-cleared", State.SKIPPED, "in-alarm was not delivered")


async def test_a_dead_in_alarm_takes_the_queued_end_of_its_alarm_with_it(store: Store) -> None:
    notices = heard(store)
    await store.commit([raised(), cleared()])
    to_ops = notices[0]
    await settle(store, to_ops, State.DEAD)
    states = {(row.receiver, row.event_type): row.state for row in await store.outbox_list()}
    assert states == {
        ("ops", "in-alarm"): State.DEAD,
        ("ops", "alarm-cleared"): State.SKIPPED,
        ("sms", "in-alarm"): State.QUEUED,
        ("sms", "alarm-cleared"): State.QUEUED,
    }


async def test_resending_a_dead_in_alarm_brings_back_what_was_skipped_under_the_same_ids(store: Store) -> None:
    store.route = lambda _: ("ops",)
    notices = heard(store)
    await store.commit([raised(), cleared()])
    first = list(notices)
    await settle(store, first[0], State.DEAD)
    notices.clear()
    again = await store.outbox_resend([first[0].id])
    assert again == notices
    assert [n.webhook_id for n in again] == [n.webhook_id for n in first]
    assert [n.message for n in again] == [n.message for n in first]
    assert min(n.id for n in again) > max(n.id for n in first)


async def test_the_end_of_an_alarm_that_nobody_heard_of_cannot_be_resent(store: Store) -> None:
    store.route = lambda _: ("ops",)
    notices = heard(store)
    await store.commit([raised(), cleared()])
    raising, clearing = notices
    await settle(store, raising, State.DEAD)
    assert await store.outbox_resend([clearing.id]) == []
    assert await store.outbox_resend([10_000]) == []


async def test_a_dropped_row_is_not_queued_any_more(store: Store) -> None:
    notices = heard(store)
    await store.commit([raised()])
    assert await store.outbox_drop([notices[0].id, 10_000]) == [notices[0].id]
    assert [row.receiver for row in await store.outbox_list([State.QUEUED])] == ["sms"]
    await settle(store, notices[0], State.DELIVERED)
    assert [row.state for row in await store.outbox_list(receiver="ops")] == [State.DROPPED]


async def test_the_message_tells_the_verification_state_of_the_violation(store: Store) -> None:
    store.route = lambda _: ("ops",)
    notices = heard(store)
    await store.commit([raised()])
    assert await store.verify(violation_id("meter-12"), "FALSE_POSITIVE", "a drill")
    await store.commit([invalidated()])
    assert b'"verificationState":"UNKNOWN"' in notices[0].message
    assert b'"verificationState":"FALSE_POSITIVE"' in notices[1].message
    assert not await store.verify("unknown", "FALSE_POSITIVE", None)


async def test_touches_are_coalesced_and_never_go_back(store: Store) -> None:
    await store.commit([raised()])
    before = store.writer.written
    for step in range(100):
        store.touch(violation_id("meter-12"), START_NS + step * NS, MetricValue(count=step))
    await store.flush()
    assert store.writer.written == before + 1
    store.touch(violation_id("meter-12"), START_NS + 5 * NS, MetricValue(count=5))
    await store.flush()
    (violation,) = await store.active_violations()
    assert violation.last_violation_ns == START_NS + 99 * NS
    assert violation.last_violation_value == MetricValue(count=99)


async def test_touches_are_written_without_being_asked(store: Store) -> None:
    await store.commit([raised()])
    store.touch(violation_id("meter-12"), START_NS + NS, MetricValue(count=98))
    store.note_positions({"pumps": 11})
    async with asyncio.timeout(20):
        while (await store.positions()) != {"pumps": 11}:
            await asyncio.sleep(0.05)
    (violation,) = await store.active_violations()
    assert violation.last_violation_ns == START_NS + NS


async def test_a_noted_position_never_takes_back_a_later_one(store: Store) -> None:
    store.note_positions({"pumps": 5})
    await store.commit([], {"pumps": 9})
    await store.flush()
    assert await store.positions() == {"pumps": 9}


async def test_what_waits_to_be_written_is_written_at_close(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    await store.commit([raised()])
    store.touch(violation_id("meter-12"), START_NS + NS, MetricValue(count=98))
    await store.close()
    again = await open_store(tmp_path)
    (violation,) = await again.active_violations()
    await again.close()
    assert violation.last_violation_value == MetricValue(count=98)
    with pytest.raises(StoreClosed):
        await store.commit([cleared()])


async def test_retention_removes_closed_violations_with_all_that_belongs_to_them(store: Store) -> None:
    old = [make(f"t{n}") for n in range(250) for make in (raised, cleared)]
    await store.commit([*old, raised("open")])
    month_ns = 30 * 86_400 * NS
    assert await store.expire(START_NS + 300 * NS + month_ns) == 0
    assert await store.expire(START_NS + 301 * NS + month_ns) == 250
    assert [v.thing for v in await store.active_violations()] == ["open"]
    assert [e.told.thing_name for e in await events_of(store, 0, 2 * START_NS)] == ["open"]
    assert {row.thing for row in await store.outbox_list()} == {"open"}


async def test_another_log_takes_positions_and_checkpoints_away(store: Store) -> None:
    assert await store.adopt_identity("log-a")
    await store.commit([raised()], {"pumps": 7})
    for position in (5, 6, 7):
        await store.put_checkpoint(position, f"at {position}", keep=2)
    assert await store.adopt_identity("log-a")
    assert await store.checkpoints() == ["at 7", "at 6"]
    assert not await store.adopt_identity("log-b")
    assert await store.positions() == {}
    assert await store.checkpoints() == []
    assert await store.adopt_identity("log-b")


async def test_alarms_of_another_log_are_invalidated_and_those_who_heard_of_them_are_told(store: Store) -> None:
    store.route = lambda _: ("ops",)
    await store.adopt_identity("log-a")
    await store.commit([raised("told"), raised("quiet", behavior=behavior(suppress_alerts=True))])
    store.route = lambda _: ()
    notices = heard(store)
    await store.adopt_identity("log-b")
    assert [(notice.thing, notice.event_type) for notice in notices] == [("told", "alarm-invalidated")]
    assert await store.active_violations() == []
    (event, _) = await events_of(store, NOW_NS, NOW_NS)
    assert (event.told.violation_event_type, value_of(event)) == ("alarm-invalidated", None)
    reasons = await store.read(
        lambda con: con.execute("SELECT reason FROM events WHERE event_type = 'alarm-invalidated'").fetchall()
    )
    assert set(reasons) == {("the log that this alarm came from was replaced",)}


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    await store.close()
    for asked in (store.put_meta("a", "b"), store.get_meta("a")):
        with pytest.raises(StoreClosed):
            await asked


async def test_gaps_definitions_and_meta_are_remembered(store: Store) -> None:
    assert await store.put_gap("LOG", 5, 9, "overrun")
    assert not await store.put_gap("LOG", 5, 9, "overrun")
    assert [(gap.first, gap.last) for gap in await store.gaps()] == [(5, 9)]
    await store.put_definition("d1", b"rules")
    assert await store.definition("d1") == b"rules"
    assert await store.definition("d2") is None
    assert await store.drop_definitions(NOW_NS + 1, keep=["d1"]) == 0
    assert await store.drop_definitions(NOW_NS + 1, keep=[]) == 1
    await store.put_meta("schema", "x")
    assert await store.get_meta("schema") == "x"


async def test_poison_is_set_aside_listed_and_taken_out(store: Store) -> None:
    assert await store.put_poison("pumps", 7, "$aws.things.p1", b"\x00entry", "ZeroDivisionError")
    assert [p.seq for p in await store.poison()] == [7]
    taken = await store.drop_poison("pumps", 7)
    assert taken is not None
    assert taken.entry == b"\x00entry"
    assert await store.drop_poison("pumps", 7) is None


async def test_the_poison_table_is_bounded_and_the_bound_is_counted(store: Store) -> None:
    await store.write(
        lambda con: con.executemany(
            "INSERT INTO poison VALUES ('pumps', ?, '', x'', '', 0)", [(n,) for n in range(POISON_MAX)]
        )
    )
    assert not await store.put_poison("pumps", POISON_MAX, "", b"", "")
    assert store.counters.poison_refused == 1


async def test_backlogs_count_what_waits_by_receiver(store: Store) -> None:
    notices = heard(store)
    await store.commit([raised(), raised("p2")])
    await settle(store, notices[0], State.DEAD)
    assert await store.backlogs() == {
        "ops": Backlog(queued=1, orphaned=0, dead=1, oldest_ns=NOW_NS),
        "sms": Backlog(queued=2, orphaned=0, dead=0, oldest_ns=NOW_NS),
    }


async def test_one_callers_bug_does_not_undo_the_work_of_others_in_its_group(store: Store) -> None:
    def bug(con: sqlite3.Connection) -> None:
        con.execute("INSERT INTO meta VALUES ('half', 'done')")
        raise ZeroDivisionError

    results = await asyncio.gather(store.write(bug), store.commit([raised()]), return_exceptions=True)
    assert isinstance(results[0], ZeroDivisionError)
    assert len(await store.active_violations()) == 1
    assert await store.get_meta("half") is None


async def test_the_rows_of_one_thing_are_read_between_two_ids(store: Store) -> None:
    store.route = lambda _: ("ops",)
    await store.commit([raised("p1", episode) for episode in range(6)] + [raised("p2")])
    rows = await store.read(lambda con: queued_of_thing(con, "ops", "p1", 2, 5, 2))
    assert [row.id for row in rows] == [3, 4]
    rows = await store.read(lambda con: queued_of_thing(con, "ops", "p1", 2, 5, 10))
    assert [row.id for row in rows] == [3, 4, 5]


async def test_everything_queued_is_one_transaction(store: Store) -> None:
    await store.commit([raised("first")])
    groups = store.writer.groups
    await asyncio.gather(*(store.commit([raised(f"t{n}")]) for n in range(100)))
    assert store.writer.groups - groups <= 2  # the first may have gone alone


async def test_a_caller_beyond_the_bound_of_the_queue_waits_and_is_counted(store: Store) -> None:
    await asyncio.gather(*(store.commit([raised(f"t{n}")]) for n in range(1100)))
    assert store.writer.waits >= 1
    assert store.writer.pending == 0
    assert len(await store.active_violations()) == 1100


async def test_a_cancelled_caller_does_not_lose_what_it_asked_for(store: Store) -> None:
    notices = heard(store)
    task = asyncio.create_task(store.commit([raised()]))
    await asyncio.sleep(0)
    task.cancel()
    await store.commit([raised("other")])
    assert [notice.thing for notice in notices] == ["meter-12", "meter-12", "other", "other"]


async def test_a_reader_cannot_write(store: Store) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await store.read(lambda con: con.execute("DELETE FROM meta"))


async def test_a_backup_is_one_consistent_file_made_while_work_goes_on(store: Store, tmp_path: Path) -> None:
    await store.commit([raised(f"t{n}") for n in range(500)], {"pumps": 500})

    async def go_on() -> None:
        for n in range(50):
            await store.commit([raised(f"more{n}")], {"pumps": 501 + n})

    await asyncio.gather(store.backup(tmp_path / "copy.db"), go_on())
    assert [path.name for path in tmp_path.glob("copy*")] == ["copy.db"]
    copy = await Store.open(tmp_path / "copy.db", clock=lambda: NOW_NS)
    things, position = len(await copy.active_violations()), (await copy.positions())["pumps"]
    await copy.close()
    assert things == position


async def test_a_backup_that_cannot_be_written_is_an_error_that_names_the_path(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nowhere"):
        await store.backup(tmp_path / "nowhere" / "copy.db")


async def test_the_speed_of_ten_thousand_transitions_is_printed(store: Store) -> None:
    batch: list[Transition] = [raised(f"t{n}") for n in range(10_000)]
    loop = asyncio.get_running_loop()
    started = loop.time()
    assert len(await store.commit(batch)) == 10_000
    whole = loop.time() - started
    started = loop.time()
    for n in range(200):
        await store.commit([cleared(f"t{n}")])
    one = (loop.time() - started) / 200
    print(f"\n10 000 transitions in one commit: {whole:.2f} s; one at a time: {one * 1e3:.2f} ms each")
