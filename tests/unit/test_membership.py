"""Sets in sorted ranges with an index over them: the kernel against a look at every range."""

import numpy as np
import pytest
from builders import behavior
from hypothesis import given
from hypothesis import strategies as st

from actors.alarm import COMPLIES, NO_DATA, VIOLATES
from actors.columns import schema_of
from actors.criteria import membership
from actors.criteria._base import Run, Slot
from actors.criteria.membership import BUCKETS, LOW, MAPPED, Membership
from actors.messages import Columns, Ragged
from actors.metrics import kinds
from config.model import NS, Rules

EDGES = [
    0, 1, 21, 22, 443, 65_535, MAPPED, MAPPED | 0xFFFFFFFF, 2**63 - 1, 2**63, LOW - 1, LOW, LOW + 1, LOW << 1, 2**127,
    2**128 - 1,
]  # fmt: skip
keys = st.one_of(
    st.sampled_from(EDGES), st.integers(0, 70_000), st.integers(MAPPED, MAPPED | 0xFFFFFFFF), st.integers(0, 2**128 - 1)
)
ranges = st.lists(st.tuples(keys, keys).map(sorted).map(tuple), max_size=40)


def verdict(table_ranges, elements, negated):
    """The kernel's on one report whose set is `elements` (None: it has none), behind one of another thing's."""
    hi = np.array([5, *(key >> 64 for key in elements or ())], np.uint64)
    lo = np.array([5, *(key & LOW for key in elements or ())], np.uint64)
    start = np.array([0, 1], np.int32)
    count = np.array([1, -1 if elements is None else len(elements)], np.int32)
    verdicts = np.full((1, 2), NO_DATA, np.int8)
    table = membership._table(table_ranges)
    membership._judge(np.array([1], np.int32), start, count, hi, lo, *table, negated, 1, verdicts)
    assert verdicts[0, 0] == NO_DATA
    return int(verdicts[0, 1])


def disjoint(drawn):
    merged = []
    for first, last in sorted(drawn):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


@given(ranges, st.one_of(st.none(), st.lists(keys, max_size=6)), st.booleans())
def test_an_element_on_the_wrong_side_of_any_range_decides(drawn, elements, negated):
    table = disjoint(drawn)
    if elements is None:
        assert verdict(table, elements, negated) == NO_DATA
        return
    wrong = any(any(first <= key <= last for first, last in table) == negated for key in elements)
    assert verdict(table, elements, negated) == (VIOLATES if wrong else COMPLIES)


@given(ranges, st.booleans())
def test_both_ends_of_every_range_are_inside_and_their_neighbours_are_not(drawn, negated):
    table = disjoint(drawn)
    for first, last in table:
        for key in (first - 1, first, last, last + 1):
            if 0 <= key < 2**128:
                inside = first <= key <= last
                assert verdict(table, [key], negated) == (VIOLATES if inside == negated else COMPLIES)


@pytest.mark.parametrize("step", [2, 3, 2**20, 2**50])
def test_many_ranges_of_any_spread_are_all_found(step):
    """More than there are buckets, so that some hold several."""
    table = [(7 + n * step, 7 + n * step) for n in range(4 * BUCKETS)]
    for n in range(0, 4 * BUCKETS, 17):
        assert verdict(table, [7 + n * step], False) == COMPLIES
        assert verdict(table, [8 + n * step], False) == VIOLATES
    assert verdict(table, [6], False) == verdict(table, [LOW], False) == VIOLATES


def test_ranges_in_one_bucket_are_searched():
    """Three neighbours and one far away: the neighbours share a bucket."""
    table = [(10, 10), (12, 12), (14, 14), (2**60, 2**60)]
    for key in range(9, 17):
        assert verdict(table, [key], False) == (COMPLIES if key in (10, 12, 14) else VIOLATES)


def test_reports_are_judged_by_their_own_elements_through_the_judge():
    metric, schema = kinds().metrics["aws:listening-tcp-ports"], schema_of(Rules(), kinds())
    judge = Membership([(0, Slot("p", behavior(metric.name, "in-port-set", [22]), metric))], schema)
    nothing = np.zeros(0, np.uint64)
    sets = [Ragged(np.zeros(3, np.int32), np.full(3, -1, np.int32), nothing, nothing)] * 3
    sets[schema.set(metric.name)] = Ragged(
        np.array([0, 0, 1], np.int32), np.array([1, -1, 2], np.int32), np.zeros(3, np.uint64),
        np.array([22, 22, 23], np.uint64),
    )  # fmt: skip
    columns = Columns(np.ones(3, np.uint8), np.arange(3), np.zeros((3, 7), np.int64), tuple(sets), {}, 0)
    entries, verdicts = np.array([2, 1, 0], np.int32), np.full((3, 1), NO_DATA, np.int8)
    judge.judge(Run(columns, entries, entries, np.full(3, NS), verdicts, np.zeros((3, 1), np.int64)))
    assert verdicts.tolist() == [[VIOLATES], [NO_DATA], [COMPLIES]]
