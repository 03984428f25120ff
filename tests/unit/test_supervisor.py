"""Supervised actors: a crash is one actor's, a poison entry is set aside, restarts are bounded, nothing is lost."""

import asyncio
from dataclasses import dataclass, field

import pytest
import structlog
from builders import behavior, frames, numbered, play, profile, report, rules, told, world

from actors.criteria import threshold
from actors.group import GroupActor
from config.model import Rules
from daemon.checkpoint import CheckpointError
from daemon.supervisor import RESTARTS_MAX, RESTARTS_WITHIN_S, Broke, Supervisor

GOOD, OTHER = "thinggroup/g", "thinggroup/h"
OVER = behavior("aws:all-bytes-out", "less-than", 100, duration=300)
PORTS = behavior("aws:listening-tcp-ports", "in-port-set", [22])
RULES = rules(
    profile(OVER, name="bytes", targets=[GOOD]), profile(PORTS, name="ports", targets=[OTHER]),
    groups={"g": ["a", "b"], "h": ["a", "b"]},
)  # fmt: skip
POISON = 13


@pytest.fixture(autouse=True)
def raising_kernel(monkeypatch):
    """The threshold kernel breaks on a report of 13 bytes, after it has judged what came before it in the batch."""
    real = threshold._judge

    def judge(at, entries, rows, times, scalars, *rest):
        broken = [k for k, entry in enumerate(entries.tolist()) if POISON in scalars[entry].tolist()]
        if broken:
            cut = slice(0, broken[0])
            real(at, entries[cut].copy(), rows[cut].copy(), times[cut].copy(), scalars, *rest)
            raise ZeroDivisionError("kernel")
        return real(at, entries, rows, times, scalars, *rest)

    monkeypatch.setattr(threshold, "_judge", judge)


@pytest.fixture(autouse=True)
def logged():
    """Events of the log instead of lines: an unconfigured structlog renders tracebacks with all locals."""
    with structlog.testing.capture_logs() as events:
        yield events


@dataclass
class Counts:
    restarts: int = 0
    poison: int = 0

    def handled(self, actor: str, seconds: float, reports: int) -> None: ...

    def restarted(self, actor: str) -> None:
        self.restarts += 1

    def poisoned(self, actor: str) -> None:
        self.poison += 1


@dataclass
class House:
    """A log in memory, the world that routes it, and a supervisor over the world's actors."""

    first: Rules = RULES
    log: list = field(default_factory=list)
    said: list = field(default_factory=list)
    aside: list = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    now_s: float = 0.0
    away: int = 0  # rebuilds that fail because the log can't be read
    slept: list = field(default_factory=list)

    async def __aenter__(self):
        self.world = world(self.first)
        self.supervisor = Supervisor(
            self.perform, self.rebuild, self.set_aside, self.counts, lambda: self.now_s, self.sleep
        )
        self.supervisor.seat(self.world.actors)
        return self

    async def __aexit__(self, *_):
        await self.supervisor.stop()

    async def perform(self, actor, position, effects):
        known = {(t.violation_id, t.event_type) for t in self.said}
        self.said += [t for t in effects if (t.violation_id, t.event_type) not in known]

    async def set_aside(self, actor, position, payload, why):
        self.aside.append((actor, position))

    async def sleep(self, seconds):
        self.slept.append(seconds)

    async def rebuild(self, key: str, position: int, poison: set[int]):
        """From nothing, by the log: batches of three, so that poison hides among good entries."""
        if self.away:
            self.away -= 1
            raise ConnectionError("log out of reach")
        again, effects = world(self.first), []
        actor = again.actors[key]
        actor.poison = set(poison)
        upto = [said for said in self.log if said.position <= position]
        for at in range(0, len(upto), 3):
            batch = upto[at : at + 3]
            share = again.router.route(frames(batch)).shares[key]
            try:
                effects += actor.handle(share)
            except ZeroDivisionError as problem:
                raise Broke(batch[0].position, batch[-1].position) from problem
            await asyncio.sleep(0)
        return actor, effects

    async def hear(self, *said):
        """Append a batch to the log and tell everyone."""
        batch = numbered([*self.log, *said])[len(self.log) :]
        self.log += batch
        await self.supervisor.tell(self.world.router.route(frames(batch)).shares)

    async def settled(self):
        await asyncio.wait_for(self.supervisor.drained(), 20)

    def expected(self):
        """What an undisturbed world says about the log without the poison."""
        one = world(self.first)
        for actor, position in self.aside:
            one.actors[actor].poison.add(position)
        return sorted((t.position, t.violation_id, t.event_type) for t in play(one, self.log))

    def found(self):
        return sorted((t.position, t.violation_id, t.event_type) for t in self.said)


