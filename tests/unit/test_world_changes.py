"""What a change of the rules does to open alarms, streaks and windows (spec.md §3.6), one story each."""

from dataclasses import replace

import pytest
from builders import START, behavior, change, numbered, play, profile, report, rules, tick, told, world

from config.model import NS

PORTS = behavior("aws:listening-tcp-ports", "in-port-set", [22], name="ports")
BYTES = behavior("aws:all-bytes-out", "less-than", 100, name="bytes", duration=3600)
TWICE = behavior("aws:num-listening-tcp-ports", "less-than", 2, name="twice", alarm=2, clear=2)
MEDIAN = behavior("aws:all-bytes-in", "less-than-equals", name="median", duration=300, statistic="p50")
BAD = {"tcp": (23,)}


def story(first, *log):
    """(thing, event type) of everything that happens."""
    return told(play(world(first), numbered(log)))


def test_an_unchanged_reload_says_nothing_and_keeps_the_actors():
    first = rules(profile(PORTS, BYTES, MEDIAN), custom={"load": "number"})
    one = world(first)
    play(one, numbered([report("a", 0, **BAD), report("b", 1, bytes_out=200)]))
    before = dict(one.actors)
    assert play(one, [replace(change(2, first), position=3)]) == []
    assert one.actors == before


def test_an_unchanged_reload_keeps_the_actors_of_custom_metrics_too():
    first = rules(profile(behavior("load", "less-than", 1.0)), custom={"load": "number"})
    one = world(first)
    before = dict(one.actors)
    play(one, [replace(change(2, first), position=3)])
    assert one.actors == before


def test_a_deleted_behavior_ends_its_alarms_at_once():
    events = play(
        world(rules(profile(PORTS, BYTES))),
        numbered([report("a", 0, **BAD), change(10, rules(profile(BYTES))), tick(20)]),
    )
    assert told(events) == [("a", "in-alarm"), ("a", "alarm-invalidated")]
    assert (events[1].time_ns, events[1].value, events[1].position) == (START + 10 * NS, None, 2)
    assert events[1].violation_id == events[0].violation_id


def test_a_deleted_profile_ends_its_alarms_at_once():
    assert story(rules(profile(PORTS)), report("a", 0, **BAD), change(10, rules())) == [
        ("a", "in-alarm"), ("a", "alarm-invalidated"),
    ]  # fmt: skip


def test_a_behavior_that_comes_back_starts_from_nothing():
    first, without = rules(profile(TWICE)), rules(profile(PORTS))
    assert story(
        first, report("a", 0, tcp_total=9), change(1, without), change(2, first), report("a", 3, tcp_total=9),
    ) == []  # fmt: skip


def test_edited_criteria_keep_the_violation_and_judge_the_next_datapoint():
    edited = behavior("aws:listening-tcp-ports", "in-port-set", [23], name="ports")
    events = play(
        world(rules(profile(PORTS))),
        numbered([report("a", 0, **BAD), change(1, rules(profile(edited))), tick(2), report("a", 300, **BAD)]),
    )
    assert told(events) == [("a", "in-alarm"), ("a", "alarm-cleared")]
    assert (events[0].behavior, events[1].behavior) == (PORTS, edited)
    assert events[1].violation_id == events[0].violation_id


def test_edited_criteria_reset_both_counters():
    edited = behavior("aws:num-listening-tcp-ports", "less-than", 3, name="twice", alarm=2, clear=2)
    assert story(
        rules(profile(TWICE)),
        report("a", 0, tcp_total=9), change(1, rules(profile(edited))), report("a", 2, tcp_total=9),
    ) == []  # fmt: skip
    assert story(
        rules(profile(TWICE)),
        report("a", 0, tcp_total=9), report("a", 1, tcp_total=9), report("a", 2, tcp_total=0),
        change(3, rules(profile(edited))), report("a", 4, tcp_total=0),
    ) == [("a", "in-alarm")]  # fmt: skip


def test_to_write_out_the_defaults_of_criteria_is_no_edit():
    short, full = (
        behavior("aws:num-listening-tcp-ports", "less-than", 2, name="twice", alarm=2, clear=clear)
        for clear in (None, 1)
    )
    assert story(
        rules(profile(short)),
        report("a", 0, tcp_total=9), change(1, rules(profile(full))), report("a", 2, tcp_total=9),
    ) == [("a", "in-alarm")]  # fmt: skip


def test_an_edited_metric_ends_the_alarm():
    other = behavior("aws:listening-udp-ports", "in-port-set", [22], name="ports")
    assert story(rules(profile(PORTS)), report("a", 0, **BAD), change(1, rules(profile(other)))) == [
        ("a", "in-alarm"), ("a", "alarm-invalidated"),
    ]  # fmt: skip


