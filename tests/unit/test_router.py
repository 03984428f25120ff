"""The door: whose an entry is, and what is turned away with which words."""

from itertools import pairwise

import cbor2
import numpy as np
import pytest
from builders import START, Reading, behavior, change, frames, numbered, profile, report, rules, tick, world
from hypothesis import given
from hypothesis import strategies as st
from naive import covers

from actors.entries import frames_of
from actors.gate import IDLE_NS
from actors.messages import ABSENT, BACKLOG
from actors.router import source_number
from config.model import NS

PORTS = behavior("aws:listening-tcp-ports", "in-port-set", [22])
TARGETS = [
    "all/things", "all/registered-things", "all/unregistered-things", "thinggroup/g", "thinggroup/h", "thinggroup/site",
]  # fmt: skip


def route(one, *log):
    return one.router.route(frames(numbered(log)))


def entry(seq, subject, payload, at_s=0.0, origin_s=None, flags=0):
    origin = None if origin_s is None else START + round(origin_s * NS)
    return seq, START + round(at_s * NS), subject, payload, origin, flags


def names_of(routed):
    """Actor -> the (thing, registered) of its reports."""
    return {
        key: [(routed.batch.names[e].decode(), bool(r)) for e, r in zip(share.entries, share.registered, strict=True)]
        for key, share in routed.shares.items()
    }


@given(
    st.lists(st.lists(st.sampled_from(TARGETS), min_size=1, max_size=3, unique=True), min_size=1, max_size=4),
    st.dictionaries(st.sampled_from(["g", "h"]), st.lists(st.sampled_from("abcd"), max_size=3), max_size=2),
    st.lists(st.sampled_from("abcde"), max_size=2),
)
def test_a_report_goes_to_every_set_of_targets_that_covers_its_thing_and_to_no_other(targets, groups, things):
    groups = {"site": [], "g": [], "h": [], **groups}
    profiles = [profile(PORTS, name=f"p{n}", targets=t) for n, t in enumerate(targets)]
    settled = rules(*profiles, groups=groups, parents={"g": "site"}, things=things)
    found = names_of(route(world(settled), *[report(thing, 0, tcp=()) for thing in "abcdef"]))
    known = set(things) | {thing for inside in groups.values() for thing in inside}
    for p in profiles:
        key = "+".join(sorted(p.targets))
        assert found[key] == [(t, t in known) for t in "abcdef" if covers(settled, p, (t, t in known))]


def test_groups_nest_to_any_depth():
    settled = rules(
        profile(PORTS, targets=["thinggroup/top"]),
        groups={"top": [], "middle": [], "leaf": ["a"]}, parents={"middle": "top", "leaf": "middle"},
    )  # fmt: skip
    assert names_of(route(world(settled), report("a", 0, tcp=()), report("b", 0, tcp=()))) == {
        "thinggroup/top": [("a", True)]
    }


def test_a_circle_of_parents_ends():
    settled = rules(
        profile(PORTS, targets=["thinggroup/x"]), groups={"x": ["a"], "y": []}, parents={"x": "y", "y": "x"}
    )  # fmt: skip
    assert names_of(route(world(settled), report("a", 0, tcp=()))) == {"thinggroup/x": [("a", True)]}


def test_every_actor_has_a_share_if_only_for_the_time_that_passes():
    settled = rules(profile(PORTS, targets=["thinggroup/g"]), groups={"g": []})
    share = route(world(settled), report("a", 0, tcp=()), tick(1)).shares["thinggroup/g"]
    assert (share.first, share.last, len(share.entries)) == (0, 2, 0)


def test_time_never_goes_back_across_batches_either():
    one = world(rules(profile(PORTS)))
    assert route(one, tick(5), tick(3), tick(9)).batch.ts.tolist() == [START + s * NS for s in (5, 5, 9)]
    assert route(one, tick(7), tick(10)).batch.ts.tolist() == [START + s * NS for s in (9, 10)]


def test_a_refused_report_is_nobodys_and_says_why_in_a_label():
    one = world(rules(profile(PORTS), report_interval_s=300))
    subject = "$aws.things.%s.defender.metrics.json"
    good = Reading(tcp=())
    routed = one.router.route(
        frames_of([
            entry(1, subject % "a", good.payload(1)), entry(2, subject % "a", good.payload(1), 600),
            entry(3, subject % "a", good.payload(3), 600), entry(4, subject % "a", good.payload(4), 601),
            entry(5, subject % "b", b"{", 601), entry(6, subject % ("x" * 129), good.payload(6), 601),
            entry(7, "detectd.log.tick", b"", 601),
        ])
    )  # fmt: skip
    assert {e: (why.reason, why.code, why.report_id) for e, why in routed.rejected.items()} == {
        1: ("duplicate", "InvalidPayload", 1),
        3: ("throttled", "Throttled", 4),
        4: ("malformed", "InvalidPayload", None),
        5: ("name", "InvalidPayload", None),
    }
    assert routed.reports.tolist() == [0, 1, 2, 3, 4, 5]
    assert routed.shares["all/things"].entries.tolist() == [0, 2]
    assert "300" in routed.rejected[3].message


