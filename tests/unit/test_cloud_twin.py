"""What is judged of the brokers' events, against the slow twin: over random rules and logs, however these are cut."""

import asyncio
import io
import itertools
from collections.abc import AsyncIterator, Iterable
from typing import Any

import msgspec
import pytest
from builders import START, as_events, behavior, profile, rules, world
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import Passed
from naive_cloud import CloudDetect, Cut, Fact, Paused, Told

from actors.controls import RESUMED, TICK, Pause, pieces
from actors.effects import Transition
from actors.entries import frames_of
from actors.events import EMBEDDED, SUBJECT, Event, packed
from actors.messages import Frames, Moment
from actors.metrics import kinds
from actors.world import World
from config.model import NS, Behavior, Dimension, MetricDimension, Rules
from daemon.checkpoint import frozen
from daemon.record import header, lines
from daemon.replay import replay

THINGS = ["a", "b", "c"]
COUNTERS = [
    "aws:num-messages-sent", "aws:num-messages-received", "aws:num-authorization-failures",
    "aws:num-connection-attempts", "aws:num-disconnects",
]  # fmt: skip
NUMERIC = ["less-than", "less-than-equals", "greater-than", "greater-than-equals"]
DIMENSIONS = (
    Dimension(name="up", string_values=("dt/+/up", "x/#")),
    Dimension(name="own", string_values=("dt/${iot:ClientId}/up", "y")),
)
TOPICS = ["dt/a/up", "dt/b/up", "x/1", "x", "y", ""]
IPS = ["192.0.2.1", "198.51.100.7", "2001:db8::1"]
Entry = Told | Passed | Paused
consecutive = st.sampled_from([None, 1, 2])


@st.composite
def behaviors(draw: st.DrawFn, number: int) -> Behavior:
    shared: dict[str, Any] = {"name": f"b{number}", "alarm": draw(consecutive), "clear": draw(consecutive)}
    numeric, duration = draw(st.sampled_from(NUMERIC)), draw(st.sampled_from([10, 300, 600]))
    statistic = draw(st.sampled_from(["p0", "p50", "p99", "p100"]))
    match draw(st.sampled_from(["count", "count", "percentile", "size", "sizes", "from", "away"])):
        case "count":
            metric = draw(st.sampled_from(COUNTERS))
            found = behavior(metric, numeric, draw(st.integers(0, 4)), duration=duration, **shared)
        case "percentile":
            metric = draw(st.sampled_from(COUNTERS))
            found = behavior(metric, numeric, duration=duration, statistic=statistic, **shared)
        case "size":
            found = behavior("aws:message-byte-size", numeric, draw(st.integers(0, 9)), **shared)
        case "sizes":
            found = behavior("aws:message-byte-size", numeric, duration=duration, statistic=statistic, **shared)
        case "from":
            operator = draw(st.sampled_from(["in-cidr-set", "not-in-cidr-set"]))
            found = behavior("aws:source-ip-address", operator, ["192.0.2.0/24", "2001:db8::/32"], **shared)
        case _:
            found = behavior("aws:disconnect-duration", "less-than", draw(st.sampled_from([1, 300, 700])), **shared)
    return msgspec.structs.replace(found, metric_dimension=draw(dimension(found.metric or "")))


def dimension(metric: str) -> st.SearchStrategy[MetricDimension | None]:
    if metric in {"aws:num-connection-attempts", "aws:num-disconnects", "aws:disconnect-duration"}:
        return st.none()
    some = st.builds(
        MetricDimension, dimension_name=st.sampled_from(["up", "own"]), operator=st.sampled_from([None, "IN", "NOT_IN"])
    )
    return st.one_of(st.none(), some)


@st.composite
def rule_sets(draw: st.DrawFn) -> Rules:
    of = [draw(behaviors(number)) for number in range(draw(st.integers(1, 4)))]
    found = rules(
        profile(*of), durations="any", grace_s=draw(st.sampled_from([0.0, 30.0, 400.0])),
        population_min=draw(st.sampled_from([1, 2])), cloud_window_s=draw(st.sampled_from([300, 60])),
    )  # fmt: skip
    return msgspec.structs.replace(found, dimensions=DIMENSIONS)


@st.composite
def facts(draw: st.DrawFn, ts: int) -> Fact:
    least = draw(st.integers(0, 6))
    return Fact(
        thing=draw(st.sampled_from(THINGS)),
        kind=draw(st.sampled_from(["connected", "disconnected", "connect-failed", "published", "published",
                                   "delivered", "denied"])),
        time=ts - draw(st.sampled_from([0, 0, 1, NS, 29 * NS, 301 * NS, -7 * NS])),
        topic=draw(st.sampled_from(TOPICS)),
        ip=draw(st.sampled_from(["", *IPS])),
        count=draw(st.integers(1, 3)),
        least=least,
        most=least + draw(st.integers(0, 5)),
    )  # fmt: skip


steps = st.one_of(
    st.sampled_from([0, 1, NS, 9 * NS, 30 * NS, 299 * NS, 300 * NS, 330 * NS, 1201 * NS]), st.integers(0, 700 * NS)
)


@st.composite
def logs(draw: st.DrawFn) -> list[Entry]:
    log: list[Entry] = []
    ts = START + draw(st.sampled_from([0, -1, 7 * NS]))
    for position in range(1, draw(st.integers(2, 25)) + 1):
        ts += draw(steps)
        kind = draw(st.sampled_from(["told"] * 8 + ["tick", "pause", "cut"]))
        if kind == "told":
            log.append(Told(position, ts, tuple(draw(st.lists(facts(ts), min_size=1, max_size=4)))))
        elif kind == "tick":
            log.append(Passed(position, ts))
        else:
            since = ts - draw(st.sampled_from([0, NS, 100 * NS, 2000 * NS]))
            log.append(Cut(position, ts, since, "") if kind == "cut" else Paused(position, ts, since, ""))
    return log


