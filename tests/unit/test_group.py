"""The actor of one set of targets: alarms, silence, downtime, ids, and what it gives up."""

import dataclasses

import numpy as np
from builders import START, Reading, behavior, frames, numbered, pause, play, profile, report, rules, tick, told, world
from hypothesis import given
from hypothesis import strategies as st

from actors.controls import Retry
from actors.entries import frames_of
from actors.messages import Downtime, Moment
from config.model import NS, MetricValue

PORTS = behavior("aws:listening-tcp-ports", "in-port-set", [22], name="ports")
BAD = {"tcp": (23,)}
DAY = 86_400
SILENCE = 2 * DAY
MEDIAN = behavior("aws:all-bytes-out", "less-than-equals", name="median", duration=300, statistic="p50")


def story(first, *log):
    return told(play(world(first), numbered(log)))


def test_two_reports_of_one_thing_in_a_batch_are_judged_in_order():
    assert story(rules(profile(PORTS)), report("a", 0, **BAD), report("a", 0, tcp=(22,)), report("a", 0, **BAD)) == [
        ("a", "in-alarm"), ("a", "alarm-cleared"), ("a", "in-alarm"),
    ]  # fmt: skip


def test_an_episode_has_one_id_and_the_next_another():
    events = play(
        world(rules(profile(PORTS))), numbered(report("a", at, tcp=(port,)) for at, port in enumerate((23, 22, 23, 22)))
    )
    ids = [event.violation_id for event in events]
    assert ids[0] == ids[1]
    assert ids[2] == ids[3]
    assert ids[0] != ids[2]
    assert all(len(one) == 32 and set(one) <= set("0123456789abcdef") for one in ids)


def test_an_id_depends_on_the_log_the_behavior_the_thing_and_the_place():
    def first_id(name="ports", p="p", thing="a", before=(), identity="x"):
        one = world(rules(profile(dataclass_replace(PORTS, name), name=p)), identity=identity)
        return play(one, numbered([*before, report(thing, 0, **BAD)]))[0].violation_id

    ids = [first_id(), first_id(name="o"), first_id(p="q"), first_id(thing="b"), first_id(before=[tick(0)]),
           first_id(identity="y")]  # fmt: skip
    assert len(set(ids)) == len(ids)
    assert first_id() == ids[0]


def dataclass_replace(one, name):
    return behavior("aws:listening-tcp-ports", "in-port-set", [22], name=name) if name != one.name else one


def test_both_identities_of_a_name_raised_by_one_window_have_ids_of_their_own():
    first, then = (rules(profile(MEDIAN), things=things) for things in ([], ["a"]))
    one = world(first)
    log = numbered([report("a", 0, bytes_out=9), report("b", 1, bytes_out=1), report("c", 2, bytes_out=1), tick(3)])
    play(one, log[:3])
    one.change(then, Moment(4, START + 3 * NS))
    events = play(one, [dataclasses.replace(s, position=s.position + 4) for s in numbered([
        report("a", 4, bytes_out=8), report("d", 5, bytes_out=1), report("e", 6, bytes_out=1), tick(300),
    ])])  # fmt: skip
    assert [(e.thing, e.registered, e.value.count) for e in events] == [("a", False, 9), ("a", True, 8)]
    assert events[0].violation_id != events[1].violation_id


def test_silence_is_that_of_the_behaviors_metric_not_of_the_thing():
    log = [report("a", 0, **BAD), *[report("a", at, bytes_in=1) for at in range(3600, SILENCE + 7200, 3600)]]
    assert story(rules(profile(PORTS)), *log) == [("a", "in-alarm"), ("a", "alarm-invalidated")]


def test_a_violation_that_lasts_puts_silence_off():
    log = [report("a", 0, **BAD), report("a", DAY, **BAD), tick(SILENCE + 1), tick(SILENCE + DAY)]
    assert story(rules(profile(PORTS)), *log) == [("a", "in-alarm")]
    assert story(rules(profile(PORTS)), *log, tick(SILENCE + DAY + 1))[1:] == [("a", "alarm-invalidated")]