def test_a_custom_metric_of_another_type_is_another_metric():
    number = rules(profile(behavior("m", "less-than", 1.0)), custom={"m": "number"})
    words = rules(profile(behavior("m", "in-set", ["x"])), custom={"m": "string-list"})
    assert story(number, report("a", 0, custom={"m": ("number", 2.0)}), change(1, words)) == [
        ("a", "in-alarm"), ("a", "alarm-invalidated"),
    ]  # fmt: skip


@pytest.mark.parametrize(("before", "after"), [(None, True), (True, None)])
def test_toggled_suppression_keeps_everything_and_shows_in_the_next_event(before, after):
    first, then = (
        rules(profile(behavior("aws:num-listening-tcp-ports", "less-than", 2, alarm=2, suppress=s)))
        for s in (before, after)
    )
    events = play(world(first), numbered([report("a", 0, tcp_total=9), change(1, then), report("a", 2, tcp_total=9)]))
    assert told(events) == [("a", "in-alarm")]
    assert events[0].behavior.suppress_alerts is after


def test_a_thing_that_leaves_the_group_ends_its_alarms_and_comes_back_as_new():
    inside, outside = (rules(profile(PORTS, TWICE, targets=["thinggroup/g"]), groups={"g": g}) for g in (["a"], []))
    assert story(
        inside, report("a", 0, tcp=(23, 24)), change(1, outside), report("a", 2, tcp=(23, 24)), change(3, inside),
        report("a", 4, tcp=(23, 24)),
    ) == [("a", "in-alarm"), ("a", "alarm-invalidated"), ("a", "in-alarm")]  # fmt: skip


def test_a_thing_that_joins_does_not_find_what_the_one_before_left_in_its_row():
    behaviors = PORTS, BYTES, TWICE, MEDIAN
    first, then = (rules(profile(*behaviors, targets=["thinggroup/g"]), groups={"g": g}) for g in (["a"], ["b", "c"]))
    log = [
        report("a", 0, tcp=(22, 80), bytes_out=60, bytes_in=9),
        change(1, then),
        report("b", 2, tcp=(22,), bytes_out=60),
    ]
    one = world(first)
    assert told(play(one, numbered([*log, report("c", 3, bytes_in=1), tick(300)]))) == [
        ("a", "in-alarm"),
        ("a", "alarm-invalidated"),
    ]
    assert one.actors["thinggroup/g"].roster.names == [b"b", b"c"]


def test_a_thing_that_another_target_still_covers_keeps_its_alarm():
    both = ["thinggroup/g", "thinggroup/h"]
    first, then = (
        rules(profile(PORTS, targets=both), groups={"g": g, "h": h}) for g, h in ((["a"], ["a"]), ([], ["a"]))
    )
    assert story(first, report("a", 0, **BAD), change(1, then), report("a", 300, tcp=(22,))) == [
        ("a", "in-alarm"), ("a", "alarm-cleared"),
    ]  # fmt: skip


def test_a_thing_that_moves_between_two_groups_of_one_profile_keeps_its_state():
    both = ["thinggroup/g", "thinggroup/h"]
    first, then = (
        rules(profile(TWICE, BYTES, targets=both), groups={"g": g, "h": h}) for g, h in ((["a"], []), ([], ["a"]))
    )
    assert story(
        first, report("a", 0, tcp_total=9, bytes_out=60), change(1, then), report("a", 2, tcp_total=9, bytes_out=60)
    ) == [("a", "in-alarm"), ("a", "in-alarm")]


def test_changed_targets_move_alarms_streaks_and_windows_to_the_actor_of_the_new_set():
    first, then = (
        rules(profile(PORTS, BYTES, TWICE, MEDIAN, targets=t), groups={"g": ["a", "b"], "h": []})
        for t in (["thinggroup/g"], ["thinggroup/g", "thinggroup/h"])
    )
    events = play(
        world(first),
        numbered([
            report("a", 0, tcp=(23, 24), bytes_out=60, bytes_in=9), report("b", 0, bytes_in=1), change(1, then),
            report("a", 2, tcp=(22, 24, 25), bytes_out=60), tick(300),
        ]),
    )  # fmt: skip
    assert [(e.behavior.name, e.event_type) for e in events] == [
        ("ports", "in-alarm"), ("bytes", "in-alarm"), ("twice", "in-alarm"), ("median", "in-alarm"),
    ]  # fmt: skip


def test_a_behavior_that_moves_to_other_targets_leaves_those_behind_that_they_do_not_cover():
    first, then = (
        rules(profile(PORTS, targets=[t]), groups={"g": ["a", "b"], "h": ["b"]})
        for t in ("thinggroup/g", "thinggroup/h")
    )
    assert story(first, report("a", 0, **BAD), report("b", 1, **BAD), change(2, then), report("b", 300, tcp=(22,))) == [
        ("a", "in-alarm"), ("b", "in-alarm"), ("a", "alarm-invalidated"), ("b", "alarm-cleared"),
    ]  # fmt: skip


