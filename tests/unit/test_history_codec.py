"""Columns of the history: what is packed is what comes out, bit by bit, and what is alike is small."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.messages import ABSENT
from actors.numbers import float_of, key_of
from daemon.history.chunks import ROWS_MAX, chunks_of, merged, unpack_times, unpack_values
from daemon.history.codec import as_decimals, floats_of, from_decimals, keys_of, pack, unpack
from daemon.history.tables import TIMES
from daemon.history.tail import Rows

int64s = st.integers(-(2**63), 2**63 - 1)
finite = st.floats(allow_nan=False, allow_infinity=False)
rows = st.lists(
    st.tuples(
        st.integers(1, 600), int64s.map(lambda ms: ms // 2**20), st.none() | int64s.filter(lambda v: v != ABSENT),
        st.none() | finite.map(key_of), st.none() | st.integers(0, 3),
    ),
    max_size=40,
)  # fmt: skip
FIELDS = {1: "count", 2: "number", 3: "ports"}
WORDS = [b"a", b"b", b"c", b"d"]


@given(st.lists(int64s) | st.lists(st.integers(0, 300)))
def test_any_column_comes_out_as_it_was(values):
    column = np.array(values, np.int64)
    assert unpack(pack(column)).tolist() == values


@given(st.lists(finite))
def test_keys_of_floats_are_those_of_the_actors(values):
    keys = [key_of(value) for value in values]
    assert keys_of(np.array(values, float)).tolist() == keys
    assert floats_of(np.array(keys, np.int64)).tolist() == [float_of(key) for key in keys]


@given(st.lists(st.integers(-(10**9), 10**9), min_size=1), st.integers(0, 6))
def test_short_decimals_are_packed_as_integers_and_come_out_exactly(scaled, decimals):
    keys = keys_of(np.array(scaled) / 10.0**decimals)
    packed = as_decimals(keys)
    assert packed is not None
    assert packed[0] <= decimals
    assert (from_decimals(*packed) == keys).all()


@given(st.lists(finite, min_size=1))
def test_other_numbers_are_left_as_they_are(values):
    keys = keys_of(np.array(values))
    packed = as_decimals(keys)
    assert packed is None or (from_decimals(*packed) == keys).all()


@pytest.mark.parametrize(
    ("values", "most"),
    [
        (np.full(10_000, 2**60), 40),
        (np.arange(10_000) * 300_000, 40),
        (np.random.default_rng(1).integers(0, 256, 10_000), 10_100),
    ],
)
def test_what_says_little_takes_little(values, most):
    assert len(pack(values).planes) < most


def rows_of(table):
    columns = {
        series: np.array([ABSENT if row[1 + series] is None else row[1 + series] for row in table], np.int64)
        for series in FIELDS
    }
    things, ms = np.array([row[0] for row in table], np.int32), np.array([row[1] for row in table], np.int64)
    return Rows(things, ms, columns, WORDS, 0)


def told(given_rows):
    """thing -> its rows in order, words spelled; those without any value are nothing."""
    found = {}
    for at in range(len(given_rows)):
        values = {
            series: given_rows.words[column[at]] if FIELDS[series] == "ports" else int(column[at])
            for series, column in given_rows.columns.items()
            if column[at] != ABSENT
        }
        if values:
            found.setdefault(int(given_rows.things[at]), []).append((int(given_rows.ms[at]), values))
    return found


def out_of(chunks):
    """The rows of one run."""
    bodies = {chunk.series: chunk.body for chunk in chunks}
    who = unpack_times(bodies.pop(TIMES))
    unpacked = {series: unpack_values(body, len(who.ms)) for series, body in bodies.items()}
    found = {}
    for thing in who.things.tolist():
        for at in range(len(who.ms))[who.slice_of(thing)]:
            values = {
                series: words[column[at]] if words else int(column[at])
                for series, (column, words) in unpacked.items()
                if column[at] != ABSENT
            }
            if values:
                found.setdefault(thing, []).append((int(who.ms[at]), values))
    return found


@given(rows)
def test_rows_become_chunks_and_chunks_the_same_rows(table):
    given_rows, found = rows_of(table), {}
    for chunks in chunks_of(given_rows, FIELDS, 0):
        assert {chunk.block for chunk in chunks} == {thing >> 8 for thing in out_of(chunks)} or not out_of(chunks)
        found |= out_of(chunks)
    assert found == told(given_rows)


@given(st.lists(rows, min_size=1, max_size=4))
def test_merged_runs_have_the_rows_of_all_in_their_order(tables):
    tables = [[(1 + row[0] % 200, *row[1:]) for row in table] for table in tables]
    runs = [{c.series: c.body for c in chunks} for t in tables for chunks in chunks_of(rows_of(t), FIELDS, 0)]
    if runs:
        (whole,) = chunks_of(merged(runs), FIELDS, 1)
        assert out_of(whole) == told(rows_of([row for table in tables for row in table]))


def test_a_block_with_very_many_rows_is_cut_in_time():
    many = ROWS_MAX + 10
    things, ms = np.ones(many, np.int32), np.arange(many, dtype=np.int64)
    runs = list(chunks_of(Rows(things, ms, {1: ms}, (), 0), {1: "count"}, 0))
    assert [(run[0].rows, run[0].first_ms, run[0].last_ms) for run in runs] == [
        (ROWS_MAX, 0, ROWS_MAX - 1), (10, ROWS_MAX, many - 1),
    ]  # fmt: skip


def test_a_series_that_is_gone_is_packed_no_more():
    one = np.ones(1, np.int64)
    assert list(chunks_of(Rows(np.ones(1, np.int32), one, {7: one}, (), 0), FIELDS, 0)) == []