def frames(log: Iterable[Entry]) -> Frames:
    return frames_of([_entry(entry) for entry in log])


def _entry(entry: Entry) -> tuple[int, int, str, bytes, None, int]:
    match entry:
        case Told(position, ts, told):
            return position, ts, SUBJECT + EMBEDDED, packed([_event(fact) for fact in told]), None, 0
        case Paused(position, ts, since):
            pause = Pause(since, EMBEDDED if isinstance(entry, Cut) else "", cut=isinstance(entry, Cut))
            return position, ts, RESUMED, msgspec.json.encode(pause), None, 0
    return entry.position, entry.ts, TICK, b"", None, 0


def _event(fact: Fact) -> Event:
    return Event(
        event=fact.kind, client_id=fact.thing, time=fact.time, topic=fact.topic, ip=fact.ip, count=fact.count,  # type: ignore[arg-type]
        bytes=fact.least + (fact.count - 1) * fact.most, bytes_min=fact.least, bytes_max=fact.most,
    )  # fmt: skip


def play(target: World, log: list[Entry], cuts: Iterable[int] = ()) -> list[Transition]:
    found: list[Transition] = []
    places = [0, *sorted(set(cuts)), len(log)]
    for first, last in itertools.pairwise(places):
        if first == last:
            continue
        for piece in pieces(frames(log[first:last])):
            found += target.handle(piece)[1] if isinstance(piece, Frames) else target.obey(piece, None)
    return found


@given(rule_sets(), logs())
@settings(max_examples=300, deadline=None)
def test_the_core_says_what_its_twin_says(first: Rules, log: list[Entry]) -> None:
    assert as_events(play(world(first), log)) == CloudDetect(first).play(log)


@given(rule_sets(), logs(), st.data())
@settings(max_examples=100, deadline=None)
def test_how_the_log_is_cut_into_batches_changes_nothing(first: Rules, log: list[Entry], data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(1, len(log)), max_size=4))
    assert play(world(first), log, cuts) == play(world(first), log)


@given(rule_sets(), logs(), st.data())
@settings(max_examples=100, deadline=None)
def test_a_world_of_a_checkpoint_goes_on_as_the_one_it_was_made_of(
    first: Rules, log: list[Entry], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(log)))
    one, again = world(first), world(first)
    play(one, log[:at])
    again.load(frozen(one.dump()))  # type: ignore[arg-type]
    assert play(again, log[at:]) == play(one, log[at:])


@given(rule_sets(), logs(), st.data())
@settings(max_examples=200, deadline=None)
def test_a_change_that_is_none_for_a_behavior_changes_nothing_of_it(
    first: Rules, log: list[Entry], data: st.DataObject
) -> None:
    """Another profile joins its targets, and a dimension is defined that moves all others."""
    at = data.draw(st.integers(1, len(log)))
    other = profile(behavior("aws:num-disconnects", "less-than", 2, name="other", duration=60), name="other")
    then = msgspec.structs.replace(
        first, profiles=(*first.profiles, other), dimensions=(Dimension(name="a", string_values=("#",)), *DIMENSIONS)
    )
    one = world(first)
    found = play(one, log[:at])
    found += one.change(then, Moment(log[at - 1].position, one.router.last_ts))
    found += play(one, log[at:])
    assert [each for each in found if each.profile == "p"] == play(world(first), log)


def test_a_window_stays_whole_where_rules_change_in_it_before_anybody_is_known() -> None:
    first = rules(
        profile(behavior("aws:num-messages-sent", "greater-than", 0, duration=10)), durations="any", grace_s=0.0
    )
    other = profile(behavior("aws:num-disconnects", "less-than", 2, name="other", duration=60), name="other")
    one = world(first)
    found = play(one, [Passed(1, START + NS)])
    found += one.change(msgspec.structs.replace(first, profiles=(*first.profiles, other)), Moment(1, START + NS))
    found += play(one, [Told(2, START + 2 * NS, (Fact("a", "connected", START + 2 * NS),)), Passed(3, START + 10 * NS)])
    assert [(each.event_type, each.time_ns) for each in found] == [("in-alarm", START + 10 * NS)]


@given(rule_sets(), logs())
@settings(max_examples=50, deadline=None)
def test_a_recording_replays_to_the_same_events_ids_included(first: Rules, log: list[Entry]) -> None:
    async def entries() -> AsyncIterator[Frames]:
        yield frames(log)

    async def definition(_: str) -> Rules:
        raise AssertionError("no rules change here")

    async def recorded() -> bytes:
        return header("test", first, 0.0) + b"".join([line async for line in lines(entries(), definition)])

    source = io.BytesIO(asyncio.run(recorded()))
    assert list(replay(source, rules(), kinds())) == play(world(first), log)


@pytest.mark.parametrize("size", [10_000, 1_000_000])
def test_a_million_messages_of_some_clients_take_no_more_room_than_ten_thousand(size: int) -> None:
    found = world(rules(profile(behavior("aws:num-messages-sent", "less-than", 9, duration=300))))
    per_client = size // 100
    events = [
        Event(event="published", client_id=f"c{c}", time=START, topic="t", count=1)
        for c in range(100) for _ in range(per_client // 100)
    ]  # fmt: skip
    for batch in range(100):
        found.handle(frames_of([(batch + 1, START, SUBJECT + EMBEDDED, packed(events), None, 0)]))
    [actor] = found.actors.values()
    assert len(actor.roster) == 100
    assert actor.meter.value.nbytes + actor.meter.marks.nbytes <= 128 * (64 * 4 * 8)
