"""Who may report now: the gate against the list of everything ever accepted."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive import HOUR, Door

from actors.gate import ADMITTED, DUPLICATE, IDLE_NS, TABLE_FULL, TOO_SOON, Gate
from actors.messages import BACKLOG
from config.model import NS, Limits

WORDS = {ADMITTED: "accepted", DUPLICATE: "duplicate", TOO_SOON: "throttled", TABLE_FULL: "table-full"}


def gate(interval_s=300.0, **limits):
    return Gate(Limits(report_interval_s=interval_s, **limits), 300.0)


def admit(one, *reports):
    """Words for (name, id, seconds[, flags]) in one batch."""
    names, ids, times, flags = zip(*[(*r, 0)[:4] for r in reports], strict=True)
    verdicts, _, _ = one.admit(
        list(names),
        np.arange(1, len(names) + 1),
        np.array(ids, np.int64),
        np.array([round(t * NS) for t in times], np.int64),
        np.array(flags, np.uint8),
    )
    return [WORDS[v] for v in verdicts.tolist()]


def test_a_report_is_too_soon_before_nine_tenths_of_the_interval():
    assert admit(gate(), (b"a", 1, 1000), (b"a", 2, 1269.999), (b"a", 3, 1270)) == ["accepted", "throttled", "accepted"]


def test_a_refused_report_neither_counts_as_the_last_nor_is_its_id_remembered():
    assert admit(gate(), (b"a", 1, 1000), (b"a", 2, 1260), (b"a", 2, 1270)) == ["accepted", "throttled", "accepted"]


def test_an_accepted_id_is_a_duplicate_even_when_it_also_comes_too_soon():
    assert admit(gate(), (b"a", 7, 1000), (b"a", 7, 1001), (b"a", 7, 9000)) == ["accepted", "duplicate", "duplicate"]


def test_the_last_sixteen_ids_are_remembered_and_no_more():
    one = gate(0)
    admit(one, *[(b"a", i, i) for i in range(1, 18)])
    assert admit(one, (b"a", 2, 100), (b"a", 1, 101)) == ["duplicate", "accepted"]


def test_a_lower_id_is_fine():
    assert admit(gate(), (b"a", 9, 1000), (b"a", 3, 2000)) == ["accepted", "accepted"]


def test_an_interval_of_zero_is_no_floor():
    assert admit(gate(0), (b"a", 1, 1000), (b"a", 2, 1000)) == ["accepted", "accepted"]


def test_without_a_stated_interval_the_default_holds():
    assert admit(Gate(Limits(), 300.0), (b"a", 1, 1000), (b"a", 2, 1001)) == ["accepted", "throttled"]
    assert admit(Gate(Limits(), 0.0), (b"a", 1, 1000), (b"a", 2, 1001)) == ["accepted", "accepted"]


def test_what_a_bridge_delivers_from_its_backlog_is_not_throttled():
    assert admit(gate(), (b"a", 1, 1000), (b"a", 2, 1001, BACKLOG), (b"a", 1, 1002, BACKLOG)) == [
        "accepted", "accepted", "duplicate",
    ]  # fmt: skip


def test_the_table_takes_no_more_things_than_it_may_and_says_so():
    one = gate(things_max=2)
    assert admit(one, (b"a", 1, 1000), (b"b", 1, 1000), (b"c", 1, 1000), (b"a", 2, 2000)) == [
        "accepted", "accepted", "table-full", "accepted",
    ]  # fmt: skip
    one.forget_idle(1000 * NS + IDLE_NS + 1)
    assert admit(one, (b"c", 1, 700_000)) == ["accepted"]


def test_a_first_report_and_one_after_a_gap_are_told_apart():
    names, ids = [b"a"] * 4, np.array([1, 2, 3, 4], np.int64)
    times = np.array([1000, 1300, 2200, 3101], np.int64) * NS
    _, first, _ = gate().admit(names, ids, ids, times, np.zeros(4, np.uint8))
    assert first.tolist() == [1, 0, 0, 1]


def marks_of(one, at_s, *reports):
    """The marks of (name, position) reports, all at one time."""
    names, positions = zip(*reports, strict=True)
    ids, times = np.array(positions), np.full(len(names), round(at_s * NS), np.int64)
    return one.admit(list(names), np.array(positions), ids, times, np.zeros(len(names), np.uint8))[2].tolist()


def test_a_name_keeps_the_position_of_its_first_report_as_its_mark():
    one = gate(0)
    assert marks_of(one, 1, (b"a", 5), (b"b", 6), (b"a", 7)) == [5, 6, 5]
    assert marks_of(one, 2, (b"b", 8), (b"c", 9), (b"a", 10)) == [6, 9, 5]


def test_a_name_that_was_forgotten_and_the_next_owner_of_its_row_have_marks_of_their_own():
    one = gate(0, things_max=1)
    assert marks_of(one, 1000, (b"a", 5)) == [5]
    one.forget_idle(1001 * NS + IDLE_NS)
    assert marks_of(one, 1_000_000, (b"b", 6)) == [6]
    one.forget_idle(1_000_001 * NS + IDLE_NS)
    assert marks_of(one, 2_000_000, (b"a", 7)) == [7]
    assert len(one._names) == 1


def test_a_name_for_which_the_table_has_no_room_has_no_mark():
    assert marks_of(gate(0, things_max=1), 1, (b"a", 5), (b"b", 6), (b"a", 7)) == [5, 0, 5]


def test_names_of_a_loaded_table_are_marked_by_their_next_report():
    one, again = gate(0), gate(0)
    marks_of(again, 1, (b"x", 1), (b"y", 2))
    marks_of(one, 1, (b"a", 5), (b"b", 6))
    again.load(one.dump())
    assert marks_of(again, 2, (b"b", 8), (b"a", 9), (b"b", 10), (b"c", 11)) == [8, 9, 8, 11]


reports = st.lists(
    st.tuples(
        st.sampled_from([b"a", b"b", b"c", b"d"]),
        st.integers(1, 20),
        st.integers(0, 200),
        st.sampled_from([0, BACKLOG]),
    ),
    max_size=60,
)


@given(reports, st.sampled_from([0, 60, 300]), st.integers(1, 5), st.lists(st.integers(0, 60)))
def test_the_gate_decides_as_the_list_of_everything_accepted_does_however_it_is_cut(history, interval, most, cuts):
    one, twin = gate(interval, things_max=most), Door(interval, most)
    now, timed = 1000, []
    for name, report_id, pause, flags in history:
        now += pause
        timed.append((name, report_id, now, flags))
    bounds = sorted({0, len(timed), *(c for c in cuts if c < len(timed))})
    found = [word for a, b in pairwise(bounds) for word in admit(one, *timed[a:b])]
    assert found == [twin.admit(n.decode(), i, t * NS, backlog=bool(f)) for n, i, t, f in timed]


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.integers(0, 8)), max_size=30))
def test_a_name_is_forgotten_after_a_week_and_its_row_used_again(history):
    one, twin = gate(0, things_max=2), Door(0, 2)
    hour = 1
    for report_id, (name, days) in enumerate(history, start=1):
        hour += days * 24
        one.forget_idle(hour * HOUR)
        twin.forget_idle(hour * HOUR)
        assert admit(one, (name, report_id, hour * 3600)) == [twin.admit(name.decode(), report_id, hour * HOUR)]
        assert set(one.rows) == {name.encode() for name in twin.accepted}
    assert len(one.last) <= 64


def test_a_dump_that_is_loaded_goes_on_like_the_original():
    one, again = gate(0), gate(0)
    admit(one, (b"a", 1, 1), (b"b", 2, 700_000))
    one.forget_idle(700_000 * NS)  # leaves a hole in the table
    again.load(one.dump())
    for each in (one, again):
        assert admit(each, (b"b", 2, 700_001), (b"c", 1, 700_001), (b"a", 1, 700_001)) == [
            "duplicate", "accepted", "accepted",
        ]  # fmt: skip
    assert one.rows == again.rows


@pytest.mark.parametrize("names", [[], [b"x"]])
def test_an_empty_or_small_table_survives_a_dump(names):
    one, again = gate(0), gate(0)
    if names:
        admit(one, (names[0], 1, 1))
    again.load(one.dump())
    assert list(again.rows) == names
