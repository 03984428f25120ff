"""A sheet that many batches lie in is counted once."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from daemon.held import Held

SHEETS = [np.zeros(size, np.uint8) for size in (1, 20, 300)]


def test_a_sheet_counts_from_its_first_holder_to_its_last() -> None:
    held, sheet = Held(), SHEETS[2]
    held.take(sheet)
    held.take(sheet)
    assert held.size == 300
    held.give(sheet)
    assert held.size == 300
    held.give(sheet)
    assert held.size == 0


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans())))
def test_any_mixture_adds_up(steps: list[tuple[int, bool]]) -> None:
    held, holders = Held(), [0, 0, 0]
    for which, takes in steps:
        if takes:
            held.take(SHEETS[which])
            holders[which] += 1
        elif holders[which]:
            held.give(SHEETS[which])
            holders[which] -= 1
        assert held.size == sum(len(sheet) for sheet, count in zip(SHEETS, holders, strict=True) if count)