def test_two_profiles_that_come_to_share_their_targets_keep_the_state_of_both():
    p, q = profile(BYTES, name="p", targets=["thinggroup/g"]), profile(TWICE, name="q", targets=["thinggroup/h"])
    first = rules(p, q, groups={"g": ["a"], "h": ["a"]})
    then = rules(p, replace_targets(q, "thinggroup/g"), groups={"g": ["a"], "h": ["a"]})
    assert story(
        first, report("a", 0, tcp_total=9, bytes_out=60), change(1, then), report("a", 2, tcp_total=9, bytes_out=60)
    ) == [("a", "in-alarm"), ("a", "in-alarm")]


def test_a_sum_that_two_actors_kept_is_taken_from_the_one_that_kept_more():
    short = behavior("aws:all-bytes-out", "less-than", 1000, name="short", duration=300)
    p, q = profile(short, name="p", targets=["thinggroup/g"]), profile(BYTES, name="q", targets=["thinggroup/h"])
    for joined in ("thinggroup/g", "thinggroup/h"):
        first = rules(p, q, groups={"g": ["a"], "h": ["a"]})
        then = rules(replace_targets(p, joined), replace_targets(q, joined), groups={"g": ["a"], "h": ["a"]})
        assert story(
            first, report("a", 0, bytes_out=60), report("a", 1000, bytes_out=1), change(1001, then),
            report("a", 1002, bytes_out=39),
        ) == [("a", "in-alarm")]  # fmt: skip


def test_a_new_behavior_does_not_sum_what_came_before_it_did():
    short = behavior("aws:all-bytes-out", "less-than", 10_000, name="short", duration=3600)
    first, then = rules(profile(short)), rules(profile(short, BYTES))
    assert story(first, report("a", 0, bytes_out=99), change(1, then), report("a", 2, bytes_out=99)) == []


def test_a_new_length_of_the_window_starts_it_anew():
    longer = behavior("aws:all-bytes-out", "less-than", 100, name="bytes", duration=1800)
    assert (
        story(
            rules(profile(BYTES)),
            report("a", 0, bytes_out=60),
            change(1, rules(profile(longer))),
            report("a", 2, bytes_out=60),
        )
        == []
    )


def test_registration_starts_a_new_identity_and_the_old_one_goes_silent_by_the_sweep():
    first, then = (rules(profile(PORTS), things=things) for things in ([], ["a"]))
    events = play(
        world(first),
        numbered([report("a", 0, **BAD), change(1, then), report("a", 300, **BAD), report("a", 172_801, tcp=(22,))]),
    )
    assert [(e.event_type, e.registered) for e in events] == [
        ("in-alarm", False), ("in-alarm", True), ("alarm-invalidated", False), ("alarm-cleared", True),
    ]  # fmt: skip
    assert events[0].violation_id != events[1].violation_id


def test_a_thing_that_is_deleted_ends_the_alarms_of_its_registered_identity():
    first, then = (rules(profile(PORTS), things=things) for things in (["a"], []))
    assert story(first, report("a", 0, **BAD), change(1, then), report("a", 2, **BAD)) == [
        ("a", "in-alarm"), ("a", "alarm-invalidated"), ("a", "in-alarm"),
    ]  # fmt: skip


def test_an_alarm_that_moved_still_falls_silent_in_time_whatever_else_is_due():
    first = rules(profile(PORTS), silence_s=600)
    then = rules(profile(PORTS, BYTES), silence_s=600)
    events = play(world(first), numbered([report("a", 0, **BAD), change(1, then), tick(600), tick(601)]))
    assert [(e.event_type, e.position) for e in events] == [("in-alarm", 1), ("alarm-invalidated", 4)]


def test_a_shorter_silence_is_kept_by_alarms_that_are_open():
    first, then = rules(profile(PORTS)), rules(profile(PORTS), silence_s=600)
    events = play(world(first), numbered([report("a", 0, **BAD), change(1, then), tick(601)]))
    assert events[-1].time_ns == START + 600 * NS


def test_two_target_groups_of_one_profile_are_one_population_each_thing_once():
    at_most = behavior("aws:all-bytes-in", "less-than-equals", duration=300, statistic="p50")
    both = rules(
        profile(at_most, targets=["thinggroup/g", "thinggroup/h"]), groups={"g": ["a", "b", "c"], "h": ["c", "d"]}
    )
    values = {"a": 1, "b": 2, "c": 3, "d": 100}
    log = [report(thing, i, bytes_in=value) for i, (thing, value) in enumerate(values.items())]
    assert story(both, *log, tick(300)) == [("c", "in-alarm"), ("d", "in-alarm")]


def replace_targets(profile_, *targets):
    return profile(*profile_.behaviors, name=profile_.security_profile_name, targets=targets)
