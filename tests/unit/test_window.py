"""Sliding sums: the rings against a list that forgets nothing."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive import LARGEST, Ring

from actors.window import RING_MAX, RING_START, Windows, push, total

FOREVER = 0  # since


def put(windows, row, window, ts, value):
    """Push as the criterion does: a full ring is enlarged and tried again."""
    arrays = windows.offset, windows.room, windows.head, windows.length
    while not push(row, window, ts, value, windows.horizons_ns[window], *arrays, windows.pool_ts, windows.pool_value):
        windows.enlarge(np.array([row], np.int32), np.array([ts], np.int64), window)
        arrays = windows.offset, windows.room, windows.head, windows.length


def summed(windows, row, window, ts, horizon, since=FOREVER):
    arrays = windows.offset, windows.room, windows.head, windows.length
    return total(row, window, ts, horizon, since, *arrays, windows.pool_ts, windows.pool_value)


def windows_of(*horizons, rows=1):
    windows = Windows(np.array(horizons, np.int64))
    windows.grow(rows)
    return windows


steps = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 30), st.integers(0, 2**62)), min_size=1, max_size=80
)


@given(steps, st.integers(1, 100), st.integers(1, 100))
def test_a_sum_is_that_of_all_values_younger_than_the_horizon(history, horizon_a, horizon_b):
    longest = max(horizon_a, horizon_b)
    windows = windows_of(longest, longest, rows=3)
    twins = {(row, window): Ring() for row in range(3) for window in range(2)}
    now = 1
    for row, window, pause, value in history:
        now += pause
        put(windows, row, window, now, value)
        twins[row, window].push(now, value)
        for horizon in (horizon_a, horizon_b):
            assert summed(windows, row, window, now, horizon) == twins[row, window].total(now, horizon)


def test_a_sum_leaves_out_what_came_before_the_behavior_did():
    windows = windows_of(1000)
    for ts in (10, 20, 30):
        put(windows, 0, 0, ts, 1)
    assert summed(windows, 0, 0, 30, 1000, since=20) == 2


def test_a_sum_stops_at_the_largest_number_instead_of_turning_negative():
    windows = windows_of(1000)
    for ts in (1, 2, 3):
        put(windows, 0, 0, ts, LARGEST - 1)
    assert summed(windows, 0, 0, 3, 1000) == LARGEST


def test_a_ring_that_may_not_grow_merges_its_oldest_values_and_counts_it():
    windows = windows_of(10**9)
    for ts in range(RING_MAX + 3):
        put(windows, 0, 0, ts, 1)
    assert windows.merged == 3
    assert summed(windows, 0, 0, RING_MAX + 2, 10**9) == RING_MAX + 3
    assert int(windows.room[0, 0]) == RING_MAX


def test_a_thing_that_reports_seldom_needs_the_smallest_ring_for_ever():
    windows = windows_of(285)
    for ts in range(0, 300 * 10_000, 300):
        put(windows, 0, 0, ts, 1)
    assert int(windows.room[0, 0]) == RING_START
    assert windows.values(0, 0) == [(299_9700, 1)]


def test_a_forgotten_row_gives_its_large_rings_to_whoever_needs_one_next():
    windows = windows_of(10**6, rows=2)
    for ts in range(100):
        put(windows, 0, 0, ts, 1)
    windows.forget(np.array([0]))
    used = windows._used
    for ts in range(100):
        put(windows, 1, 0, ts, 1)
    assert windows._used <= used + RING_START  # the new small ring of row 0, and nothing else
    assert summed(windows, 0, 0, 100, 10**6) == 0
    assert summed(windows, 1, 0, 100, 10**6) == 100


@pytest.mark.parametrize("values", [[], [(1, 2)], [(t, t) for t in range(9)]])
def test_put_back_values_are_the_same_values(values):
    windows = windows_of(10**6)
    windows.put(0, 0, values)
    assert windows.values(0, 0) == values


@given(steps)
def test_a_dump_that_is_loaded_goes_on_like_the_original(history):
    windows, again = windows_of(50, 90, rows=3), windows_of(50, 90)
    half, now = len(history) // 2, 1
    for number, (row, window, pause, value) in enumerate(history):
        now += pause
        put(windows, row, window, now, value)
        if number == half:
            again.load(windows.dump())
        if number > half:
            put(again, row, window, now, value)
    assert [windows.values(r, w) for r in range(3) for w in range(2)] == [
        again.values(r, w) for r in range(3) for w in range(2)
    ]


def test_a_kernel_refuses_an_array_of_another_type_at_once():
    windows = windows_of(10)
    with pytest.raises(TypeError):
        push(0, 0, 1, 1, 10, windows.offset.astype(np.int64), windows.room, windows.head, windows.length,
             windows.pool_ts, windows.pool_value)  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), max_size=40), st.permutations(range(4)))
def test_rings_that_are_taken_over_hold_the_same_values_in_other_rows(history, order):
    windows, heir, now = windows_of(60, rows=4), windows_of(99, 60, rows=5), 1
    for row, pause in history:
        now += pause
        put(windows, row, 0, now, now)
    heir.adopt(1, windows, 0, np.arange(4), np.array(order) + 1)
    for row in range(4):
        assert heir.values(order[row] + 1, 1) == windows.values(row, 0)
    assert heir.values(0, 1) == []
    heir.adopt(1, windows_of(60, rows=4), 0, np.arange(4), np.array(order) + 1)  # an emptier one changes nothing
    assert [heir.values(order[row] + 1, 1) for row in range(4)] == [windows.values(row, 0) for row in range(4)]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 12)), min_size=1, max_size=40),
    st.integers(5, 60),
)
def test_rings_that_are_enlarged_together_keep_what_they_hold(history, horizon):
    """Reports of four rows with values for two windows, pushed as the criterion does."""
    windows, twins = windows_of(horizon, horizon, rows=4), {(r, w): Ring() for r in range(4) for w in range(2)}
    rows, times, now = [], [], 1
    for row, value, pause in history:
        now += pause
        rows.append(row)
        times.append(now)
    rows, times = np.array(rows, np.int32), np.array(times, np.int64)
    at, stops = 0, 0
    while at < 2 * len(rows):
        k, window = divmod(at, 2)
        row, ts, value = int(rows[k]), int(times[k]), history[k][1]
        arrays = windows.offset, windows.room, windows.head, windows.length
        if push(row, window, ts, value, horizon, *arrays, windows.pool_ts, windows.pool_value):
            twins[row, window].push(ts, value)
            assert summed(windows, row, window, ts, horizon) == twins[row, window].total(ts, horizon)
            at += 1
        else:
            windows.enlarge(rows, times, at)
            stops += 1
            for r, w in twins:
                young = [value for ts, value in windows.values(r, w) if now - ts < horizon]
                assert sum(young) == summed(windows, r, w, now, horizon)
    assert stops <= len(rows), "at most once for each report: both windows of a row are full together"
    offsets = sorted((int(windows.offset[r, w]), int(windows.room[r, w])) for r, w in twins)
    assert all(a + size <= b for (a, size), (b, _) in pairwise(offsets)), "no two rings share a place"