def test_a_thing_beyond_the_most_is_turned_away_with_a_reason():
    one = world(rules(profile(PORTS), things_max=2))
    routed = route(one, *[report(thing, 0, tcp=()) for thing in "abca"])
    assert {e: why.reason for e, why in routed.rejected.items()} == {2: "table-full"}
    assert "things_max" in routed.rejected[2].message
    hours = IDLE_NS / NS + 3600
    assert route(one, report("c", hours + 1, tcp=()), report("d", hours + 2, tcp=())).rejected == {}


def test_new_rules_change_the_floor_and_keep_what_is_remembered():
    one = world(rules(profile(PORTS), report_interval_s=300))
    route(one, report("a", 0, tcp=()))
    loose = change(1, rules(profile(PORTS), report_interval_s=0)).rules
    one.router.configure(loose, one.schema, one.plans, one.router.registry)
    routed = one.router.route(
        frames_of(
            [
                entry(n, "$aws.things.a.defender.metrics.json", Reading(tcp=()).payload(i), 2)
                for n, i in ((2, 1), (3, 2))
            ]
        )
    )
    assert {e: why.reason for e, why in routed.rejected.items()} == {0: "duplicate"}


def test_what_was_copied_from_the_guard_is_throttled_by_its_first_time():
    one = world(rules(profile(PORTS), report_interval_s=300))
    subject, good = "$aws.things.a.defender.metrics.json", Reading(tcp=())
    routed = one.router.route(
        frames_of([
            entry(1, subject, good.payload(1), 900, origin_s=0), entry(2, subject, good.payload(2), 900, origin_s=300),
            entry(3, subject, good.payload(3), 900, origin_s=301), entry(4, subject, good.payload(4), 901),
        ])
    )  # fmt: skip
    assert sorted(routed.rejected) == [2]


def test_a_bridges_reports_carry_its_number_and_its_backlog_is_not_throttled():
    one = world(rules(profile(PORTS), report_interval_s=300))
    subject, good = "detectd.log.report.plant.p%201.json", Reading(tcp=())
    routed = one.router.route(
        frames_of(
            [entry(n, subject, good.payload(n), n, flags=BACKLOG) for n in (1, 2)]
            + [entry(3, subject, good.payload(3), 3)]
        )
    )
    assert routed.batch.names == [b"p 1"] * 3
    assert routed.batch.sources.tolist() == [source_number("plant")] * 3
    assert {e: why.reason for e, why in routed.rejected.items()} == {2: "throttled"}


@pytest.mark.parametrize("name", ["plant", "", "a.b", "x" * 300])
def test_a_bridges_number_fits_a_byte_and_only_the_log_itself_is_zero(name):
    assert (source_number(name) == 0) == (name == "")
    assert 0 <= source_number(name) <= 255


@pytest.mark.parametrize(
    ("token", "name"),
    [
        ("a//b", b"a.b"),
        ("größe", "größe".encode()),
        ("a%20b", b"a%20b"),
        ("A_b-c:9", b"A_b-c:9"),
        ("x" * 128, b"x" * 128),
    ],
)
def test_a_token_is_spelled_back_to_the_thing_s_name(token, name):
    routed = world(rules(profile(PORTS))).router.route(
        frames_of([entry(1, f"$aws.things.{token}.defender.metrics.json", Reading(tcp=()).payload(1))])
    )
    assert (routed.batch.names, routed.rejected) == ([name], {})


@pytest.mark.parametrize("token", ["x" * 129, "a\x07b", "ü" * 65])
def test_a_token_that_is_no_name_is_refused(token):
    routed = world(rules(profile(PORTS))).router.route(
        frames_of([entry(1, f"$aws.things.{token}.defender.metrics.json", Reading(tcp=()).payload(1))])
    )
    assert routed.rejected[0].reason == "name"
    assert len(routed.shares["all/things"].entries) == 0