def over(thing, at):
    return report(thing, at, bytes_out=200, tcp=(23,))


def under(thing, at):
    return report(thing, at, bytes_out=1, tcp=(22,))


def poison(thing, at):
    return report(thing, at, bytes_out=POISON, tcp=(22,))


async def test_shares_are_judged_and_what_they_say_is_performed():
    async with House() as house:
        await house.hear(over("a", 0), under("b", 1))
        await house.hear(under("a", 300))
        await house.settled()
        assert house.found() == house.expected()
        assert len(house.said) == 4


async def test_a_poison_entry_is_set_aside_for_the_actor_it_breaks_and_the_rest_goes_on():
    async with House() as house:
        await house.hear(over("a", 0), poison("b", 1), over("b", 2))
        await house.settled()
        assert house.aside == [(GOOD, 2)]
        assert house.found() == house.expected()
        assert told(t for t in house.said if t.profile == "bytes") == [("a", "in-alarm"), ("b", "in-alarm")]
        assert (house.counts.poison, house.counts.restarts) == (1, 1)
        assert house.supervisor.failed() == []


async def test_the_other_actor_judges_the_poison_entry_as_any_other():
    async with House() as house:
        await house.hear(over("b", 0), poison("b", 300))
        await house.settled()
        assert told(t for t in house.said if t.profile == "ports") == [("b", "in-alarm"), ("b", "alarm-cleared")]


@pytest.mark.parametrize("batches", [[6], [1, 1, 1, 1, 1, 1], [3, 3], [2, 4]])
async def test_several_poison_entries_are_found_however_they_are_spread_over_batches(batches):
    entries = [poison("a", 0), over("a", 1), poison("b", 2), over("b", 3), poison("a", 400), under("a", 500)]
    async with House() as house:
        for size in batches:
            await house.hear(*[entries.pop(0) for _ in range(size)])
        await house.settled()
        assert sorted(house.aside) == [(GOOD, 1), (GOOD, 3), (GOOD, 5)]
        assert house.found() == house.expected()


async def test_what_others_are_told_meanwhile_is_caught_up_from_the_log():
    async with House() as house:
        await house.hear(poison("a", 0))
        for at in range(1, 30):
            await house.hear(over("a", at * 300) if at % 2 else under("a", at * 300))
        await house.settled()
        assert house.found() == house.expected()
        assert house.supervisor.seats[GOOD].actor.position == 30


async def test_a_crash_that_does_not_repeat_sets_nothing_aside(monkeypatch):
    real, crashes = GroupActor.handle, [1]

    def once(self, share):
        if self.key == GOOD and crashes:
            crashes.pop()
            raise MemoryError
        return real(self, share)

    monkeypatch.setattr(GroupActor, "handle", once)
    async with House() as house:
        await house.hear(over("a", 0), under("a", 300))
        await house.settled()
        assert house.aside == []
        assert house.counts.restarts == 1
        assert house.found() == house.expected()


async def test_more_crashes_than_allowed_end_the_actor_and_only_it():
    async with House() as house:
        for at in range(RESTARTS_MAX + 1):
            await house.hear(poison("a", at))
            await house.settled()
        await house.hear(over("a", 300))
        await house.settled()
        assert house.supervisor.failed() == [GOOD]
        assert house.counts.restarts == RESTARTS_MAX
        assert {t.profile for t in house.said} == {"ports"}