def test_an_alarm_may_be_raised_and_fall_silent_within_one_batch():
    assert story(rules(profile(PORTS), silence_s=600), report("a", 0, **BAD), tick(600), tick(601)) == [
        ("a", "in-alarm"), ("a", "alarm-invalidated"),
    ]  # fmt: skip


def test_silences_that_end_at_one_entry_are_told_in_the_order_they_ended():
    log = [report("b", 0, **BAD), report("a", 1, **BAD), report("c", 1, **BAD), tick(9 * DAY)]
    events = play(world(rules(profile(PORTS))), numbered(log))[3:]
    assert [(e.thing, e.time_ns - START) for e in events] == [
        ("b", SILENCE * NS), ("a", (SILENCE + 1) * NS), ("c", (SILENCE + 1) * NS),
    ]  # fmt: skip


def test_our_own_downtime_is_not_silence_and_moves_the_time_of_the_event():
    log = [report("a", 0, **BAD), pause(5 * DAY, DAY), tick(6 * DAY)]
    assert story(rules(profile(PORTS)), *log) == [("a", "in-alarm")]
    [_, gone] = play(world(rules(profile(PORTS))), numbered([*log, tick(6 * DAY + 1)]))
    assert gone.time_ns == START + 6 * DAY * NS


def test_what_was_heard_during_a_downtime_starts_its_silence_then():
    """A window that ends while nothing is heard is a datapoint at its end; from there on the downtime counts."""
    first = rules(profile(MEDIAN))
    log = [report("a", 0, bytes_out=9), report("b", 0, bytes_out=1), pause(DAY, 100)]
    rest = DAY + SILENCE
    assert story(first, *log, tick(rest)) == [("a", "in-alarm")]
    assert story(first, *log, tick(rest + 1)) == [("a", "in-alarm"), ("a", "alarm-invalidated")]


def test_a_pause_of_one_source_is_none_of_the_others():
    one = world(rules(profile(PORTS)))
    subject = "detectd.log.report.plant.b.json"
    play(one, numbered([report("a", 0, **BAD)]))
    one.handle(frames_of([(2, START, subject, Reading(tcp=(23,)).payload(2), None, 0)]))
    events = one.pause(Downtime(3, START + 3 * DAY * NS, START + DAY * NS, "plant"))
    assert told(events) == [("a", "alarm-invalidated")]


def test_a_pause_that_steps_back_in_time_counts_as_now():
    assert story(rules(profile(PORTS)), report("a", 10, **BAD), pause(5, 0), tick(SILENCE + 11)) == [
        ("a", "in-alarm"), ("a", "alarm-invalidated"),
    ]  # fmt: skip


def test_poison_is_not_heard():
    one = world(rules(profile(PORTS)))
    one.actors["all/things"].poison = {1}
    assert told(play(one, numbered([report("a", 0, **BAD), report("b", 0, **BAD)]))) == [("b", "in-alarm")]


def test_a_retried_report_is_judged_by_its_actor_alone_as_if_it_came_now():
    one = world(rules(profile(PORTS, targets=["thinggroup/g"]), profile(PORTS, name="q"), groups={"g": ["a"]}))
    what = Retry("thinggroup/g", 1, "$aws.things.a.defender.metrics.json", Reading(tcp=(23,)).payload(1))
    [event] = one.retry(what, Moment(9, START))
    assert (event.profile, event.position, event.time_ns) == ("p", 9, START)
    assert {actor.position for actor in one.actors.values()} == {9}


def test_what_is_active_is_told_with_its_last_violation():
    one = world(rules(profile(PORTS, behavior("aws:num-listening-tcp-ports", "less-than", 1, name="count"))))
    events = play(one, numbered([report("a", 0, tcp=(23,)), report("a", 300, tcp=(24, 25))]))
    last = START + 300 * NS
    assert one.actors["all/things"].alarms.active() == [
        (events[0].violation_id, last, MetricValue(ports=(24, 25))),
        (events[1].violation_id, last, MetricValue(count=2)),
    ]


