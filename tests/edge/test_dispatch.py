"""Dispatch: woken by the commit, in order per thing, patient in virtual time, and nobody waits for another."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import pairwise
from pathlib import Path

import aiohttp
import pytest
from transitions import START_NS, cleared, invalidated, raised

from actors.delivery import FAILURES_MAX, Delivered, Disabled, Outcome, Reason, Retry, State
from actors.notice import Notice
from config.model import NS, Receivers, Webhook
from daemon.clock import VirtualClock
from daemon.delivery.courier import UNMARKED_MAX
from daemon.delivery.dispatch import Crashed, Died, Dispatch, Failed, News, Plan, Sent, Switched
from daemon.notifiers import ReceiverError
from daemon.store.store import Store

DOWN = Retry(Reason.UNREACHABLE, "Connection refused")


class Receiver:
    """A notifier that answers as it is told to, and remembers."""

    warnings: tuple[str, ...] = ()

    def __init__(
        self, clock: VirtualClock, answer: Callable[[Notice], Outcome] | None = None, identity: str = "1"
    ) -> None:
        self.identity = identity
        self.answer = answer or (lambda _: Delivered())
        self.gate = asyncio.Event()
        self.gate.set()
        self.attempts: list[tuple[str, str]] = []  # (thing, event) as they began
        self.ids: list[str] = []
        self.bodies: list[bytes] = []
        self.at_s: list[float] = []
        self.open = 0
        self.open_max = 0
        self._clock = clock

    async def send(self, notice: Notice) -> Outcome:
        self.attempts.append((notice.thing, notice.event_type))
        self.ids.append(notice.webhook_id)
        self.bodies.append(notice.message)
        self.at_s.append(self._clock.monotonic_ns() / NS)
        self.open += 1
        self.open_max = max(self.open_max, self.open)
        try:
            await self.gate.wait()
        finally:
            self.open -= 1
        return self.answer(notice)


class Daemon:
    """A store and a dispatch on a virtual clock."""

    def __init__(self, folder: Path) -> None:
        self.clock = VirtualClock(START_NS)
        self.news: list[News] = []
        self._path = folder / "detectd.db"

    async def start(self, **receivers: Receiver) -> None:
        self.store = await Store.open(self._path, clock=self.clock.now_ns)
        self.session = aiohttp.ClientSession()
        self.dispatch = Dispatch(self.store, self.clock, self.session, on_news=self.news.append)
        await self.reload(**receivers)

    async def reload(self, **receivers: Receiver) -> None:
        await self.dispatch.apply(Plan(receivers))

    async def stop(self, deadline_s: float = 10) -> bool:
        graceful = await self.dispatch.stop(deadline_s)
        await self.session.close()
        await self.store.close()
        return graceful

    async def states(self) -> dict[tuple[str, str], State]:
        """{(thing, event): state}"""
        return {(row.thing, row.event_type): row.state for row in await self.store.outbox_list(limit=100_000)}

    async def become(self, expected: dict[tuple[str, str], State]) -> None:
        async with asyncio.timeout(20):
            while (await self.states()) != expected:
                await asyncio.sleep(0.002)


async def eventually(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not claim():
            await asyncio.sleep(0.002)


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    daemon = Daemon(tmp_path)
    yield daemon
    assert await daemon.stop(), "a worker did not end"
    assert not [news for news in daemon.news if isinstance(news, Crashed)]


async def test_a_commit_wakes_the_worker_without_time_passing(daemon: Daemon) -> None:
    ops = Receiver(daemon.clock)
    await daemon.start(ops=ops)
    await daemon.store.commit([raised()])
    await eventually(lambda: ops.attempts == [("meter-12", "in-alarm")])
    await daemon.become({("meter-12", "in-alarm"): State.DELIVERED})
    assert daemon.dispatch.stats["ops"].delivered == 1
    assert daemon.clock.monotonic_ns() == 0


async def test_every_receiver_hears_of_every_event(daemon: Daemon) -> None:
    ops, sms = Receiver(daemon.clock), Receiver(daemon.clock)
    await daemon.start(ops=ops, sms=sms)
    await daemon.store.commit([raised(), cleared()])
    await eventually(lambda: len(ops.attempts) == len(sms.attempts) == 2)
    assert len({*ops.ids, *sms.ids}) == 4


async def test_events_of_a_thing_arrive_in_order_even_when_the_first_fails(daemon: Daemon) -> None:
    ops = Receiver(daemon.clock, lambda _: DOWN)
    await daemon.start(ops=ops)
    await daemon.store.commit([raised("p1"), cleared("p1"), raised("p1", 1)])
    await eventually(lambda: len(ops.attempts) == 1)
    ops.answer = lambda _: Delivered()
    await daemon.clock.advance(2)
    await eventually(lambda: len(ops.attempts) == 4)
    assert ops.attempts == [("p1", "in-alarm"), ("p1", "in-alarm"), ("p1", "alarm-cleared"), ("p1", "in-alarm")]
    assert ops.ids[0] == ops.ids[1]
    assert ops.bodies[0] == ops.bodies[1]


async def test_a_thing_whose_notice_fails_holds_up_no_other_thing(daemon: Daemon) -> None:
    ops = Receiver(daemon.clock, lambda notice: DOWN if notice.thing == "bad" else Delivered())
    await daemon.start(ops=ops)
    await daemon.store.commit([raised("bad"), cleared("bad"), raised("good"), cleared("good")])
    await daemon.become(
        {
            ("bad", "in-alarm"): State.QUEUED,
            ("bad", "alarm-cleared"): State.QUEUED,
            ("good", "in-alarm"): State.DELIVERED,
            ("good", "alarm-cleared"): State.DELIVERED,
        }
    )
    assert ("bad", "alarm-cleared") not in ops.attempts


async def test_a_failure_is_retried_after_one_two_four_eight_seconds(daemon: Daemon) -> None:
    ops = Receiver(daemon.clock, lambda _: DOWN)
    await daemon.start(ops=ops)
    await daemon.store.commit([raised()])
    await eventually(lambda: len(ops.attempts) == 1)
    await daemon.clock.advance(145)
    gaps_s = [later - earlier for earlier, later in pairwise(ops.at_s)]
    assert gaps_s == [pytest.approx(2.0**n, rel=0.11) for n in range(7)]
    assert len(set(ops.ids)) == 1
    assert daemon.dispatch.stats["ops"].failed == {Reason.UNREACHABLE: 8}


async def test_a_failing_receiver_is_news_once_and_its_recovery_too(daemon: Daemon) -> None:
    ops = Receiver(daemon.clock, lambda _: DOWN)
    await daemon.start(ops=ops)
    await daemon.store.commit([raised()])
    await eventually(lambda: len(ops.attempts) == 1)
    await daemon.clock.advance(1.2)
    await eventually(lambda: len(ops.attempts) == 2)
    assert daemon.dispatch.status()[0].condition == "failing"
    ops.answer = lambda _: Delivered()
    await daemon.clock.advance(2.4)
    await daemon.become({("meter-12", "in-alarm"): State.DELIVERED})
    assert [(type(n), getattr(n, "first", None), getattr(n, "recovered", None)) for n in daemon.news] == [
        (Failed, True, None),
        (Failed, False, None),
        (Sent, None, True),
    ]
    assert daemon.dispatch.status()[0].condition == "ok"


async def test_a_wall_clock_that_steps_back_does_not_hold_a_retry_back(daemon: Daemon) -> None:
    ops = Receiver(daemon.clock, lambda _: DOWN)
    await daemon.start(ops=ops)
    await daemon.store.commit([raised()])
    await eventually(lambda: len(ops.attempts) == 1)
    daemon.clock.step_wall(-365 * 86_400)
    await daemon.clock.advance(1.2)
    await eventually(lambda: len(ops.attempts) == 2)


async def test_a_delivery_that_used_up_its_attempts_is_dead_and_takes_its_end_with_it(daemon: Daemon) -> None:
    ops = Receiver(daemon.clock, lambda _: DOWN)
    await daemon.start(ops=ops)
    await daemon.store.commit([raised("p1"), cleared("p1"), raised("p1", 1)])
    await eventually(lambda: len(ops.attempts) == 1)
    await daemon.store.write(
        lambda con: con.execute("UPDATE outbox SET attempts = ?, due_ns = 0 WHERE id = 1", (FAILURES_MAX - 1,))
    )
    await daemon.stop()
    again = Receiver(daemon.clock, lambda notice: DOWN if notice.id == 1 else Delivered())
    await daemon.start(ops=again)
    await eventually(lambda: len(again.attempts) == 2)
    await daemon.store.commit([cleared("p1", 1)])
    await eventually(lambda: len(again.attempts) == 3)
    rows = [(row.event_type, row.state) for row in reversed(await daemon.store.outbox_list())]
    assert rows[:2] == [("in-alarm", State.DEAD), ("alarm-cleared", State.SKIPPED)]
    assert again.attempts[1:] == [("p1", "in-alarm"), ("p1", "alarm-cleared")]
    assert [type(n) for n in daemon.news[1:]] == [Died, Sent, Sent]
    assert daemon.dispatch.stats["ops"].dead == 1


async def test_after_a_restart_what_was_not_delivered_goes_out_under_the_same_id(daemon: Daemon) -> None:
    ops = Receiver(daemon.clock, lambda _: DOWN)
    await daemon.start(ops=ops)
    await daemon.store.commit([raised("p1"), cleared("p1"), raised("p2")])
    await eventually(lambda: len(ops.attempts) == 2)
    await daemon.stop()
    again = Receiver(daemon.clock)
    await daemon.start(ops=again)
    await daemon.clock.advance(2)
    await eventually(lambda: len(again.attempts) == 3)
    assert sorted(again.ids) == sorted({*ops.ids, *again.ids})
    assert [event for thing, event in again.attempts if thing == "p1"] == ["in-alarm", "alarm-cleared"]


async def test_the_schedule_survives_a_restart(daemon: Daemon) -> None:
    ops = Receiver(daemon.clock, lambda _: DOWN)
    await daemon.start(ops=ops)
    await daemon.store.commit([raised()])
    await eventually(lambda: len(ops.attempts) == 1)
    await daemon.clock.advance(17)
    assert len(ops.attempts) == 5
    await daemon.stop()
    again = Receiver(daemon.clock, lambda _: DOWN)
    await daemon.start(ops=again)
    await eventually(lambda: daemon.dispatch.status()[0].held == 1)
    await daemon.clock.advance(11)
    assert again.attempts == []
    await daemon.clock.advance(7)
    assert again.ids == ops.ids[:1]


async def test_a_slow_receiver_delays_no_other(daemon: Daemon) -> None:
    slow, fast = Receiver(daemon.clock), Receiver(daemon.clock)
    slow.gate.clear()
    await daemon.start(slow=slow, fast=fast)
    await daemon.store.commit([raised(f"t{n}") for n in range(100)])
    await eventually(lambda: len(fast.attempts) == 100)
    assert len(slow.attempts) == 16
    assert daemon.dispatch.stats["slow"].delivered == 0
    slow.gate.set()
    await eventually(lambda: len(slow.attempts) == 100)
    assert slow.open_max == 16


async def test_a_receiver_that_asks_for_time_is_left_alone_whatever_the_thing(daemon: Daemon) -> None:
    ops = Receiver(daemon.clock, lambda _: Retry(Reason.THROTTLED, "HTTP 429", after_s=30))
    await daemon.start(ops=ops)
    await daemon.store.commit([raised("p1")])
    await eventually(lambda: bool(daemon.news))
    ops.answer = lambda _: Delivered()
    await daemon.store.commit([raised("p2")])
    await daemon.clock.advance(29)
    assert ops.attempts == [("p1", "in-alarm")]
    assert daemon.dispatch.status()[0].condition == "paused"
    await daemon.clock.advance(2)
    await eventually(lambda: len(ops.attempts) == 3)


async def test_the_end_of_a_pause_wakes_things_that_did_not_fail(daemon: Daemon) -> None:
    ops = Receiver(daemon.clock, lambda _: DOWN)
    await daemon.start(ops=ops)
    await daemon.store.commit([raised("p1")])
    await eventually(lambda: bool(daemon.news))
    await daemon.store.write(lambda con: con.execute("UPDATE outbox SET attempts = 9, due_ns = 0"))
    await daemon.stop()
    again = Receiver(daemon.clock, lambda _: Retry(Reason.THROTTLED, "HTTP 429", after_s=5))
    await daemon.start(ops=again)
    await eventually(lambda: len(daemon.news) == 2)  # p1 itself is due in 512 s
    again.answer = lambda _: Delivered()
    await daemon.store.commit([raised("p2")])
    await daemon.clock.advance(4.9)
    assert again.attempts == [("p1", "in-alarm")]
    await daemon.clock.advance(0.2)
    await eventually(lambda: again.attempts[1:] == [("p2", "in-alarm")])


async def test_a_receiver_that_is_gone_gets_nothing_until_it_is_enabled(daemon: Daemon) -> None:
    ops, other = Receiver(daemon.clock, lambda _: Disabled(detail="HTTP 410")), Receiver(daemon.clock)
    await daemon.start(ops=ops, other=other)
    await daemon.store.commit([raised("p1")])
    await eventually(lambda: any(isinstance(n, Switched) for n in daemon.news))
    await daemon.store.commit([cleared("p1"), raised("p2")])
    await eventually(lambda: len(other.attempts) == 3)
    await daemon.clock.advance(7200)
    assert len(ops.attempts) == 1
    (status, _) = daemon.dispatch.status()
    assert (status.condition, status.why, status.held) == ("disabled", "gone: HTTP 410", 0)
    assert (await daemon.dispatch.backlogs())["ops"].queued == 3
    ops.answer = lambda _: Delivered()
    assert await daemon.dispatch.enable("ops")
    await eventually(lambda: len(ops.attempts) == 4)
    assert not await daemon.dispatch.enable("ops")


async def test_a_gone_receiver_stays_disabled_over_a_restart_unless_its_options_changed(daemon: Daemon) -> None:
    ops = Receiver(daemon.clock, lambda _: Disabled(detail="HTTP 410"))
    await daemon.start(ops=ops)
    await daemon.store.commit([raised()])
    await eventually(lambda: bool(daemon.news))
    await daemon.stop()
    same = Receiver(daemon.clock)
    await daemon.start(ops=same)
    await daemon.clock.advance(100)
    assert same.attempts == []
    assert daemon.dispatch.status()[0].condition == "disabled"
    await daemon.stop()
    other = Receiver(daemon.clock, identity="2")
    await daemon.start(ops=other)
    await eventually(lambda: len(other.attempts) == 1)


async def test_a_reload_tries_a_gone_receiver_again(daemon: Daemon) -> None:
    ops = Receiver(daemon.clock, lambda _: Disabled(detail="HTTP 410"))
    await daemon.start(ops=ops)
    await daemon.store.commit([raised()])
    await eventually(lambda: bool(daemon.news))
    ops.answer = lambda _: Delivered()
    await daemon.reload(ops=ops)
    await eventually(lambda: len(ops.attempts) == 2)


async def test_what_waited_too_long_for_a_gone_receiver_is_dead_when_it_returns(daemon: Daemon) -> None:
    ops = Receiver(daemon.clock, lambda _: Disabled(detail="HTTP 410"))
    await daemon.start(ops=ops)
    await daemon.store.commit([raised("old")])
    await eventually(lambda: bool(daemon.news))
    await daemon.clock.advance(5 * 86_400)
    await daemon.store.commit([cleared("old"), raised("new")])
    ops.answer = lambda _: Delivered()
    await daemon.dispatch.enable("ops")
    await daemon.become(
        {
            ("old", "in-alarm"): State.DEAD,
            ("old", "alarm-cleared"): State.SKIPPED,
            ("new", "in-alarm"): State.DELIVERED,
        }
    )
    assert ops.attempts[1:] == [("new", "in-alarm")]


async def test_a_reload_leaves_unchanged_receivers_and_what_they_are_sending_alone(daemon: Daemon) -> None:
    ops = Receiver(daemon.clock)
    ops.gate.clear()
    await daemon.start(ops=ops)
    await daemon.store.commit([raised()])
    await eventually(lambda: ops.open == 1)
    await daemon.reload(ops=ops)
    assert ops.open == 1
    ops.gate.set()
    await daemon.become({("meter-12", "in-alarm"): State.DELIVERED})
    assert len(ops.attempts) == 1


async def test_a_changed_receiver_gets_the_next_attempt_under_its_new_options(daemon: Daemon) -> None:
    old, new = Receiver(daemon.clock, lambda _: DOWN), Receiver(daemon.clock, identity="2")
    await daemon.start(ops=old)
    await daemon.store.commit([raised()])
    await eventually(lambda: len(old.attempts) == 1)
    await daemon.reload(ops=new)
    await daemon.clock.advance(2)
    await eventually(lambda: len(new.attempts) == 1)
    assert old.ids == new.ids


async def test_a_removed_receiver_finishes_what_it_sends_and_the_rest_waits_as_orphaned(daemon: Daemon) -> None:
    ops = Receiver(daemon.clock)
    ops.gate.clear()
    await daemon.start(ops=ops)
    await daemon.store.commit([raised("p1"), cleared("p1")])
    await eventually(lambda: ops.open == 1)
    await daemon.reload()
    await daemon.store.commit([raised("p2")])
    ops.gate.set()
    await daemon.become({("p1", "in-alarm"): State.DELIVERED, ("p1", "alarm-cleared"): State.ORPHANED})
    again = Receiver(daemon.clock)
    await daemon.reload(ops=again)
    await daemon.become({("p1", "in-alarm"): State.DELIVERED, ("p1", "alarm-cleared"): State.DELIVERED})
    assert again.attempts == [("p1", "alarm-cleared")]


async def test_a_receiver_that_returns_while_it_is_still_being_sent_to_is_not_sent_it_twice(daemon: Daemon) -> None:
    ops = Receiver(daemon.clock)
    ops.gate.clear()
    await daemon.start(ops=ops)
    await daemon.store.commit([raised("p1"), cleared("p1")])
    await eventually(lambda: ops.open == 1)
    await daemon.reload()
    again = Receiver(daemon.clock)
    returning = asyncio.create_task(daemon.reload(ops=again))
    for _ in range(50):  # as long as a worker would need to read the outbox, many times over
        await daemon.store.backlogs()
    assert again.attempts == []
    ops.gate.set()
    await returning
    await eventually(lambda: again.attempts == [("p1", "alarm-cleared")])
    assert ops.attempts == [("p1", "in-alarm")]


async def test_a_receiver_removed_while_the_daemon_was_off_leaves_orphans_too(daemon: Daemon) -> None:
    ops = Receiver(daemon.clock, lambda _: DOWN)
    await daemon.start(ops=ops)
    await daemon.store.commit([raised()])
    await eventually(lambda: len(ops.attempts) == 1)
    await daemon.stop()
    await daemon.start()
    await daemon.become({("meter-12", "in-alarm"): State.ORPHANED})
    assert (await daemon.dispatch.backlogs())["ops"].orphaned == 1


async def test_more_than_fits_in_memory_is_delivered_all_the_same_once_and_in_order(daemon: Daemon) -> None:
    ops = Receiver(daemon.clock)
    ops.gate.clear()
    await daemon.start(ops=ops)
    await daemon.store.commit([raised("p0")])
    await eventually(lambda: ops.open == 1)
    things = [f"p{n % 700}" for n in range(10_500)]
    await daemon.store.commit([raised(thing, n + 1) for n, thing in enumerate(things)])
    assert daemon.dispatch.status()[0].held == 10_000
    ops.gate.set()
    await eventually(lambda: len(ops.attempts) >= 10_501)
    assert len(set(ops.ids)) == len(ops.ids) == 10_501
    ids_of = {
        thing: [i for i, (t, _) in zip(ops.ids, ops.attempts, strict=True) if t == thing] for thing in ("p0", "p7")
    }
    wanted = {
        thing: [f"{raised(thing, n + 1).violation_id}-in-alarm-ops" for n, t in enumerate(things) if t == thing]
        for thing in ("p0", "p7")
    }
    assert ids_of["p0"][1:] == wanted["p0"]
    assert ids_of["p7"] == wanted["p7"]


async def test_a_dropped_notice_is_not_sent_and_a_dead_one_can_be_sent_again(daemon: Daemon) -> None:
    ops = Receiver(daemon.clock, lambda _: DOWN)
    await daemon.start(ops=ops)
    await daemon.store.commit([raised("p1"), cleared("p1")])
    await eventually(lambda: bool(daemon.news))
    (_, first) = await daemon.store.outbox_list()
    assert await daemon.dispatch.drop([first.id]) == [first.id]
    await daemon.clock.advance(10)
    assert len(ops.attempts) == 1
    await daemon.become({("p1", "in-alarm"): State.DROPPED, ("p1", "alarm-cleared"): State.SKIPPED})
    ops.answer = lambda _: Delivered()
    await daemon.dispatch.resend([first.id])
    await daemon.become({("p1", "in-alarm"): State.DELIVERED, ("p1", "alarm-cleared"): State.DELIVERED})
    assert ops.ids[0] == ops.ids[1]


async def test_rows_that_another_process_queued_are_found_within_a_minute(daemon: Daemon) -> None:
    ops = Receiver(daemon.clock)
    await daemon.start(ops=ops)
    await daemon.store.commit([raised()])
    await daemon.become({("meter-12", "in-alarm"): State.DELIVERED})
    (row,) = await daemon.store.outbox_list()
    other = await Store.open(daemon.store.path, clock=daemon.clock.now_ns)
    await other.outbox_resend([row.id])
    await other.close()
    assert len(ops.attempts) == 1
    await daemon.clock.advance(61)
    await eventually(lambda: len(ops.attempts) == 2)


async def test_a_bug_in_a_notifier_is_a_failed_attempt(daemon: Daemon) -> None:
    def bug(_: Notice) -> Outcome:
        raise ZeroDivisionError

    ops = Receiver(daemon.clock, bug)
    await daemon.start(ops=ops)
    await daemon.store.commit([raised()])
    await eventually(lambda: bool(daemon.news))
    assert daemon.dispatch.stats["ops"].failed == {Reason.BUG: 1}


async def test_a_worker_that_crashes_starts_over_from_the_outbox(tmp_path: Path) -> None:
    def nonsense(_: Notice) -> Outcome:
        return None  # type: ignore[return-value] # what no notifier may answer

    daemon = Daemon(tmp_path)
    ops = Receiver(daemon.clock, nonsense)
    await daemon.start(ops=ops)
    await daemon.store.commit([raised()])
    await eventually(lambda: any(isinstance(n, Crashed) for n in daemon.news))
    ops.answer = lambda _: Delivered()
    await eventually(lambda: daemon.clock.sleepers == 1)
    await daemon.clock.advance(2)
    await daemon.become({("meter-12", "in-alarm"): State.DELIVERED})
    assert daemon.dispatch.stats["ops"].crashes == 1
    assert await daemon.stop()


async def test_stopping_cuts_off_a_receiver_that_does_not_answer_and_loses_nothing(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    ops = Receiver(daemon.clock)
    ops.gate.clear()
    await daemon.start(ops=ops)
    await daemon.store.commit([raised()])
    await eventually(lambda: ops.open == 1)
    assert not await daemon.stop(deadline_s=0.05)
    assert ops.open == 0
    again = Receiver(daemon.clock)
    await daemon.start(ops=again)
    await eventually(lambda: again.ids == ops.ids)
    assert await daemon.stop()


async def test_an_end_is_never_sent_before_its_beginning_was_delivered(daemon: Daemon) -> None:
    answers: Iterator[Outcome] = iter([DOWN, DOWN, Delivered(), DOWN, Delivered()])
    ops = Receiver(daemon.clock, lambda _: next(answers))
    await daemon.start(ops=ops)
    await daemon.store.commit([raised("p1"), invalidated("p1")])
    for _ in range(4):
        seen = len(ops.attempts)
        await daemon.clock.advance(3)
        await eventually(lambda n=seen: len(ops.attempts) > n or len(ops.attempts) == 5)  # type: ignore[misc] # bound
    await daemon.become({("p1", "in-alarm"): State.DELIVERED, ("p1", "alarm-invalidated"): State.DELIVERED})
    assert [event for _, event in ops.attempts] == ["in-alarm"] * 3 + ["alarm-invalidated"] * 2


async def test_while_outcomes_cannot_be_written_down_sending_stops_at_a_bound(daemon: Daemon) -> None:
    ops = Receiver(daemon.clock)
    ops.gate.clear()
    await daemon.start(ops=ops)
    await daemon.store.commit([raised(f"t{n}") for n in range(1000)])
    await eventually(lambda: ops.open == 16)
    with contextlib.closing(sqlite3.connect(daemon.store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        ops.gate.set()
        await eventually(lambda: len(ops.attempts) >= UNMARKED_MAX)
        await eventually(lambda: daemon.store.condition == "storage-busy")
        assert len(ops.attempts) <= UNMARKED_MAX + 16
        other.execute("COMMIT")
    await eventually(lambda: len(ops.attempts) == 1000)


async def test_receivers_that_cannot_be_built_leave_the_running_ones_alone(daemon: Daemon) -> None:
    ops = Receiver(daemon.clock)
    await daemon.start(ops=ops)
    with pytest.raises(ReceiverError, match="receiver 'bad'"):
        daemon.dispatch.prepare(Receivers(webhooks=(Webhook(name="bad", url="nowhere"),)))
    await daemon.store.commit([raised()])
    await eventually(lambda: len(ops.attempts) == 1)


async def test_an_unsigned_webhook_is_a_warning_of_the_plan(daemon: Daemon) -> None:
    await daemon.start()
    plan = daemon.dispatch.prepare(Receivers(webhooks=(Webhook(name="ops", url="http://127.0.0.1:9/"),)))
    assert plan.warnings == ["receiver 'ops': without a secret_file its webhooks are not signed"]
