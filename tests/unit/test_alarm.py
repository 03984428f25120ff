"""The life of an alarm: the scalar truth against the table, the kernel against the truth, over every small case."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.alarm import CLEARED, COMPLIES, NO_DATA, RAISED, STILL, VIOLATES, step, step_all


@pytest.mark.parametrize(
    ("before", "verdict", "after"),
    [
        ((False, 0), COMPLIES, (False, 0, None)),
        ((False, 1), COMPLIES, (False, 0, None)),
        ((False, 0), VIOLATES, (False, 1, None)),
        ((False, 1), VIOLATES, (True, 0, RAISED)),
        ((True, 0), VIOLATES, (True, 0, None)),
        ((True, 2), VIOLATES, (True, 0, None)),
        ((True, 1), COMPLIES, (True, 2, None)),
        ((True, 2), COMPLIES, (False, 0, CLEARED)),
        ((True, 2), NO_DATA, (True, 2, None)),
        ((False, 1), NO_DATA, (False, 1, None)),
    ],
)
def test_a_datapoint_moves_an_alarm_as_the_table_says(before, verdict, after):
    assert step(*before, verdict, 2, 3) == after


def test_raised_and_cleared_alternate_over_every_short_history():
    for to_alarm, to_clear in itertools.product((1, 2, 3), repeat=2):
        for history in itertools.product((NO_DATA, COMPLIES, VIOLATES), repeat=7):
            alarmed, streak, told = False, 0, []
            for verdict in history:
                alarmed, streak, event = step(alarmed, streak, verdict, to_alarm, to_clear)
                told += [] if event is None else [event]
            assert told == [RAISED, CLEARED][: len(told)] or told == ([RAISED, CLEARED] * 4)[: len(told)]


def machine(rows, slots, to_alarm, to_clear, is_set):
    """The state arrays of `step_all`."""
    return {
        "to_alarm": np.array(to_alarm, np.uint8),
        "to_clear": np.array(to_clear, np.uint8),
        "is_set": np.array(is_set, np.uint8),
        "alarmed": np.zeros((rows, slots), np.uint8),
        "streak": np.zeros((rows, slots), np.uint8),
        "heard": np.zeros((rows, slots), np.int64),
        "last_at": np.zeros((rows, slots), np.int64),
        "last_value": np.zeros((rows, slots), np.int64),
    }


def apply(state, rows, times, verdicts, values):
    """(k, slot, kind, last_at, last_value) as the kernel reports them, all slots judged."""
    slots = np.arange(len(state["to_alarm"]), dtype=np.int32)
    out = np.zeros((len(rows) * len(slots), 5), np.int64)
    found = step_all(
        np.array(rows, np.int32), np.array(times, np.int64), slots, slots, np.array(verdicts, np.int8),
        np.array(values, np.int64), *state.values(), out,
    )  # fmt: skip
    return list(map(tuple, out[:found].tolist()))


def naive_apply(limits, rows, times, verdicts, values):
    """The same by `step`, one datapoint after another, with dictionaries."""
    alarms: dict = {}
    last: dict = {}
    told = []
    for k, row in enumerate(rows):
        for slot, (to_alarm, to_clear, is_set) in enumerate(limits):
            verdict = verdicts[k][slot]
            alarmed, streak = alarms.get((row, slot), (False, 0))
            now_alarmed, now_streak, kind = step(alarmed, streak, verdict, to_alarm, to_clear)
            alarms[row, slot] = now_alarmed, now_streak
            if verdict == VIOLATES:
                last[row, slot] = times[k], values[k][slot]
                if alarmed and is_set:
                    kind = STILL
            if kind is not None:
                told.append((k, slot, kind, *last[row, slot]))
    return told, alarms


histories = st.integers(1, 3).flatmap(
    lambda slots: st.tuples(
        st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3), st.booleans()), min_size=slots, max_size=slots),
        st.lists(
            st.tuples(
                st.integers(0, 2),
                st.integers(0, 9),
                st.lists(st.sampled_from((NO_DATA, COMPLIES, VIOLATES)), min_size=slots, max_size=slots),
                st.lists(st.integers(0, 99), min_size=slots, max_size=slots),
            ),
            max_size=40,
        ),
    )
)


@given(histories)
def test_the_kernel_does_what_the_scalar_step_does_to_each_datapoint_in_order(history):
    limits, points = history
    rows, verdicts, values = [p[0] for p in points], [p[2] for p in points], [p[3] for p in points]
    times = list(itertools.accumulate(p[1] for p in points))
    state = machine(3, len(limits), *zip(*limits, strict=True))
    told, alarms = naive_apply(limits, rows, times, verdicts, values)
    shape = (len(points), len(limits))
    assert apply(state, rows, times, np.array(verdicts).reshape(shape), np.array(values).reshape(shape)) == told
    for (row, slot), (alarmed, streak) in alarms.items():
        assert (state["alarmed"][row, slot], state["streak"][row, slot]) == (alarmed, streak)


def test_a_clear_tells_the_last_violation_as_it_stood_then_not_as_the_batch_left_it():
    state = machine(1, 1, [1], [1], [False])
    told = apply(state, [0, 0, 0], [10, 20, 30], [[VIOLATES], [COMPLIES], [VIOLATES]], [[7], [0], [9]])
    assert told == [(0, 0, RAISED, 10, 7), (1, 0, CLEARED, 10, 7), (2, 0, RAISED, 30, 9)]


def test_a_column_may_stand_for_any_slot():
    state = machine(1, 2, [1, 1], [1, 1], [False, False])
    out = np.zeros((1, 5), np.int64)
    one = np.array([[VIOLATES]], np.int8), np.array([[5]], np.int64)
    slot, column = np.array([1], np.int32), np.zeros(1, np.int32)
    assert step_all(np.zeros(1, np.int32), np.ones(1, np.int64), slot, column, *one, *state.values(), out) == 1
    assert state["alarmed"].tolist() == [[0, 1]]
    assert out.tolist() == [[0, 1, RAISED, 1, 5]]