async def test_crashes_that_are_far_apart_never_end_an_actor():
    async with House() as house:
        for at in range(3 * RESTARTS_MAX):
            house.now_s += RESTARTS_WITHIN_S
            await house.hear(poison("a", at))
            await house.settled()
        assert house.supervisor.failed() == []


async def test_a_rebuild_that_cannot_read_the_log_waits_and_tries_again_without_blaming_an_entry():
    async with House() as house:
        house.away = 2
        await house.hear(poison("a", 0), over("a", 1))
        await house.settled()
        assert house.aside == [(GOOD, 1)]
        assert house.slept == sorted(house.slept)
        assert len(house.slept) == 2
        assert house.found() == house.expected()


async def test_a_log_that_stays_away_ends_the_actor():
    async with House() as house:
        house.away = 10**6
        await house.hear(poison("a", 0))
        await house.settled()
        assert house.supervisor.failed() == [GOOD]
        assert house.aside == []


async def test_an_actor_that_was_given_up_stays_so_when_rules_change_and_is_empty():
    async with House() as house:
        house.away = 10**6
        await house.hear(over("a", 0))
        await house.settled()
        await house.hear(poison("a", 1))
        await house.settled()
        await house.supervisor.stop()
        assert house.world.actors[GOOD].alarms.active() == []
        house.supervisor.seat(house.world.actors)
        assert house.supervisor.failed() == [GOOD]


async def test_a_marker_is_answered_with_the_state_at_its_place():
    async with House() as house:
        await house.hear(over("a", 0))
        answers = await house.supervisor.mark(1)
        await house.hear(under("a", 300))
        state = {key: await asyncio.wait_for(answer, 5) for key, answer in answers.items()}
        await house.settled()
        assert {key: one["position"] for key, one in state.items()} == {GOOD: 1, OTHER: 1}
        assert len(state[GOOD]["openings"]) == 1
        again = house.world.actors[GOOD].emptied()
        again.load(state[GOOD])
        assert len(again.alarms.active()) == 1


async def test_a_marker_that_a_crash_overtakes_is_an_error_not_a_wait():
    async with House() as house:
        await house.hear(poison("a", 0))
        answers = await house.supervisor.mark(1)
        await house.settled()
        with pytest.raises(CheckpointError, match=GOOD):
            await asyncio.wait_for(answers[GOOD], 5)
        assert (await answers[OTHER])["position"] == 1


async def test_a_marker_for_an_actor_that_was_given_up_is_an_error():
    async with House() as house:
        house.away = 10**6
        await house.hear(poison("a", 0))
        await house.settled()
        with pytest.raises(CheckpointError):
            await asyncio.wait_for((await house.supervisor.mark(1))[GOOD], 5)


async def test_a_state_of_another_place_is_no_answer():
    async with House() as house:
        await house.hear(over("a", 0))
        for answer in (await house.supervisor.mark(99)).values():
            with pytest.raises(CheckpointError, match="99"):
                await asyncio.wait_for(answer, 5)


async def test_markers_that_wait_at_the_stop_are_errors():
    house = await House().__aenter__()
    answers = await house.supervisor.mark(0)
    await house.supervisor.stop()
    for answer in answers.values():
        with pytest.raises(CheckpointError):
            await asyncio.wait_for(answer, 5)


async def test_a_full_mailbox_makes_the_reader_wait_and_loses_nothing():
    async with House() as house:
        for at in range(40):
            await house.hear(over("a", at * 600), under("a", at * 600 + 300))
            assert all(len(seat.mailbox) <= 9 for seat in house.supervisor.seats.values())
        await house.settled()
        assert house.found() == house.expected()
        assert len(house.said) == 160


async def test_effects_that_cannot_be_made_durable_stop_the_reader_too():
    house = House()

    async def full(*_):
        raise OSError(28, "disk full")

    house.perform = full
    async with house:
        await house.hear(over("a", 0))
        with pytest.raises(OSError, match="disk full"):
            await house.settled()
        with pytest.raises(OSError, match="disk full"):
            await house.hear(over("a", 300))