def test_a_first_report_after_a_gap_does_not_count_its_network_counters_where_asked():
    for skip, expected in ((True, [ABSENT, 5, ABSENT]), (False, [5, 5, 5])):
        one = world(rules(profile(PORTS), skip_first_counters=skip))
        routed = route(one, *[report("a", at, bytes_in=5, tcp_total=1) for at in (0, 300, 9000)])
        assert routed.batch.columns.scalars[:, 0].tolist() == expected
        assert routed.batch.columns.scalars[:, 4].tolist() == [1, 1, 1]


def test_cbor_and_json_reports_of_one_batch_are_both_heard():
    good = Reading(tcp=(22,))
    packed = cbor2.dumps({"header": {"report_id": 2, "version": "1.0"}, "metrics": {"network_stats": {"bytes_in": 1}}})
    routed = world(rules(profile(PORTS))).router.route(
        frames_of([
            entry(1, "$aws.things.a.defender.metrics.json", good.payload(1)),
            entry(2, "$aws.things.a.defender.metrics.cbor", packed),
        ])
    )  # fmt: skip
    assert routed.rejected == {}
    assert routed.batch.columns.report_id.tolist() == [1, 2]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9), st.integers(0, 200_000)), max_size=30),
    st.sets(st.integers(1, 30)),
)
def test_however_a_run_is_cut_the_door_decides_the_same(history, cuts):
    """Across hours, weeks and forgotten names."""
    at, log = 0, []
    for seq, (thing, report_id, pause) in enumerate(history, start=1):
        at += pause
        log.append(entry(seq, f"$aws.things.{thing}.defender.metrics.json", Reading(tcp=()).payload(report_id), at))
    found = []
    for bounds in ([], cuts, range(31)):
        one, refused, batch = world(rules(profile(PORTS), report_interval_s=300, things_max=2)), {}, []
        for item in [*log, None]:
            if batch and (item is None or item[0] in bounds):
                routed = one.router.route(frames_of(batch))
                refused |= {batch[e][0]: why.reason for e, why in routed.rejected.items()}
                batch = []
            batch += [] if item is None else [item]
        found.append((refused, sorted(one.router.gate.rows)))
    assert found[0] == found[1] == found[2]


@given(
    st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 200_000)), min_size=1, max_size=40),
    st.sets(st.integers(1, 40)),
    st.integers(0, 40),
)
def test_the_mark_of_an_accepted_report_is_a_position_at_which_its_thing_reported(history, cuts, stop):
    """Across forgotten names, rows that are used again, full tables, and a restart."""
    at, said = 0, []
    for thing, pause in history:
        at += pause
        said.append(report(thing, at, tcp=()))
    one, log = world(rules(profile(PORTS), report_interval_s=300, things_max=3)), numbered(said)
    things = {entry.position: entry.thing.encode() for entry in log}
    for low, high in pairwise(sorted({0, stop, len(log), *cuts})):
        if low == stop:
            state, one = one.router.dump(), world(one.rules)
            one.router.load(state)
        if log[low:high]:
            routed = one.router.route(frames(log[low:high]))
            for entry in routed.shares["all/things"].entries.tolist():
                assert things[int(routed.batch.marks[entry])] == routed.batch.names[entry]
            assert (routed.batch.marks >= 0).all()


def test_what_is_no_report_or_passed_no_gate_has_no_mark():
    one = world(rules(profile(PORTS)))
    assert route(one, report("a", 0, tcp=()), tick(1), report("a", 2, tcp=())).batch.marks.tolist() == [1, 0, 1]
    again = one.router.route(frames(numbered([report("a", 3, tcp=())])), admitted=True)
    assert again.batch.marks.tolist() == [0]


def test_a_dump_that_is_loaded_goes_on_like_the_original():
    settled = rules(profile(PORTS), report_interval_s=300)
    one, again = world(settled), world(settled)
    route(one, report("a", 100, tcp=()))
    again.router.load(one.router.dump())
    for each in (one, again):
        routed = each.router.route(
            frames_of([entry(2, "$aws.things.a.defender.metrics.json", Reading(tcp=()).payload(2), 50)])
        )
        assert routed.rejected[0].reason == "throttled"
        assert routed.batch.ts.tolist() == [START + 100 * NS]


def test_the_arrays_of_a_batch_are_what_kernels_ask_for():
    routed = route(world(rules(profile(PORTS))), report("a", 0, tcp=(1, 2)), tick(1))
    share = routed.shares["all/things"]
    for array, kind in ((share.entries, np.int32), (share.registered, np.uint8), (routed.batch.ts, np.int64)):
        assert array.dtype == kind
        assert array.flags.c_contiguous