def test_a_batch_of_everything_at_once_equals_the_same_entries_one_by_one():
    log = numbered(report(thing, at, tcp=(22 + at % 2,)) for at in range(50) for thing in "abc")
    assert play(world(rules(profile(PORTS))), log) == play(world(rules(profile(PORTS))), log, cuts=range(1, 200))


def test_windows_close_before_the_entry_at_their_end_is_looked_at():
    log = [report("a", 0, bytes_out=9), report("b", 0, bytes_out=1), report("b", 300, bytes_out=100)]
    [event] = play(world(rules(profile(MEDIAN))), numbered(log))
    assert (event.thing, event.time_ns, event.position) == ("a", START + 300 * NS, 3)


def test_an_alarm_of_a_window_clears_by_a_window():
    log = [report("a", 0, bytes_out=9), report("b", 0, bytes_out=1), report("a", 300, bytes_out=1),
           report("b", 300, bytes_out=1), tick(600)]  # fmt: skip
    events = play(world(rules(profile(MEDIAN))), numbered(log))
    assert [(e.event_type, e.time_ns - START, e.value.count) for e in events] == [
        ("in-alarm", 300 * NS, 9), ("alarm-cleared", 600 * NS, 1),
    ]  # fmt: skip
    assert events[1].last_violation_value == MetricValue(count=9)


# ---- rows ----


def test_a_row_is_given_up_after_a_week_without_report_and_used_again():
    one = world(rules(profile(PORTS)))
    actor = one.actors["all/things"]
    play(one, numbered([report("a", 0, tcp=()), report("b", 2 * DAY, tcp=()), tick(8 * DAY)]))
    assert actor.roster.names == [None, b"b"]
    one.handle(frames([dataclasses.replace(report("c", 8 * DAY + 1, tcp=()), position=4)]))
    assert actor.roster.names == [b"c", b"b"]


def test_the_next_owner_of_a_row_finds_nothing():
    twice = behavior("aws:num-listening-tcp-ports", "less-than", 1, name="twice", alarm=2)
    total = behavior("aws:all-bytes-out", "less-than", 10, name="sum", duration=3600)
    one = world(rules(profile(PORTS, twice, total, MEDIAN), population_min=1))
    log = [report("a", 0, tcp=(22,), bytes_out=9), tick(8 * DAY), report("b", 8 * DAY, tcp=(22,), bytes_out=9)]
    assert told(play(one, numbered(log))) == []
    assert one.actors["all/things"].roster.names == [b"b"]


def test_a_row_with_an_open_alarm_is_kept_however_long_it_is_idle():
    one = world(rules(profile(PORTS), silence_s=30 * DAY))
    play(one, numbered([report("a", 0, **BAD), report("b", 0, tcp=()), tick(9 * DAY)]))
    assert one.actors["all/things"].roster.names == [b"a", None]


def test_a_thing_that_reports_something_else_keeps_its_row():
    one = world(rules(profile(PORTS)))
    play(one, numbered([report("a", 0, tcp=()), *[report("a", day * DAY, bytes_in=1) for day in range(1, 20)]]))
    assert one.actors["all/things"].roster.names == [b"a"]


