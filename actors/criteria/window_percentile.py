"""What the broker measured of a thing against a percentile of its group (spec.md §3.2), when the window has ended.

Messages' sizes are compared by the largest of each thing (spec.md §12 #3).
"""

from collections.abc import Sequence

from actors.criteria._base import MOST, Closed, Points, Slot, WindowCriterion, operator_code
from actors.criteria.percentile import statistic_of, verdicts
from config.model import Limits, MetricValue


class WindowPercentile:
    """All statistical thresholds on what the brokers tell, of one group actor."""

    def __init__(self, slots: Sequence[tuple[int, Slot]], limits: Limits) -> None:
        self.slots = tuple(number for number, _ in slots)
        self._rules = {number: (statistic_of(slot), operator_code(slot)) for number, slot in slots}
        self._population_min = limits.population_min

    def weigh(self, slot: int, points: Points) -> Closed:
        statistic, operator = self._rules[slot]
        values = points.figures[MOST if len(points.figures) > 1 else 0]
        found = verdicts(values, statistic, operator, self._population_min)
        return Closed(slot, points.rows, found.reshape(-1, 1), values.reshape(-1, 1).copy())

    def offenders(self, slot: int, value: MetricValue) -> tuple[str, ...]:
        return ()


def _claims(slot: Slot) -> bool:
    criteria = slot.behavior.criteria
    return bool(slot.metric.events) and criteria is not None and criteria.statistical_threshold is not None


CRITERION = WindowCriterion("STATISTICAL", _claims, WindowPercentile)
