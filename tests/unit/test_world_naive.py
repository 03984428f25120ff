"""The whole core against its naive twin, over random rules and random histories."""

from hypothesis import given, settings
from hypothesis import strategies as st

from builders import as_events, naive_events, play, world
from histories import logs, rule_sets

many = settings(max_examples=150, deadline=None)


@many
@given(rule_sets(), logs())
def test_the_core_says_what_its_naive_twin_says(first, log):
    assert as_events(play(world(first), log)) == naive_events(first, log)


@many
@given(rule_sets(), logs(changes=True))
def test_the_core_takes_changes_as_its_naive_twin_does(first, log):
    assert as_events(play(world(first), log)) == naive_events(first, log)


@many
@given(rule_sets(), logs(changes=True, longest=60), st.sets(st.integers(1, 60)))
def test_however_a_log_is_cut_into_batches_the_same_comes_out(first, log, cuts):
    """Identical transitions, ids, reasons and order included."""
    one_by_one = play(world(first), log, cuts=range(1, len(log) + 1))
    assert play(world(first), log) == one_by_one
    assert play(world(first), log, cuts) == one_by_one