def test_a_thing_whose_row_was_given_up_while_the_door_still_knew_it_gets_the_row_it_is_told():
    """Poison is known to the gate and never seen by the actor: the one forgets later than the other."""
    one = world(rules(profile(PORTS)))
    actor = one.actors["all/things"]
    actor.poison = {2}
    log = [report("a", 0, tcp=()), report("a", 6 * DAY, tcp=()), tick(8 * DAY), report("b", 8 * DAY + 1, tcp=()),
           report("a", 8 * DAY + 2, **BAD), report("b", 8 * DAY + 3, tcp=())]  # fmt: skip
    assert told(play(one, numbered(log))) == [("a", "in-alarm")]
    assert actor.roster.names == [b"b", b"a"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcdef"), st.sampled_from([0, 1, 300, DAY, 4 * DAY, 8 * DAY]),
            st.sampled_from([None, None, None, None, "", "ab", "bcd", "acef"]), st.booleans(), st.booleans(),
        ),
        min_size=1, max_size=60,
    )
)  # fmt: skip
def test_a_report_goes_to_the_row_of_its_thing_whatever_was_forgotten_registered_or_built_anew(history):
    """Rows by mark are rows by name, across idle weeks, fleets, poison, other actors' rows, and restarts."""
    group, spare = profile(PORTS, targets=["thinggroup/g"]), profile(PORTS, name="q", targets=["all/things"])
    one, at = world(rules(group, spare, groups={"g": ["a"]})), 0
    for position, (thing, pause_s, members, poison, restart) in enumerate(history, start=1):
        at += pause_s
        if members is not None:
            also = (profile(PORTS, name="late", targets=["all/unregistered-things"]),) * (len(members) > 2)
            one.change(rules(group, spare, *also, groups={"g": members}), Moment(position, START + at * NS))
        if restart and poison:
            state, one = one.dump(), world(one.rules)
            one.load(state)
        for actor in one.actors.values():
            actor.poison = {position} if poison else set()
        said = [dataclasses.replace(report(thing, at, tcp=()), position=position)]
        shares = one.router.route(frames(said)).shares
        for key, actor in one.actors.items():
            actor.handle(shares[key])
            for name, registered in [(b"abcdef"[k : k + 1], flag) for k in range(6) for flag in (0, 1)]:
                row = actor.roster.find(name, registered)
                assert row is None or actor.roster.identity_of(row) == (name, bool(registered))
            if len(shares[key].entries) and not poison:
                row = actor.roster.find(thing.encode(), int(shares[key].registered[0]))
                assert actor.seen[row] == shares[key].batch.ts[0]


def test_one_shot_names_over_many_weeks_need_the_room_of_one_week():
    """A twelfth of a thousand names a day for weeks: arrays, tables and pool stay as large as a week's names need."""
    total = behavior("aws:all-bytes-out", "less-than", 10, name="sum", duration=300)
    sizes = {}
    for weeks in (2, 12):
        one = world(rules(profile(PORTS, total, MEDIAN)))
        actor = one.actors["all/things"]
        position = 0
        for day in range(7 * weeks):
            batch = [report(f"n{day}-{k}", day * DAY + k, tcp=(22,), bytes_out=1) for k in range(83)]
            one.handle(frames([dataclasses.replace(s, position=position + k) for k, s in enumerate(batch, 1)]))
            position += len(batch)
        judge = next(j for j in actor.judges.values() if hasattr(j, "windows"))
        sizes[weeks] = (
            len(actor.seen), len(actor.roster.names), len(judge.windows.pool_ts), judge.windows.offset.shape,
            len(one.router.gate.last), len(one.router.gate.rows), len(one.router.gate._names), len(actor.roster),
            len(actor.roster._keys), len(actor.roster._hints),
        )  # fmt: skip
        assert len(actor.alarms) == 0
    assert sizes[2] == sizes[12]
    assert sizes[12][0] < 83 * 9 * 1.6


def test_state_needs_little_room_for_each_thing_and_behavior():
    """At most 128 bytes per (thing, numeric behavior at 300 s): issue 3, Speed 4."""
    four = [behavior(m, "less-than", 10**9, name=m[4:], duration=300) for m in (
        "aws:all-bytes-out", "aws:all-bytes-in", "aws:all-packets-out", "aws:all-packets-in",
    )]  # fmt: skip
    one = world(rules(profile(*four)))
    things = 2000
    for at in (0, 300, 600):
        log = numbered(report(f"t{k}", at, bytes_out=1, bytes_in=1, packets_in=1, packets_out=1) for k in range(things))
        one.handle(frames([dataclasses.replace(s, position=s.position + at * things) for s in log]))
    state = one.actors["all/things"].dump()
    assert arrays_bytes(state) / (things * len(four)) <= 128


def arrays_bytes(state):
    if isinstance(state, np.ndarray):
        return state.nbytes
    if isinstance(state, dict):
        return sum(map(arrays_bytes, state.values()))
    return 0
