"""The whole core against its naive twin, over random rules and random histories."""

import numpy as np
from builders import as_events, naive_events, play, world
from histories import logs, rule_sets
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon import checkpoint

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


@many
@given(rule_sets(), logs(changes=True, longest=60), st.integers(0, 60))
def test_a_world_put_together_from_a_checkpoint_goes_on_like_the_one_that_never_stopped(
    tmp_path_factory, first, log, at
):
    """Through the files, as after a stop: the same transitions, and the same state in the end."""
    one, before = world(first), log[:at]
    play(one, before)
    folder = tmp_path_factory.getbasetemp() / "checkpoint"
    digest = checkpoint.write(folder, "world", checkpoint.frozen(one.dump()))
    again = world(one.rules)
    again.load(checkpoint.read(folder / "world", digest))
    assert play(again, log[at:]) == play(one, log[at:])
    assert same(again.dump(), one.dump())


def same(left, right) -> bool:
    """Whether two dumps are equal, arrays and all."""
    if isinstance(left, np.ndarray):
        return np.array_equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)
