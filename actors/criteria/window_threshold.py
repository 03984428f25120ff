"""A number that the broker measured against a limit (spec.md §3.1): counts, sizes of messages, seconds of absence.

Every message of a window must comply: so sizes are judged by the largest where less is normal, else by the smallest
(spec.md §1.3). A window that was not heard whole is not held against a lower limit: what is missing may be unheard.
"""

from collections.abc import Sequence

import numpy as np

from actors.alarm import COMPLIES, NO_DATA, VIOLATES
from actors.criteria._base import LEAST, MOST, Closed, Points, Slot, WindowCriterion, operator_code
from config.model import Limits, MetricValue

COMPARE = (np.less, np.less_equal, np.greater, np.greater_equal)


class WindowThreshold:
    """All limits on what the brokers tell, of one group actor."""

    def __init__(self, slots: Sequence[tuple[int, Slot]]) -> None:
        self.slots = tuple(number for number, _ in slots)
        self._limit = {number: _limit(slot) for number, slot in slots}
        self._operator = {number: operator_code(slot) for number, slot in slots}

    def weigh(self, slot: int, points: Points) -> Closed:
        operator = self._operator[slot]
        is_lower = COMPARE[operator] in (np.greater, np.greater_equal)
        sizes = len(points.figures) > 1
        values = points.figures[(LEAST if is_lower else MOST) if sizes else 0]
        verdicts = np.where(COMPARE[operator](values, self._limit[slot]), COMPLIES, VIOLATES).astype(np.int8)
        if is_lower:
            verdicts[points.partial] = NO_DATA
        return Closed(slot, points.rows, verdicts.reshape(-1, 1), values.reshape(-1, 1).copy())

    def offenders(self, slot: int, value: MetricValue) -> tuple[str, ...]:
        return ()


def _limit(slot: Slot) -> int:
    assert slot.behavior.criteria is not None
    assert slot.behavior.criteria.value is not None
    assert slot.behavior.criteria.value.count is not None
    return slot.behavior.criteria.value.count


def _claims(slot: Slot) -> bool:
    value = slot.behavior.criteria.value if slot.behavior.criteria else None
    return bool(slot.metric.events) and value is not None and value.count is not None


def _build(slots: Sequence[tuple[int, Slot]], limits: Limits) -> WindowThreshold:
    return WindowThreshold(slots)


CRITERION = WindowCriterion("STATIC", _claims, _build)
